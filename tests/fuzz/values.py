"""What globals of a random project hold, each with a function of one whole number that reads it."""

from __future__ import annotations

from tests.fuzz.projects import Maker


def _held(m: Maker, text: str, use: str) -> str:
    """Hold a value in a global; `{}` in the use stands for its name."""
    name = m.hold("V", text)
    return m.function(f"return mix(x, {use.replace('{}', name)})")


def elsewhere(m: Maker) -> str:
    name = constant(m)
    return m.function(f"return mix({name}(x), {m.value()}, {m.value()})")


def constant(m: Maker) -> str:
    return _held(m, m.const(), "{}")


def constant_beneath(m: Maker) -> str:
    inner = _held(m, m.const(), "{}")
    return m.function(f"return mix({inner}(x), {m.const()})")


def rows(m: Maker) -> str:
    return _held(m, f"[{m.const()}, {m.const()}, [{m.const()}, {m.const()}]]", "{}[-1], {}[0]")


def table(m: Maker) -> str:
    text = f'{{"a": {m.const()}, "b": {m.const()}, {m.number()}: [{m.const()}]}}'
    return _held(m, text, '{}["a"], list({}.items())')


def flat_table(m: Maker) -> str:
    text = f'{{"a": {m.number()}, "b": {m.number()}.5, {m.number()}: "{m.number()}"}}'
    return _held(m, text, "list({}.items()), {}")


def nested_table(m: Maker) -> str:
    text = f'{{"a": {{"b": ({m.const()}, {m.const()})}}, "c": [{{"d": {m.const()}}}]}}'
    return _held(m, text, '{}["a"]["b"], {}["c"][0], len({})')


def unordered(m: Maker) -> str:
    return _held(m, f"{{{m.number(10, 30)}, {m.number(40, 60)}}}", "sorted({})")


def frozen(m: Maker) -> str:
    text = f"frozenset({{{m.number(10, 30)}, {m.number(40, 60)}}})"
    return _held(m, text, f"sorted({{}}), x % 99 in {{{m.number(10, 99)}, {m.number(10, 99)}}}")


def collections(m: Maker) -> str:
    m.require("import collections")
    text = m.random.choice(
        (
            f'collections.OrderedDict([("a", {m.const()}), ("b", {m.const()})])',
            f"collections.deque([{m.const()}, {m.const()}], maxlen={m.number()})",
            f'collections.Counter({{"a": {m.number()}, "b": {m.number()}}})',
            f'collections.defaultdict(list, {{"a": [{m.const()}]}})',
            f'collections.ChainMap({{"a": {m.const()}}}, {{"b": {m.const()}}})',
        )
    )
    return _held(m, text, "list({}), str({})")


def namespace(m: Maker) -> str:
    m.require("import types")
    return _held(m, f"types.SimpleNamespace(a={m.const()}, b={m.const()})", "{}.a, {}.b, {}")


def proxy(m: Maker) -> str:
    m.require("import types")
    return _held(m, f'types.MappingProxyType({{"a": {m.const()}}})', '{}["a"]')


def exact(m: Maker) -> str:
    m.require("import decimal")
    m.require("import fractions")
    text = m.random.choice(
        (
            f'decimal.Decimal("{m.number()}.{m.number()}0")',
            f"fractions.Fraction({m.number()}, {m.number()})",
        )
    )
    return _held(m, text, "{}")


def time(m: Maker) -> str:
    m.require("import datetime")
    text = m.random.choice(
        (
            f"datetime.datetime(2026, {m.number()}, {m.number()}, fold={m.number(0, 1)})",
            f"datetime.date(2026, {m.number()}, {m.number()})",
            f"datetime.timedelta(days={m.number()}, seconds={m.number()})",
            f"datetime.time({m.number()}, tzinfo=datetime.timezone.utc)",
        )
    )
    return _held(m, text, "{}")


def pattern(m: Maker) -> str:
    m.require("import re")
    flags = m.random.choice(("0", "re.I", "re.X"))
    return _held(
        m, f're.compile(r"[{m.number(0, 4)}-{m.number(5, 9)}]+", {flags})', "{}.findall(str(x)), {}"
    )


def path(m: Maker) -> str:
    m.require("import pathlib")
    return _held(m, f'pathlib.PurePosixPath("data", "{m.number()}.csv")', "{}.stem, {}")


def spans(m: Maker) -> str:
    text = m.random.choice(
        (
            f"range({m.number(0, 3)}, {m.number(20, 90)}, {m.number()})",
            f"slice({m.number(0, 1)}, {m.number()}, {m.number(1, 3)})",
        )
    )
    return _held(m, text, "{}")


def array(m: Maker) -> str:
    m.require("import numpy as np")
    text = m.random.choice(
        (
            f"np.array([{m.number()}, {m.number()}, {m.number()}])",
            f"np.array([[{m.number()}.5, {m.number()}], [{m.number()}, {m.number()}]])",
            f'np.array([{m.number()}, {m.number()}], dtype="int{m.random.choice((8, 16, 32))}")',
            f"np.float64({m.number()}.5)",
        )
    )
    return _held(m, text, "{}.dtype.str, {}.shape, {}.tolist()")


def array_function(m: Maker) -> str:
    m.require("import numpy as np")
    name = m.fresh("V")
    m.add(f"{name} = np.arange({m.number()})")
    return m.function(f"return mix(int(np.{m.random.choice(('sum', 'max', 'min'))}({name})), x)")


def annotated(m: Maker) -> str:
    name = m.fresh("V")
    m.add(f"{name}: object = {m.const()}")
    return m.function(f"y: int = {m.call()}", f"return mix(y, {name})")


def computed(m: Maker) -> str:
    name, other = m.fresh("V"), m.callee()
    m.add(f"{name} = {other}({m.number()})")
    return m.function(f"return mix({name}, x)")


def unpacked(m: Maker) -> str:
    first, second = m.fresh("V"), m.fresh("V")
    m.add(f"{first}, {second} = {m.const()}, {m.const()}")
    return m.function(f"return mix({first}, {second}, x)")


def patched(m: Maker) -> str:
    """A global that is changed after it was made, as a module's body may do."""
    name = m.fresh("V")
    m.add(f"{name} = [{m.const()}]")
    m.add(f"{name}.append({m.const()})")
    m.add(f"{name} += [{m.number()}]")
    return m.function(f"return mix({name}, x)")


SHAPES = (
    constant,
    constant,
    constant_beneath,
    elsewhere,
    elsewhere,
    rows,
    table,
    flat_table,
    flat_table,
    nested_table,
    unordered,
    frozen,
    collections,
    namespace,
    proxy,
    exact,
    time,
    pattern,
    path,
    spans,
    array,
    array,
    array_function,
    annotated,
    computed,
    unpacked,
    patched,
)
