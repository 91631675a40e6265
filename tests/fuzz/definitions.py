"""Random edits of statements and definitions: bodies, parameters, decorators, bases, imports.

Each changes the tree of a place and says whether it did.
"""

from __future__ import annotations

import ast
from typing import Any

from tests.fuzz.places import Change, Place, defined


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
    functions = [each for each in place.nodes(ast.FunctionDef) if each.args.args]
    node = place.one([each for each in functions if not each.name.startswith("__")])
    last = node.body[-1] if node is not None else None
    if not isinstance(last, ast.Return) or last.value is None or node.args.vararg:
        return False
    fresh = f"n{place.random.randint(0, 999)}"
    default = ast.Constant(place.random.randint(2, 99))
    if place.random.random() < 0.5:
        node.args.args.append(ast.arg(fresh))
        node.args.defaults.append(default)
    else:
        node.args.kwonlyargs.append(ast.arg(fresh))
        node.args.kw_defaults.append(default)
    more = ast.Name(fresh, ast.Load())
    last.value = ast.Call(ast.Name("mix", ast.Load()), [last.value, more], [])
    return True


def order_of_parameters(place: Place) -> bool:
    node = place.one([each for each in place.nodes(ast.arguments) if len(each.args) > 1])
    if node is None:
        return False
    place.random.shuffle(node.args)
    return True


def _bodies(place: Place) -> list[list[Any]]:
    holders = place.nodes(
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.If,
        ast.For,
        ast.Try,
        ast.With,
        ast.While,
    )
    return [each.body for each in holders]


def statement_removed(place: Place) -> bool:
    body = place.one([each for each in _bodies(place) if len(each) > 1])
    if body is None:
        return False
    del body[place.random.randrange(len(body))]
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


def end_of_block(place: Place) -> bool:
    """Let a block end one statement earlier, or later: the same instructions, other jumps."""
    blocks = [
        (body, at)
        for body in _bodies(place)
        for at, each in enumerate(body)
        if isinstance(each, ast.If | ast.For | ast.While | ast.With | ast.Try)
    ]
    if not blocks:
        return False
    body, at = place.random.choice(blocks)
    block = body[at]
    if len(block.body) > 1 and place.random.random() < 0.5:
        moved = block.body.pop()
        if isinstance(block, ast.Try) and block.handlers:
            block.orelse.insert(0, moved)
        else:
            body.insert(at + 1, moved)
    elif at + 1 < len(body):
        block.body.append(body.pop(at + 1))
    else:
        return False
    return True


def decorator(place: Place) -> bool:
    """Leave a decorator out, change their order, or add one; a step stays a step."""
    nodes = [each for each in place.nodes(ast.FunctionDef, ast.ClassDef) if each.decorator_list]
    node = place.one(nodes)
    if node is None:
        return False
    steps = [each for each in node.decorator_list if ast.unparse(each).startswith("step")]
    decorators = [each for each in node.decorator_list if each not in steps]
    known = [each for each in place.names() if each.startswith("deco")]
    match place.random.randrange(3):
        case 0 if decorators:
            del decorators[place.random.randrange(len(decorators))]
        case 1 if decorators:
            place.random.shuffle(decorators)
        case _ if known:
            decorators.append(ast.Name(place.random.choice(known), ast.Load()))
        case _:
            return False
    node.decorator_list = [*steps, *decorators]
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
            "def __getattribute__(self, name): return object.__getattribute__(self, name)",
        )
    )
    node.body.append(ast.parse(text).body[0])
    return True


def methods_swapped(place: Place) -> bool:
    """Let two functions inside a statement exchange their bodies."""
    nodes = [each for each in place.nodes(ast.FunctionDef) if each.name != "__getattribute__"]
    if len(nodes) < 2:
        return False
    one, other = place.random.sample(nodes, 2)
    one.name, other.name = other.name, one.name
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


def imported(place: Place) -> bool:
    """Import another function under the same name, from the same module."""
    nodes = [each for each in place.nodes(ast.ImportFrom) if each.module in place.project.modules]
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


CHANGES: tuple[Change, ...] = (
    default,
    new_argument,
    order_of_parameters,
    statement_removed,
    statements_swapped,
    statement_added,
    statement_added,
    returned,
    returned,
    branch_added,
    branch_removed,
    end_of_block,
    end_of_block,
    decorator,
    decorator_added,
    bases,
    metaclass,
    class_attribute,
    methods_swapped,
    handler,
    imported,
    imported_module,
)
