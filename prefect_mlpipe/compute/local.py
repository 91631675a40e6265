"""Runs calls on threads of this process, without any Prefect run: what `pipeline.local()` uses.

Knows threads; the engine knows the rest. One call at a time runs in the caller's own thread,
because handing it to another costs more than many a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from prefect_mlpipe.compute.items import outcome_of, outcomes_of, run_items, tell_parts
from prefect_mlpipe.compute.targets import Target, compute_of
from prefect_mlpipe.compute.threads import DaemonPool, Pools
from prefect_mlpipe.compute.usage import Span
from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.engine.batching import Batch
from prefect_mlpipe.engine.calls import StepCall
from prefect_mlpipe.engine.protocols import BatchPart, Outcome
from prefect_mlpipe.engine.steprun import StepRun


class LocalRunner:
    """Runs calls on this process's threads; every compute is taken by threads."""

    def __init__(self, computes: Mapping[str, Target]) -> None:
        self._pools = Pools(computes)
        self._futures: dict[StepRun, tuple[DaemonPool, Future[Any]]] = {}
        self._batches: dict[Batch, tuple[DaemonPool, Future[Any]]] = {}

    def check(self, nodes: Iterable[Node]) -> None:
        """Take any node: threads run what was meant for other places, too."""

    def inline(self, run: StepRun, call: StepCall) -> Outcome | None:
        """Run a call in this thread."""
        return _outcome(run, run.submission, call)

    def submit(self, run: StepRun, call: StepCall, outcomes: SimpleQueue[Any]) -> None:
        """Run a call on a thread of its compute."""
        pool = self._pools.of(compute_of(run.node))
        submission = run.submission
        future = pool.submit(lambda: outcomes.put(_outcome(run, submission, call)))
        self._futures[run] = (pool, future)

    def slots(self, run: StepRun) -> int:
        """Return how many threads there are."""
        return self._pools.of(compute_of(run.node)).max_workers

    def inline_batch(self, batch: Batch) -> BatchPart:
        """Run a batch in this thread."""
        outcomes: list[Outcome] = []
        seconds = 0.0
        for ended, took in run_items(batch.calls):
            outcomes += outcomes_of(batch, ended)
            seconds += took
        return BatchPart(batch, outcomes, True, seconds)

    def submit_batch(self, batch: Batch, outcomes: SimpleQueue[Any]) -> None:
        """Run a batch on a thread of its compute."""
        pool = self._pools.of(compute_of(batch.group.node))
        self._batches[batch] = (pool, pool.submit(lambda: tell_parts(batch, outcomes)))

    def abandon(self, run: StepRun, state: str, message: str) -> None:
        """Give up a call: a thread cannot be stopped, but its result will be dropped."""
        if run in self._futures:
            pool, future = self._futures.pop(run)
            pool.abandon(future)

    def abandon_batch(self, batch: Batch, state: str, message: str) -> None:
        """Give up a batch in the same way; what it has not begun will not run."""
        pool, future = self._batches.pop(batch)
        pool.abandon(future)

    def release(self, remaining: Iterable[Node]) -> None:
        """Keep the threads: they cost nothing while they wait."""

    def close(self) -> None:
        """Let the threads end."""
        self._pools.close()

    def spans(self) -> list[Span]:
        """Return none: there are no clusters."""
        return []


def _outcome(run: StepRun, submission: int, call: StepCall) -> Outcome:
    return Outcome(run, submission, *outcome_of(call))
