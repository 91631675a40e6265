"""Encode functions and modules with everything that they can reach in the user's code.

Knows how a global is found, what of a module counts, and whose code is followed. Knows nothing of
keys. Classes are encoded by `core.classes`, which builds on this.

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
from typing import Any, Final, NamedTuple

from blake3 import blake3

from prefect_mlpipe.core.bytecode import READS_ALL, Import, shape_of
from prefect_mlpipe.core.encode import (
    SCALARS,
    Encoder,
    Piece,
    as_leaf,
    count,
    packed,
    record,
    scalar,
    text,
    unordered,
)
from prefect_mlpipe.core.environment import Owner, owner_of

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
_IMMUTABLE: Final = SCALARS | {types.FunctionType, type, types.BuiltinFunctionType, range}
_ATTRIBUTE_NOISE: Final = frozenset({"__mlpipe_effects__", "pytestmark"})
MISSING: Final = object()
_UP_AT_MOST: Final = 2


class Part(NamedTuple):
    """A function, class or global value that code reaches.

    Attributes:
        label: module-qualified name.
        own: digest of it alone.
        value: the thing itself, for its source.
    """

    label: str
    own: bytes
    value: object


class Binding(NamedTuple):
    """A name, and what it meant when it was read."""

    names: dict[str, Any]
    name: str
    value: object


class Content(NamedTuple):
    """A value that can change in place, and its piece when it was read; `None` if inside a cycle."""

    value: object
    piece: bytes | None


class Attributes(NamedTuple):
    """What the attributes of a function or a class, or the names of a module, were."""

    holder: object
    values: tuple[object, ...]


def present(value: object) -> bytes:
    """Stand for code in the digest of a part alone."""
    return b"code"


def identity(value: object) -> bytes:
    """Stand for code where only its identity is asked."""
    return packed("code", scalar(id(value)))


def label_of_module(names: dict[str, Any]) -> str:
    """Return the name under which a module can be imported, for `__main__` too."""
    name = names.get("__name__")
    if name != "__main__":
        return str(name or "__main__")
    spec, file = names.get("__spec__"), names.get("__file__")
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"


def owner_of_function(function: types.FunctionType) -> Owner:
    """Return whose code a function is; what it is called, and what it wraps, does not matter."""
    names = function.__globals__
    name = names.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is not None and vars(module) is names:
        return owner_of(module.__name__)
    file = names.get("__file__") or function.__code__.co_filename
    return owner_of(str(name), file if os.path.isabs(file) else "<made>")


def foreign(encoder: Encoder, owner: Owner, module: str, name: str) -> bytes:
    """Encode what is not the user's by name, and note whose it is."""
    encoder.reach.extend(owner.distributions)
    return packed("foreign", text(module), text(name))


def own_and_whole(encoder: Encoder, value: object) -> tuple[bytes, Piece]:
    """Return the piece of a value alone, without the code in it, and the whole one."""
    if type(value) in SCALARS:
        piece = encoder.encode(value)
        return piece, piece  # type: ignore[return-value]
    before = len(encoder.reach)
    whole = encoder.encode(value)
    plain = isinstance(whole, bytes) and not _has_code(encoder.reach[before:])
    if type(value) not in _IMMUTABLE:
        content = whole if plain else _without_code(encoder, value, identity)
        encoder.reach.append(Content(value, content))  # type: ignore[arg-type]
    if plain:
        return whole, whole  # type: ignore[return-value]
    return _without_code(encoder, value, present), whole


def _has_code(reach: Iterable[Any]) -> bool:
    """Whether anything but names of distributions was reached."""
    return any(
        _has_code(each) if type(each) is list else type(each) is not str for each in reach
    )


def _without_code(encoder: Encoder, value: object, code_as: Any) -> bytes:
    inner = Encoder(encoder.buffers, ignore=encoder.ignore, code_as=code_as)
    inner.code_depth = 1
    return inner.whole(value)


def content_of(value: object) -> bytes:
    """Return the piece of a value, code in it by identity: has it changed since it was read?"""
    return _without_code(Encoder(), value, identity)


