"""Runs calls on threads of this process, without any Prefect run: what `pipeline.local()` uses.

Knows retries and their delays; the engine knows the rest. One call at a time runs in the caller's
own thread, because handing it to another costs more than many a step.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from prefect_mlpipe.compute.errors import stand_in
from prefect_mlpipe.compute.targets import Target, compute_of
from prefect_mlpipe.compute.threads import DaemonPool, Pools
from prefect_mlpipe.compute.usage import Span
from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.engine.calls import InputLost, StepCall, execute
from prefect_mlpipe.engine.protocols import Outcome
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.steps import Step


class LocalRunner:
    """Runs calls on this process's threads; every compute is taken by threads."""

    def __init__(self, computes: Mapping[str, Target]) -> None:
        self._pools = Pools(computes)
        self._futures: dict[StepRun, tuple[DaemonPool, Future[Any]]] = {}

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

    def abandon(self, run: StepRun, state: str, message: str) -> None:
        """Give up a call: a thread cannot be stopped, but its result will be dropped."""
        pool, future = self._futures.pop(run)
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
    try:
        return Outcome(run, submission, _with_retries(call), None)
    except Exception as error:
        return Outcome(run, submission, None, error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _in_main_thread():
            raise  # Ctrl-C is meant for the run
        # SystemExit and the like are the end of this step: somebody waits for its outcome.
        return Outcome(run, submission, None, stand_in(error, run.name, "it ends the process"))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _with_retries(call: StepCall) -> Any:
    while True:
        try:
            return execute(call)
        except InputLost:
            raise
        except Exception as error:
            options = call.step.options
            given_up = not call.recorded
            if given_up or call.attempt > options.retries or not _retry_wanted(call.step, error):
                raise
            time.sleep(_delay(call.step, call.attempt))


def _retry_wanted(step: Step[..., Any], error: Exception) -> bool:
    condition = step.options.task.get("retry_condition_fn")
    if condition is None:
        return True
    from prefect.states import Failed

    return bool(condition(step.as_task(), None, Failed(data=error, message=repr(error))))


def _delay(step: Step[..., Any], attempt: int) -> float:
    """Return the seconds before the next try, as Prefect's tasks count them."""
    delay = step.options.task.get("retry_delay_seconds") or 0
    if callable(delay):
        delay = delay(step.options.retries)
    if isinstance(delay, list | tuple):
        delay = delay[min(attempt, len(delay)) - 1]
    jitter = step.options.task.get("retry_jitter_factor") or 0
    return float(delay) * (1 + random.uniform(0, float(jitter)))
