"""Runs calls one after another where nobody but us repeats them, and keeps their records together.

Knows calls, retries and their delays. Knows nothing of where it runs: items of mapped steps go
through here on threads and on workers, all calls of `pipeline.local()` do.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

from prefect_mlpipe.compute.errors import stand_in
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.engine.batching import Batch
from prefect_mlpipe.engine.calls import (
    Check,
    Done,
    InputLost,
    Keep,
    StepCall,
    execute,
    keep_now,
    not_kept,
)
from prefect_mlpipe.engine.protocols import BatchPart, Outcome
from prefect_mlpipe.errors import StoreUnavailable
from prefect_mlpipe.steps import Step

# What was finished longer ago is written, so that a worker's death costs no more than this.
KEEP_EVERY_S: Final = 0.25

# Which of the calls, its record, or why there is none.
Ended: TypeAlias = tuple[int, Done | None, BaseException | None]


def outcome_of(
    call: StepCall, check: Check | None = None, keep: Keep = keep_now
) -> tuple[Done | None, BaseException | None]:
    """Run a call with its retries; return its record, or what it raised."""
    try:
        return _with_retries(call, check, keep), None
    except Exception as error:
        return None, error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _in_main_thread():
            raise  # Ctrl-C is meant for the run
        # SystemExit and the like are the end of this step: somebody waits for its outcome.
        return None, stand_in(error, call.current.step, "it ends the process")


def run_items(
    calls: Sequence[StepCall], check: Check | None = None
) -> Iterator[tuple[list[Ended], float]]:
    """Run calls of one step one after another; yield what ended once its records are written.

    How many seconds the calls took goes with it, without what it took to write their records.

    Args:
        calls: which are in one store.
        check: is shown each stored value that is loaded, and may raise.
    """
    ended: list[Ended] = []
    kept = _Kept()
    began = time.monotonic()
    for number, call in enumerate(calls):
        ended.append((number, *outcome_of(call, check, kept.add)))
        took = time.monotonic() - began
        if took >= KEEP_EVERY_S or number == len(calls) - 1:
            yield kept.written(ended, calls), took
            ended, began = [], time.monotonic()


def outcomes_of(batch: Batch, ended: Sequence[Ended]) -> list[Outcome]:
    """Return what ended as the engine wants to know it."""
    runs = batch.runs
    return [Outcome(runs[n], runs[n].submission, done, error) for n, done, error in ended]


def tell_parts(batch: Batch, outcomes: SimpleQueue[Any]) -> None:
    """Run a batch here, and put what came of it on the queue part by part."""
    seconds = 0.0
    for ended, took in run_items(batch.calls):
        seconds += took
        outcomes.put(BatchPart(batch, outcomes_of(batch, ended), False, seconds))
    outcomes.put(BatchPart(batch, (), True, seconds))


class _Kept:
    """Records that wait to be written together."""

    def __init__(self) -> None:
        self._records: list[tuple[StepCall, Record]] = []

    def add(self, call: StepCall, record: Record) -> Done:
        if call.replace:
            return keep_now(call, record)
        self._records.append((call, record))
        return Done(record, True)

    def written(self, ended: list[Ended], calls: Sequence[StepCall]) -> list[Ended]:
        """Write what waits; return what ended, with the records that stand."""
        records, self._records = self._records, []
        records = [(call, record) for call, record in records if call.recorded]
        if not records:
            return ended
        store = records[0][0].store
        try:
            standing = store.records.write_many([record for _, record in records])
        except StoreUnavailable as error:
            lost = {id(call): not_kept(call, r.duration_s, error) for call, r in records}
            return [
                (n, None, lost[id(calls[n])]) if id(calls[n]) in lost else (n, done, why)
                for n, done, why in ended
            ]
        others = {
            id(call): Done(stands, stands == record)
            for (call, record), stands in zip(records, standing, strict=True)
            if stands is not record
        }
        if not others:
            return ended
        return [(n, others.get(id(calls[n]), done), error) for n, done, error in ended]


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _with_retries(call: StepCall, check: Check | None, keep: Keep) -> Done:
    while True:
        try:
            return execute(call, check, keep)
        except InputLost:
            raise
        except Exception as error:
            options = call.step.options
            given_up = not call.recorded
            if given_up or call.attempt > options.retries or not _retry_wanted(call.step, error):
                raise
            time.sleep(_delay(call.step, call.attempt))


def _retry_wanted(step: Step[..., Any], error: Exception) -> bool:
    condition = step.options.task.get("retry_condition_fn")
    if condition is None:
        return True
    from prefect.states import Failed

    return bool(condition(step.as_task(), None, Failed(data=error, message=repr(error))))


def _delay(step: Step[..., Any], attempt: int) -> float:
    """Return the seconds before the next try, as Prefect's tasks count them."""
    delay = step.options.task.get("retry_delay_seconds") or 0
    if callable(delay):
        delay = delay(step.options.retries)
    if isinstance(delay, list | tuple):
        delay = delay[min(attempt, len(delay)) - 1]
    jitter = step.options.task.get("retry_jitter_factor") or 0
    return float(delay) * (1 + random.uniform(0, float(jitter)))
