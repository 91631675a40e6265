"""`RoutingTaskRunner`: a Prefect task runner that takes each task run to its compute.

For ordinary flows; pipelines have an engine of their own, which shares the clusters' opening, care
and closing with this one. Knows Prefect's task runners and futures. Knows nothing of steps'
keys, stores or reuse.

A future among the arguments is never waited for in the thread that submits: the task run goes to
its workers when the last of them has ended, and Prefect's engine there is shown the states that
they came to. So a failed one makes it `NotReady` as on threads, and `allow_failure` holds.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from prefect import Task
from prefect.client.schemas.objects import RunInput, State, StateDetails
from prefect.context import FlowRunContext, TagsContext, TaskRunContext
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.states import Cancelled, Crashed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from prefect.utilities.collections import StopVisiting, visit_collection
from prefect.utilities.engine import collect_task_run_inputs_sync
from pydantic import BaseModel, ConfigDict

from prefect_mlpipe.asking import Asked, asked_by, bare, without_asking
from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.compute.named import named_computes
from prefect_mlpipe.compute.open_clusters import OpenClusters
from prefect_mlpipe.compute.targets import DEFAULT, Target, Threads
from prefect_mlpipe.engine.calls import Done
from prefect_mlpipe.errors import ComputeUnavailable, MlpipeError, NoSuchCompute
from prefect_mlpipe.reporting.task_runs import BulkReporter, TaskRunReport, task_run_ids
from prefect_mlpipe.settings import Settings

if TYPE_CHECKING:
    from prefect_mlpipe.compute.task_cluster import TaskCluster, TaskTicket
    from prefect_mlpipe.compute.task_orders import TaskCall


class RoutedFuture(PrefectConcurrentFuture[Any]):
    """A future of a task run on a cluster; as Prefect's, but its state is known once it is done."""

    @property
    def state(self) -> State[Any]:
        """The final state, or what the API says of it now."""
        if self.wrapped_future.done():
            self.wait()
        return super().state


