"""Encode libraries of compiled code that `ctypes` has loaded.

Knows what `ctypes` keeps of a library. Knows nothing of what the code in it does: the file counts
as a whole, and what functions were told to take and give.

Worth arguing: a library that the loader found by its name (`libm.so.6`) counts by that name. It is
the machine's, as the standard library is.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from prefect_mlpipe.core.encoding.encode import Encoder, Handler, as_branch
from prefect_mlpipe.core.encoding.pieces import Piece, record, text, threads


def find(kind: type) -> Handler | None:
    """Return the handler for a type of `ctypes`, `None` where its own way will do."""
    return as_branch(_library) if issubclass(kind, ctypes.CDLL) else None


def _library(encoder: Encoder, value: ctypes.CDLL) -> Sequence[Piece]:
    path = value._name or ""
    content = b""
    if os.path.isfile(path):
        content = blake3(max_threads=threads()).update_mmap(path).digest()
    # Each function is kept once it was used; only what it was told counts.
    functions = {
        name: (each.restype, each.argtypes)
        for name, each in sorted(vars(value).items())
        if _was_told(each)
    }
    return record(
        "native library",
        text(type(value).__name__),
        text(os.path.basename(path)),
        content,
        encoder.encode(functions),
    )


def _was_told(function: Any) -> bool:
    return isinstance(function, ctypes._CFuncPtr) and (  # type: ignore[attr-defined]
        function.restype is not ctypes.c_int or function.argtypes is not None
    )
