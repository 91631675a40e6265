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
import sys
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any, ForwardRef

import cloudpickle

from prefect_mlpipe.core.annotations import spelled_annotations

_LOCKS: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
}
# What a function has besides its code and its annotations.
_TOLD = ("__module__", "__qualname__", "__doc__", "__kwdefaults__", "__type_params__")


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
        if sys.version_info >= (3, 14):
            return self._with_annotations(obj)
        return super().reducer_override(obj)

    def _with_annotations(self, obj: Any) -> Any:
        """Since Python 3.14 annotations are evaluated when they are asked for.

        cloudpickle 3.1 leaves those of classes out, and fails on a function if one of them names
        what only a type checker imports.
        """
        if isinstance(obj, FunctionType):
            return super().reducer_override(_evaluated(obj))
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) > 2:
            reduced[2][0].setdefault("__annotations__", _annotations(obj))
        return reduced


def _evaluated(function: FunctionType) -> FunctionType:
    """Return a function whose annotations can be asked for, with what nobody knows as text."""
    try:
        _ = function.__annotations__
    except NameError:
        same = FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        for name in _TOLD:
            setattr(same, name, getattr(function, name))
        same.__dict__.update(function.__dict__)
        same.__annotations__ = _annotations(function)
        return same
    return function


def _annotations(holder: Any) -> dict[str, Any]:
    return {
        name: meaning.__forward_arg__ if isinstance(meaning, ForwardRef) else meaning
        for name, meaning in spelled_annotations(holder).items()
    }


def _new_variable(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    try:
        default = contextvars.Context().run(variable.get)
    except LookupError:
        return contextvars.ContextVar, (variable.name,)
    return _with_default, (variable.name, default)


def _with_default(name: str, default: Any) -> contextvars.ContextVar[Any]:
    return contextvars.ContextVar(name, default=default)
