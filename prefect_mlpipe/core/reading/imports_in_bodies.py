"""What imports inside a function body bind, and what the body reads of that.

Knows decoded instructions. Knows nothing of modules: which one is meant, and what it holds, is for
the reader of globals to find.

Worth arguing: a variable that is bound by an import is followed to each place where it is read, so
that `import helpers` and then `helpers.clean` reads that function alone, as a global would. What
cannot be followed counts as the whole module.
"""

from __future__ import annotations

import re
from types import CodeType
from typing import Any, Final, NamedTuple

from prefect_mlpipe.core.reading.instructions import Instructions, decoded
from prefect_mlpipe.core.reading.opcodes import (
    ATTRIBUTE,
    GLOBAL,
    IMPORT_FROM,
    IS_CONST,
    LOAD,
    OF_CELLS,
    SHUFFLES,
    STORE,
    STORE_CELL,
)

# A constant that can be the name of a module.
_MODULE: Final = re.compile(r"(\.*)([^\W\d]\w*(?:\.[^\W\d]\w*)*)")


class Import(NamedTuple):
    """An import inside a body.

    Attributes:
        name: the module as written, without leading dots.
        level: number of leading dots.
        top: whether what is bound is the package at the top, as by `import a.b.c`.
        chains: attribute chains read of what is bound; `()` for the module itself.
    """

    name: str
    level: int
    top: bool
    chains: tuple[tuple[str, ...], ...]


def imported_by(body: Instructions, at: int) -> Import:
    """Return what is imported by the statement whose `IMPORT_NAME` stands here."""
    level, wanted = _operand(body, at - 2), _operand(body, at - 1)
    chains: dict[tuple[str, ...], None] = {}
    top = wanted is None
    for step in range(at + 1, len(body.operations)):
        operation = body.operations[step]
        if operation == IMPORT_FROM:
            if wanted is None:
                top = False  # import a.b as c
            else:
                member = (body.name(step),)
                uses = _uses(body, step + 1) or [()]  # unused, it is no reason to take more
                chains.update((member + use, None) for use in uses)
        elif wanted is None and operation not in SHUFFLES:
            chains.update((use, None) for use in _uses(body, step))
            break
        elif wanted is not None and operation in SHUFFLES:
            break
    return Import(body.name(at), int(level or 0), top, tuple(chains) or ((),))


def imported_by_name(body: Instructions, at: int) -> Import | None:
    """Return what is imported by the constant behind `import_module` or `sys.modules` here."""
    operand = _operand(body, _behind(body, at))
    found = _MODULE.fullmatch(operand) if isinstance(operand, str) else None
    if found is None:
        return None
    dots, module = found.groups()
    return Import(module, len(dots), body.name(at) == "__import__", ((),))


def asks_for_itself(body: Instructions, at: int) -> bool:
    """Whether `__name__` stands behind `import_module` or `sys.modules` here."""
    behind = _behind(body, at)
    return body.operations[behind] in GLOBAL and body.name(behind) == "__name__"


def _behind(body: Instructions, at: int) -> int:
    at += 1
    while body.operations[at] in ATTRIBUTE:  # sys.modules.get
        at += 1
    return at


def _operand(body: Instructions, at: int) -> Any:
    argument = body.arguments[at]
    return body.code.co_consts[argument] if IS_CONST[body.operations[at]] else argument


def _uses(body: Instructions, at: int) -> list[tuple[str, ...]]:
    """Return the attribute chains read of the local that is stored here; `()` for all of it."""
    variable = body.arguments[at]
    if body.operations[at] == STORE_CELL:
        return _uses_of_cell(body, _variable(body.code, variable))
    touched = [
        (where, operation)
        for where, operation in enumerate(body.operations)
        if body.arguments[where] == variable and (operation == STORE or operation in LOAD)
    ]
    if body.operations[at] != STORE or [each for _, each in touched].count(STORE) > 1:
        return [()]
    return [_attributes_after(body, where) for where, each in touched if each != STORE]


def _variable(code: CodeType, number: int) -> str:
    cells = [name for name in code.co_cellvars if name not in code.co_varnames]
    return str([*code.co_varnames, *cells, *code.co_freevars][number])


def _uses_of_cell(body: Instructions, name: str) -> list[tuple[str, ...]]:
    """Return the same for a variable that nested code sees too."""
    code = body.code
    found: list[tuple[str, ...]] = []
    stores = 0 if name in code.co_freevars else -1
    for at, operation in enumerate(body.operations):
        if operation not in OF_CELLS or _variable(code, body.arguments[at]) != name:
            continue
        if operation == STORE_CELL:
            stores += 1
        else:
            found.append(_attributes_after(body, at))
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and name in constant.co_freevars:
            found += _uses_of_cell(decoded(constant), name)
    return [()] if stores > 0 else found


def _attributes_after(body: Instructions, at: int) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    while body.operations[at := at + 1] in ATTRIBUTE:
        found += (body.name(at),)
    return found
