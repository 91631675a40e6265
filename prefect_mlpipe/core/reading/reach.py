"""Encode functions and modules with everything that they can reach in the user's code.

Knows how a global is found, what of a module counts, and whose code is followed. Knows nothing of
keys. Classes are encoded by `core.encoding.classes`, which builds on this.

Worth arguing: a function is encoded as any other value is, its globals being what it holds. So a
function inside a dict inside an argument, and a dict of functions read by a step, are one case; and
mutual recursion is a cycle like that of a list in itself.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.encoding.encode import Encoder, as_leaf, defines
from prefect_mlpipe.core.encoding.parts import (
    MISSING,
    Asks,
    Attributes,
    Binding,
    Content,
    Part,
    content_of,
    foreign,
    label_of_module,
    own_and_whole,
    owner_of_function,
)
from prefect_mlpipe.core.encoding.pieces import (
    SCALARS,
    Piece,
    count,
    packed,
    record,
    scalar,
    text,
    threads,
    unordered,
)
from prefect_mlpipe.core.environment import Owner, owner_of
from prefect_mlpipe.core.reading.bytecode import READS_ALL, Import, shape_of
from prefect_mlpipe.core.reading.grafts import grafted, in_place_of
from prefect_mlpipe.core.reading.imports import absolute_name, find_module

# Where a module lies, what it is called and what it says of itself is not what it does.
MODULE_NOISE: Final = frozenset(
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
_ATTRIBUTE_NOISE: Final = frozenset({"__mlpipe_effects__", "pytestmark"})
_UP_AT_MOST: Final = 2

# What a name can stand for besides a value; no piece of a value begins like these.
_NOISE: Final = b"\x8bnoise"
_BUILTIN: Final = b"\x8bbuiltin"
_UNBOUND: Final = b"\x8bunbound"
_IGNORED: Final = b"\x8bignored"


# Functions


def encode_function(encoder: Encoder, function: types.FunctionType) -> Piece:
    """Encode a function: the user's by what it does, another's by name and what it holds."""
    owner = owner_of_function(function)
    if owner.kind != "user":
        return _foreign_function(encoder, function, owner)
    label = _label(function)
    return encoder.in_code(function, label, lambda _, value: _function_parts(encoder, value, label))


def _label(function: types.FunctionType) -> str:
    return f"{label_of_module(function.__globals__)}.{function.__code__.co_qualname}"


def _function_parts(encoder: Encoder, function: types.FunctionType, label: str) -> Sequence[Piece]:
    shape = shape_of(function.__code__)
    held = held_by(function)
    pairs = [_held_piece(encoder, f"{label}.{name}", value) for _, name, value in held]
    places = [text(place + name) for place, name, _ in held]
    own = blake3(b"".join((shape.digest, *places, *(own for own, _ in pairs)))).digest()
    if not _is_generated(function.__code__):
        encoder.reach.append(Part(label, own, function))
    encoder.reach.append(_attributes_of(function))
    if shape.asks:
        encoder.reach.append(Asks(shape.asks))
    names = function.__globals__
    reads = read_globals(encoder, names, shape.chains)
    reads += map(encoder.encode, grafted(encoder, function.__code__))
    imports = [piece for each in shape.imports for piece in _imported(encoder, names, each)]
    if shape.reads_all and not names.keys() & READS_ALL:
        reads.append(encode_namespace(encoder, names))
    wholes = [
        piece for place, (_, whole) in zip(places, pairs, strict=True) for piece in (place, whole)
    ]
    return record("function", shape.digest, count(len(held)), *wholes, *reads, *imports)


def _is_generated(code: types.CodeType) -> bool:
    """Whether a library has written the code from what a class declares, which is named instead."""
    written = code.co_filename.startswith("<attrs generated ")
    return written or code.co_qualname.startswith("__create_fn__.")  # by `dataclasses`


def held_by(function: types.FunctionType) -> list[tuple[str, str, object]]:
    """Return what a function object holds besides its code: place, name, value."""
    code, defaults = function.__code__, function.__defaults__ or ()
    if not (defaults or function.__kwdefaults__ or function.__dict__ or function.__closure__):
        return []
    positional = code.co_varnames[: code.co_argcount]
    names = positional[len(positional) - len(defaults) :]
    keywords, attributes = function.__kwdefaults__ or {}, vars(function)
    return [
        *(("default ", *each) for each in zip(names, defaults, strict=True)),
        *(("default ", name, keywords[name]) for name in sorted(keywords)),
        *(
            ("attribute ", name, attributes[name])
            for name in sorted(attributes)
            if name not in _ATTRIBUTE_NOISE
        ),
        *(
            (f"cell {at}", name, _cell_content(cell))
            for at, (name, cell) in enumerate(
                zip(code.co_freevars, function.__closure__ or (), strict=True)
            )
        ),
    ]


def _held_piece(encoder: Encoder, label: str, value: object) -> tuple[bytes, Piece]:
    if label in encoder.ignore or value is MISSING:
        return _IGNORED, _IGNORED
    if type(value) in SCALARS:
        return own_and_whole(encoder, value)
    encoder.trail.append((label, len(encoder.open)))
    pair = own_and_whole(encoder, value)
    encoder.trail.pop()
    return pair


def _attributes_of(function: types.FunctionType) -> Attributes:
    return Attributes(function, attribute_values(function))


def attribute_values(function: types.FunctionType) -> tuple[object, ...]:
    """Return what a function is made of, each to be compared by identity."""
    cells = function.__closure__
    return (
        function.__code__,
        function.__defaults__,
        function.__kwdefaults__,
        *(vars(function).values() if function.__dict__ else ()),
        *(map(_cell_content, cells) if cells else ()),
    )


def _cell_content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # filled later, or never
        return MISSING


def _cells(function: types.FunctionType) -> list[object]:
    contents = map(_cell_content, function.__closure__ or ())
    return [types.CellType() if each is MISSING else each for each in contents]


def _foreign_function(encoder: Encoder, function: types.FunctionType, owner: Owner) -> Piece:
    """Encode a function of a library; one that wraps a function of the user's holds that."""
    module, name = str(function.__globals__.get("__name__")), function.__code__.co_qualname
    piece = foreign(encoder, owner, module, name)
    if (module, name) == ("functools", "singledispatch.<locals>.wrapper"):
        return encoder.in_code(function, "", _singledispatch)
    wrapped = vars(function).get("__wrapped__")
    if (function.__closure__ is None and wrapped is None) or owner.kind == "ours":
        return piece
    held = [*_cells(function), wrapped]

    label = f"{module}.{name}"

    def parts(encoder: Encoder, _: object) -> Sequence[Piece]:
        pairs = [own_and_whole(encoder, each) for each in held]
        own = blake3(b"".join(own for own, _ in pairs)).digest()
        if not module.startswith("attr."):  # what it makes of a class is named by the class
            encoder.reach.append(Part(label, own, function))
        encoder.reach.append(_attributes_of(function))
        return record("wrapper", piece, *(whole for _, whole in pairs))

    return encoder.in_code(function, label, parts)