# Functions


def encode_function(encoder: Encoder, function: types.FunctionType) -> Piece:
    """Encode a function: the user's by what it does, another's by name and what it holds."""
    owner = owner_of_function(function)
    if owner.kind != "user":
        return _foreign_function(encoder, function, owner)
    label = f"{label_of_module(function.__globals__)}.{function.__code__.co_qualname}"
    return encoder.in_code(
        function, label, lambda _, value: _function_parts(encoder, value, label)
    )


def _function_parts(
    encoder: Encoder, function: types.FunctionType, label: str
) -> Sequence[Piece]:
    shape = shape_of(function.__code__)
    held = _held(function)
    pairs = [_held_piece(encoder, f"{label}.{name}", value) for _, name, value in held]
    places = [text(place + name) for place, name, _ in held]
    own = blake3(b"".join((shape.digest, *places, *(own for own, _ in pairs)))).digest()
    encoder.reach += (Part(label, own, function), _attributes_of(function))
    names = function.__globals__
    reads = [read_global(encoder, names, chain) for chain in shape.chains]
    imports = [piece for each in shape.imports for piece in _imported(encoder, names, each)]
    if shape.reads_all and not names.keys() & READS_ALL:
        reads.append(encode_namespace(encoder, names))
    wholes = [piece for place, (_, whole) in zip(places, pairs, strict=True) for piece in (place, whole)]
    return record("function", shape.digest, *wholes, *reads, *imports)


def _held(function: types.FunctionType) -> list[tuple[str, str, object]]:
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
        return b"i", b"i"
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
    if function.__closure__ is None and wrapped is None or owner.kind == "ours":
        return piece
    held = [*_cells(function), wrapped]

    def parts(encoder: Encoder, _: object) -> Sequence[Piece]:
        encoder.reach.append(_attributes_of(function))
        return record("wrapper", piece, *(own_and_whole(encoder, each)[1] for each in held))

    return encoder.in_code(function, f"{module}.{name}", parts)


def _singledispatch(encoder: Encoder, function: Any) -> Sequence[Piece]:
    # Its closure holds a cache that fills as it is called.
    registry = dict(function.registry)
    encoder.reach.append(Content(function.registry, content_of(registry)))
    pairs = (encoder.encode(pair) for pair in registry.items())
    return record("singledispatch", *unordered(pairs))


# What a function reads


def read_global(encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]) -> Piece:
    """Encode what a global, followed by attributes of user modules, stands for."""
    name = chain[0]
    if name in MODULE_NOISE:
        return b"n"
    known = encoder.reads.get((id(names), chain))
    if known is not None:
        piece, reach = known
        encoder.reach.append(reach)
        return piece
    outer, encoder.reach = encoder.reach, []
    found = (_read if name in names else _read_builtin)(encoder, names, chain)
    reach, encoder.reach = encoder.reach, outer
    outer.append(reach)
    if isinstance(found, bytes):
        encoder.reads[id(names), chain] = (found, reach)
    return found


def _read_builtin(encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]) -> Piece:
    name = chain[0]
    encoder.reach.append(Binding(names, name, MISSING))
    value = vars(builtins).get(name, MISSING)
    if value is MISSING:
        return b"u"
    if getattr(value, "__module__", None) == "builtins" and not isinstance(
        value, types.FunctionType
    ):
        return b"b"
    return encoder.encode(value)


def _read(encoder: Encoder, names: dict[str, Any], chain: tuple[str, ...]) -> Piece:
    name, *rest = chain
    label = f"{label_of_module(names)}.{name}"
    if label in encoder.ignore:
        return b"i"
    value = names.get(name, MISSING)
    encoder.reach.append(Binding(names, name, value))
    if value is MISSING:
        dynamic = names.get("__getattr__")
        return b"u" if dynamic is None else encode_namespace(encoder, names)
    if isinstance(value, types.ModuleType):
        return _read_module(encoder, value, tuple(rest))
    return read_value(encoder, label, _portable(names, value))


