"""Random edits inside an expression: values, operators, names, arguments, items.

Each changes the tree of a place and says whether it did.
"""

from __future__ import annotations

import ast
from random import Random
from typing import Any

from tests.fuzz.places import Change, Place, defined, of_a

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


def _other_type(random: Random, value: object) -> object:
    """The same value, or nearly, of another type."""
    match value:
        case bool():
            return int(value)
        case int():
            return random.choice((float(value), str(value), bool(value)))
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


@of_a(ast.Constant)
def constant(place: Place, node: Any) -> None:
    node.value = _other(place.random, node.value)


@of_a(ast.Constant)
def constant_type(place: Place, node: Any) -> None:
    node.value = _other_type(place.random, node.value)


@of_a(ast.Constant, that=lambda node: node.value in (0, 1, 0.0, "1", "0"))
def one_of_many_types(place: Place, node: Any) -> None:
    """1 → 1.0 → True → "1": what a careless reader takes for the same."""
    kinds: list[object] = [1, 1.0, True, "1"] if node.value in (1, "1") else [0, 0.0, -0.0, False]
    node.value = place.random.choice(kinds)


@of_a(ast.BinOp, ast.AugAssign)
def operator(place: Place, node: Any) -> None:
    node.op = place.random.choice(_OPERATORS)


@of_a(ast.UnaryOp)
def unary(place: Place, node: Any) -> None:
    node.op = place.random.choice((ast.USub(), ast.Invert(), ast.UAdd(), ast.Not()))


@of_a(ast.Compare)
def comparison(place: Place, node: Any) -> None:
    node.ops[place.random.randrange(len(node.ops))] = place.random.choice(_COMPARISONS)


@of_a(ast.If, ast.IfExp, ast.While)
def negated(place: Place, node: Any) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)


def called(place: Place) -> bool:
    """Call, or name, another function of the module; where steps are wired, another step."""
    wires = place.project.modules[place.module][place.at].startswith("def main(")
    known = [each for each in place.names() if each.startswith("step") or not wires]
    node = place.one([each for each in _read(place) if each.id in known])
    if node is None:
        return False
    node.id = place.random.choice(known)
    return True


def name(place: Place) -> bool:
    """Read another variable that the same statement knows."""
    read = [each for each in _read(place) if each.id != "mix"]
    if not read:
        return False
    known = {each.id for each in read} | {each.arg for each in place.nodes(ast.arg)}
    place.random.choice(read).id = place.random.choice(sorted(known))
    return True


def _read(place: Place) -> list[ast.Name]:
    return [each for each in place.nodes(ast.Name) if isinstance(each.ctx, ast.Load)]


def attribute(place: Place) -> bool:
    """Read another attribute of the same thing: `self.rate` → `self.other`."""
    known: dict[str, list[ast.Attribute]] = {}
    for each in place.nodes(ast.Attribute):
        known.setdefault(ast.unparse(each.value), []).append(each)
    nodes = place.one([each for each in known.values() if len({one.attr for one in each}) > 1])
    if nodes is None:
        return False
    one, other = place.random.sample(nodes, 2)
    one.attr = other.attr
    return True


def attribute_of_module(place: Place) -> bool:
    """Read another name of another module: `low.f1` → `low.f2`."""
    nodes = [each for each in place.nodes(ast.Attribute) if isinstance(each.value, ast.Name)]
    node = place.one([each for each in nodes if each.value.id in place.project.modules])
    known = defined(place.project, node.value.id) if node is not None else []
    if not known:
        return False
    node.attr = place.random.choice(known)
    return True


@of_a(ast.Call, that=lambda node: len(node.args) > 1)
def order_of_arguments(place: Place, node: Any) -> None:
    place.random.shuffle(node.args)


@of_a(ast.Call, that=lambda node: node.args and not isinstance(node.args[0], ast.Starred))
def argument(place: Place, node: Any) -> None:
    _one_more_or_less(place.random, node.args)


def _one_more_or_less(random: Random, nodes: list[ast.expr]) -> None:
    if random.random() < 0.5:
        del nodes[random.randrange(len(nodes))]
    else:
        nodes.append(ast.Constant(random.randint(2, 99)))


def container(place: Place) -> bool:
    """A list becomes a tuple, a tuple or a set a list; the order of a new set could be seen."""
    holders = [
        (holder, field, value)
        for holder in ast.walk(place.tree)
        for field, value in ast.iter_fields(holder)
        if isinstance(value, ast.List | ast.Tuple | ast.Set) and value.elts
    ]
    if not holders:
        return False
    holder, field, value = place.random.choice(holders)
    kind: Any = ast.Tuple if isinstance(value, ast.List) else ast.List
    setattr(holder, field, kind(value.elts, getattr(value, "ctx", ast.Load())))
    return True


@of_a(ast.List, ast.Tuple, that=lambda node: len(node.elts) > 1)
def order_of_items(place: Place, node: Any) -> None:
    place.random.shuffle(node.elts)


@of_a(ast.Dict, that=lambda node: len(node.keys) > 1)
def order_of_dict(place: Place, node: Any) -> None:
    node.keys.reverse()
    node.values.reverse()


@of_a(ast.Dict, that=lambda node: node.keys)
def items_of_dict(place: Place, node: Any) -> None:
    match place.random.randrange(3):
        case 0:
            node.keys.append(ast.Constant(f"new{place.random.randint(0, 9)}"))
            node.values.append(ast.Constant(place.random.randint(2, 99)))
        case 1:
            node.values.reverse()
        case _:
            at = place.random.randrange(len(node.keys))
            del node.keys[at], node.values[at]


@of_a(ast.List, ast.Tuple, that=lambda node: node.elts)
def items(place: Place, node: Any) -> None:
    _one_more_or_less(place.random, node.elts)


# A step hands on all its arguments by position, which `**kwargs` left out would show.
@of_a(ast.Call, that=lambda node: node.keywords and node.keywords[0].arg)
def keyword(place: Place, node: Any) -> None:
    if place.random.random() < 0.5:
        del node.keywords[place.random.randrange(len(node.keywords))]
    else:
        node.keywords[0].value = ast.Constant(place.random.randint(2, 99))


@of_a(ast.comprehension, ast.For)
def loop(place: Place, node: Any) -> None:
    if isinstance(node, ast.For):
        node.orelse = []
    elif node.ifs and place.random.random() < 0.5:
        node.ifs.pop()
    else:
        node.ifs.append(_parsed(f"len(repr(x)) % 2 == {place.random.randint(0, 1)}"))


@of_a(ast.FormattedValue)
def format_of_string(place: Place, node: Any) -> None:
    node.conversion = place.random.choice((-1, 114, 115, 97))


CHANGES: tuple[Change, ...] = (
    constant,
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
    order_of_arguments,
    argument,
    container,
    order_of_items,
    order_of_dict,
    items_of_dict,
    items,
    keyword,
    loop,
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
