"""What functions of a random project look like: bodies, arguments, decorators, ways to call.

Each takes the maker, adds what it needs, and returns the name of a function of one whole number.
"""

from __future__ import annotations

from tests.fuzz.projects import Maker


def plain(m: Maker) -> str:
    return m.function(f"a = {m.call()}", f"return mix(a, x, {m.const()})")


def branch(m: Maker) -> str:
    return m.function(
        f"if x % {m.number()} > {m.number(0, 3)}:",
        f"    return mix(x, {m.const()})",
        f"elif x % {m.number()} == {m.number(0, 1)} or x is None:",
        f"    y = {m.call()}",
        "else:",
        f"    y = mix({m.const()}, x)",
        "return mix(y, x)",
    )


def arithmetic(m: Maker) -> str:
    lines = [
        f"a = x + {m.number()} - (x ^ {m.number()})",
        f"b = a // {m.number()} % {m.number(3, 99)} if a > {m.number()} else -a & {m.number()}",
        f"a -= {m.number()}",
        f"return mix(a, b | {m.number()}, not b, ~a, {m.number()} < b % 50 <= {m.number(10, 40)})",
    ]
    return m.function(*lines)


def defaults(m: Maker) -> str:
    name = m.function(
        "return mix(x, first, second)",
        arguments=f"x, first={m.const()}, second={m.const()}",
        name=m.fresh("d"),
    )
    return m.function(f"return mix({name}(x), {name}(x, {m.const()}), {m.call()})")


def keyword_defaults(m: Maker) -> str:
    name = m.function(
        "return mix(x, *more, rate, tuple(sorted(rest)))",
        arguments=f"x, *more, rate={m.const()}, **rest",
        name=m.fresh("k"),
    )
    return m.function(f"return mix({name}(x, {m.const()}, depth={m.number()}), {name}(x))")


def default_by_name(m: Maker) -> str:
    value, other = m.fresh("BASE"), m.callee()
    m.add(f"{value} = {m.const()}")
    return m.function(
        "return mix(x, a, call(x), rows)",
        arguments=f"x, a={value}, call={other}, rows=[{m.number()}, {m.number()}]",
    )


def positional_only(m: Maker) -> str:
    name = m.function("return mix(a, b, c)", arguments="a, /, b, *, c", name=m.fresh("p"))
    return m.function(f"return {name}(x, {m.const()}, c={m.call()})")


def by_keyword(m: Maker) -> str:
    arguments = ("x, a, b, **rest", f"x, a={m.const()}, b={m.const()}, **rest")
    one, other = (
        m.function("return mix(x, a, b, sorted(rest.items()))", arguments=each, name=m.fresh("n"))
        for each in arguments
    )
    return m.function(
        f"return mix({one}(x, b={m.const()}, a={m.call()}), {other}(x, b={m.const()}))"
    )


def closure(m: Maker) -> str:
    maker = m.fresh("make")
    m.add(
        f"def {maker}(rate, call):\n"
        f"    shift = mix(rate, {m.const()})\n\n"
        "    def inner(x):\n"
        "        return mix(x, rate, shift, call(x))\n\n"
        "    return inner"
    )
    made = m.fresh("made")
    m.add(f"{made} = {maker}({m.const()}, {m.callee()})")
    return m.function(f"return mix({made}(x), {m.const()})")


def nonlocal_count(m: Maker) -> str:
    return m.function(
        f"total = {m.number()}",
        "def up(by):",
        "    nonlocal total",
        f"    total = mix(total, by, {m.const()})",
        "    return total",
        f"up({m.call()})",
        f"return mix(up({m.const()}), total)",
    )


def nested(m: Maker) -> str:
    return m.function(
        f"def inner(y, z={m.const()}):",
        f"    return lambda w: mix(w, y, z, {m.const()})",
        f"return inner({m.call()})(x)",
    )


def recursion(m: Maker) -> str:
    name = m.fresh("down")
    m.function(
        "if n <= 0:",
        f"    return mix(x, {m.const()})",
        f"return mix(n, {name}(x, n - 1), {m.const()})",
        arguments="x, n",
        name=name,
    )
    return m.function(f"return {name}(x, {m.number(1, 4)})")


def mutual_recursion(m: Maker) -> str:
    even, odd = m.fresh("even"), m.fresh("odd")
    for one, other in ((even, odd), (odd, even)):
        m.function(
            f"return mix(x, {m.const()}) if n <= 0 else mix({other}(x, n - 1), {m.const()})",
            arguments="x, n",
            name=one,
        )
    return m.function(f"return {even}(x, {m.number(1, 4)})")


