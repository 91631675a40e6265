"""Find how a type is encoded, encode objects in general, and refuse what has no content.

Knows which values have content and which do not. Knows nothing of bytecode: classes and functions
inside a value are encoded by `core.code`, arrays and tables by the modules that import their
libraries, and those are loaded only once such a value turns up.

Worth arguing: an object in general counts by what `__reduce_ex__` takes it apart into, not by its
pickle. That sees what pickle sees, state that lives in C included, but lets each part be encoded
canonically, and lets objects through that only pickle's own rules keep out (a lambda in a field).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import copyreg
import enum
import functools
import importlib
import io
import logging
import mmap
import queue
import socket
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from prefect_mlpipe.core.encoding import reductions, standard_types
from prefect_mlpipe.core.encoding.classes import owner_of_class
from prefect_mlpipe.core.encoding.encode import Encoder, Handler, as_branch, attributes, defines
from prefect_mlpipe.core.encoding.pieces import (
    Piece,
    count,
    packed,
    record,
    scalar,
    text,
    unordered,
)
from prefect_mlpipe.core.environment import owner_of

_REGISTERS: Final = (standard_types,)  # imported for the handlers that it registers

# Where the library has been imported by the user, this module of ours encodes its types.
_FAMILIES: Final = {
    "numpy": "arrays",
    "scipy": "arrays",
    "cupy": "arrays",
    "cudf": "gpu_tables",
    "pandas": "tables",
    "pyarrow": "arrow",
    "polars": "tables",
    "torch": "tensors",
    "xarray": "labelled",
    "PIL": "labelled",
    "ctypes": "native",
}

_SECRETS: Final = {
    ("pydantic.types", "_SecretBase"),
    ("pydantic.types", "Secret"),
    ("pydantic.types", "SecretStr"),
    ("pydantic.types", "SecretBytes"),
    ("prefect.blocks.system", "Secret"),
}

_LOCKS: Final = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Event,
    threading.Semaphore,
    threading.Barrier,
    asyncio.Lock,
    asyncio.Event,
    asyncio.Semaphore,
    asyncio.Condition,
)

_REGISTERED: Final = (type, types.FunctionType)
_WEAK: Final = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)

# Reached by code as globals, these change nothing that a step computes: only the type counts.
INERT: Final = (
    *_LOCKS,
    logging.Logger,
    logging.LoggerAdapter,
    logging.Handler,
    logging.Formatter,
    contextvars.ContextVar,
    threading.local,
    *_WEAK,
)

_REFUSED: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    (_LOCKS, "a lock has no content"),
    ((logging.Logger, logging.LoggerAdapter, logging.Handler), "a logger has no content"),
    ((contextvars.ContextVar, contextvars.Context), "a context variable has no content"),
    ((threading.local,), "thread-local data differs from thread to thread"),
    ((threading.Thread, subprocess.Popen), "a running thread or process has no content"),
    ((concurrent.futures.Executor,), "a pool of workers has no content"),
    ((concurrent.futures.Future, asyncio.Future), "a future has no content yet"),
    ((types.CoroutineType, types.AsyncGeneratorType), "a coroutine would be consumed"),
    ((socket.socket,), "a connection has no content"),
    ((io.IOBase, mmap.mmap), "an open file has no content; pass a File"),
    ((queue.Queue, queue.SimpleQueue), "a queue would be consumed"),
    ((weakref.ReferenceType, *weakref.ProxyTypes, *_WEAK), "a weak reference has no content"),
    ((types.FrameType, types.TracebackType), "a frame has no content"),
    ((Iterator,), "an iterator would be consumed"),
)


def find(kind: type, value: object) -> Handler:
    """Find how values of a type are encoded, and remember it."""
    found = (finder(kind) for finder in (*Encoder.finders, _family, _standard))
    handler = next((each for each in found if each is not None), _object)
    Encoder.handlers[kind] = handler
    return handler


def _family(kind: type) -> Handler | None:
    for base in kind.__mro__:
        library = base.__module__.partition(".")[0]
        if library in _FAMILIES and library in sys.modules:
            module = importlib.import_module(f"prefect_mlpipe.core.encoding.{_FAMILIES[library]}")
            handler: Handler | None = module.find(kind)
            if handler is not None:
                return _owned(handler, owner_of(base.__module__).distributions)
    return None


def _owned(handler: Handler, distributions: tuple[str, ...]) -> Handler:
    def encode(encoder: Encoder, value: object) -> Piece:
        encoder.reach.extend(distributions)
        return handler(encoder, value)

    return encode


def _standard(kind: type) -> Handler | None:
    names = {(base.__module__, base.__qualname__) for base in kind.__mro__}
    if not names.isdisjoint(_SECRETS):
        return _secret
    if defines(kind, "__mlpipe_digest__"):
        return _protocol
    if issubclass(kind, (io.BytesIO, io.StringIO)):
        return _object
    for refused, why in _REFUSED:
        if issubclass(kind, refused):
            return _refusal(kind, why)
    if issubclass(kind, enum.Enum):
        return _enum
    if issubclass(kind, (set, frozenset)):
        return _set_subclass
    return None


def _refusal(kind: type, why: str) -> Handler:
    inert = issubclass(kind, INERT)

    def refuse(encoder: Encoder, value: object) -> Piece:
        if inert and encoder.code_depth:
            return _inert(encoder, value)
        raise encoder.refuse(value, why)

    return refuse


def _inert(encoder: Encoder, value: object) -> Piece:
    """Encode a global without content by its type, and by what of it is code or a constant."""
    kind = type(value)
    name = text(f"{kind.__module__}.{kind.__qualname__}")
    held: list[object] = [kind] if owner_of_class(kind).kind == "user" else []
    if isinstance(value, contextvars.ContextVar):
        held += _default_of(value)
    elif isinstance(value, _WEAK):
        held += _registered_in(value)
    if not held:
        return packed("inert", name)
    return encoder.branch(value, lambda _, __: record("inert", name, *map(encoder.encode, held)))


def _default_of(variable: contextvars.ContextVar[Any]) -> list[object]:
    try:
        return [contextvars.Context().run(variable.get)]
    except LookupError:
        return []


def _registered_in(weak: Any) -> list[object]:
    """Return the entries that are code: a register of classes is no cache."""
    if isinstance(weak, weakref.WeakSet):
        return [{each for each in weak if isinstance(each, _REGISTERED)}]
    return [pair for pair in weak.items() if any(isinstance(each, _REGISTERED) for each in pair)]


def _secret(encoder: Encoder, value: object) -> bytes:
    if encoder.storing and not encoder.code_depth:
        raise encoder.refuse(value, "a secret is not written into the store")
    return packed("secret")


def _protocol_parts(encoder: Encoder, value: Any) -> Sequence[Piece]:
    return record("content", encoder.encode(type(value)), encoder.encode(value.__mlpipe_digest__()))


_protocol = as_branch(_protocol_parts)


# Kinds of classes that users derive from


def _enum_parts(encoder: Encoder, value: enum.Enum) -> Sequence[Piece]:
    kind = encoder.encode(type(value))
    return record("enum", kind, scalar(value._name_), encoder.encode(value._value_))


_enum = as_branch(_enum_parts)


def _set_parts(encoder: Encoder, value: Any) -> Sequence[Piece]:
    kind, state = encoder.encode(type(value)), encoder.encode(value.__getstate__())
    return [*record("set", kind, state), *unordered(map(encoder.encode, value))]


_set_subclass = as_branch(_set_parts)


# Objects in general


def object_parts(encoder: Encoder, value: Any) -> Sequence[Piece]:
    """Encode an object by what it is rebuilt from."""
    kind = type(value)
    reduced = _reduced(encoder, value)
    if isinstance(reduced, str):
        module = text(getattr(value, "__module__", None) or "")
        state = _state(encoder, _lasting(kind, object.__getstate__(value)))
        return record("named", encoder.encode(kind), module, text(reduced), *state)
    function, arguments, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
    pieces: list[Piece] = record("object", encoder.encode(function), encoder.encode(arguments))
    state = _lasting(kind, state)
    # Looking at the `__dict__` of an exception gives it an empty one: that is no state.
    if state is not None and not (type(state) is dict and not state):
        pieces += _state(encoder, state)
    if items is not None:
        pieces += _sequence(encoder, b"i", items)
    if pairs is not None:
        pieces += _sequence(encoder, b"p", [each for pair in pairs for each in pair])
    if setter is not None:
        pieces += [b"s", encoder.encode(setter)]
    return [*pieces, b"."]


_object = as_branch(object_parts)


def _reduced(encoder: Encoder, value: Any) -> Any:
    try:
        if isinstance(value, BaseException):
            reduced = reductions.of_exception(value)
        else:
            special = copyreg.dispatch_table.get(type(value))
            reduced = value.__reduce_ex__(4) if special is None else special(value)
    except Exception as error:  # whatever a user's __reduce__ raises, it cannot be taken apart
        raise encoder.refuse(value, f"it cannot be taken apart: {error}") from error
    if isinstance(reduced, str) or (isinstance(reduced, tuple) and 2 <= len(reduced) <= 6):
        return reduced
    raise encoder.refuse(value, "its __reduce__ gives nothing that could be read")


@functools.cache
def _cached_names(kind: type) -> frozenset[str]:
    return frozenset(
        name
        for base in kind.__mro__
        for name, item in vars(base).items()
        if isinstance(item, functools.cached_property)
    )


def _lasting(kind: type, state: Any) -> Any:
    """Leave out what a `cached_property` has computed from the rest."""
    cached = _cached_names(kind)
    if not cached:
        return state
    if type(state) is dict:
        kept = {name: item for name, item in state.items() if name not in cached}
        if type(inner := kept.get("__dict__")) is dict:  # as pydantic gives it
            kept["__dict__"] = _lasting(kind, inner)
        return kept
    if _is_slotted(state):
        return (_lasting(kind, state[0]) or None, state[1])
    return state


def _is_slotted(state: Any) -> bool:
    """Whether this is the state of an object with slots: attributes, if any, and slots."""
    return (
        type(state) is tuple
        and len(state) == 2
        and (state[0] is None or type(state[0]) is dict)
        and type(state[1]) is dict
    )


def _state(encoder: Encoder, state: Any) -> list[Piece]:
    if _has_names(state):
        return [b"d", *attributes(encoder, state)]
    if _is_slotted(state) and _has_names(state[0] or {}) and _has_names(state[1]):
        plain, slots = state
        return [b"s", *attributes(encoder, plain or {}), *attributes(encoder, slots)]
    return [b"v", encoder.encode(state)]


def _has_names(state: Any) -> bool:
    return type(state) is dict and all(type(name) is str for name in state)


def _sequence(encoder: Encoder, tag: bytes, items: Iterable[object]) -> list[Piece]:
    known = [encoder.encode(item) for item in items]
    return [tag, count(len(known)), *known]


Encoder.find = staticmethod(find)
