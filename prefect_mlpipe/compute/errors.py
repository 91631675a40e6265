"""Errors of steps, made fit to be kept.

An exception is kept in the state of a flow run and travels from workers, so it must be small. Knows
nothing of where it goes.
"""

from __future__ import annotations

import pickle
import traceback
from typing import Any

from prefect_mlpipe.errors import StepFailed

LIMIT_BYTES = 1024 * 1024
_TRACEBACK_CHARACTERS = 20_000
_MESSAGE_CHARACTERS = 2_000


class _TooLarge(Exception):
    """Ends the pickling of what is too large to be kept."""


class _Counter:
    """A file that keeps nothing and ends what writes too much."""

    def __init__(self) -> None:
        self._written = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._written += size
        if self._written > LIMIT_BYTES:
            raise _TooLarge
        return size


def slimmed(error: BaseException, step: str) -> BaseException:
    """Return the error itself, or a `StepFailed` that says it all if it holds too much.

    One that cannot be pickled is kept as it is: here it need not be.
    """
    try:
        pickle.Pickler(_Counter(), protocol=5).dump(error)
    except _TooLarge:
        return stand_in(error, step, f"the exception holds more than {LIMIT_BYTES // 1024} KiB")
    except Exception:  # objects raise what they like when they are asked to be pickled
        return error
    return error


def stand_in(error: BaseException, step: str, why: str) -> StepFailed:
    """Return a `StepFailed` with type, message and traceback of another error as text."""
    text = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    message = str(error)[:_MESSAGE_CHARACTERS]
    return StepFailed(
        f"Step '{step}' failed: {type(error).__qualname__}: {message}",
        {"why not itself": why},
        text.rstrip(),
    )
