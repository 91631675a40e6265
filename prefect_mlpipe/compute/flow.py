"""Runs calls as native Prefect task runs, so that the engine of Prefect gives a step its retries,
timeouts, concurrency limits, hooks, logs and artifacts.

Knows Prefect's task engine. Knows nothing of graphs: it gets a call and the ids of the task runs
above it. `ComputeTaskRunner` is a `TaskRunner` as any and can be used in an ordinary flow; its
settings are one frozen object, so a copy cannot forget one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable
from functools import partial
from queue import SimpleQueue
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRunResult
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.results import ResultRecord
from prefect.states import Completed
from prefect.task_engine import run_task_async, run_task_sync
from prefect.task_runners import TaskRunner
from pydantic import BaseModel, ConfigDict

from prefect_mlpipe.compute.targets import DEFAULT, Target, Threads, compute_of
from prefect_mlpipe.compute.threads import DaemonPool
from prefect_mlpipe.engine.calls import Done, InputLost, StepCall, execute
from prefect_mlpipe.engine.queue import Outcome
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.errors import RunCancelled, StepFailed, StepTimedOut
from prefect_mlpipe.reporting.events import task_run_ids
from prefect_mlpipe.steps import Step


class ComputeSettings(BaseModel):
    """All settings of a `ComputeTaskRunner`: name → target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    computes: dict[str, Target] = {DEFAULT: Threads()}


class StepTask(Task[..., Any]):
    """The task of one call: knows the compute that it is to run on."""

    compute: str = DEFAULT


class ComputeTaskRunner(TaskRunner[PrefectConcurrentFuture[Any]]):
    """Runs each task on the compute that it asks for; plain tasks on `default`.

    Args:
        settings: name → target.
    """

    def __init__(self, settings: ComputeSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or ComputeSettings()
        self._pools: dict[str, DaemonPool] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComputeTaskRunner) and self.settings == other.settings

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.settings,))

    def duplicate(self) -> ComputeTaskRunner:
        """Return a new runner with the same settings, not started."""
        return type(self)(self.settings)

    def submit(  # type: ignore[override]
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectConcurrentFuture[Any]:
        """Start a task run on its compute."""
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        (task_run_id,) = task_run_ids(1)
        run = run_task_async if task.isasync else run_task_sync
        engine = partial(
            run,
            task=task,
            task_run_id=task_run_id,
            parameters=parameters,
            wait_for=wait_for,
            return_type="state",
            dependencies=dependencies,
        )
        # The context has the flow run, the client and the settings; each task run needs a copy.
        call = partial(
            contextvars.copy_context().run, _run_coroutine if task.isasync else _call, engine
        )
        pool = self._pool(getattr(task, "compute", DEFAULT))
        return PrefectConcurrentFuture(task_run_id=task_run_id, wrapped_future=pool.submit(call))

    def _pool(self, compute: str) -> DaemonPool:
        if compute not in self._pools:
            target = self.settings.computes.get(compute)
            workers = target.max_workers if isinstance(target, Threads) else None
            self._pools[compute] = DaemonPool(workers, f"mlpipe-{compute}")
        return self._pools[compute]

    def abandon(self, compute: str, future: PrefectConcurrentFuture[Any]) -> None:
        """Give up a task run whose thread cannot be stopped."""
        self._pools[compute].abandon(future.wrapped_future)

    def __exit__(self, *error: Any) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        super().__exit__(*error)


def _call(engine: Any) -> Any:
    return engine()


def _run_coroutine(engine: Any) -> Any:
    return asyncio.run(engine())


class FlowRunner:
    """Runs the calls of one flow run as task runs."""

    def __init__(self, task_runner: ComputeTaskRunner) -> None:
        self._task_runner = task_runner
        self._futures: dict[StepRun, PrefectConcurrentFuture[Any]] = {}

    def inline(self, run: StepRun, call: StepCall) -> Outcome | None:
        """Never: task runs are submitted, so that cancellation is noticed while one runs."""
        return None

    def submit(self, run: StepRun, call: StepCall, outcomes: SimpleQueue[Any]) -> None:
        """Start a call as a task run."""
        parents = {TaskRunResult(id=i) for i in parent_ids(run)}
        submission = run.submission
        future = self._task_runner.submit(
            self._task(run, call.attempt), {"call": call}, dependencies={"call": parents}
        )
        run.task_run_id = future.task_run_id
        self._futures[run] = future
        future.add_done_callback(lambda done: outcomes.put(_outcome(run, submission, done)))

    def _task(self, run: StepRun, attempts: int) -> StepTask:
        step, name = run.node.step, run.name
        options = {"name": name, "task_run_name": name, **step.options.task}
        if attempts:  # tries of an abandoned task run count
            options["retries"] = max(0, step.options.retries - attempts)
        task = StepTask(_named(step), cache_policy=NO_CACHE, persist_result=False, **options)
        task.compute = compute_of(run.node)
        return task

    def abandon(self, run: StepRun, state: str, message: str) -> None:
        """Give up a call: its thread cannot be stopped, but its result will be dropped."""
        future = self._futures.pop(run)
        self._task_runner.abandon(compute_of(run.node), future)

    def close(self) -> None:
        """Nothing of its own: the flow closes the task runner."""


def parent_ids(run: StepRun) -> list[Any]:
    """Return the ids of the task runs above; a mapped node stands for its items."""
    parents = run.group.parents if run.group is not None and not run.parents else run.parents
    return [parent.task_run_id for parent in parents if parent.task_run_id is not None]


def _named(step: Step[..., Any]) -> Any:
    """Return the function of the task: runs a call, and is called what the step is called."""

    def run_step(call: StepCall) -> Any:
        return run_call(call)

    run_step.__name__ = step.fn.__name__
    run_step.__qualname__ = step.fn.__qualname__
    run_step.__module__ = step.fn.__module__
    run_step.__doc__ = step.fn.__doc__
    return run_step


def run_call(call: StepCall) -> Any:
    """Run a call inside a task run."""
    try:
        return execute(call)
    except InputLost as lost:
        # Not a failure: it must not count as a try. The engine has the input made, then sends it
        # again.
        return Completed(name="Deferred", message=f"waits: {lost}", data=lost)


def _outcome(run: StepRun, submission: int, future: PrefectFuture[Any]) -> Outcome:
    future.wait()
    return Outcome(run, submission, *_read(run, future.state))


def _read(run: StepRun, state: State[Any]) -> tuple[Done | None, BaseException | None]:
    data: Any = state.data
    if isinstance(data, ResultRecord):
        data = data.result
    if isinstance(data, Done):
        return data, None
    if isinstance(data, InputLost):
        return None, data
    if state.name == "TimedOut":
        limit = run.node.step.options.timeout_seconds
        return None, StepTimedOut(
            f"Step '{run.name}' took longer than its timeout.",
            {"timeout_seconds": limit},
            "Raise timeout_seconds on the step, or give it less to do.",
        )
    if state.is_cancelled():
        return None, RunCancelled(f"Step '{run.name}' was cancelled: {state.message}")
    if isinstance(data, BaseException):
        return None, data
    return None, StepFailed(
        f"Step '{run.name}' ended as {state.name}.",
        {"message": state.message},
        "See its logs in the Prefect UI.",
    )
