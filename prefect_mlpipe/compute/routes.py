"""Takes each call of a flow run to its compute: threads of this process, or a cluster.

Knows the names of computes and who runs calls there. A cluster is opened by the first call that
must run on it, and closed as soon as no remaining node can need it; names with equal settings share
one.
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
from prefect_mlpipe.compute.targets import Target, compute_of
from prefect_mlpipe.compute.ticket import Ticket
from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.calls import Done, StepCall
from prefect_mlpipe.engine.protocols import Outcome
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.errors import ComputeError
from prefect_mlpipe.reporting.events import task_run_ids

if TYPE_CHECKING:
    from prefect_mlpipe.compute.cluster import Cluster


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
        self._clusters: list[Cluster] = []
        self._leaving: list[Cluster] = []
        self._tickets: dict[StepRun, tuple[Cluster, Ticket]] = {}

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
        cluster = self._cluster(compute_of(run.node), target)
        self._tickets[run] = (cluster, ticket)
        cluster.submit(ticket)

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

    def _cluster(self, name: str, target: ClusterTarget) -> Cluster:
        known = next((each for each in self._clusters if each.target == target), None)
        if known is None:
            from prefect_mlpipe.compute.cluster import Cluster
            from prefect_mlpipe.compute.context import pack_context

            assert self._context.flow_run is not None
            context = pack_context(self._context, self._store)
            run_id = str(self._context.flow_run.id)
            known = Cluster(name, target, run_id, context, self._closing)
            self._clusters.append(known)
        return known

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
        if not self._clusters:
            return
        targets = [self._computes.get(name) for name in set(map(compute_of, remaining))]
        for cluster in [each for each in self._clusters if each.target not in targets]:
            self._clusters.remove(cluster)
            self._leaving.append(cluster)
            cluster.close(wait=False)

    def close(self) -> None:
        """Close all clusters, and let the threads end."""
        self._threads.close()
        self.release(())
        for cluster in self._leaving:
            cluster.close(wait=True)
        self._leaving.clear()
