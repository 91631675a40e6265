"""Do what recurses deeper than Python's limit, on a thread with room for it.

Worth arguing: Python 3.11 has one limit for all threads, which also keeps recursion in C, as that
of pickling, from running over the end of a thread's stack. So while it is raised nobody may begin
such a recursion elsewhere: who does says `shallow()`. And nobody may go deep by himself meanwhile:
he would be caught far below the limit when it is lowered again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Final, TypeVar

T = TypeVar("T")

_FRAMES: Final = 100_000
_STACK_BYTES: Final = 1 << 28
_PATIENCE_S: Final = 60.0  # a thread that is asked to wait may be what another one waits for

_one_at_a_time = threading.Lock()


class _Limit(threading.local):
    """What this thread does: how often it is in `shallow()`, whether it may go deep."""

    shallow = 0
    deep = False


_here = _Limit()
_changed = threading.Condition()
_shallow = 0  # how many threads are in `shallow()`
_raised = False


@contextmanager
def shallow() -> Iterator[None]:
    """Keep the limit as it is for the time of a block that may recurse in C."""
    global _shallow
    if _here.deep or _here.shallow:
        yield
        return
    with _changed:
        _changed.wait_for(lambda: not _raised, _PATIENCE_S)
        _shallow += 1
    _here.shallow = 1
    try:
        yield
    finally:
        _here.shallow = 0
        with _changed:
            _shallow -= 1
            _changed.notify_all()


def is_deep() -> bool:
    """Tell whether this thread is one of `deeply`."""
    return _here.deep


def deeply(work: Callable[[], T]) -> T:
    """Call a function with a hundred times the usual depth, and give what it returns or raises.

    The limit is the process's; it stays raised for the time of one call.

    Raises:
        RecursionError: it was not enough.
    """
    if _here.deep:
        raise RecursionError("it is nested too deeply")
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        _here.deep = True
        try:
            found.append(work())
        except BaseException as error:  # raised again below, on the thread that asked
            failed.append(error)

    with _one_at_a_time, _raised_limit():
        size = threading.stack_size(_STACK_BYTES)
        thread = threading.Thread(target=copy_context().run, args=(run,))
        try:
            thread.start()
        finally:
            threading.stack_size(size)
        thread.join()
    if failed:
        raise failed[0]
    return found[0]


@contextmanager
def _raised_limit() -> Iterator[None]:
    global _raised
    limit = sys.getrecursionlimit()
    with _changed:
        _raised = True
        _changed.wait_for(lambda: _shallow == _here.shallow, _PATIENCE_S)
    sys.setrecursionlimit(max(limit, _FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        with _changed:
            _raised = False
            _changed.notify_all()
