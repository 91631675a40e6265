"""Takes each call of a flow run to its compute: threads of this process, or a cluster.

Knows the names of computes and who runs calls there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.context import FlowRunContext

from prefect_mlpipe.compute.clusters import ClusterTarget, refuse_unshared
from prefect_mlpipe.compute.flow import FlowRunner, parent_ids
from prefect_mlpipe.compute.item_orders import Row, unpack_rows
from prefect_mlpipe.compute.items import outcomes_of
from prefect_mlpipe.compute.open_clusters import OpenClusters
from prefect_mlpipe.compute.targets import Target, compute_of
from prefect_mlpipe.compute.ticket import Ticket
from prefect_mlpipe.compute.usage import Span
from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.batching import Batch
from prefect_mlpipe.engine.calls import Done, StepCall
from prefect_mlpipe.engine.protocols import BatchPart, Outcome
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.errors import ComputeError, WorkerLost
from prefect_mlpipe.reporting.events import task_run_ids

if TYPE_CHECKING:
    from prefect_mlpipe.compute.cluster import Cluster

_BATCHES_A_THREAD = 2  # one that runs, and one that waits at the worker


class RoutingRunner:
    """Runs the calls of one flow run, each on its compute.

    Args:
        context: the flow run.
        computes: name → target.
        closing: told of task runs (id, state, message) that Prefect's engine will not end.
        store: where values go; workers must see it.
    """

    def __init__(
        self,
        context: FlowRunContext,
        computes: Mapping[str, Target],
        closing: Callable[[UUID, str, str], object],
        store: Store,
    ) -> None:
        self._context = context
        self._computes = computes
        self._closing = closing
        self._store = store
        self._threads = FlowRunner(context, computes, closing)
        self._clusters = OpenClusters(self._open)
        self._tickets: dict[StepRun, tuple[Cluster, Ticket]] = {}
        self._batches: dict[Batch, tuple[Cluster, Ticket]] = {}

    def check(self, nodes: Iterable[Node]) -> None:
        """Refuse nodes whose workers could not see the store.

        Raises:
            StoreNotShared: with what to do.
        """
        for node in nodes:
            target = self._computes[compute_of(node)]
            if isinstance(target, ClusterTarget):
                refuse_unshared(node, target, self._store)

    def inline(self, run: StepRun, call: StepCall) -> Outcome | None:
        """Never: task runs are submitted, so that cancellation is noticed while one runs."""
        return None

    def submit(self, run: StepRun, call: StepCall, outcomes: SimpleQueue[Any]) -> None:
        """Start a call as a task run."""
        target = self._computes.get(compute_of(run.node))
        if not isinstance(target, ClusterTarget):
            self._threads.submit(run, call, outcomes)
            return
        (run.task_run_id,) = task_run_ids(1)
        ticket = Ticket(call, run.name, run.task_run_id, tuple(parent_ids(run)))
        ticket.settle = partial(self._settle, ticket, run, run.submission, outcomes)
        cluster = self._clusters.of(compute_of(run.node), target)
        self._tickets[run] = (cluster, ticket)
        cluster.submit(ticket)

    def slots(self, run: StepRun) -> int:
        """Return how many batches of a mapped step its compute takes at a time.

        A worker that dies may have run some items of its batch, which only their records tell: a
        step without records goes item by item.
        """
        name = compute_of(run.node)
        target = self._computes.get(name)
        if not isinstance(target, ClusterTarget):
            return self._threads.slots(run)
        if not run.node.step.cached:
            return 0
        known = self._clusters.known(target)
        threads = max(known.threads if known is not None else 0, target.threads)
        return _BATCHES_A_THREAD * threads

    def inline_batch(self, batch: Batch) -> BatchPart | None:
        """Never, so that cancellation is noticed while it runs."""
        return None

    def submit_batch(self, batch: Batch, outcomes: SimpleQueue[Any]) -> None:
        """Start a batch in the task run of its mapped step."""
        group = batch.group
        target = self._computes.get(compute_of(group.node))
        if not isinstance(target, ClusterTarget):
            self._threads.submit_batch(batch, outcomes)
            return
        parents = tuple(parent_ids(group))
        ticket = Ticket(batch.calls[0], group.name, group.task_run_id, parents, batch.calls)
        ticket.settle = partial(self._settle_batch, batch, outcomes)
        cluster = self._clusters.of(compute_of(group.node), target)
        self._batches[batch] = (cluster, ticket)
        cluster.submit(ticket)

    def _settle_batch(
        self,
        batch: Batch,
        outcomes: SimpleQueue[Any],
        done: tuple[list[Row], float] | None,
        error: BaseException | None,
    ) -> None:
        if self._batches.pop(batch, None) is None:
            return  # given up at this very moment
        rows, seconds = done or ((), 0.0)
        ended = unpack_rows(rows, batch.calls)
        if error is not None and not (isinstance(error, WorkerLost) and len(batch) > 1):
            ended = [(number, None, error) for number in range(len(batch))]
        outcomes.put(BatchPart(batch, outcomes_of(batch, ended), True, seconds))

    def abandon_batch(self, batch: Batch, state: str, message: str) -> None:
        """Give up a batch."""
        known = self._batches.pop(batch, None)
        if known is None:
            self._threads.abandon_batch(batch, state, message)
            return
        cluster, ticket = known
        cluster.abandon(ticket, replace_worker=False)

    def _settle(
        self,
        ticket: Ticket,
        run: StepRun,
        submission: int,
        outcomes: SimpleQueue[Any],
        done: Done | None,
        error: BaseException | None,
    ) -> None:
        if self._tickets.get(run, (None, None))[1] is not ticket:
            return  # given up at this very moment
        del self._tickets[run]
        if not ticket.ever_begun:
            run.task_run_id = None  # Prefect knows nothing of it
        elif isinstance(error, ComputeError):
            self._closing(ticket.task_run_id, "Crashed", str(error))
        outcomes.put(Outcome(run, submission, done, error))

    def _open(self, name: str, target: ClusterTarget) -> Cluster:
        from prefect_mlpipe.compute.cluster import Cluster
        from prefect_mlpipe.compute.context import pack_context

        assert self._context.flow_run is not None
        context = pack_context(self._context, self._store)
        return Cluster(name, target, str(self._context.flow_run.id), context, self._closing)

    def abandon(self, run: StepRun, state: str, message: str) -> None:
        """Give up a call; a worker on which it blocks past its timeout is replaced."""
        known = self._tickets.pop(run, None)
        if known is None:
            self._threads.abandon(run, state, message)
            return
        cluster, ticket = known
        cluster.abandon(ticket, replace_worker=state == "TimedOut")
        if ticket.ever_begun:
            self._closing(ticket.task_run_id, state, message)
        else:
            run.task_run_id = None  # it never began: Prefect knows nothing of it

    def release(self, remaining: Iterable[Node]) -> None:
        """Close the clusters that no remaining node can need."""
        if self._clusters:
            names = set(map(compute_of, remaining))
            self._clusters.release([self._computes.get(name) for name in names])

    def close(self) -> None:
        """Close all clusters, and let the threads end."""
        self._threads.close()
        self._clusters.close()

    def spans(self) -> list[Span]:
        """Return how long clusters were open."""
        return self._clusters.spans()