def lambdas_in_dict(m: Maker) -> str:
    table, other = m.fresh("TABLE"), m.callee()
    m.add(
        f'{table} = {{"one": lambda v: mix(v, {m.const()}), "two": lambda v: {other}(v + 1),'
        f' "names": {other}}}'
    )
    return m.function(
        f'return mix({table}["one"](x), [{table}[key](x) for key in ("two", "names")])'
    )


def registry(m: Maker) -> str:
    table, register = m.fresh("REGISTRY"), m.fresh("register")
    m.add(f"{table} = {{}}")
    m.add(
        f"def {register}(name):\n"
        "    def keep(function):\n"
        f"        {table}[name] = function\n"
        "        return function\n\n"
        "    return keep"
    )
    first, second = m.fresh("r"), m.fresh("r")
    for name in (first, second):
        m.function(
            f"return mix(x, {m.const()})", name=name, decorators=(f'{register}("{name[0]}{name}")',)
        )
    return m.function(f"return mix([each(x) for each in {table}.values()], list({table}))")


def partials(m: Maker) -> str:
    m.require("import functools")
    name = m.function("return mix(a, b, c, x)", arguments="a, b, x, c=0", name=m.fresh("q"))
    held = m.fresh("partial")
    m.add(f"{held} = functools.partial({name}, {m.const()}, {m.const()}, c={m.const()})")
    return m.function(f"return {held}(x)")


def partial_of_another(m: Maker) -> str:
    m.require("import functools")
    held = m.fresh("partial")
    m.add(f"{held} = [functools.partial({m.callee()}), functools.partial({m.callee()})]")
    return m.function(f"return mix([each(x) for each in {held}], {m.const()})")


def decorator(m: Maker, wraps: bool, arguments: bool) -> str:
    """Add a decorator and return its name; with arguments, it is to be called with one."""
    name, pad = m.fresh("deco"), "    " if arguments else ""
    lines = [f"def {name}(rate):", "    def around(function):"] if arguments else []
    lines += [] if arguments else [f"def {name}(function):"]
    inner = [
        *(["    @functools.wraps(function)"] if wraps else []),
        "    def inner(*args, **kwargs):",
        f"        return mix(function(*args, **kwargs), {'rate, ' * arguments}{m.const()})",
        "",
        "    return inner",
    ]
    lines += [pad + line if line else line for line in inner]
    lines += ["", "    return around"] if arguments else []
    if wraps:
        m.require("import functools")
    m.add("\n".join(lines))
    return name


def wrapped(m: Maker) -> str:
    name = decorator(m, True, False)
    return m.function(f"return mix(x, {m.const()}, {m.call()})", decorators=(name,))


def wrapped_without_wraps(m: Maker) -> str:
    name = decorator(m, False, False)
    inner = m.function(f"return mix(x, {m.const()})", decorators=(name,), name=m.fresh("w"))
    return m.function(f"return mix({inner}(x), {m.const()})")


def wrapped_twice(m: Maker) -> str:
    outer, inner = decorator(m, m.number() > 5, True), decorator(m, True, False)
    name = m.function(
        f"return mix(x, rate, {m.const()})",
        arguments=f"x, rate={m.const()}",
        decorators=(f"{outer}({m.const()})", inner),
        name=m.fresh("w"),
    )
    return m.function(f"return {name}(x)")


def remembered(m: Maker) -> str:
    m.require("import functools")
    name = m.function(
        f"return mix(x, {m.call()}, {m.const()})",
        decorators=(m.random.choice(("functools.cache", "functools.lru_cache(maxsize=8)")),),
        name=m.fresh("memo"),
    )
    return m.function(f"return {name}(x % {m.number(3, 99)})")


def single_dispatch(m: Maker) -> str:
    m.require("import functools")
    name = m.fresh("show")
    m.function(f"return mix({m.const()})", decorators=("functools.singledispatch",), name=name)
    for kind in ("int", "str"):
        m.function(
            f'return mix("{kind}", x, {m.const()})',
            decorators=(f"{name}.register({kind})",),
            name=m.fresh(f"{name}_{kind}"),
        )
    return m.function(f'return mix({name}(x), {name}("{m.number()}"), {name}({m.const()}))')


