"""Copies in host memory of what lives on a GPU, made once for the digest of a value and its bytes.

Knows nothing of the libraries that such values come from. Thread-safe: each thread has its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class _Kept(threading.local):
    """What was copied within the outermost `host_copies` of this thread; `None` outside."""

    copies: dict[int, tuple[object, Any]] | None = None


_kept = _Kept()


@contextmanager
def host_copies() -> Iterator[None]:
    """Let `on_host` give the copy that it has made before, until the block ends.

    The values must not be written to meanwhile.
    """
    before = _kept.copies
    _kept.copies = {} if before is None else before
    try:
        yield
    finally:
        _kept.copies = before


def on_host(value: object, copied: Callable[[], Any]) -> Any:
    """Return a copy of a value in host memory; `copied` makes it where there is none yet."""
    if _kept.copies is None:
        return copied()
    found = _kept.copies.get(id(value))
    if found is None:
        # The value is kept too: its id must not come to mean another one.
        found = _kept.copies[id(value)] = (value, copied())
    return found[1]