def _read_module(encoder: Encoder, module: types.ModuleType, chain: tuple[str, ...]) -> Piece:
    owner = owner_of(module.__name__)
    if owner.kind == "user":
        if not chain or (getattr(module, "__file__", None) or "").endswith(_EXTENSIONS):
            return encode_module(encoder, module)
        if chain[0] in MODULE_NOISE:
            return b"n"
        return _read(encoder, vars(module), chain)
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
        encoder.reach.append(Part(label, blake3(own).digest(), None))
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
    if up > _UP_AT_MOST or up and len(place.split(os.sep)) - up < _UP_AT_MOST + 1:
        return value
    return ("relative to the module", type(value).__name__, relative.replace(os.sep, "/"))


def _imported(encoder: Encoder, names: dict[str, Any], found: Import) -> Iterable[Piece]:
    name = _absolute(names, found)
    module = _module(encoder, name)
    if not isinstance(module, types.ModuleType):
        yield module
        return
    if found.top:
        module = sys.modules[name.partition(".")[0]]
    for chain in found.chains:
        if chain and owner_of(module.__name__).kind == "user" and chain[0] not in vars(module):
            _module(encoder, f"{module.__name__}.{chain[0]}")  # from package import module
        yield _read_module(encoder, module, chain)


def _absolute(names: dict[str, Any], found: Import) -> str:
    if not found.level:
        return found.name
    package = names.get("__package__")
    if package is None:
        package = str(names.get("__name__", ""))
        package = package if "__path__" in names else package.rpartition(".")[0]
    base = package.rsplit(".", found.level - 1)[0] if found.level > 1 else package
    return f"{base}.{found.name}" if found.name else base


def _module(encoder: Encoder, name: str) -> types.ModuleType | bytes:
    """Return a module that a body imports: loaded if it is the user's, else by name."""
    known = sys.modules.get(name)
    encoder.reach.append(Binding(sys.modules, name, MISSING if known is None else known))
    if known is not None:
        return known
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return foreign(encoder, Owner("standard"), name, "")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return packed("absent", text(name))
    places = spec.submodule_search_locations
    owner = owner_of(top, spec.origin or (os.path.join(list(places)[0], "") if places else None))
    if owner.kind != "user":
        return foreign(encoder, owner, name, "")
    return _load(encoder, name)


def _load(encoder: Encoder, name: str) -> types.ModuleType | bytes:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            return packed("absent", text(name))
        raise encoder.refuse(sys, f"importing {name!r} fails: {error}") from error
    except Exception as error:  # whatever the user's module raises
        raise encoder.refuse(sys, f"importing {name!r} fails: {error!r}") from error


# Modules

_EXTENSIONS: Final = tuple(importlib.machinery.EXTENSION_SUFFIXES)


def encode_module(encoder: Encoder, module: types.ModuleType) -> Piece:
    """Encode a module: all of it where it is the user's, else by name."""
    owner = owner_of(module.__name__)
    if owner.kind != "user":
        return foreign(encoder, owner, module.__name__, "")
    file = getattr(module, "__file__", None) or ""
    if file.endswith(_EXTENSIONS):
        return packed("extension", _hash_of_file(file, os.stat(file).st_mtime_ns))
    return encode_namespace(encoder, vars(module))


@functools.cache
def _hash_of_file(file: str, modified_ns: int) -> bytes:
    return blake3(max_threads=blake3.AUTO).update_mmap(file).digest()


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


def _through(name: str) -> Any:
    """Count as what stands under an attribute."""
    return lambda encoder, value: encoder.encode(getattr(value, name))


def _find(kind: type) -> Any:
    if hasattr(kind, "__mlpipe_function__"):
        return _through("__mlpipe_function__")
    names = {(base.__module__, base.__qualname__) for base in kind.__mro__}
    if not names.isdisjoint({("prefect.tasks", "Task"), ("prefect.flows", "Flow")}):
        return _through("fn")
    if issubclass(kind, types.ModuleType):
        return encode_module
    if kind.__name__ in ("cython_function_or_method", "fused_cython_function"):
        return _cython_function
    if kind is functools._lru_cache_wrapper:
        return _through("__wrapped__")
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