def function_attribute(m: Maker) -> str:
    name = m.fresh("rated")
    m.function(f"return mix(x, {name}.rate)", name=name)
    m.add(f"{name}.rate = {m.const()}")
    return m.function(f"return {name}(x)")


def globals_by_name(m: Maker) -> str:
    value = m.fresh("NAMED")
    m.add(f"{value} = {m.const()}")
    return m.function(f'return mix(x, globals()["{value}"])')


def asynchronous(m: Maker) -> str:
    first, second, drive = m.fresh("a"), m.fresh("a"), m.fresh("drive")
    m.function(f"return mix(x, {m.const()})", name=first, awaited=True)
    m.function(
        f"y = await {first}({m.call()})", f"return mix(y, {m.const()})", name=second, awaited=True
    )
    m.function(
        "try:",
        "    coroutine.send(None)",
        "except StopIteration as end:",
        "    return end.value",
        arguments="coroutine",
        name=drive,
    )
    return m.function(f"return {drive}({second}(x))")


def generator(m: Maker) -> str:
    name = m.function(
        f"got = yield mix(x, {m.const()})",
        f"for at in range({m.number(2, 3)}):",
        "    yield mix(at, got)",
        f"yield from ({m.const()}, {m.call()})",
        name=m.fresh("g"),
    )
    return m.function(f"return mix(list({name}(x)), [y for y in {name}(x) if y])")


def context_manager(m: Maker) -> str:
    m.require("import contextlib")
    name = m.function(
        f"yield mix(x, {m.const()})",
        name=m.fresh("c"),
        decorators=("contextlib.contextmanager",),
    )
    return m.function(f"with {name}({m.call()}) as y:", f"    return mix(y, {m.const()})")


def exceptions(m: Maker) -> str:
    return m.function(
        f"y = {m.number()}",
        "try:",
        f"    if x % {m.number()} >= {m.number(0, 3)}:",
        f"        raise ValueError({m.const()})",
        f"    y = [{m.number()}, {m.number()}][x % {m.number(2, 4)}]",
        "except (ValueError, KeyError) as error:",
        f"    y = mix(error.args, {m.const()})",
        "except LookupError:",
        f"    y = {m.const()}",
        "else:",
        f"    y = mix(y, {m.const()})",
        "finally:",
        f"    x = mix(x, {m.const()})",
        "return mix(x, y)",
    )


def comprehensions(m: Maker) -> str:
    return m.function(
        f"rows = [mix(each, x) for each in range({m.number()}) if each % {m.number(2, 3)}]",
        f"table = {{each: mix(each, {m.const()}) for each in rows}}",
        f"some = sorted({{each % {m.number(3, 99)} for each in rows}})",
        f"return mix(rows, table, some, sum(each for each in rows if each > {m.number()}))",
    )


def blocks(m: Maker) -> str:
    """Statements that may stand inside a block or after it."""
    return m.function(
        "y = [x]",
        "try:",
        f"    if x % {m.number(2, 3)} == 0:",
        f"        y.append({m.const()})",
        f"        y.append({m.const()})",
        f"    for each in ({m.const()}, {m.const()}):",
        "        y.append(each)",
        f"        y.append({m.const()})",
        f"    y.append({m.number()} // (x % {m.number(2, 3)}))",
        f"    y.append(None + {m.const()})",
        "except ZeroDivisionError:",
        f"    y.append({m.const()})",
        "except TypeError:",
        f"    y.append({m.const()})",
        f"return mix(y, {m.const()})",
    )


def caught_further_out(m: Maker) -> str:
    """What is raised is caught in one place or another: the same instructions, other ranges."""
    return m.function(
        f"y = [{m.const()}]",
        "try:",
        "    try:",
        f"        y.append({m.const()})",
        f"        y.append({m.number()} // (x % {m.number(2, 3)}))",
        f"        y.append(None + {m.number()})",
        "    except (TypeError, ZeroDivisionError):",
        f"        y.append({m.const()})",
        f"    y.append({m.number()} // (x % {m.number(2, 3)}))",
        "except (TypeError, ZeroDivisionError):",
        f"    y.append({m.const()})",
        f"return mix(y, {m.const()})",
    )


def branches(m: Maker) -> str:
    """Branches that may end one statement earlier or later: the same instructions, other jumps."""
    lines = ["y = [x]"]
    for _ in range(2):
        lines += [
            f"if x % {m.number(2, 3)} == {m.number(0, 1)}:",
            f"    y.append({m.const()})",
            f"    y.append({m.const()})",
            f"y.append({m.const()})",
        ]
    return m.function(*lines, f"return mix(y, {m.const()})")


