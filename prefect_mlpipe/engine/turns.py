"""Whose turn it is: of all runs that need the step of one key, one computes and the others wait.

Knows leases and records. Knows nothing of why a step runs, or where. It is asked by the thread that
drives the queue, so whoever waits occupies neither a thread of a compute nor a worker.

No circle of runs can wait for each other. A run takes a lease for a call that it submits in the
same breath, and no call that was submitted waits for a lease: it comes to its end by itself. A call
that has to be made again (an input was lost) gives its lease back first. A run inside a step is
impatient: its step holds a lease already, and sits on a worker. It takes what is free, and computes
what is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from prefect_mlpipe.core.leases.leases import Leases
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.protocols import BatchPart, Outcome
from prefect_mlpipe.engine.steprun import StepRun

FIRST_LOOK_S = 0.005
LAST_LOOK_S = 0.25
SHARE = 10  # looking takes at most one part in so many of the time
TELL_AFTER_S = 0.5  # a shorter wait is not worth a line


@dataclass
class _Wait:
    """A run that waits.

    Attributes:
        record: what stood under its key when it began to wait.
        since: when that was, by the monotonic clock.
    """

    record: Record | None
    since: float = field(default_factory=time.monotonic)


class Turns:
    """The leases of one run, and those of its step runs that wait for others'.

    Args:
        leases: the leases.
        store: where the records come.
        patient: whether it waits at all.
        tell: is told of a run that has waited for a while, and for whom; of items of a mapped
            step, of one.
        warn: is told of what is not as the user may think.
    """

    def __init__(
        self,
        leases: Leases,
        store: Store,
        *,
        patient: bool,
        tell: Callable[[StepRun, str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.waiting: dict[StepRun, _Wait] = {}
        self._leases = leases
        self._store = store
        self._patient = patient
        self._tell = tell
        self._warn = warn
        self._told: set[StepRun] = set()
        self._delay_s = FIRST_LOOK_S
        self._next = 0.0

    def take(self, run: StepRun, record: Record | None, *, waits: bool = True) -> bool:
        """Tell whether a run may go on to be submitted; if not, it waits from now on.

        Args:
            run: what is to be computed.
            record: what stands under its key now.
            waits: False if it will not have what another one computes.
        """
        assert run.key is not None
        run.leased = run.leased or self._leases.take(run.key)
        return self._may_go_on(run, record, waits=waits)

    def take_many(self, items: Sequence[tuple[StepRun, Record | None, bool]]) -> list[bool]:
        """Tell of runs, as `take` of one, whether they may go on.

        Args:
            items: of each run what `take` is given.
        """
        keys = [run.key for run, _, _ in items if run.key is not None and not run.leased]
        taken = self._leases.take_many(keys)
        for run, _, _ in items:
            run.leased = run.leased or run.key in taken
        return [self._may_go_on(run, record, waits=waits) for run, record, waits in items]

    def _may_go_on(self, run: StepRun, record: Record | None, *, waits: bool) -> bool:
        if self._leases.problem is not None:
            self._warn(
                f"No leases can be kept in the store {self._store.url} "
                f"({self._leases.problem}): another run may compute the same at the same time. "
                "That costs time; nothing is wrong by it."
            )
        if run.leased or not waits or not self._patient:
            return True
        self.waiting[run] = _Wait(record)
        self._delay_s = FIRST_LOOK_S
        self._next = time.monotonic() + FIRST_LOOK_S
        return False

    def release(self, run: StepRun) -> None:
        """Give the lease of a run back, if it has one. Thread-safe."""
        if run.leased:
            run.leased = False
            assert run.key is not None
            self._leases.release(run.key)

    def seconds(self) -> float:
        """Return how long there is nothing to look at."""
        return max(0.0, self._next - time.monotonic()) if self.waiting else float("inf")

    def due(self) -> list[StepRun]:
        """Return those whose wait is over: a record has come, or nobody computes it any more.

        They do not wait any longer; who got the lease must be submitted now.
        """
        began = time.monotonic()
        if not self.waiting or began < self._next:
            return []
        records = self._store.records.read_many(
            [run.key for run in self.waiting if run.key], fresh=True
        )
        free = [run for run, wait in self.waiting.items() if self._is_over(run, wait, records)]
        for run in free:
            del self.waiting[run]
        now = time.monotonic()
        self._delay_s = FIRST_LOOK_S if free else min(2 * self._delay_s, LAST_LOOK_S)
        self._next = now + max(self._delay_s, SHARE * (now - began))
        return free

    def give_up(self) -> list[StepRun]:
        """Return all that wait; they do not any more."""
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    def _is_over(self, run: StepRun, wait: _Wait, records: dict[str, Record]) -> bool:
        assert run.key is not None
        record = records.get(run.key)
        if record is not None and record != wait.record:
            return True
        holder = self._leases.holder(run.key)
        if holder is None:
            run.leased = self._leases.take(run.key)
            return run.leased
        told = run.group or run
        if told not in self._told and time.monotonic() - wait.since >= TELL_AFTER_S:
            self._told.add(told)
            self._tell(run, str(holder))
        return False


class Outcomes(SimpleQueue[Any]):
    """What came of calls.

    A lease goes back as soon as its call has ended, not when the driver comes to take that in: the
    body of the pipeline may keep it busy for long.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Take in an outcome, or what else the driver is to know."""
        ended = item.outcomes if isinstance(item, BatchPart) else (item,)
        for each in ended:
            if isinstance(each, Outcome) and each.attempt == each.run.submission:
                self._turns.release(each.run)
        super().put(item, block, timeout)
