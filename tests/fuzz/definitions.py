"""Random edits of statements and definitions: bodies, parameters, decorators, bases, imports.

Each changes the tree of a place and says whether it did.
"""

from __future__ import annotations

import ast
from typing import Any

from tests.fuzz.places import Change, Place, defined, of_a


@of_a(ast.arguments, that=lambda node: node.defaults or node.kw_defaults)
def default(place: Place, node: Any) -> None:
    defaults = node.defaults or node.kw_defaults
    defaults[place.random.randrange(len(defaults))] = ast.Constant(place.random.randint(2, 99))


@of_a(ast.FunctionDef, that=lambda node: node.args.args and not node.name.startswith("__"))
def new_argument(place: Place, node: Any) -> bool:
    """Add an argument with a default, and return it too."""
    last = node.body[-1]
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
    last.value = _mixed(last.value, ast.Name(fresh, ast.Load()))
    return True


def _mixed(*values: ast.expr) -> ast.expr:
    return ast.Call(ast.Name("mix", ast.Load()), [*values], [])


@of_a(ast.arguments, that=lambda node: len(node.args) > 1)
def order_of_parameters(place: Place, node: Any) -> None:
    place.random.shuffle(node.args)


def _parameters(function: Any) -> list[ast.arg]:
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


# Of functions that take any names: where others are called by name, most of these are errors.
@of_a(ast.FunctionDef, that=lambda node: node.args.kwarg and len(_parameters(node)) > 2)
def parameters_exchanged(place: Place, node: Any) -> None:
    """Let two parameters exchange their names, and all that reads them: callers by name notice."""
    one, other = place.random.sample(_parameters(node)[1:], 2)
    names = {one.arg: other.arg, other.arg: one.arg}
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            each.id = names.get(each.id, each.id)
    one.arg, other.arg = other.arg, one.arg


@of_a(ast.arguments, that=lambda node: node.kwarg and len(node.posonlyargs + node.args) > 1)
def kind_of_parameters(place: Place, node: Any) -> None:
    """Have more parameters, or fewer, be given by position alone."""
    every = [*node.posonlyargs, *node.args]
    at = place.random.randint(0, len(every))
    node.posonlyargs, node.args = every[:at], every[at:]


_BLOCKS = (ast.If, ast.For, ast.Try, ast.With, ast.While)
_BODIES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, *_BLOCKS)


def _is_long(node: Any) -> bool:
    return len(node.body) > 1


def _takes_arguments(node: Any) -> bool:
    return bool(node.args.args)


@of_a(*_BODIES, that=_is_long)
def statement_removed(place: Place, node: Any) -> None:
    del node.body[place.random.randrange(len(node.body))]


@of_a(*_BODIES, that=_is_long)
def statements_swapped(place: Place, node: Any) -> None:
    at = place.random.randrange(len(node.body) - 1)
    node.body[at], node.body[at + 1] = node.body[at + 1], node.body[at]


@of_a(ast.FunctionDef, that=_takes_arguments)
def statement_added(place: Place, node: Any) -> None:
    name = node.args.args[-1].arg
    node.body.insert(0, _statement(f"{name} = mix({name}, {place.random.randint(2, 99)})"))


def _statement(text: str) -> ast.stmt:
    return ast.parse(text).body[0]


@of_a(ast.Return, ast.Yield, that=lambda node: node.value)
def returned(place: Place, node: Any) -> None:
    node.value = _mixed(node.value, ast.Constant(place.random.randint(2, 99)))


@of_a(ast.FunctionDef, that=_takes_arguments)
def branch_added(place: Place, node: Any) -> None:
    name, random = node.args.args[-1].arg, place.random
    test = f"len(repr({name})) % 2 == {random.randint(0, 1)}"
    text = f"if {test}:\n    return mix({name}, {random.randint(2, 99)})"
    node.body.insert(0, _statement(text))


@of_a(*_BODIES, that=lambda node: any(isinstance(each, ast.If) for each in node.body))
def branch_removed(place: Place, node: Any) -> bool:
    at = next(at for at, each in enumerate(node.body) if isinstance(each, ast.If))
    branch = node.body[at]
    node.body[at : at + 1] = branch.body if place.random.random() < 0.5 else branch.orelse
    return bool(node.body)


def end_of_block(place: Place) -> bool:
    """Let a block end one statement earlier, or later: the same instructions, other jumps."""
    return _end_moved(place, ast.If, ast.For, ast.While, ast.With)


def end_of_try(place: Place) -> bool:
    """The same of what is tried: the same instructions, other ranges of the exception table."""
    return _end_moved(place, ast.Try)


def _end_moved(place: Place, *kinds: type[Any]) -> bool:
    blocks = [
        (holder.body, at)
        for holder in place.nodes(*_BODIES)
        for at, each in enumerate(holder.body)
        if isinstance(each, kinds)
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


@of_a(ast.FunctionDef, ast.ClassDef, that=lambda node: node.decorator_list)
def decorator(place: Place, node: Any) -> bool:
    """Leave a decorator out, change their order, or add one; a step stays a step."""
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


@of_a(ast.FunctionDef)
def decorator_added(place: Place, node: Any) -> bool:
    known = [each for each in place.names() if each.startswith("deco")]
    if not known:
        return False
    node.decorator_list.append(ast.Name(place.random.choice(known), ast.Load()))
    return True


@of_a(ast.ClassDef, that=lambda node: node.bases)
def bases(place: Place, node: Any) -> bool:
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


@of_a(ast.ClassDef, that=lambda node: node.keywords)
def metaclass(place: Place, node: Any) -> None:
    del node.keywords[place.random.randrange(len(node.keywords))]


def _members(node: Any) -> list[ast.Assign]:
    return [each for each in node.body if isinstance(each, ast.Assign)]


def _is_enum(node: Any) -> bool:
    return any(ast.unparse(base).startswith("enum.") for base in node.bases)


@of_a(ast.ClassDef, that=lambda node: _is_enum(node) and _members(node))
def member_of_an_enum(place: Place, node: Any) -> None:
    """Give a member another value, or let it change places with another one."""
    members = _members(node)
    one, other = place.random.choices(members, k=2)
    if place.random.random() < 0.5 and one is not other:
        one.value, other.value = other.value, one.value
    else:
        one.value = ast.Constant(2 ** place.random.randint(0, 9))


@of_a(ast.ClassDef)
def class_attribute(place: Place, node: Any) -> None:
    """Add an attribute, which may hide one of a base, or a method that Python looks for."""
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
    node.body.append(_statement(text))


def methods_swapped(place: Place) -> bool:
    """Let two functions inside a statement exchange their bodies."""
    nodes = [each for each in place.nodes(ast.FunctionDef) if each.name != "__getattribute__"]
    if len(nodes) < 2:
        return False
    one, other = place.random.sample(nodes, 2)
    one.name, other.name = other.name, one.name
    return True


@of_a(ast.Try)
def handler(place: Place, node: Any) -> bool:
    """Catch another exception, or let the `else` and `finally` of a `try` go."""
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
    parameters_exchanged,
    kind_of_parameters,
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
    end_of_try,
    end_of_try,
    decorator,
    decorator_added,
    bases,
    metaclass,
    class_attribute,
    member_of_an_enum,
    member_of_an_enum,
    member_of_an_enum,
    methods_swapped,
    handler,
    imported,
    imported_module,
)