def imported_beneath(m: Maker) -> str:
    """What is imported in the body of a function that stands in another."""
    imports, call = m.call_beneath("y")
    lines = [*imports, f"return mix({call}, {m.const()})"]
    return m.function("def inner(y):", *(f"    {line}" for line in lines), "return inner(x)")


def match(m: Maker) -> str:
    return m.function(
        f"match (x % {m.number(2, 4)}, {m.const()}):",
        f"    case ({m.number(0, 1)}, other):",
        f"        return mix(other, {m.const()})",
        f"    case (a, int() | float()) if a > {m.number(0, 2)}:",
        f"        return mix(a, {m.const()})",
        "    case [first, *rest]:",
        f"        return mix(first, rest, {m.call()})",
        f"return mix({m.const()})",
    )


def loops(m: Maker) -> str:
    return m.function(
        "out = []",
        f"for at, each in enumerate(({m.const()}, {m.const()}, {m.const()})):",
        f"    if at == {m.number(0, 3)}:",
        f"        {m.random.choice(('continue', 'break'))}",
        "    out.append((at, each))",
        "else:",
        f"    out.append({m.const()})",
        f"while len(out) < {m.number(2, 5)}:",
        f"    out.append(mix(x, {m.const()}))",
        "return mix(out, x)",
    )


def walrus(m: Maker) -> str:
    return m.function(
        f"if (y := {m.call()} % {m.number(3, 9)}) > {m.number(0, 4)}:",
        f"    return mix(y, {m.const()})",
        f"a, *b = x, {m.const()}, {m.const()}",
        f'return mix(f"{{y:>{m.number()}}} {{a!r}}", b[0], b[-1:], *b)',
    )


def sorting(m: Maker) -> str:
    return m.function(
        f"rows = [x % {m.number(7, 30)}, {m.number()}, {m.number(10, 50)}]",
        f"rows = sorted(rows, key=lambda each: each % {m.number(3, 9)}, reverse=x > {m.number()})",
        f"return mix(rows, list(map(lambda each: mix(each, {m.const()}), rows)))",
    )


def reduced(m: Maker) -> str:
    m.require("import functools")
    other = m.callee()
    return m.function(
        f"return functools.reduce(lambda a, b: mix(a, {other}(b)), range({m.number(2, 3)}), x)"
    )


def conditional(m: Maker) -> str:
    name, flag = m.fresh("either"), m.fresh("FLAG")
    m.add(f"{flag} = {m.random.choice(('True', 'False'))}")
    m.add(
        f"if {flag}:\n\n    def {name}(x):\n        return mix(x, {m.const()})\n\n"
        f"else:\n\n    def {name}(x):\n        return mix({m.const()}, x)"
    )
    return m.function(f"return {name}(x)")


def passed_on(m: Maker) -> str:
    name = m.function(
        f"return mix(call(x), rest, {m.const()})", arguments="call, x, *rest", name=m.fresh("h")
    )
    return m.function(f"return {name}({m.callee()}, x, {m.const()}, {m.const()})")


def library_of_our_own(m: Maker) -> str:
    m.require("import math")
    m.require("import operator")
    name = m.fresh("pick")
    m.add(f"{name} = operator.itemgetter({m.number(0, 2)}, {m.number(0, 2)})")
    return m.function(
        f"rows = [x, {m.const()}, {m.const()}]",
        f"return mix({name}(rows), math.{m.random.choice(('floor', 'ceil'))}(x / {m.number()}))",
    )


SHAPES = (
    plain,
    plain,
    branch,
    branch,
    arithmetic,
    defaults,
    keyword_defaults,
    default_by_name,
    positional_only,
    by_keyword,
    by_keyword,
    closure,
    nonlocal_count,
    nested,
    recursion,
    mutual_recursion,
    lambdas_in_dict,
    registry,
    partials,
    partial_of_another,
    wrapped,
    wrapped_without_wraps,
    wrapped_twice,
    remembered,
    single_dispatch,
    function_attribute,
    globals_by_name,
    asynchronous,
    generator,
    context_manager,
    exceptions,
    blocks,
    branches,
    branches,
    caught_further_out,
    caught_further_out,
    caught_further_out,
    imported_beneath,
    imported_beneath,
    comprehensions,
    match,
    loops,
    walrus,
    sorting,
    reduced,
    conditional,
    passed_on,
    library_of_our_own,
)
