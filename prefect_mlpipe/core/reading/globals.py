"""Encode what the names of modules stand for: globals that code reads, imports in it, modules.

Knows how a global is found, what of a module counts, and whose code is followed. Knows nothing of
functions: code that a name stands for is encoded as any value is.

Worth arguing: of a module that code reads attributes of, those attributes count and not the rest. A
module that is used in any other way counts as a whole.
"""

from __future__ import annotations

import builtins
import functools
import importlib.machinery
import os
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.parts import (
    MISSING,
    Asks,
    Attributes,
    Binding,
    Content,
    Part,
    foreign,
    label_of_module,
    own_and_whole,
)
from prefect_mlpipe.core.encoding.pieces import Piece, count, packed, record, text, threads
from prefect_mlpipe.core.environment import owner_of
from prefect_mlpipe.core.reading.grafts import in_place_of
from prefect_mlpipe.core.reading.imports import absolute_name, find_module
from prefect_mlpipe.core.reading.imports_in_bodies import Import
from prefect_mlpipe.core.reading.shapes import asked_by_text

# Where a module lies, what it is called and what it says of itself is not what it does.
_MODULE_NOISE: Final = frozenset(
    {
        "__annotate__",
        "__annotations__",
        "__builtins__",
        "__cached__",
        "__conditional_annotations__",
        "__doc__",
        "__file__",
        "__loader__",
        "__name__",
        "__package__",
        "__path__",
        "__spec__",
        "__warningregistry__",
    }
)

_CODE: Final = (types.FunctionType, type, types.ModuleType)
_EXTENSIONS: Final = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_UP_AT_MOST: Final = 2

# What a name can stand for besides a value; no piece of a value begins like these.
IGNORED: Final = b"\x8bignored"
_NOISE: Final = b"\x8bnoise"
_BUILTIN: Final = b"\x8bbuiltin"
_UNBOUND: Final = b"\x8bunbound"


def read_globals(
    encoder: Encoder, names: dict[str, Any], chains: Iterable[tuple[str, ...]]
) -> list[Piece]:
    """Encode what globals, each followed by attributes of user modules, stand for."""
    known = encoder.reads.setdefault(id(names), {})
    reach = encoder.reach
    pieces: list[Piece] = []
    for chain in chains:
        found = known.get(chain)
        if found is None:
            found = _read_global(encoder, names, chain)
            if isinstance(found[0], bytes):  # else it is part of a cycle still open
                known[chain] = found
        pieces.append(found[0])
        reach.append(found[1])
    return pieces


def _read_global(
    encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]
) -> tuple[Piece, list[Any]]:
    """Return what a global stands for, and what it reaches."""
    if chain[0] in _MODULE_NOISE and chain[0] != "__doc__":
        return _NOISE, []
    outer, encoder.reach = encoder.reach, []
    piece = (_read if chain[0] in names else _read_builtin)(encoder, names, chain)
    reach, encoder.reach = encoder.reach, outer
    return piece, reach


def _read_builtin(encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]) -> Piece:
    name = chain[0]
    value = vars(builtins).get(name, MISSING)
    encoder.reach += (Binding(names, name, MISSING), Binding(vars(builtins), name, value))
    if value is MISSING:
        return _UNBOUND
    if getattr(value, "__module__", None) == "builtins" and not isinstance(
        value, types.FunctionType
    ):
        return _BUILTIN
    return _read_value(encoder, vars(builtins), name, value)


def _read(encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]) -> Piece:
    name, *rest = chain
    if encoder.ignore and f"{label_of_module(names)}.{name}" in encoder.ignore:
        return IGNORED
    value = names.get(name, MISSING)
    encoder.reach.append(Binding(names, name, value))
    if value is MISSING:
        return _read_late(encoder, names, chain)
    if isinstance(value, types.ModuleType):
        return _read_module(encoder, value, tuple(rest))
    return _read_value(encoder, names, name, _portable(names, value))


def _read_late(encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]) -> Piece:
    """Encode what a module does not hold yet: a submodule, or what it gives when asked."""
    module = sys.modules.get(str(names.get("__name__")))
    if module is None or vars(module) is not names:
        return _UNBOUND
    if "__getattr__" in names or type(module) is not types.ModuleType:
        try:
            value = getattr(module, chain[0])
        except Exception:  # whatever the user's code raises, the step would get it too
            return encode_namespace(encoder, names)
        if not isinstance(value, types.ModuleType):
            encoder.reach.append(Content(value, None))  # asked anew by each reader
        # As if it had been there: many put it there when first asked.
        return _read(encoder, {**names, chain[0]: value}, chain)
    found = (
        find_module(encoder, f"{module.__name__}.{chain[0]}") if "__path__" in names else _UNBOUND
    )
    if isinstance(found, types.ModuleType):
        return _read_module(encoder, found, chain[1:])
    return _UNBOUND


