"""Do what recurses deeper than Python's limit, on a thread with room for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Final, TypeVar

T = TypeVar("T")

_FRAMES: Final = 100_000
_STACK_BYTES: Final = 1 << 28
_lock = threading.Lock()


def deeply(work: Callable[[], T]) -> T:
    """Call a function with a hundred times the usual depth, and give what it returns or raises.

    The limit is the process's; it stays raised for the time of one call.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # raised again below, on the thread that asked
            failed.append(error)

    with _lock:
        limit, size = sys.getrecursionlimit(), threading.stack_size(_STACK_BYTES)
        sys.setrecursionlimit(max(limit, _FRAMES))
        try:
            thread = threading.Thread(target=copy_context().run, args=(run,))
            thread.start()
            threading.stack_size(size)
            thread.join()
        finally:
            sys.setrecursionlimit(limit)
    if failed:
        raise failed[0]
    return found[0]
