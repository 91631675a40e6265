"""From a run that must execute to a call that is under way, alone or with others in a batch.

Knows runners and reporters by protocol, batches, and how a call is made of a run. Knows nothing of
why a run must execute, or of what comes of it. Belongs to the thread that drives the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Final

from prefect_mlpipe.current import Current
from prefect_mlpipe.engine.batching import Batch, Batches, Gathered, goes_in_batches
from prefect_mlpipe.engine.calls import PLAIN, StepCall
from prefect_mlpipe.engine.deciding import Decider
from prefect_mlpipe.engine.loglines import damage
from prefect_mlpipe.engine.outputs import Outputs
from prefect_mlpipe.engine.protocols import BatchPart, Outcome, Reporter, Runner
from prefect_mlpipe.engine.states import States
from prefect_mlpipe.engine.steprun import StepRun

# Handing an item that is quicker than this to another thread gains nothing.
QUICK_S: Final = 0.001


class Sending:
    """Sends the calls of one run.

    Args:
        outputs: what stands for outputs in calls.
        runner: takes calls and batches.
        reporter: is told what begins.
        decider: knows files and code of a step.
        states: is told what executes.
        outcomes: where the runner puts what came of it.
        current: what a run can ask about itself.
        clock: the time, in seconds since 1970.
        warn: is told of what is not as the user may think.

    Attributes:
        batches: items that wait to be sent together, and batches that are under way.
    """

    def __init__(
        self,
        *,
        outputs: Outputs,
        runner: Runner,
        reporter: Reporter,
        decider: Decider,
        states: States,
        outcomes: SimpleQueue[Any],
        current: Callable[[StepRun], Current],
        clock: Callable[[], float],
        warn: Callable[[str], None],
    ) -> None:
        self.batches = Batches(runner.slots)
        self._outputs = outputs
        self._runner = runner
        self._reporter = reporter
        self._decider = decider
        self._states = states
        self._outcomes = outcomes
        self._current = current
        self._clock = clock
        self._warn = warn

    def submit(
        self, run: StepRun, *, replace: bool, attempt: int = 0, here: bool
    ) -> Outcome | None:
        """Send the call of a run.

        Args:
            run: what is sent.
            replace: whether its record takes the place of one that stands.
            attempt: how many tries there were.
            here: whether it may run in this thread, since there is nothing else to do.

        Returns:
            What came of it, if it has run here.
        """
        call = self._call(run, replace=replace, attempt=attempt)
        self._reporter.reading(run)
        if here and run.node.step.options.timeout_seconds is None:
            outcome = self._runner.inline(run, call)
            if outcome is not None:
                return outcome
        self._states.started(run)
        self._runner.submit(run, call, self._outcomes)
        return None

    def goes_in_batches(self, run: StepRun) -> bool:
        """Return whether a run is an item that is sent together with others."""
        group = run.group
        if group is None:
            return False
        if group.batches is None:
            group.batches = goes_in_batches(run.node.step) and self._runner.slots(group) > 0
        return group.batches

    def submit_batch(
        self, group: StepRun, items: Sequence[Gathered], *, here: bool
    ) -> BatchPart | None:
        """Send items of a mapped step; as `submit`."""
        calls = [
            self._call(each.run, replace=each.refreshed or each.record is not None)
            for each in items
        ]
        if not group.batched:
            group.batched = True
            self._reporter.began(group)
        batch = Batch(group, [each.run for each in items], calls)
        for run in batch.runs:
            self._states.started(run)
        each_s = self.batches.item_s(group)
        self.batches.sent(batch)
        if here and each_s is not None and each_s < QUICK_S:
            part = self._runner.inline_batch(batch)
            if part is not None:
                return part
        self._runner.submit_batch(batch, self._outcomes)
        return None

    def _call(self, run: StepRun, *, replace: bool, attempt: int = 0) -> StepCall:
        """Make the call of a run that is about to be sent."""
        assert run.manifest is not None
        assert run.key is not None
        node, inputs = run.node, self._outputs.inputs
        if not attempt:
            found = damage(run)
            if found is not None:
                self._warn(found)
            run.manifest = self._decider.kept(node, run.manifest)
        run.call = StepCall(
            node.step,
            {
                name: value if type(value) in PLAIN else inputs(value)
                for name, value in node.arguments.items()
            },
            self._outputs.store,
            run.manifest,
            run.key,
            self._current(run),
            recorded=True,
            replace=replace,
            files=[*run.files, *self._decider.keyer.codes.of(node.step, run.name).files],
            attempt=attempt,
        )
        run.submission += 1
        run.submitted = time.monotonic()
        run.state = "running"
        run.started = self._clock()
        return run.call