def _read_module(encoder: Encoder, module: types.ModuleType, chain: tuple[str, ...]) -> Piece:
    owner = owner_of(module.__name__)
    if owner.kind == "user":
        if not chain or (getattr(module, "__file__", None) or "").endswith(_EXTENSIONS):
            return encode_module(encoder, module)
        if chain[0] in _MODULE_NOISE and chain[0] != "__doc__":
            return _NOISE
        if chain[0] not in vars(module) and hasattr(types.ModuleType, chain[0]):
            return encode_module(encoder, module)  # as by module.__dict__
        return _read(encoder, vars(module), chain)
    users = in_place_of(encoder, module, chain)
    if users is not MISSING:
        return encoder.encode(users)
    inner = vars(module).get(chain[0]) if chain else None
    if isinstance(inner, types.ModuleType) and getattr(module, "__file__", None) is None:
        return _read_module(encoder, inner, chain[1:])  # a namespace shared by distributions
    return foreign(encoder, owner, module.__name__, "")


def _read_value(encoder: Encoder, names: dict[str, Any], name: str, value: object) -> Piece:
    """Encode the value of a global; it is a part of its own unless it is code."""
    if isinstance(value, _CODE):
        return encoder.encode(value)
    label = f"{label_of_module(names)}.{name}"
    encoder.trail.append((label, len(encoder.open)))
    own, whole = own_and_whole(encoder, value)
    encoder.trail.pop()
    asks = asked_by_text(value)
    if asks:
        encoder.reach.append(Asks(asks))
    if encoder.code_as is None:
        encoder.reach.append(Part(label, blake3(own).digest(), value))
    return whole


def _portable(names: dict[str, Any], value: object) -> object:
    """Return a path below or near the module's own file relative to it: a project can move."""
    if not isinstance(value, (str, PurePath)) or not isinstance(names.get("__file__"), str):
        return value
    place = os.path.dirname(os.path.abspath(names["__file__"]))
    if not os.path.isabs(value) or os.path.dirname(place) == place:
        return value
    relative = os.path.relpath(value, place)
    up = relative.split(os.sep).count(os.pardir)
    if up > _UP_AT_MOST or (up and len(place.split(os.sep)) - up < _UP_AT_MOST + 1):
        return value
    return ("relative to the module", type(value).__name__, relative.replace(os.sep, "/"))


def imported(encoder: Encoder, names: dict[str, Any], found: Import) -> Iterable[Piece]:
    """Encode what an import in a body of this module binds."""
    name = absolute_name(names, found)
    module = find_module(encoder, name, found.top)
    if not isinstance(module, types.ModuleType):
        yield from (module for _ in found.chains)  # as many as if it were loaded
        return
    if found.top:
        module = sys.modules[name.partition(".")[0]]
    for chain in found.chains:
        if chain and owner_of(module.__name__).kind == "user" and chain[0] not in vars(module):
            find_module(encoder, f"{module.__name__}.{chain[0]}")  # from package import module
        yield _read_module(encoder, module, chain)


# Modules


def encode_module(encoder: Encoder, module: types.ModuleType) -> Piece:
    """Encode a module: all of it where it is the user's, else by name."""
    owner = owner_of(module.__name__)
    if owner.kind != "user":
        return foreign(encoder, owner, module.__name__, "")
    file = getattr(module, "__file__", None) or ""
    if file.endswith(_EXTENSIONS):
        found = _hash_of_file(file, os.stat(file).st_mtime_ns)
        encoder.reach.append(Part(module.__name__, found, module))
        return packed("extension", found)
    return encode_namespace(encoder, vars(module))


@functools.cache
def _hash_of_file(file: str, modified_ns: int) -> bytes:
    return blake3(max_threads=threads()).update_mmap(file).digest()


class _Namespace:
    """The names of a module as a thing of its own: as a value, that dict is a plain dict."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names


def encode_namespace(encoder: Encoder, names: dict[str, Any]) -> Piece:
    """Encode all names of a module."""
    space = encoder.spaces.setdefault(id(names), _Namespace(names))
    return encoder.in_code(space, label_of_module(names), _namespace_parts)


def _namespace_parts(encoder: Encoder, space: _Namespace) -> Sequence[Piece]:
    names = space.names
    counted = sorted(name for name in names if name not in _MODULE_NOISE)
    encoder.reach.append(Attributes(names, tuple(names.values())))
    pieces: list[Piece] = []
    for name in counted:
        pieces += (text(name), _read(encoder, names, (name,)))
    return record("module", count(len(counted)), *pieces)


Encoder.handlers[types.ModuleType] = encode_module