def _singledispatch(encoder: Encoder, function: Any) -> Sequence[Piece]:
    # Its closure holds a cache that fills as it is called.
    registry = dict(function.registry)
    encoder.reach.append(Content(function.registry, content_of(registry)))
    general = registry[object]
    if isinstance(general, types.FunctionType):
        kinds = sorted(text(kind.__qualname__) for kind in registry)
        encoder.reach.append(Part(_label(general), blake3(b"".join(kinds)).digest(), general))
    pairs = (encoder.encode(pair) for pair in registry.items())
    return record("singledispatch", *unordered(pairs))


# What a function reads


def read_globals(
    encoder: Encoder, names: dict[str, Any], chains: Iterable[tuple[str, ...]]
) -> list[Piece]:
    """Encode what globals, each followed by attributes of user modules, stand for."""
    known = encoder.reads.setdefault(id(names), {})
    pieces: list[Piece] = []
    for chain in chains:
        found = known.get(chain)
        if found is None:
            found = _read_global(encoder, names, chain)
            if isinstance(found[0], bytes):  # else it is part of a cycle still open
                known[chain] = found
        pieces.append(found[0])
        encoder.reach.append(found[1])
    return pieces


def _read_global(
    encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]
) -> tuple[Piece, list[Any]]:
    """Return what a global stands for, and what it reaches."""
    if chain[0] in MODULE_NOISE and chain[0] != "__doc__":
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
    return read_value(encoder, f"builtins.{name}", value)


def _read(encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]) -> Piece:
    name, *rest = chain
    label = f"{label_of_module(names)}.{name}"
    if label in encoder.ignore:
        return _IGNORED
    value = names.get(name, MISSING)
    encoder.reach.append(Binding(names, name, value))
    if value is MISSING:
        return _read_late(encoder, names, chain)
    if isinstance(value, types.ModuleType):
        return _read_module(encoder, value, tuple(rest))
    return read_value(encoder, label, _portable(names, value))


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
        if chain[0] in MODULE_NOISE and chain[0] != "__doc__":
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


def read_value(encoder: Encoder, label: str, value: object) -> Piece:
    """Encode the value of a global; it is a part of its own unless it is code."""
    if isinstance(value, _CODE):
        return encoder.encode(value)
    encoder.trail.append((label, len(encoder.open)))
    own, whole = own_and_whole(encoder, value)
    encoder.trail.pop()
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


def _imported(encoder: Encoder, names: dict[str, Any], found: Import) -> Iterable[Piece]:
    name = absolute_name(names, found)
    module = find_module(encoder, name)
    if not isinstance(module, types.ModuleType):
        yield module
        return
    if found.top:
        module = sys.modules[name.partition(".")[0]]
    for chain in found.chains:
        if chain and owner_of(module.__name__).kind == "user" and chain[0] not in vars(module):
            find_module(encoder, f"{module.__name__}.{chain[0]}")  # from package import module
        yield _read_module(encoder, module, chain)


# Modules

