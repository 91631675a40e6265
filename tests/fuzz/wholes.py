"""Which modules of a project are taken whole, so that all that they hold counts.

Says it from the source alone, as DESIGN has it: a module that is used bare cannot be followed.
Knows nothing of the reader of code, which it is there to judge, and not what the pipeline reaches:
it rather names a module too many, whose edits are then counted apart, than one too few.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from tests.fuzz.projects import Project

_READS_ALL = frozenset({"globals", "eval", "exec", "vars", "locals", "dir"})
_BY_NAME = frozenset({"import_module", "__import__"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

Table = dict[str, set[str]]  # name → modules that it may stand for


def taken_whole(project: Project) -> frozenset[str]:
    """The modules that something in the project may take whole."""
    trees = {name: ast.parse(project.source(name)) for name in project.modules}
    tables = _tables(trees)
    waiting = [name for module in trees for name in _taken(module, trees[module], tables)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)  # and with it, the modules that it holds
            waiting += (each for held in tables.get(name, {}).values() for each in held)
    return frozenset(found)


def bound_by(node: ast.Import | ast.ImportFrom) -> frozenset[str]:
    """The names that an import gives a meaning."""
    return frozenset(
        alias.asname
        or (alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name)
        for alias in node.names
    )


def _tables(trees: dict[str, ast.Module]) -> dict[str, Table]:
    """The names of each module that may stand for modules, those inside functions among them."""
    tables: dict[str, Table] = {module: {} for module in trees}
    for module in trees:
        package, _, inner = module.rpartition(".")
        if package:
            tables[package].setdefault(inner, set()).add(module)
    for _ in range(3):  # an alias of an alias of a module, in another module: no edit goes further
        for module, tree in trees.items():
            for name, meant in _bindings(module, tree, tables):
                tables[module].setdefault(name, set()).update(meant)
    return tables


def _bindings(
    module: str, tree: ast.Module, tables: dict[str, Table]
) -> Iterator[tuple[str, set[str]]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    top = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or top, {top} & tables.keys()
            case ast.ImportFrom():
                source = _absolute(module, node, tables)
                for alias in node.names:
                    if alias.name == "*":
                        yield f"* of {source}", {source} & tables.keys()
                        yield from tables.get(source, {}).items()
                    else:
                        meant = tables.get(source, {}).get(alias.name, set())
                        yield alias.asname or alias.name, meant
            case ast.Assign(targets=[ast.Name(name)], value=value):
                yield name, _meant(value, tables[module], tables)


def _absolute(module: str, node: ast.ImportFrom, tables: dict[str, Table]) -> str:
    if not node.level:
        return node.module or ""
    is_package = any(other.startswith(f"{module}.") for other in tables)
    package = module if is_package else module.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def _meant(node: Any, table: Table, tables: dict[str, Table]) -> set[str]:
    """The modules that an expression may stand for."""
    match node:
        case ast.Name(name):
            return table.get(name, set())
        case ast.Attribute(value, name):
            holders = _meant(value, table, tables)
            return {each for one in holders for each in tables.get(one, {}).get(name, ())}
    return set()


def _taken(module: str, tree: ast.Module, tables: dict[str, Table]) -> Iterator[str]:
    table = tables[module]
    followed = {id(each) for each in _followed(tree, table, tables)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(name) if name in _READS_ALL:
                yield module
            case ast.Attribute(value, name) if name.startswith("__"):
                yield from _meant(value, table, tables)
            case ast.Call(ast.Name(name) | ast.Attribute(_, name), [ast.Constant(str(value)), *_]):
                yield from {value} & tables.keys() if name in _BY_NAME else ()
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in followed:
            yield from _meant(node, table, tables) if _is_read(node) else ()
        if isinstance(node, _FUNCTIONS):
            yield from _not_followed_inside(node, table, tables)


def _followed(tree: ast.Module, table: Table, tables: dict[str, Table]) -> Iterator[ast.AST]:
    """What stands before a dot, and what a global of the module is a mere alias of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.value
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield node.value


def _not_followed_inside(function: Any, table: Table, tables: dict[str, Table]) -> Iterator[str]:
    """What a body imports and does not use, or binds more than once."""
    nodes = [*ast.walk(function)]
    read = {each.id for each in nodes if isinstance(each, ast.Name) and _is_read(each)}
    stored = [each.id for each in nodes if isinstance(each, ast.Name) and not _is_read(each)]
    imports = [each for each in nodes if isinstance(each, ast.Import | ast.ImportFrom)]
    stored += [name for each in imports for name in bound_by(each)]
    for name in {name for each in imports for name in bound_by(each)}:
        if name not in read or stored.count(name) > 1:
            yield from table.get(name, ())


def _is_read(node: ast.Name | ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Load)
