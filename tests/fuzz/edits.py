"""Random edits that may change what a project returns: of the syntax tree of one statement.

Knows syntax, not meaning: an edit may as well change nothing that is ever read, or break the
project. Who runs them finds that out.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

from tests.fuzz.projects import Project


class Edit(NamedTuple):
    """What was done to a project.

    Attributes:
        kind: of edit, for the counts.
        where: module and line of what was edited.
        project: as it is afterwards.
        neutral: whether nothing may run again: `True`, `False`, or `None` where it is left open.
    """

    kind: str
    where: str
    project: Project
    neutral: bool | None = False


class Place(NamedTuple):
    """A statement at the top level of a module, as a tree that is to be changed."""

    random: Random
    project: Project
    module: str
    at: int
    tree: ast.Module

    def nodes(self, *kinds: type[Any]) -> list[Any]:
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]

    def one(self, nodes: Sequence[Any]) -> Any:
        return self.random.choice(nodes) if nodes else None

    def names(self) -> list[str]:
        """The names of all functions at the top level of the module."""
        return defined(self.project, self.module)


def defined(project: Project, module: str, word: str = "def") -> list[str]:
    return re.findall(rf"^{word} (\w+)", project.source(module), re.M)


Change = Callable[[Place], bool]
_REACHED = 0.9  # share of edits of what the pipeline reaches
_OPERATORS: tuple[ast.operator, ...] = (
    ast.Add(),
    ast.Sub(),
    ast.BitXor(),
    ast.BitOr(),
    ast.BitAnd(),
    ast.Mod(),
    ast.FloorDiv(),
)
_COMPARISONS: tuple[ast.cmpop, ...] = (
    ast.Lt(),
    ast.LtE(),
    ast.Gt(),
    ast.GtE(),
    ast.Eq(),
    ast.NotEq(),
    ast.In(),
    ast.Is(),
)


def _parsed(text: str) -> Any:
    return ast.parse(text, mode="eval").body


def _other(random: Random, value: object) -> object:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float() | complex():
            return value + random.choice((1, -1, 2, 10))
        case str():
            return value + random.choice("xyz") if random.random() < 0.7 else value[1:]
        case bytes():
            return value + b"x"
        case _:
            return random.choice((0, "none", False))


def _other_type(value: object) -> object:
    """The same value, or nearly, of another type."""
    match value:
        case bool():
            return int(value)
        case int():
            return float(value) if value % 2 else bool(value) if value in (0, 1) else str(value)
        case float():
            return int(value)
        case str():
            return value.encode()
        case bytes():
            return value.decode()
        case complex():
            return value.imag
        case _:
            return "None"


def constant(place: Place) -> bool:
    node = place.one(place.nodes(ast.Constant))
    if node is None:
        return False
    node.value = _other(place.random, node.value)
    return True


def constant_type(place: Place) -> bool:
    node = place.one(place.nodes(ast.Constant))
    if node is None:
        return False
    node.value = _other_type(node.value)
    return True


def one_of_many_types(place: Place) -> bool:
    """1 → 1.0 → True → "1": what a careless reader takes for the same."""
    numbers = [each for each in place.nodes(ast.Constant) if each.value in (0, 1, 0.0, "1", "0")]
    node = place.one(numbers)
    if node is None:
        return False
    kinds: list[object] = [1, 1.0, True, "1"] if node.value in (1, "1") else [0, 0.0, -0.0, False]
    node.value = place.random.choice(kinds)
    return True


def operator(place: Place) -> bool:
    node = place.one(place.nodes(ast.BinOp, ast.AugAssign))
    if node is None:
        return False
    node.op = place.random.choice(_OPERATORS)
    return True


def unary(place: Place) -> bool:
    node = place.one(place.nodes(ast.UnaryOp))
    if node is None:
        return False
    node.op = place.random.choice((ast.USub(), ast.Invert(), ast.UAdd(), ast.Not()))
    return True


def comparison(place: Place) -> bool:
    node = place.one(place.nodes(ast.Compare))
    if node is None:
        return False
    node.ops[place.random.randrange(len(node.ops))] = place.random.choice(_COMPARISONS)
    return True


def negated(place: Place) -> bool:
    node = place.one(place.nodes(ast.If, ast.IfExp, ast.While))
    if node is None:
        return False
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return True


def called(place: Place) -> bool:
    """Call, or name, another function of the module."""
    known = place.names()
    named = [
        each
        for each in place.nodes(ast.Name)
        if each.id in known and isinstance(each.ctx, ast.Load)
    ]
    node = place.one(named)
    if node is None:
        return False
    node.id = place.random.choice(known)
    return True


def name(place: Place) -> bool:
    """Read another variable that the same statement knows."""
    read = [each for each in place.nodes(ast.Name) if isinstance(each.ctx, ast.Load)]
    node = place.one([each for each in read if each.id != "mix"])
    if node is None:
        return False
    known = {each.id for each in read} | {each.arg for each in place.nodes(ast.arg)}
    node.id = place.random.choice(sorted(known - {"mix"}))
    return True


def attribute(place: Place) -> bool:
    nodes = place.nodes(ast.Attribute)
    node = place.one(nodes)
    if node is None:
        return False
    node.attr = place.random.choice([each.attr for each in nodes])
    return True


def attribute_of_module(place: Place) -> bool:
    """Read another name of another module: `low.f1` → `low.f2`."""
    modules = place.project.modules
    nodes = [
        each
        for each in place.nodes(ast.Attribute)
        if isinstance(each.value, ast.Name) and each.value.id in modules
    ]
    node = place.one(nodes)
    if node is None:
        return False
    other = defined(place.project, node.value.id)
    if not other:
        return False
    node.attr = place.random.choice(other)
    return True


def default(place: Place) -> bool:
    nodes = [each for each in place.nodes(ast.arguments) if each.defaults or each.kw_defaults]
    node = place.one(nodes)
    if node is None:
        return False
    defaults = node.defaults or node.kw_defaults
    defaults[place.random.randrange(len(defaults))] = ast.Constant(place.random.randint(2, 99))
    return True


def new_argument(place: Place) -> bool:
    """Add an argument with a default, and return it too."""
    node = place.one([each for each in place.nodes(ast.FunctionDef) if each.args.args])
    if node is None or not isinstance(node.body[-1], ast.Return) or node.args.vararg:
        return False
    fresh = f"n{place.random.randint(0, 999)}"
    default = ast.Constant(place.random.randint(2, 99))
    if place.random.random() < 0.5:
        node.args.args.append(ast.arg(fresh))
        node.args.defaults.append(default)
    else:
        node.args.kwonlyargs.append(ast.arg(fresh))
        node.args.kw_defaults.append(default)
    node.body[-1].value = ast.Call(
        ast.Name("mix", ast.Load()), [node.body[-1].value, ast.Name(fresh, ast.Load())], []
    )
    return True


def order_of_arguments(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.Call) if len(each.args) > 1])
    if node is None:
        return False
    place.random.shuffle(node.args)
    return True


def argument(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.Call) if each.args])
    if node is None:
        return False
    if place.random.random() < 0.5:
        del node.args[place.random.randrange(len(node.args))]
    else:
        node.args.append(ast.Constant(place.random.randint(2, 99)))
    return True


def order_of_parameters(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.arguments) if len(each.args) > 1])
    if node is None:
        return False
    place.random.shuffle(node.args)
    return True


def _bodies(place: Place) -> list[list[Any]]:
    holders = place.nodes(
        ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.Try, ast.With
    )
    return [each.body for each in holders]


def statement_removed(place: Place) -> bool:
    body = place.one([each for each in _bodies(place) if len(each) > 1])
    if body is None:
        return False
    del body[place.random.randrange(len(body))]
    return True


def statement_doubled(place: Place) -> bool:
    body = place.one(_bodies(place))
    if body is None:
        return False
    at = place.random.randrange(len(body))
    body.insert(at, copy.deepcopy(body[at]))
    return True


def statements_swapped(place: Place) -> bool:
    body = place.one([each for each in _bodies(place) if len(each) > 1])
    if body is None:
        return False
    at = place.random.randrange(len(body) - 1)
    body[at], body[at + 1] = body[at + 1], body[at]
    return True


def statement_added(place: Place) -> bool:
    function = place.one([each for each in place.nodes(ast.FunctionDef) if each.args.args])
    if function is None:
        return False
    name = function.args.args[-1].arg
    text = f"{name} = mix({name}, {place.random.randint(2, 99)})"
    function.body.insert(0, ast.parse(text).body[0])
    return True


def returned(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.Return, ast.Yield) if each.value])
    if node is None:
        return False
    more = ast.Constant(place.random.randint(2, 99))
    node.value = ast.Call(ast.Name("mix", ast.Load()), [node.value, more], [])
    return True


def branch_added(place: Place) -> bool:
    function = place.one([each for each in place.nodes(ast.FunctionDef) if each.args.args])
    if function is None:
        return False
    name, random = function.args.args[-1].arg, place.random
    test = f"len(repr({name})) % 2 == {random.randint(0, 1)}"
    text = f"if {test}:\n    return mix({name}, {random.randint(2, 99)})"
    function.body.insert(0, ast.parse(text).body[0])
    return True


def branch_removed(place: Place) -> bool:
    for body in _bodies(place):
        for at, each in enumerate(body):
            if isinstance(each, ast.If):
                body[at : at + 1] = each.body if place.random.random() < 0.5 else each.orelse
                return bool(body)
    return False


def decorator(place: Place) -> bool:
    nodes = [each for each in place.nodes(ast.FunctionDef, ast.ClassDef) if each.decorator_list]
    node = place.one(nodes)
    if node is None:
        return False
    decorators = node.decorator_list
    match place.random.randrange(3):
        case 0:
            del decorators[place.random.randrange(len(decorators))]
        case 1:
            place.random.shuffle(decorators)
        case _:
            known = [each for each in place.names() if each.startswith(("deco", "register"))]
            if not known:
                return False
            decorators.append(ast.Name(place.random.choice(known), ast.Load()))
    return True


def decorator_added(place: Place) -> bool:
    node = place.one(place.nodes(ast.FunctionDef))
    known = [each for each in place.names() if each.startswith("deco")]
    if node is None or not known:
        return False
    node.decorator_list.append(ast.Name(place.random.choice(known), ast.Load()))
    return True


def bases(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.ClassDef) if each.bases])
    if node is None:
        return False
    if place.random.random() < 0.5 and len(node.bases) > 1:
        node.bases.reverse()
    elif place.random.random() < 0.5:
        del node.bases[place.random.randrange(len(node.bases))]
    else:
        known = defined(place.project, place.module, "class")
        if not known:
            return False
        node.bases[0] = ast.Name(place.random.choice(known), ast.Load())
    return True


def metaclass(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.ClassDef) if each.keywords])
    if node is None:
        return False
    del node.keywords[place.random.randrange(len(node.keywords))]
    return True


def class_attribute(place: Place) -> bool:
    """Add an attribute, which may hide one of a base, or a method that Python looks for."""
    node = place.one(place.nodes(ast.ClassDef))
    if node is None:
        return False
    random = place.random
    text = random.choice(
        (
            f"rate = {random.randint(2, 99)}",
            f"size = {random.randint(2, 99)}",
            f"other = {random.randint(2, 99)}",
            f"def more(self): return {random.randint(2, 99)}",
            f"def __repr__(self): return '{random.randint(2, 99)}'",
            f"def __eq__(self, other): return {random.choice((True, False))}",
            f"def __getattribute__(self, name): return object.__getattribute__(self, name)",
        )
    )
    node.body.append(ast.parse(text).body[0])
    return True


def methods_swapped(place: Place) -> bool:
    """Let two functions inside a statement exchange their bodies."""
    nodes = place.nodes(ast.FunctionDef)
    if len(nodes) < 2:
        return False
    one, other = place.random.sample(nodes, 2)
    one.name, other.name = other.name, one.name
    return True


def container(place: Place) -> bool:
    """A list becomes a tuple or a set, a tuple a list."""
    holders = [
        (holder, field, value)
        for holder in ast.walk(place.tree)
        for field, value in ast.iter_fields(holder)
        if isinstance(value, ast.List | ast.Tuple | ast.Set) and value.elts
    ]
    if not holders:
        return False
    holder, field, value = place.random.choice(holders)
    kinds: list[Any] = [ast.List, ast.Tuple, ast.Set]
    kind = place.random.choice(kinds)
    context = [] if kind is ast.Set else [getattr(value, "ctx", ast.Load())]
    setattr(holder, field, kind(value.elts, *context))
    return True


def order_of_items(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.List, ast.Tuple) if len(each.elts) > 1])
    if node is None:
        return False
    place.random.shuffle(node.elts)
    return True


def order_of_dict(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.Dict) if len(each.keys) > 1])
    if node is None:
        return False
    node.keys.reverse()
    node.values.reverse()
    return True


def items_of_dict(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.Dict) if each.keys])
    if node is None:
        return False
    match place.random.randrange(3):
        case 0:
            node.keys.append(ast.Constant(f"new{place.random.randint(0, 9)}"))
            node.values.append(ast.Constant(place.random.randint(2, 99)))
        case 1:
            node.values.reverse()
        case _:
            at = place.random.randrange(len(node.keys))
            del node.keys[at], node.values[at]
    return True


def items(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.List, ast.Tuple) if each.elts])
    if node is None:
        return False
    if place.random.random() < 0.5:
        del node.elts[place.random.randrange(len(node.elts))]
    else:
        node.elts.append(ast.Constant(place.random.randint(2, 99)))
    return True


def keyword(place: Place) -> bool:
    nodes = [each for each in place.nodes(ast.Call) if each.keywords]
    node = place.one(nodes)
    if node is None:
        return False
    if place.random.random() < 0.5:
        del node.keywords[place.random.randrange(len(node.keywords))]
    else:
        node.keywords[0].value = ast.Constant(place.random.randint(2, 99))
    return True


def handler(place: Place) -> bool:
    """Catch another exception, or let the `else` and `finally` of a `try` go."""
    node = place.one(place.nodes(ast.Try))
    if node is None:
        return False
    match place.random.randrange(4):
        case 0:
            node.finalbody = []
        case 1:
            node.orelse = []
        case 2:
            node.handlers.reverse()
        case _:
            kinds = ("ValueError", "KeyError", "IndexError", "Exception", "OSError")
            kind = ast.Name(place.random.choice(kinds), ast.Load())
            place.random.choice(node.handlers).type = kind
    return bool(node.handlers or node.finalbody)


def loop(place: Place) -> bool:
    node = place.one(place.nodes(ast.comprehension, ast.For))
    if node is None:
        return False
    if isinstance(node, ast.For):
        node.orelse = []
    elif node.ifs and place.random.random() < 0.5:
        node.ifs.pop()
    else:
        node.ifs.append(_parsed(f"len(repr(x)) % 2 == {place.random.randint(0, 1)}"))
    return True


def imported(place: Place) -> bool:
    """Import another function under the same name, from the same module."""
    nodes = [
        each for each in place.nodes(ast.ImportFrom) if each.module in place.project.modules
    ]
    node = place.one([each for each in nodes if each.names[0].name[0] == "f"])
    if node is None:
        return False
    known = [each for each in defined(place.project, node.module) if each[0] == "f"]
    if not known:
        return False
    alias = node.names[0]
    alias.asname = alias.asname or alias.name
    alias.name = place.random.choice(known)
    return True


def imported_module(place: Place) -> bool:
    """Import another module under the same name."""
    nodes = [each for each in place.nodes(ast.Import) if each.names[0].asname]
    node = place.one([each for each in nodes if each.names[0].name in place.project.modules])
    if node is None:
        return False
    node.names[0].name = place.random.choice([*place.project.modules])
    return True


def format_of_string(place: Place) -> bool:
    node = place.one(place.nodes(ast.FormattedValue))
    if node is None:
        return False
    node.conversion = place.random.choice((-1, 114, 115, 97))
    return True


CHANGES: tuple[Change, ...] = (
    constant,
    constant,
    constant,
    constant_type,
    one_of_many_types,
    operator,
    unary,
    comparison,
    negated,
    called,
    called,
    name,
    attribute,
    attribute_of_module,
    default,
    new_argument,
    order_of_arguments,
    argument,
    order_of_parameters,
    statement_removed,
    statement_doubled,
    statements_swapped,
    statement_added,
    returned,
    branch_added,
    branch_removed,
    decorator,
    decorator_added,
    bases,
    metaclass,
    class_attribute,
    methods_swapped,
    container,
    order_of_items,
    order_of_dict,
    items_of_dict,
    items,
    keyword,
    handler,
    loop,
    imported,
    imported_module,
    format_of_string,
)

# Of the function that wires the steps: an output is no value there.
WIRING: tuple[Change, ...] = (
    constant,
    constant_type,
    one_of_many_types,
    order_of_items,
    order_of_dict,
    items_of_dict,
    keyword,
    called,
)


# Edits of a module as a whole


def functions_swapped(random: Random, project: Project) -> Edit | None:
    """Two functions of a module exchange their names."""
    module = random.choice([*project.modules][1:])
    statements = list(project.modules[module])
    plain = [at for at, each in enumerate(statements) if each.startswith("def f")]
    if len(plain) < 2:
        return None
    one, other = random.sample(plain, 2)
    names = [statements[at][4:].partition("(")[0] for at in (one, other)]
    for at, new in ((one, names[1]), (other, names[0])):
        statements[at] = f"def {new}({statements[at].partition('(')[2]}"
    return _edit("functions swapped", project, module, statements)


def defined_again(random: Random, project: Project) -> Edit | None:
    """Define a name of a module once more, below: the last one counts."""
    module = random.choice([*project.modules][1:])
    statements = list(project.modules[module])
    at = random.randrange(len(statements))
    words = statements[at].replace("(", " ").split()
    if words[0] == "def" and words[1][0] in "fdkpq":
        text = f"def {words[1]}(*given, **named):\n    return mix(given, {random.randint(2, 99)})"
    elif len(words) > 1 and words[1] == "=":
        text = f"{words[0]} = {random.randint(2, 99)}"
    else:
        return None
    statements.insert(random.randint(at + 1, len(statements)), text)
    return _edit("defined again", project, module, statements)


def order_of_statements(random: Random, project: Project) -> Edit | None:
    module = random.choice([*project.modules][1:])
    statements = list(project.modules[module])
    if len(statements) < 2:
        return None
    at = random.randrange(len(statements) - 1)
    statements[at], statements[at + 1] = statements[at + 1], statements[at]
    return _edit("order of statements", project, module, statements)


def removed(random: Random, project: Project) -> Edit | None:
    module = random.choice([*project.modules][1:])
    statements = list(project.modules[module])
    if len(statements) < 2:
        return None
    del statements[random.randrange(len(statements))]
    return _edit("removed", project, module, statements)


def monkeypatched(random: Random, project: Project) -> Edit | None:
    """Let the main module put a function of its own into another module."""
    module = random.choice([*project.modules][1:])
    known = [each for each in defined(project, module) if each[0] == "f"]
    if module == "main" or not known:
        return None
    statements = list(project.modules["main"])
    text = (
        f"import {module}\n{module}.{random.choice(known)} = "
        f"lambda x: mix(x, {random.randint(2, 99)})"
    )
    statements.insert(random.randrange(1, len(statements)), text)
    return _edit("monkeypatched", project, "main", statements)


WHOLES = (functions_swapped, defined_again, order_of_statements, removed, monkeypatched)


def _edit(kind: str, project: Project, module: str, statements: list[str]) -> Edit:
    return Edit(kind, module, project.with_module(module, tuple(statements)))


def change(random: Random, project: Project) -> Edit | None:
    """Change one statement of the project, or a module as a whole; `None` if that came to nothing.
    """
    if random.random() < 0.1:
        return random.choice(WHOLES)(random, project)
    one = random.choice(CHANGES)
    module = random.choice([*project.modules][1:])
    statements = project.modules[module]
    words = project.reached() if random.random() < _REACHED else None
    for at in _shuffled(random, len(statements)):
        if words is not None and not project.is_reached(statements[at], words):
            continue
        tree = ast.parse(statements[at])
        fits = one in WIRING or not statements[at].startswith("def main(")
        if fits and one(Place(random, project, module, at, tree)):
            break
    else:
        return None
    text = ast.unparse(ast.fix_missing_locations(tree))
    new = (*statements[:at], text, *statements[at + 1 :])
    return Edit(
        one.__name__.replace("_", " "), f"{module}[{at}]", project.with_module(module, new)
    )


def _shuffled(random: Random, count: int) -> Iterator[int]:
    order = list(range(count))
    random.shuffle(order)
    yield from order[:12]
