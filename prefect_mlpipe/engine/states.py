"""In which state the runs are: how one begins to execute, comes to its end, or is opened again.

Knows what follows from it: counts, leases that go back, children that may go on, the mapped node
that an item belongs to. Knows nothing of why a run comes into a state.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prefect_mlpipe.core.manifest import distinct
from prefect_mlpipe.engine.protocols import Reporter
from prefect_mlpipe.engine.ready import Ready
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.engine.turns import Turns


class States:
    """The states of the runs of a queue.

    Attributes:
        counts: state → how many runs are in it.
        running: those that execute now.
        timed: those of them that have a timeout.
    """

    def __init__(
        self, ready: Ready, turns: Turns, reporter: Reporter, clock: Callable[[], float]
    ) -> None:
        self.counts: dict[str, int] = {}
        self.running: dict[StepRun, None] = {}
        self.timed: dict[StepRun, None] = {}
        self._ready = ready
        self._turns = turns
        self._reporter = reporter
        self._clock = clock

    def started(self, run: StepRun) -> None:
        """Note that a run executes from now on."""
        self.running[run] = None
        self._count("running", 1)
        if run.node.step.options.timeout_seconds is not None:
            self.timed[run] = None

    def overdue(self, grace_s: float) -> StepRun | None:
        """Return a run that has gone on for longer than its timeout, if there is one."""
        return next((run for run in self.timed if run.overdue(grace_s)), None)

    def settle(self, run: StepRun, state: str) -> None:
        """Bring a run to its end, tell the reporter, and let its children go on."""
        self.stopped(run)
        self._turns.release(run)
        run.state = state
        if run.repairs:
            run.remade = time.monotonic()
        self._count(state, 1)
        self._reporter.settled(run)
        self._ready.settle(run)
        if run.group is not None:
            run.group.unfinished_items -= 1
            if run.group.unfinished_items == 0 and not run.group.settled:
                self.settle_mapped(run.group)

    def settle_mapped(self, run: StepRun) -> None:
        """Bring a mapped run to its end, all items of which have come to theirs."""
        items = run.items or []
        run.ended = self._clock()
        told = [item for item in items if item.reasons]
        telling = [item for item in told if item.state != "reused"] or told[:1]
        run.reasons = distinct(reason for item in telling for reason in item.reasons)
        # Items below a tolerated failure are gaps; below a real one they bring this node down too.
        blockers = (item.blocked_by for item in items if item.state == "skipped")
        blocker = next((b for b in blockers if b and (b.group is None or b.group.failed)), None)
        if len(run.failed_items) > run.allowed_failures():
            run.error = run.failed_items[0].error
            self.settle(run, "failed")
        elif any(item.state == "cancelled" for item in items):
            self.settle(run, "cancelled")
        elif blocker is not None:
            run.blocked_by = blocker
            self.settle(run, "skipped")
        else:
            ran = any(item.state in ("ran", "failed") for item in items)
            self.settle(run, "ran" if ran else "reused")

    def reopen(self, run: StepRun) -> None:
        """Have a settled run decided anew; as an item, its mapped node comes to its end again."""
        self._count(run.state, -1)
        run.state, run.record = "waiting", None
        if run.group is not None:
            run.group.whole_digest = None
            run.group.unfinished_items += 1
            if run.group.settled:
                self._count(run.group.state, -1)
                run.group.state = "waiting"

    def stopped(self, run: StepRun) -> None:
        """Note that a run does not execute any more, if it did."""
        if run in self.running:
            del self.running[run]
            self.timed.pop(run, None)
            self._count("running", -1)

    def _count(self, state: str, change: int) -> None:
        self.counts[state] = self.counts.get(state, 0) + change
