"""What a pipeline body and its run ask of the queue: resolve, finish, wind down, load.

Knows the graph that is being traced. One thread drives it, the one in which the body is traced: it
works while the body waits at a `resolve` and after the body has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from prefect_mlpipe.core.graph import Graph, Node, Output
from prefect_mlpipe.core.leases.leases import Leases
from prefect_mlpipe.current import Current
from prefect_mlpipe.engine.calls import InputLost
from prefect_mlpipe.engine.deciding import Decider
from prefect_mlpipe.engine.outputs import Outputs
from prefect_mlpipe.engine.protocols import Reporter, Runner
from prefect_mlpipe.engine.queue import Queue
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.errors import RunCancelled
from prefect_mlpipe.settings import Failures


class Engine:
    """Executes one run of a pipeline.

    Attributes:
        graph: what is traced; it may grow between calls.
        runs: node → its run; items of mapped nodes too.
        outcomes: where a `Cancel` is put to stop the run from another thread.
        counts: state → how many runs are in it.
        warnings: what is not as the user may think.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        outputs: Outputs,
        runner: Runner,
        reporter: Reporter,
        decider: Decider,
        leases: Leases,
        patient: bool = True,
        failures: Failures,
        current: Callable[[StepRun], Current],
        check: Callable[[Sequence[Node]], None] = lambda nodes: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.graph = graph
        self._queue = queue = Queue(
            graph.name,
            outputs=outputs,
            runner=runner,
            reporter=reporter,
            decider=decider,
            leases=leases,
            patient=patient,
            failures=failures,
            current=current,
            clock=clock,
        )
        self.runs, self.outcomes = queue.runs, queue.outcomes
        self.counts, self.warnings = queue.counts, queue.warnings
        self._outputs = outputs
        self._decider = decider
        self._selection = decider.selection
        self._check = check
        self._admitted = 0

    def resolve(self, outputs: Sequence[Output]) -> list[Any]:
        """Run what these outputs need, start all else that was traced, return their values.

        Raises:
            Exception: a step's own; several in an `ExceptionGroup`.
        """
        new = self._admit()
        if not self._selection.targets:
            self._queue.ready.want(new)
        wanted = [self.runs[output._mlpipe_node] for output in outputs]
        self._queue.ready.want(wanted)
        while True:
            self._queue.advance(lambda: all(run.settled for run in wanted))
            for run in wanted:
                self.raise_if_failed(run)
            try:
                return [self._outputs.load(output) for output in outputs]
            except InputLost as lost:
                self._queue.repair(lost, wanted)

    def finish(self) -> None:
        """Run everything that was traced to its end.

        Raises:
            Exception: the step's own exception; several in an `ExceptionGroup`.
            RunCancelled: the run was cancelled.
            InvalidPipeline: `refresh` or `targets` name what is not there.
        """
        self._admit()
        self._queue.traced = True
        self._selection.refuse_unknown(self.graph)
        self._queue.ready.want(
            run for run in self.runs.values() if self._selection.is_target(run.name)
        )
        self._queue.advance(lambda: False)
        if self._queue.cancelled is not None:
            raise self._queue.cancelled
        self._queue.failing.raise_rest()

    def wind_down(self, error: Exception) -> None:
        """Bring the run to its end after the body has raised.

        After the error of a step, what does not depend on it still runs; after an error of the
        body itself nothing new starts, and what runs may end.

        Raises:
            Exception: the error together with others that steps had, in an `ExceptionGroup`.
        """
        if self._queue.failing.given(error) and self._queue.cancelled is None:
            if not self._selection.targets:
                self._queue.ready.want(self._admit())
        elif self._queue.stopped is None:
            self._queue.stopped = f"the body of the pipeline raised {type(error).__name__}"
        self._queue.traced = True
        self._queue.advance(lambda: False)
        self._queue.failing.raise_rest(error)

    def load(self, value: Any) -> Any:
        """Return a structure with its outputs loaded; what is lost is made again."""
        while True:
            try:
                return self._outputs.load_all(value)
            except InputLost as lost:
                self._queue.repair(lost, ())
                self._queue.advance(lambda: False)
                self._queue.failing.raise_rest()

    def references(self, value: Any) -> Any:
        """Return a structure with references in place of its outputs."""
        return self._outputs.inputs(value)

    def abandon(self, state: str, message: str) -> None:
        """Give up everything that still runs or waits; after this nothing is outstanding."""
        self._queue.abandon(state, message)

    def warn(self, text: str) -> None:
        """Say once that something is not as the user may think."""
        self._queue.warn(text)

    def raise_if_failed(self, run: StepRun) -> None:
        """Raise what keeps a run from having an output.

        Raises:
            Exception: the step's own; several in an `ExceptionGroup`.
            RunCancelled: it did not run.
        """
        if not run.failed:
            return
        if self._queue.cancelled is not None:
            raise self._queue.cancelled
        self._queue.failing.give(run)
        raise RunCancelled(
            f"Step '{run.name}' did not run: {self._queue.stopped or 'it was cancelled'}."
        )

    def all_runs(self) -> list[StepRun]:
        """Return the runs of all nodes in call order, mapped ones followed by their items."""
        return [
            one
            for run in map(self.runs.__getitem__, self.graph.nodes[: self._admitted])
            for one in (run, *(run.items or ()))
        ]

    def _admit(self) -> list[StepRun]:
        """Take in the nodes that were traced since the last time."""
        nodes = self.graph.nodes[self._admitted :]
        self._check(nodes)
        for node in nodes:  # code and globals count as they are before anything has run
            self._decider.keyer.codes.of(node.step, node.name)
        self._admitted = len(self.graph.nodes)
        return self._queue.ready.admit(nodes)