_EXTENSIONS: Final = tuple(importlib.machinery.EXTENSION_SUFFIXES)


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
    counted = sorted(name for name in names if name not in MODULE_NOISE)
    encoder.reach.append(Attributes(names, tuple(names.values())))
    pieces: list[Piece] = []
    for name in counted:
        pieces += (text(name), _read(encoder, names, (name,)))
    return record("module", count(len(counted)), *pieces)


# Registration


def _builtin_function(encoder: Encoder, value: Any) -> Piece:
    holder = value.__self__
    if holder is None or isinstance(holder, types.ModuleType):
        module = value.__module__ or getattr(holder, "__name__", "")
        owner = owner_of(module)
        if owner.kind == "user" and module in sys.modules:
            return encode_module(encoder, sys.modules[module])
        return foreign(encoder, owner, module, value.__qualname__)
    if _is_hidden(holder):
        return foreign(encoder, owner_of(type(holder).__module__), "", value.__qualname__)
    return encoder.branch(
        value,
        lambda _, each: record("bound", encoder.encode(each.__self__), text(each.__name__)),
    )


def _compiled_function(encoder: Encoder, value: Any) -> Piece:
    module = str(value.__module__)
    owner = owner_of(module)
    if owner.kind == "user" and module in sys.modules:
        return encode_module(encoder, sys.modules[module])
    return foreign(encoder, owner, module, value.__qualname__)


def _method(encoder: Encoder, value: types.MethodType) -> Piece:
    if _is_hidden(value.__self__):
        return foreign(encoder, owner_of(type(value.__self__).__module__), "", value.__qualname__)
    return encoder.branch(
        value,
        lambda _, each: record(
            "method", encoder.encode(each.__func__), own_and_whole(encoder, each.__self__)[1]
        ),
    )


def _cython_function(encoder: Encoder, value: Any) -> Piece:
    module = str(value.__module__)
    owner = owner_of(module)
    if owner.kind == "user" and module in sys.modules:
        return encode_module(encoder, sys.modules[module])
    return foreign(encoder, owner, module, value.__qualname__)


def _is_hidden(holder: object) -> bool:
    """Whether an object is the generator behind `random.random` or `numpy.random.rand`."""
    for module, name in (("random", "_inst"), ("numpy.random.mtrand", "_rand")):
        if holder is getattr(sys.modules.get(module), name, MISSING):
            return True
    return False


def _slot(encoder: Encoder, value: Any) -> Piece:
    return encoder.branch(
        value,
        lambda _, each: record("slot", encoder.encode(each.__objclass__), text(each.__name__)),
    )


# What a decorator made with wrapt leaves: an object that passes for the function below it.
_PROXIES: Final = {("_wrappers", "FunctionWrapper"), ("wrapt.wrappers", "FunctionWrapper")}


def _proxy(encoder: Encoder, value: Any) -> Piece:
    library = foreign(encoder, owner_of("wrapt"), "wrapt", "FunctionWrapper")
    return encoder.branch(
        value,
        lambda _, each: record(
            "proxy", library, encoder.encode(each.__wrapped__), encoder.encode(each._self_wrapper)
        ),
    )


def _cached(encoder: Encoder, value: Any) -> Piece:
    """Encode a function below `lru_cache`, which gives one object time and again."""
    inner = value.__wrapped__
    if encoder.code_as is not None or not isinstance(inner, types.FunctionType):
        return encoder.encode(inner)
    settings = value.cache_parameters()
    how = packed("lru_cache", scalar((settings["typed"], settings["maxsize"] == 0)))
    encoder.reach.append(Part(_label(inner), blake3(how).digest(), inner))
    return encoder.branch(value, lambda _, each: record("cached", how, encoder.encode(inner)))


def _through(name: str) -> Any:
    """Count as what stands under an attribute."""
    return lambda encoder, value: encoder.encode(getattr(value, name))


def _find(kind: type) -> Any:
    if defines(kind, "__mlpipe_function__"):
        return _through("__mlpipe_function__")
    names = {(base.__module__, base.__qualname__) for base in kind.__mro__}
    if not names.isdisjoint({("prefect.tasks", "Task"), ("prefect.flows", "Flow")}):
        return _through("fn")
    if issubclass(kind, types.ModuleType):
        return encode_module
    if not names.isdisjoint(_PROXIES):
        return _proxy
    if kind.__name__ in ("cython_function_or_method", "fused_cython_function"):
        return _cython_function
    if kind is functools._lru_cache_wrapper:
        return _cached
    if kind.__name__ == "cython_function_or_method":  # every Cython has a type of its own
        return _compiled_function
    return None


Encoder.finders.append(_find)
Encoder.handlers.update(
    {
        types.FunctionType: encode_function,
        types.ModuleType: encode_module,
        types.MethodType: _method,
        types.BuiltinFunctionType: _builtin_function,
        types.MethodWrapperType: _builtin_function,
        types.WrapperDescriptorType: _slot,
        types.MethodDescriptorType: _slot,
        types.ClassMethodDescriptorType: _slot,
        types.GetSetDescriptorType: _slot,
        types.MemberDescriptorType: _slot,
        types.CodeType: as_leaf(lambda _, code: packed("code", shape_of(code).digest)),
    }
)