class TaskRunnerOptions(BaseModel):
    """The settings of a task runner; one object, so that copies cannot forget one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compute: dict[str, Target] = {}


class RoutingTaskRunner(TaskRunner[PrefectConcurrentFuture[Any]]):
    """Runs each task of an ordinary flow on the compute that it asks for.

    @flow(task_runner=RoutingTaskRunner({"cpu": Dask(n_workers=2), "gpu": Cuda()}))
    def nightly():
        table = load.submit()                              # asks for nothing: `default`, threads
        return train.submit(table).result()

    @task(tags=on("gpu", Resources(gpus=1)))               # or a step's `as_task()`
    def train(table): ...

    A task asks by tags, which `on` makes; they count too where they come from `with tags(...)` or
    the flow. A cluster starts when the first task that goes there is submitted, and is closed when
    the flow ends; one that was given by its `address` is left running. A task whose worker dies
    runs again as often as its `retries` say, else it is `Crashed`. What a task returns comes back
    through this process: return a reference to what is large, or use a pipeline.

    Args:
        compute: name → target; the settings may name others. `default` takes tasks that ask for
            none; if nobody says what it is, it is threads. `Threads()` without `max_workers` is
            Prefect's own thread pool.

    Raises:
        NoSuchCompute: of `submit`, a task asks for a compute that is not there.
    """

    def __init__(self, compute: Mapping[str, Target] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.options = TaskRunnerOptions(compute=dict(compute or {}))
        self._copies: list[weakref.ref[RoutingTaskRunner]] = []
        self._work: _Work | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(compute={self.options.compute!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoutingTaskRunner) and self.options == other.options

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.options.compute,)

    def duplicate(self) -> RoutingTaskRunner:
        """Return another one with the same settings, with nothing started."""
        made = type(self)(self.options.compute)
        self._copies = [*(ref for ref in self._copies if ref() is not None), weakref.ref(made)]
        return made

    def __enter__(self) -> RoutingTaskRunner:
        super().__enter__()
        self._work = _Work()
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        work, self._work = self._work, None
        try:
            if work is not None:
                work.close()
        finally:
            super().__exit__(exc_type, exc_value, traceback)

    def cancel_all(self) -> None:
        """Cancel what was submitted and has not ended, here and in the copies that run flows.

        Prefect asks the runner of the flow, and not the copy that its run works with. What runs on
        a worker of a given cluster cannot be stopped; nobody waits for it any more.
        """
        for one in (self, *filter(None, (ref() for ref in self._copies))):
            if one._work is not None:
                one._work.cancel("the flow run was cancelled")

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectConcurrentFuture[Any]:
        """Start a task run on its compute as soon as what it waits for has ended.

        Args:
            task: what is run.
            parameters: its arguments; futures among them may be of any runner.
            wait_for: futures that must end first.
            dependencies: parameter → task runs that it comes from, besides those that are found.

        Raises:
            NoSuchCompute: it asks for a compute that is not there.
            InvalidStep: its tags say nothing that can be understood.
        """
        if self._work is None:
            raise RuntimeError("The task runner must be started before submitting work.")
        asked = asked_by(task.name, task.tags, TagsContext.get().current_tags)
        name = asked.compute or DEFAULT
        target = self._target(task.name, name)
        if isinstance(target, ClusterTarget):
            return self._work.send(task, parameters, wait_for, dependencies, asked, name, target)
        pool = self._work.pool(name, target)
        return pool.submit(bare(task), parameters, wait_for, dependencies)

    def _target(self, task: str, name: str) -> Target:
        assert self._work is not None
        computes = {DEFAULT: Threads(), **self._work.named, **self.options.compute}
        if name not in computes:
            raise NoSuchCompute(
                f"Task '{task}' asks for compute '{name}', which its task runner has not.",
                {"defined": ", ".join(sorted(computes))},
                f"Say where it is: RoutingTaskRunner({{{name!r}: Threads()}}), or\n"
                f"[tool.prefect-mlpipe.compute.{name}] in pyproject.toml.",
            )
        return computes[name]


class _Work:
    """What a runner that was started has going.

    Attributes:
        named: computes of the settings, for names that the runner was not given.
    """

    def __init__(self) -> None:
        self.named = named_computes(Settings())
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._pools: dict[str, ThreadPoolTaskRunner[Any]] = {}
        self._clusters: OpenClusters[TaskCluster] = OpenClusters(self._open)
        self._flights: dict[UUID, _Flight] = {}
        self._reporter: BulkReporter | None = None

    def pool(self, name: str, target: Target) -> ThreadPoolTaskRunner[Any]:
        """Return the threads of a compute."""
        with self._lock:
            if name not in self._pools:
                workers = target.max_workers if isinstance(target, Threads) else None
                made: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=workers)
                self._pools[name] = self._stack.enter_context(made)
            return self._pools[name]

    def send(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None,
        dependencies: dict[str, set[RunInput]] | None,
        asked: Asked,
        name: str,
        target: ClusterTarget,
    ) -> PrefectConcurrentFuture[Any]:
        """Start a task run on a cluster."""
        from prefect_mlpipe.compute.task_cluster import TaskTicket

        flow_run_id = _flow_run_id(task.name)
        self._prepare(flow_run_id)
        awaited = None if wait_for is None else list(wait_for)
        found = {
            key: collect_task_run_inputs_sync(value) | (dependencies or {}).get(key, set())
            for key, value in parameters.items()
        }
        upstream = _futures_in((parameters, awaited))
        calling = partial(
            _call, parameters, awaited, found, upstream, _tags_around(), _parent_task_run()
        )
        (task_run_id,) = task_run_ids(1)
        ticket = TaskTicket(task, task_run_id, asked.resources, calling)
        flight = _Flight(ticket, flow_run_id, self._clusters.of(name, target), found)
        ticket.settle = partial(self._settle, flight)
        self._flights[task_run_id] = flight
        _WhenEnded(upstream, partial(self._launch, flight))
        return flight.future

    def _prepare(self, flow_run_id: UUID) -> None:
        with self._lock:
            if self._reporter is None:
                self._reporter = BulkReporter(flow_run_id)

    def _open(self, name: str, target: ClusterTarget) -> TaskCluster:
        from prefect_mlpipe.compute.context import pack_context
        from prefect_mlpipe.compute.task_cluster import TaskCluster

        context = FlowRunContext.get()
        assert context is not None
        run_id, packed = str(uuid4()), pack_context(context, None)
        return TaskCluster(name, target, run_id, packed, self._close_lately_ended)

    def _close_lately_ended(self, task_run_id: UUID, state: str, message: str) -> None:
        assert self._reporter is not None
        self._reporter.report_existing(task_run_id, state, message)

    def _launch(self, flight: _Flight) -> None:
        if flight.ticket.task_run_id in self._flights:  # not cancelled meanwhile
            flight.cluster.submit(flight.ticket)

    def _settle(self, flight: _Flight, done: Done | None, error: BaseException | None) -> None:
        if self._flights.pop(flight.ticket.task_run_id, None) is None:
            return  # cancelled at this very moment
        state = flight.ticket.state
        if error is not None or state is None:
            error = _of_a_task(error)
            state = Crashed(message=str(error), data=error, state_details=flight.details)
            self._tell(flight, state)
        flight.future.wrapped_future.set_result(state)

    def _tell(self, flight: _Flight, state: State[Any]) -> None:
        """Report the end of a task run that Prefect's engine will not tell of.

        Whole, though it may be on record: what a worker had to say of it may have died with it.
        """
        assert self._reporter is not None
        self._reporter.report(flight.report(str(state.name), str(state.message)))

    def cancel(self, why: str) -> None:
        """Cancel what has not ended."""
        # All of them first: what waits for one of these must not be launched when that one ends.
        found = [self._flights.pop(task_run_id, None) for task_run_id in list(self._flights)]
        for flight in filter(None, found):
            flight.cluster.abandon(flight.ticket, replace_worker=False)
            state: State[Any] = Cancelled(message=why, state_details=flight.details)
            self._tell(flight, state)
            flight.future.wrapped_future.set_result(state)
        for pool in list(self._pools.values()):
            pool.cancel_all()

    def close(self) -> None:
        """Cancel what has not ended, and close what is open."""
        try:
            self.cancel("the flow run ended before")
            self._stack.close()
        finally:
            self._clusters.close()
            if self._reporter is not None:
                self._reporter.close()


class _Flight:
    """One task run that was sent to a cluster and has not come to its end."""

    def __init__(
        self,
        ticket: TaskTicket,
        flow_run_id: UUID,
        cluster: TaskCluster,
        inputs: Mapping[str, Iterable[Any]],
    ) -> None:
        self.ticket = ticket
        self.cluster = cluster
        self.future = RoutedFuture(ticket.task_run_id, concurrent.futures.Future())
        self.details = StateDetails(task_run_id=ticket.task_run_id, flow_run_id=flow_run_id)
        self._inputs = inputs
        self._submitted = datetime.now(UTC)

    def report(self, state: str, message: str) -> TaskRunReport:
        """Return the task run as the API is told of it."""
        task_run_id, task = self.ticket.task_run_id, self.ticket.task
        parents = {each.id for found in self._inputs.values() for each in found}
        return TaskRunReport(
            task_run_id,
            f"{task.name}-{str(task_run_id)[-3:]}",
            task.task_key,
            str(task_run_id),
            state,
            message,
            tuple(parents),
            self._submitted,
            datetime.now(UTC),
            tuple(sorted(task.tags)),
        )


def _of_a_task(error: BaseException | None) -> BaseException | None:
    """Return an error of a cluster in the words of an ordinary flow, where there are no steps."""
    if not isinstance(error, MlpipeError) or not error.sentence.startswith("Step "):
        return error
    said = type(error)(f"Task {error.sentence.removeprefix('Step ')}", error.facts, error.advice)
    said.__cause__ = error.__cause__
    return said


def _flow_run_id(task: str) -> UUID:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise ComputeUnavailable(
            f"Task '{task}' is submitted to a cluster outside of a flow run.",
            {},
            "Submit it inside a flow: workers report to the API of its run.",
        )
    return context.flow_run.id


def _tags_around() -> frozenset[str]:
    return frozenset(without_asking(TagsContext.get().current_tags))


def _parent_task_run() -> dict[str, Any] | None:
    """Return the context of the task run that submits, without what it was called with."""
    context = TaskRunContext.get()
    return None if context is None else {**context.serialize(), "parameters": {}}


def _futures_in(value: Any) -> list[PrefectFuture[Any]]:
    found: list[PrefectFuture[Any]] = []

    def visit(item: Any) -> None:
        if isinstance(item, PrefectFuture):
            found.append(item)
        elif isinstance(item, quote):
            raise StopVisiting

    visit_collection(value, visit_fn=visit, return_data=False)
    return found


class _WhenEnded:
    """Calls something once all futures have ended, in the thread that ends the last of them."""

    def __init__(self, upstream: list[PrefectFuture[Any]], call: Callable[[], None]) -> None:
        self._call = call
        self._left = len(upstream)
        self._lock = threading.Lock()
        if not upstream:
            call()
        for future in upstream:
            future.add_done_callback(self._ended)

    def _ended(self, future: PrefectFuture[Any]) -> None:
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._call()


def _call(
    parameters: dict[str, Any],
    wait_for: Any,
    dependencies: dict[str, Any],
    upstream: list[PrefectFuture[Any]],
    tags: frozenset[str],
    parent: dict[str, Any] | None,
) -> TaskCall:
    """Return what a task is called with, once all futures have ended."""
    from prefect_mlpipe.compute.task_orders import TaskCall

    if upstream:
        parameters, wait_for = (_with_states(each) for each in (parameters, wait_for))
    return TaskCall(parameters, wait_for, dependencies, tags, parent)


def _with_states(value: Any) -> Any:
    def visit(item: Any, context: dict[str, Any]) -> Any:
        if isinstance(context.get("annotation"), quote):
            raise StopVisiting
        if isinstance(item, PrefectFuture):
            item.wait()  # has ended: takes in the state
            return item.state
        return item

    return visit_collection(value, visit_fn=visit, return_data=True, context={})
