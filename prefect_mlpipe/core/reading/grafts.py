"""What the user has put into libraries: functions in the place of theirs, methods of tables.

Knows modules and the classes that people extend. Knows nothing of digests.

Worth arguing: code of a library counts by version, so what was put into it would be seen by nobody.
A name that is read of a library's module is looked up, and is followed if it leads to the user's
code. An attribute of a local could be anybody's: it counts if it has the name of something that
the user has added to one of a few classes that are made to be extended.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from prefect_mlpipe.core.encoding.classes import added_by_user, owner_of_class
from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.parts import MISSING, Binding, owner_of_function

_EXTENDED: Final = {
    "pandas": ("DataFrame", "Series", "Index"),
    "polars": ("DataFrame", "LazyFrame", "Series", "Expr"),
    "torch": ("Tensor",),
    "xarray": ("Dataset", "DataArray"),
}

Grafts = dict[str, list[tuple[type, object]]]  # attribute → classes that have it of the user


def in_place_of(encoder: Encoder, module: ModuleType, chain: Sequence[str]) -> object:
    """Return what of the user's a name of a library's module leads to, `MISSING` if nothing.

    Also a class of the library's that the user has put functions into.
    """
    holder: Any = module
    for name in chain:
        value = vars(holder).get(name, MISSING)
        if isinstance(holder, ModuleType):
            encoder.reach.append(Binding(vars(holder), name, value))
        if is_users(value):
            return value
        if isinstance(value, type) and added_by_user(value):
            return value
        if not isinstance(value, (ModuleType, type)):
            return MISSING
        holder = value
    return MISSING


def is_users(value: object) -> bool:
    """Whether a function, class or property is the user's."""
    if isinstance(value, FunctionType):
        return owner_of_function(value).kind == "user"
    if isinstance(value, type):
        return owner_of_class(value).kind == "user"
    return isinstance(value, property) and is_users(value.fget)


def grafted(encoder: Encoder, code: CodeType) -> list[object]:
    """Return what of the user's attributes have the names of that this code reads."""
    if encoder.grafts is None:
        encoder.grafts = _grafts()
    if not encoder.grafts:
        return []
    found = []
    for name in sorted(encoder.grafts.keys() & set(_names(code))):
        for kind, value in encoder.grafts[name]:
            encoder.reach.append(Binding(vars(kind), name, vars(kind)[name]))  # type: ignore[arg-type]
            found.append(value)
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _grafts() -> Grafts:
    found: Grafts = {}
    for library, kinds in _EXTENDED.items():
        names = vars(sys.modules[library]) if library in sys.modules else {}
        for kind in [names[name] for name in kinds if isinstance(names.get(name), type)]:
            for name, value in vars(kind).items():
                graft = _graft(library, value)
                if graft is not None:
                    found.setdefault(name, []).append((kind, graft))
    return found


def _graft(library: str, value: Any) -> object | None:
    """Return what of the user's an attribute of a library's class is or holds."""
    if isinstance(value, (FunctionType, property, type)):
        theirs = str(getattr(value, "__module__", "")).partition(".")[0] == library
        return value if not theirs and is_users(value) else None
    held = getattr(value, "__dict__", None)  # an accessor is an object that holds a class
    if not isinstance(held, dict):
        return None
    return next((each for each in held.values() if _graft(library, each) is not None), None)
