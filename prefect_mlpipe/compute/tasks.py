"""A step call as a native Prefect task run, wherever it is driven: on a thread of the flow's
process or on a worker.

Knows Prefect's task engine and the context of the flow run. Knows nothing of threads, of workers or
of graphs: it gets a call and the ids of the task runs above it.

The task run is made here and not by Prefect's engine, which would tell the API of one more state
(Pending) and search all arguments for futures.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import Any, cast
from uuid import UUID

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun, TaskRunPolicy, TaskRunResult
from prefect.context import FlowRunContext, TagsContext, TaskRunContext
from prefect.exceptions import Abort
from prefect.logging.loggers import patch_print
from prefect.results import ResultRecord  # type: ignore[attr-defined]
from prefect.states import Completed, Pending
from prefect.task_engine import TaskRunTimeoutError, run_task_sync

from prefect_mlpipe.compute.errors import slimmed, stand_in
from prefect_mlpipe.engine.calls import Done, InputLost, StepCall, execute
from prefect_mlpipe.errors import RunCancelled, StepFailed, StepTimedOut
from prefect_mlpipe.reporting.events import task_run_ids
from prefect_mlpipe.steps import Step


class Try:
    """One task run's call. Not a dataclass: Prefect looks into those for futures, item by item.

    Attributes:
        call: what is run.
        given_up: whether nobody waits for it any more. Its thread cannot be stopped, but nothing
            starts again in it and nothing more is told of it.
        future: holds the thread's work.
    """

    __slots__ = ("call", "future", "given_up")

    def __init__(self, call: StepCall) -> None:
        self.call = call
        self.given_up = False
        self.future: Future[Any] | None = None

    def execute(self) -> Done:
        """Run the function once."""
        return execute(self.call)


class TaskRuns:
    """Makes and drives the task runs of one flow run, in whose context it has to be made.

    Args:
        context: the flow run.
    """

    def __init__(self, context: FlowRunContext) -> None:
        assert context.flow_run is not None
        self._flow_context = context
        self._flow_run_id = context.flow_run.id
        self._tags = tuple(TagsContext.get().current_tags)
        self._tasks: dict[Step[..., Any], Task[..., Any]] = {}

    def task(self, step: Step[..., Any], attempts: int) -> Task[..., Any]:
        """Return the task of a step, with the retries that earlier tries have left."""
        if step not in self._tasks:
            self._tasks[step] = step_task(step)
        task = self._tasks[step]
        if attempts:  # tries of a task run that was given up count
            task = copy.copy(task)
            task.retries = max(0, task.retries - attempts)
        return task

    def task_run(
        self,
        task: Task[..., Any],
        name: str,
        parents: Iterable[UUID],
        task_run_id: UUID | None = None,
    ) -> TaskRun:
        """Return a task run that has not begun."""
        new_id = task_run_id or task_run_ids(1)[0]
        state: State[Any] = Pending()
        state.state_details.task_run_id = new_id
        state.state_details.flow_run_id = self._flow_run_id
        return TaskRun(
            id=new_id,
            name=name,
            flow_run_id=self._flow_run_id,
            task_key=task.task_key,
            dynamic_key=str(new_id),
            task_version=task.version,
            empirical_policy=TaskRunPolicy(
                retries=task.retries,
                retry_delay=task.retry_delay_seconds,
                retry_jitter_factor=task.retry_jitter_factor,
            ),
            tags=[*{*task.tags, *self._tags}],
            # One input: the graph repeats a parent for each input that the parent has.
            task_inputs={"inputs": [TaskRunResult(id=parent) for parent in parents]},
            expected_start_time=state.timestamp,
            state_id=state.id,
            state_type=state.type,
            state_name=state.name,
            state=state,
            created=state.timestamp,
            updated=state.timestamp,
        )

    @contextmanager
    def of_items(
        self, step: Step[..., Any], name: str, parents: Iterable[UUID], task_run_id: UUID
    ) -> Iterator[None]:
        """Have what is logged and made here belong to the task run of a mapped step.

        Its items have no task runs of their own, and Prefect's engine does not drive it: who runs
        the items says how it goes.
        """
        task = self.task(step, step.options.retries)
        flow = self._flow_context.model_copy(update={"run_results": {}, "task_run_assets": {}})
        prints = flow.log_prints if task.log_prints is None else task.log_prints
        context = TaskRunContext(
            task=task,
            task_run=self.task_run(task, name, parents, task_run_id),
            parameters={},
            log_prints=prints,
            result_store=flow.result_store,
            persist_result=False,
            client=flow.client,
        )
        with flow, context, patch_print() if prints else nullcontext():
            yield

    def drive(
        self, task: Task[..., Any], task_run: TaskRun, attempt: Try
    ) -> tuple[Done | None, BaseException | None]:
        """Run a call as a task run, here and now; return what came of it."""
        # A copy: what Prefect notes there of results would be kept until the flow ends.
        own = self._flow_context.model_copy(update={"run_results": {}, "task_run_assets": {}})
        try:
            with own:
                parameters = {"attempt": attempt}
                state = run_task_sync(task, None, task_run, parameters, return_type="state")
        except BaseException as error:
            # Prefect's engine raises what is no Exception, such as SystemExit. It is the end of
            # this step, not of the pipeline's process.
            return None, stand_in(error, task_run.name, "it would end the process")
        return _read(task, task_run.name, cast("State[Any]", state))


def step_task(step: Step[..., Any]) -> Task[..., Any]:
    """Return the task that runs calls of a step; it is called what the step is called."""

    def run_step(attempt: Try) -> Any:
        return run_try(attempt)

    run_step.__name__ = step.fn.__name__
    run_step.__qualname__ = step.fn.__qualname__
    run_step.__module__ = step.fn.__module__
    run_step.__doc__ = step.fn.__doc__
    options = {"name": step.name, **step.options.task}
    if step.options.retries:
        options["retry_condition_fn"] = _retry_condition(options.get("retry_condition_fn"))
    return Task(run_step, cache_policy=NO_CACHE, persist_result=False, **options)


def _retry_condition(condition: Callable[..., Any] | None) -> Callable[..., bool]:
    """Return a condition that never tries again what was given up."""

    def wanted(task: Any, task_run: Any, state: Any) -> bool:
        attempt = _running.get()
        if attempt is not None and attempt.given_up:
            return False
        if condition is None:
            return True
        answer = condition(task, task_run, state)
        return bool(asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer)

    return wanted


async def _awaited(answer: Any) -> Any:
    return await answer


_running: contextvars.ContextVar[Try | None] = contextvars.ContextVar(
    "prefect_mlpipe_try", default=None
)


def run_try(attempt: Try) -> Any:
    """Run a call inside a task run."""
    _running.set(attempt)
    try:
        return attempt.execute()
    except InputLost as lost:
        # Not a failure: it must not count as a try. The engine has the input made, then sends it
        # again.
        return Completed(name="Deferred", message=f"waits: {lost}", data=lost)
    finally:
        if attempt.given_up:  # its task run was closed: Prefect's engine is to say no more of it
            raise Abort("the run does not wait for this step any more")


def _read(
    task: Task[..., Any], name: str, state: State[Any]
) -> tuple[Done | None, BaseException | None]:
    data: Any = state.data
    if isinstance(data, ResultRecord):
        data = data.result
    if isinstance(data, Done):
        return data, None
    if isinstance(data, InputLost):
        return None, data
    if isinstance(data, TaskRunTimeoutError):
        return None, StepTimedOut(
            f"Step '{name}' took longer than its timeout.",
            {"timeout_seconds": task.timeout_seconds},
            "Raise timeout_seconds on the step, or give it less to do.",
        )
    if state.is_cancelled():
        return None, RunCancelled(f"Step '{name}' was cancelled: {state.message}")
    if isinstance(data, BaseException):
        return None, slimmed(data, name)
    return None, StepFailed(
        f"Step '{name}' ended as {state.name}.",
        {"message": state.message},
        "See its logs in the Prefect UI.",
    )
