"""Code that goes to another process, as bytes.

What an import would have made anew there (locks, context variables, thread-local data) is made
anew: such things have no content, and a module that has one at its top would otherwise keep its
functions from travelling. All else is cloudpickle's. Knows nothing of what travels or why.
"""

from __future__ import annotations

import contextvars
import copyreg
import io
import pickle
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle

_LOCKS: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
}


class Shipped:
    """Base of objects that hold code of the user and travel in this way, however pickled."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return pickle.loads, (ship(self),)


def ship(value: object) -> bytes:
    """Return bytes that `pickle.loads` reads in another process."""
    stream = io.BytesIO()
    _Shipper(stream, protocol=5).dump(value)
    return stream.getvalue()


class _Shipper(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, but for what is made anew."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _LOCKS:
            return _LOCKS[kind], ()
        if kind is contextvars.ContextVar:
            return _new_variable(obj)
        if issubclass(kind, threading.local):
            return kind, ()
        if issubclass(kind, Shipped):  # inside other code: one of many objects of this stream
            return copyreg.__newobj__, (kind,), obj.__dict__  # type: ignore[attr-defined]
        return super().reducer_override(obj)


def _new_variable(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    try:
        default = contextvars.Context().run(variable.get)
    except LookupError:
        return contextvars.ContextVar, (variable.name,)
    return _with_default, (variable.name, default)


def _with_default(name: str, default: Any) -> contextvars.ContextVar[Any]:
    return contextvars.ContextVar(name, default=default)
