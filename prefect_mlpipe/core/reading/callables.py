"""Encode what stands for code besides functions: methods, builtins, compiled and wrapped functions.

Knows the objects that Python, Cython, wrapt and Prefect put in the place of a function. Knows
nothing of bytecode.

Worth arguing: each counts as the function that it leads to, with what it adds to it. A builtin
counts by name, or with the module of the user's that it was compiled in.
"""

from __future__ import annotations

import functools
import operator
import sys
import types
from collections.abc import Sequence
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.encoding.encode import Encoder, as_leaf, defines
from prefect_mlpipe.core.encoding.objects import object_parts
from prefect_mlpipe.core.encoding.parts import MISSING, Asks, Part, foreign, own_and_whole
from prefect_mlpipe.core.encoding.pieces import Piece, packed, record, scalar, text
from prefect_mlpipe.core.environment import owner_of
from prefect_mlpipe.core.reading.functions import label_of_function
from prefect_mlpipe.core.reading.globals import encode_module
from prefect_mlpipe.core.reading.shapes import ASKS, shape_of


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


# Every Cython has types of its own.
_OF_CYTHON: Final = ("cython_function_or_method", "fused_cython_function")
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
    part = Part(label_of_function(inner), blake3(how).digest(), inner)

    def parts(encoder: Encoder, _: object) -> Sequence[Piece]:
        encoder.reach.append(part)
        return record("cached", how, encoder.encode(inner))

    return encoder.branch(value, parts)


def _attribute_getter(encoder: Encoder, value: Any) -> Piece:
    names = ASKS.keys() & {part for path in value.__reduce__()[1] for part in path.split(".")}
    if names:
        encoder.reach.append(Asks(frozenset(ASKS[name] for name in names)))
    return encoder.branch(value, object_parts)


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
    if kind.__name__ in _OF_CYTHON:
        return _compiled_function
    if kind is functools._lru_cache_wrapper:
        return _cached
    if kind is operator.attrgetter:
        return _attribute_getter
    return None


Encoder.finders.append(_find)
Encoder.handlers.update(
    {
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
