"""Runs calls as native Prefect task runs, so that the engine of Prefect gives a step its retries,
timeouts, concurrency limits, hooks, logs and artifacts.

Knows the threads that they run on. Knows nothing of graphs: it gets a call and the ids of the task
runs above it.

It is no `TaskRunner`: those hand out futures that ask the API for the state, and one task run at a
time would wait in a thread.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from prefect.context import FlowRunContext

from prefect_mlpipe.compute.items import tell_parts
from prefect_mlpipe.compute.targets import Target, compute_of
from prefect_mlpipe.compute.tasks import TaskRuns, Try
from prefect_mlpipe.compute.threads import Pools
from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.engine.batching import Batch
from prefect_mlpipe.engine.calls import StepCall
from prefect_mlpipe.engine.protocols import BatchPart, Outcome
from prefect_mlpipe.engine.steprun import StepRun

Closing = Callable[[UUID, str, str], object]


class FlowRunner:
    """Runs the calls of one flow run as task runs on threads.

    Args:
        context: the flow run.
        computes: name → target; every compute is taken by threads of this process.
        closing: told of task runs (id, state, message) that Prefect's engine will not end.
    """

    def __init__(
        self, context: FlowRunContext, computes: Mapping[str, Target], closing: Closing
    ) -> None:
        self._task_runs = TaskRuns(context)
        self._closing = closing
        self._pools = Pools(computes)
        self._base = contextvars.copy_context()  # has client, settings and tags of the flow run
        self._tries: dict[StepRun, Try] = {}
        self._batches: dict[Batch, Future[Any]] = {}

    def check(self, nodes: Iterable[Node]) -> None:
        """Take any node."""

    def inline(self, run: StepRun, call: StepCall) -> Outcome | None:
        """Never: task runs are submitted, so that cancellation is noticed while one runs."""
        return None

    def submit(self, run: StepRun, call: StepCall, outcomes: SimpleQueue[Any]) -> None:
        """Start a call as a task run."""
        attempt = self._tries[run] = Try(call)
        submission = run.submission
        task = self._task_runs.task(run.node.step, call.attempt)
        task_run = self._task_runs.task_run(task, run.name, parent_ids(run))
        run.task_run_id = task_run.id
        context = self._base.copy()

        def work() -> None:
            outcome = context.run(self._task_runs.drive, task, task_run, attempt)
            self._tries.pop(run, None)
            if not attempt.given_up:
                outcomes.put(Outcome(run, submission, *outcome))

        attempt.future = self._pools.of(compute_of(run.node)).submit(work)

    def slots(self, run: StepRun) -> int:
        """Return how many threads there are."""
        return self._pools.of(compute_of(run.node)).max_workers

    def inline_batch(self, batch: Batch) -> BatchPart | None:
        """Never, so that cancellation is noticed while it runs."""
        return None

    def submit_batch(self, batch: Batch, outcomes: SimpleQueue[Any]) -> None:
        """Run a batch on a thread, in the task run of its mapped step."""
        group, context = batch.group, self._base.copy()

        def work() -> None:
            step = group.node.step
            with self._task_runs.of_items(step, group.name, parent_ids(group), group.task_run_id):
                tell_parts(batch, outcomes)

        pool = self._pools.of(compute_of(group.node))
        self._batches[batch] = pool.submit(partial(context.run, work))

    def abandon_batch(self, batch: Batch, state: str, message: str) -> None:
        """Give up a batch: what it has not begun will not run, and its results are dropped."""
        self._pools.of(compute_of(batch.group.node)).abandon(self._batches.pop(batch))

    def abandon(self, run: StepRun, state: str, message: str) -> None:
        """Give up a call: its thread cannot be stopped, but its result will be dropped."""
        attempt = self._tries.pop(run, None)
        if attempt is None:
            return  # it has just ended
        attempt.given_up = True
        attempt.call.recorded = False
        assert attempt.future is not None
        if self._pools.of(compute_of(run.node)).abandon(attempt.future):
            self._closing(run.task_run_id, state, message)
        else:
            run.task_run_id = None  # it never began: Prefect knows nothing of it

    def release(self, remaining: Iterable[Node]) -> None:
        """Keep the threads: they cost nothing while they wait."""

    def close(self) -> None:
        """Let the threads end."""
        self._pools.close()


def parent_ids(run: StepRun) -> list[UUID]:
    """Return the ids of the task runs above; a mapped node stands for its items."""
    parents = run.group.parents if run.group is not None and not run.parents else run.parents
    return [parent.task_run_id for parent in parents if parent.task_run_id is not None]
