"""Runs calls as native Prefect task runs, so that the engine of Prefect gives a step its retries,
timeouts, concurrency limits, hooks, logs and artifacts.

Knows Prefect's task engine and the threads it runs on. Knows nothing of graphs: it gets a call and
the ids of the task runs above it.

The task run is made here and not by Prefect's engine, which would tell the API of one more state
(Pending) and search all arguments for futures. It is no `TaskRunner` either: those hand out
futures that ask the API for the state, and one task run at a time would wait in a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, cast
from uuid import UUID

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun, TaskRunPolicy, TaskRunResult
from prefect.context import FlowRunContext, TagsContext
from prefect.exceptions import Abort
from prefect.results import ResultRecord  # type: ignore[attr-defined]
from prefect.states import Completed, Pending
from prefect.task_engine import TaskRunTimeoutError, run_task_sync

from prefect_mlpipe.compute.errors import slimmed, stand_in
from prefect_mlpipe.compute.targets import Target, compute_of
from prefect_mlpipe.compute.threads import Pools
from prefect_mlpipe.engine.calls import Done, InputLost, StepCall, execute
from prefect_mlpipe.engine.queue import Outcome
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.errors import RunCancelled, StepFailed, StepTimedOut
from prefect_mlpipe.reporting.events import task_run_ids
from prefect_mlpipe.steps import Step

Closing = Callable[[UUID, str, str], object]


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
        assert context.flow_run is not None
        self._flow_context = context
        self._flow_run_id = context.flow_run.id
        self._closing = closing
        self._pools = Pools(computes)
        self._base = contextvars.copy_context()  # has client, settings and tags of the flow run
        self._tags = tuple(TagsContext.get().current_tags)
        self._tasks: dict[Step[..., Any], Task[..., Any]] = {}
        self._tries: dict[StepRun, Try] = {}

    def inline(self, run: StepRun, call: StepCall) -> Outcome | None:
        """Never: task runs are submitted, so that cancellation is noticed while one runs."""
        return None

    def submit(self, run: StepRun, call: StepCall, outcomes: SimpleQueue[Any]) -> None:
        """Start a call as a task run."""
        attempt = self._tries[run] = Try(call)
        submission = run.submission
        task = self._task(run.node.step, call.attempt)
        task_run = self._task_run(task, run.name, parent_ids(run))
        run.task_run_id = task_run.id
        context = self._base.copy()

        def work() -> None:
            outcome = context.run(self._drive, task, task_run, attempt)
            self._tries.pop(run, None)
            if not attempt.given_up:
                outcomes.put(Outcome(run, submission, *outcome))

        attempt.future = self._pools.of(compute_of(run.node)).submit(work)

    def _drive(
        self, task: Task[..., Any], task_run: TaskRun, attempt: Try
    ) -> tuple[Done | None, BaseException | None]:
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

    def _task(self, step: Step[..., Any], attempts: int) -> Task[..., Any]:
        if step not in self._tasks:
            self._tasks[step] = step_task(step)
        task = self._tasks[step]
        if attempts:  # tries of a task run that was given up count
            task = copy.copy(task)
            task.retries = max(0, task.retries - attempts)
        return task

    def _task_run(self, task: Task[..., Any], name: str, parents: Iterable[UUID]) -> TaskRun:
        (new_id,) = task_run_ids(1)
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

    def close(self) -> None:
        """Let the threads end."""
        self._pools.close()


def parent_ids(run: StepRun) -> list[UUID]:
    """Return the ids of the task runs above; a mapped node stands for its items."""
    parents = run.group.parents if run.group is not None and not run.parents else run.parents
    return [parent.task_run_id for parent in parents if parent.task_run_id is not None]


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
        return execute(attempt.call)
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
