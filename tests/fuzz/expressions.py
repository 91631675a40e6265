"""Random edits inside an expression: values, operators, names, arguments, items.

Each changes the tree of a place and says whether it did.
"""

from __future__ import annotations

import ast
from random import Random
from typing import Any

from tests.fuzz.places import Change, Place, defined

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
    """Call, or name, another function of the module; where steps are wired, another step."""
    wires = place.project.modules[place.module][place.at].startswith("def main(")
    known = [each for each in place.names() if each.startswith("step") or not wires]
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


def order_of_arguments(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.Call) if len(each.args) > 1])
    if node is None:
        return False
    place.random.shuffle(node.args)
    return True


def argument(place: Place) -> bool:
    nodes = [each for each in place.nodes(ast.Call) if each.args]
    node = place.one([each for each in nodes if not isinstance(each.args[0], ast.Starred)])
    if node is None:
        return False
    if place.random.random() < 0.5:
        del node.args[place.random.randrange(len(node.args))]
    else:
        node.args.append(ast.Constant(place.random.randint(2, 99)))
    return True


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
    # A step hands on all its arguments by position, which `**kwargs` left out would show.
    nodes = [each for each in place.nodes(ast.Call) if each.keywords and each.keywords[0].arg]
    node = place.one(nodes)
    if node is None:
        return False
    if place.random.random() < 0.5:
        del node.keywords[place.random.randrange(len(node.keywords))]
    else:
        node.keywords[0].value = ast.Constant(place.random.randint(2, 99))
    return True


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
