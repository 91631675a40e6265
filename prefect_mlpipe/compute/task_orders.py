"""A run of an ordinary Prefect task on its way to a worker and back, and what drives it there.

Knows Prefect's task engine, and dask's workers. Knows nothing of steps, stores or reuse. Prefect's
engine does on the worker all that it does on a thread: it makes the task run with its edges, waits
for nothing (futures arrive as the states that they came to), and gives retries, hooks, logs,
results and artifacts. The context of the flow run is there already, see `compute.context`.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

import cloudpickle
from distributed import Worker, get_worker
from prefect import Task
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TagsContext, TaskRunContext
from prefect.results import ResultRecord  # type: ignore[attr-defined]
from prefect.states import Crashed
from prefect.task_engine import run_task_async, run_task_sync

from prefect_mlpipe.asking import asked_by
from prefect_mlpipe.compute.context import WorkerContext
from prefect_mlpipe.compute.device_memory import give_back
from prefect_mlpipe.compute.errors import stand_in
from prefect_mlpipe.compute.travel import pack_error, unpack_error
from prefect_mlpipe.compute.worker import Result, await_heard, context_of, tell
from prefect_mlpipe.core.shipping import ship
from prefect_mlpipe.errors import ComputeError, Unshippable

T = TypeVar("T")


class TaskCall(NamedTuple):
    """What a task was called with.

    Attributes:
        parameters: by name; futures among them are states.
        wait_for: what it waits for besides, likewise.
        dependencies: parameter → task runs that it comes from.
        tags: of the flow, and of `with tags(...)`.
        parent: the context of the task run that it was submitted in, if so.
    """

    parameters: dict[str, Any]
    wait_for: Any
    dependencies: dict[str, Any]
    tags: frozenset[str]
    parent: dict[str, Any] | None


class TaskOrder(NamedTuple):
    """One run of a task as it is sent to a worker.

    Attributes:
        run_id: under which the context of the flow run is there.
        ticket: names the run in notices of its progress.
        number: which submission of the run this is; told in notices of its progress.
        task_run_id: what Prefect calls it.
        name: name of the task.
        attempts: how many tries were lost with workers that died.
        task: the task, by `pack`.
        call: the `TaskCall`, by `pack`.
    """

    run_id: str
    ticket: str
    number: int
    task_run_id: UUID
    name: str
    attempts: int
    task: bytes
    call: bytes


def pack(task: str, what: str, value: object) -> bytes:
    """Return something of a task as bytes.

    Raises:
        Unshippable: it cannot be pickled.
    """
    try:
        return ship(value)
    except Exception as error:  # objects raise what they like when they are asked to be pickled
        raise _unshippable(task, f"{what} cannot be pickled", error) from error


def _unshippable(task: str, why: str, error: Exception) -> Unshippable:
    return Unshippable(
        f"Task '{task}' cannot go to or come from a worker: {why}.",
        {"error": f"{type(error).__name__}: {error}"},
        "Pass plain data and open connections inside the task, or let it run on threads: "
        "compute={'default': Threads()}.",
    )


# On the worker


def run_task_order(data: bytes) -> Result:
    """Run one task run; return the state that it came to, as bytes."""
    order: TaskOrder = pickle.loads(data)
    context = context_of(order.run_id)
    try:
        task: Task[..., Any] = pickle.loads(order.task)
        call: TaskCall = pickle.loads(order.call)
    except Exception as error:  # a module that is missing or old raises what it likes
        return ("refused", _unshippable(order.name, "a worker cannot read it", error), 0, {}, [])
    try:
        return _run_task(order, context, task, call)
    finally:
        give_back(asked_by(order.name, task.tags, call.tags).resources)


def _run_task(
    order: TaskOrder, context: WorkerContext, task: Task[..., Any], call: TaskCall
) -> Result:
    tries = _Tries(order, get_worker())
    state = context.copy().run(_drive, tries.noticed(task), order, call)
    return (*_packed(order.name, state), tries.count, {}, [])


class _Tries:
    """Counts the tries of a task run, and tells the driver when one begins."""

    def __init__(self, order: TaskOrder, worker: Worker) -> None:
        self.count = order.attempts
        self.name = order.name
        self._order = order
        self._worker = worker

    def noticed(self, task: Task[..., Any]) -> Task[..., Any]:
        """Return the task with a function that says when it is called."""
        noticed = copy.copy(task)
        noticed.fn = _noticed_async(task.fn, self) if task.isasync else _noticed(task.fn, self)
        noticed.retries = max(0, task.retries - self._order.attempts)
        return noticed

    def begin(self) -> None:
        self.count += 1
        tell(self._worker, self._order, self.count, "begins")
        await_heard(tell(self._worker, self._order, self.count, "taken"))


def _noticed(function: Callable[..., Any], tries: _Tries) -> Callable[..., Any]:
    @functools.wraps(function)
    def begin(*args: Any, **kwargs: Any) -> Any:
        tries.begin()
        return _portable(tries.name, function(*args, **kwargs))

    return begin


def _noticed_async(function: Callable[..., Any], tries: _Tries) -> Callable[..., Any]:
    @functools.wraps(function)
    async def begin(*args: Any, **kwargs: Any) -> Any:
        tries.begin()
        return _portable(tries.name, await function(*args, **kwargs))

    return begin


def _drive(task: Task[..., Any], order: TaskOrder, call: TaskCall) -> State[Any]:
    flow = FlowRunContext.get()
    assert flow is not None
    # A copy: what Prefect notes there of results would be kept until the flow ends.
    flow.model_copy(update={"run_results": {}, "task_run_assets": {}}).__enter__()
    TagsContext(current_tags=set(call.tags)).__enter__()
    if call.parent is not None:
        TaskRunContext(client=flow.client, **call.parent).__enter__()
    options: dict[str, Any] = {
        "task_run_id": order.task_run_id,
        "parameters": call.parameters,
        "wait_for": call.wait_for,
        "dependencies": call.dependencies,
        "return_type": "state",
    }
    try:
        if task.isasync:
            state: Any = asyncio.run(run_task_async(task, **options))
        else:
            state = run_task_sync(task, **options)
    except BaseException as error:
        # Prefect's engine raises what is no Exception, such as SystemExit, once it has told of it.
        ended = stand_in(error, order.name, "it would end the process")
        return Crashed(message=str(ended), data=ended)
    return cast("State[Any]", state)


def _packed(name: str, state: State[Any]) -> tuple[str, Any]:
    error = _error_of(state)
    if error is not None:
        return "failed", (ship(state.model_copy(update={"data": None})), *pack_error(error, name))
    return "done", ship(state)


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


def _portable(name: str, value: T) -> T:
    """Return what a task returned if it can travel; within the task run, so that it fails if not.

    What is large in it is left aside and not copied.
    """
    try:
        cloudpickle.Pickler(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except Exception as error:  # objects raise what they like when they are asked to be pickled
        raise _unshippable(name, "what it returned cannot be pickled", error) from error
    return value


def _error_of(state: State[Any]) -> BaseException | None:
    if not (state.is_failed() or state.is_crashed() or state.is_cancelled()):
        return None
    data = state.data.result if isinstance(state.data, ResultRecord) else state.data
    return data if isinstance(data, BaseException) else None


# On the driver


def unpack_state(name: str, result: Result) -> State[Any] | ComputeError:
    """Return the state that a run came to on a worker, or why it could not run there."""
    kind, content = result[:2]
    if kind == "refused":
        return cast("ComputeError", content)
    if kind == "done":
        return cast("State[Any]", pickle.loads(content))
    bare, data, text = content
    state: State[Any] = pickle.loads(bare)
    state.data = unpack_error(data, text, name)
    return state
