"""How values are taken apart whose own `__reduce__` forgets what a step can see.

Knows pickle's protocol. The digest and the pickles of the store both take such values apart in this
way, so what counts comes back. Nothing of ours is named in it, so any `pickle.load` can read it.
Tensors on a GPU are the exception: torch alone cannot say what restores them where there is none.
"""

from __future__ import annotations

import operator
import sys
import types
from typing import Any


def of_exception(error: BaseException) -> Any:
    """Take an exception apart with its cause and context, but without its traceback.

    Not by `copyreg`: libraries register all exceptions for themselves (tblib, with distributed),
    and neither a digest nor a stored value may depend on what else is imported.
    """
    reduced = error.__reduce_ex__(4)
    chain: dict[str, object] = {}
    if error.__context__ is not None:
        chain["__context__"] = error.__context__
    if error.__cause__ is not None:
        chain["__cause__"] = error.__cause__  # setting it suppresses the context
    if error.__suppress_context__ != (error.__cause__ is not None):
        chain["__suppress_context__"] = error.__suppress_context__
    if not chain or not isinstance(reduced, tuple):
        return reduced
    function, arguments, state, *rest = (*reduced, None)[: max(3, len(reduced))]
    if state is not None and not isinstance(state, dict):
        return reduced
    return function, arguments, {**(state or {}), **chain}, *rest


def of_other(value: Any) -> Any:
    """Take another value apart; `NotImplemented` where its own way will do."""
    kind = type(value)
    if kind is types.MappingProxyType:
        return types.MappingProxyType, (dict(value),)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray and not value.dtype.isnative:
        return _of_swapped(numpy.require(value, requirements="C"))
    masked = sys.modules.get("numpy.ma")
    if masked is not None and issubclass(kind, masked.MaskedArray) and value.hardmask:
        return operator.methodcaller("harden_mask"), (value.copy().soften_mask(),)
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "Tensor") and isinstance(value, torch.Tensor):
        from prefect_mlpipe.core.encoding import tensors  # imports torch

        return tensors.reduced(value)
    return NotImplemented


def _of_swapped(array: Any) -> Any:
    """Take an array apart whose bytes are not in this machine's order.

    Times, and arrays that lie scattered, numpy writes in an older way, which forgets that order.
    """
    if array.dtype.kind in "mM":
        numbers = array.view(f"{array.dtype.byteorder}i8")
        return operator.methodcaller("view", array.dtype), (numbers,)
    return array.__reduce_ex__(5)
