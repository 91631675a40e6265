"""What runs on a dask worker: one call at a time, in the context of its flow run.

Knows dask's workers. Knows nothing of graphs or decisions. Here the code that will really run is
walked and compared with that of the key, before Prefect hears of a task run: where they differ,
nothing ran and nothing is recorded.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any
from uuid import UUID

from distributed import Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from prefect_mlpipe.compute.context import WorkerContext
from prefect_mlpipe.compute.device_memory import give_back
from prefect_mlpipe.compute.item_orders import Row, pack_rows, unpack_calls
from prefect_mlpipe.compute.items import run_items
from prefect_mlpipe.compute.tasks import Try
from prefect_mlpipe.compute.ticket import Phase
from prefect_mlpipe.compute.travel import (
    Order,
    difference,
    pack_error,
    unpack_call,
    unpack_step,
)
from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.core.digest import code_in, digest_as_made
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.environment import python_environment, versions
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.engine.calls import Done, InputLost, StepCall, execute
from prefect_mlpipe.errors import CodeMismatch, ComputeError, EnvironmentMismatch
from prefect_mlpipe.reporting.task_runs import BulkReporter
from prefect_mlpipe.steps import Step

logger = logging.getLogger(__name__)

# What came of an order: kind, content, tries, metrics, log lines. Kinds: `done` (a `Done`), `lost`
# (value, kind, error of an `InputLost`), `failed` (an error, by `pack_error`), `refused` (nothing
# ran; a `ComputeError`), `items` (of a batch: rows, and seconds).
Result = tuple[str, Any, int, Mapping[str, Any], list[str]]

_STEPS = 256
# Formats of data alone, in which there is nothing of the user's code.
_WITHOUT_CODE = frozenset(
    {"json", "text", "bytes", "npy", "arrow", "pandas", "polars", "cupy", "cudf", "file", "folder"}
)
_DRAIN_S = 10
_CLOSING_S = 5.0  # how long whoever gave a call up has, to close its task run
_HEARD_S = 5.0  # how long a call waits until its beginning is on record

# States of a dask task: while it runs, and when the scheduler wants it no more.
_RUNS = frozenset({"executing", "long-running"})
_UNWANTED = frozenset({"released", "cancelled", "forgotten"})

_contexts: dict[str, _Run] = {}
_tries: dict[str, _NoticedTry | _GivenBatch] = {}  # dask's key → what runs


class RunContext(WorkerPlugin):
    """Brings the context of a flow run to every worker, also to those that come later.

    Args:
        run_id: of the flow run.
        data: by `pack_context`.
    """

    def __init__(self, run_id: str, data: bytes) -> None:
        self.name = plugin_name(run_id)
        self._run_id = run_id
        self._data = data

    def setup(self, worker: Worker) -> None:
        """Keep the context; it is entered when the first task run needs it."""
        _contexts[self._run_id] = _Run(self._data)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Give up a call that nobody waits for any more: its run has ended, or its driver."""
        attempt = _tries.get(key)
        if attempt is not None and start in _RUNS and finish in _UNWANTED:
            attempt.give_up()

    def teardown(self, worker: Worker) -> None:
        """Forget the context."""
        run = _contexts.pop(self._run_id, None)
        if run is not None:
            run.close()


def plugin_name(run_id: str) -> str:
    """Return what the plugin, and the topic of notices, of a flow run are called."""
    return f"mlpipe-{run_id}"


class _Run:
    """One flow run on this worker: its context, and the steps that have come here."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._lock = threading.Lock()
        self._context: WorkerContext | None = None
        self._steps: dict[bytes, Step[..., Any]] = {}

    @property
    def context(self) -> WorkerContext:
        """The context, entered once."""
        with self._lock:
            if self._context is None:
                self._context = WorkerContext(self._data)
            return self._context

    def step(self, order: Order) -> Step[..., Any]:
        """Return the step of an order, if it is that of the key.

        Raises:
            EnvironmentMismatch: other versions are installed here.
            CodeMismatch: the code here is another.
            Exception: there is no such code here, or its module cannot be imported.
        """
        check_environment(order)
        known = self._steps.get(order.step)
        if known is not None and _difference(order, known) is None:
            return known
        # Anew, and not the one that is known: a copy by value has globals of its own, which a step
        # may have changed.
        step = unpack_step(order.step)
        difference = _difference(order, step)
        if difference is not None:
            raise _code_mismatch(order, difference)
        while len(self._steps) >= _STEPS:
            self._steps.pop(next(iter(self._steps)))
        self._steps[order.step] = step
        return step

    def close(self) -> None:
        """Leave the context."""
        if self._context is not None:
            self._context.close()


def check_environment(order: Order) -> None:
    """Refuse an order if other versions are installed here than the key says.

    Raises:
        EnvironmentMismatch: with what differs.
    """
    own = python_environment()
    named = order.environment.keys() - {"python", "optimize"}
    here = {**own, **versions(named)}
    differing = {
        name: f"driver {order.environment.get(name, 'none')}, worker {here.get(name) or 'none'}"
        for name in sorted(order.environment.keys() | own.keys())
        if order.environment.get(name) != here.get(name)
    }
    if differing:
        raise EnvironmentMismatch(
            f"Step '{order.name}' would run with other versions on a worker than those of its key.",
            {**differing, "worker": get_worker().address},
            "Give the workers the environment of the driver, or start the pipeline in theirs.",
        )


def _difference(order: Order, step: Step[..., Any]) -> dict[str, Any] | None:
    if not order.code:
        return None
    try:
        code = CodeReader().read(step.fn, ignore=step.options.ignore)
    except Undigestible as error:
        return {"at": error.path, "because": error.why}
    if code.digest == order.code:
        return None
    return {"parts here": dict(code.parts), "digest here": code.digest}


def _code_mismatch(order: Order, facts: Mapping[str, Any]) -> CodeMismatch:
    return CodeMismatch(
        f"Step '{order.name}' would run other code on a worker than that of its key.",
        {"function": order.function, "worker": get_worker().address, **facts},
        "Restart the workers, or bring the user's modules there up to date.",
    )


Tell = Callable[[int, Phase], Future[Any] | None]


class _NoticedTry(Try):
    """A try whose beginnings and ends the driver is told of, for timeouts and dead workers.

    The scheduler has it on record that the call was taken up before its function begins: a function
    that kills the worker at once is to blame for that.
    """

    __slots__ = ("_address", "_close", "_taken", "_tell")

    def __init__(self, call: Any, tell: Tell, address: str, close: Callable[[], object]) -> None:
        super().__init__(call)
        self._close = close
        self._tell = tell
        self._address = address
        self._taken = tell(call.attempt + 1, "taken")  # goes its way while Prefect prepares the run

    def execute(self) -> Done:
        attempt = self.call.attempt + 1
        self._tell(attempt, "begins")
        await_heard(self._taken or self._tell(attempt, "taken"))
        self._taken = None
        try:
            check = partial(check_class, self._address, self.call.current.step)
            return execute(self.call, check)
        except BaseException:
            self._tell(self.call.attempt, "failed")
            raise

    def give_up(self) -> None:
        """Have nothing recorded of this call, and nothing tried again.

        Whoever gave it up closes its task run, unless it was killed: then that is done here.
        """
        self.given_up = True
        self.call.recorded = False
        closing = threading.Timer(_CLOSING_S, self._close)
        closing.daemon = True
        closing.start()


class _GivenBatch:
    """A batch that may be given up while it runs: what has not begun does not begin then."""

    def __init__(self, calls: list[StepCall]) -> None:
        self._calls = calls

    def give_up(self) -> None:
        """Have nothing more recorded of these calls."""
        for call in self._calls:
            call.recorded = False


def check_class(worker: str, step: str, stored: StoredValue, value: Any) -> None:
    """Refuse a stored input whose class is another here than where it was made.

    Its own code cannot be sent along: it is read by the name of its class.

    Raises:
        CodeMismatch: with the classes.
    """
    if stored.format in _WITHOUT_CODE:
        return
    found = code_in(value)
    here = digest_as_made(value) if found else stored.digest
    if here != stored.digest:
        raise CodeMismatch(
            f"Step '{step}' would be given a value of other code on a worker than that with which "
            "it was made.",
            {
                "classes": ", ".join(found)[:400],
                "value": difference(stored.digest, here),
                "worker": worker,
            },
            "Restart the workers, or bring the user's modules there up to date.",
        )


def run_order(data: bytes) -> Result:
    """Run one call as a native Prefect task run; return what came of it, never a Prefect state."""
    order: Order = pickle.loads(data)
    run = _contexts[order.run_id]
    try:
        step = run.step(order)
        context = run.context
        if order.batch:
            calls = unpack_calls(order.call, step, context.store)
        else:
            call = unpack_call(order.call, step, context.store)
    except ComputeError as error:
        return ("refused", error, 0, {}, [])
    except Exception as error:  # old modules, or broken ones, raise what they like when imported
        facts = {"error": f"{type(error).__name__}: {error}"}
        return ("refused", _code_mismatch(order, facts), 0, {}, [])
    try:
        if order.batch:
            return ("items", _run_batch(order, context, calls), 0, {}, [])
        return _run_call(order, context, call)
    finally:
        give_back(step.options.resources)


def _run_call(order: Order, context: WorkerContext, call: StepCall) -> Result:
    worker = get_worker()
    close = partial(context.copy().run, _close, order, worker.address)
    attempt = _NoticedTry(call, partial(tell, worker, order), worker.address, close)
    task = context.task_runs.task(call.step, call.attempt)
    task_run = context.task_runs.task_run(task, order.name, order.parents, order.task_run_id)
    key = str(worker.get_current_task())
    _tries[key] = attempt
    try:
        outcome = context.copy().run(context.task_runs.drive, task, task_run, attempt)
    finally:
        del _tries[key]
    kind, content = _content(order.name, *outcome)
    return (kind, content, call.attempt, call.current.metrics, call.current.logs)


def _run_batch(
    order: Order, context: WorkerContext, calls: list[StepCall]
) -> tuple[list[Row], float]:
    """Run items in the task run of their mapped step; return what came of them, and how long that
    took."""
    worker = get_worker()
    await_heard(tell(worker, order, 1, "taken"))
    key = str(worker.get_current_task())
    _tries[key] = _GivenBatch(calls)

    def run() -> tuple[list[Row], float]:
        rows: list[Row] = []
        seconds = 0.0
        with context.task_runs.of_items(
            calls[0].step, order.name, order.parents, order.task_run_id
        ):
            check = partial(check_class, worker.address, order.name)
            for ended, took in run_items(calls, check):
                rows += pack_rows(ended, calls)
                seconds += took
        return rows, seconds

    try:
        return context.copy().run(run)
    finally:
        del _tries[key]


def _content(name: str, done: Done | None, error: BaseException | None) -> tuple[str, Any]:
    if done is not None:
        return "done", done
    assert error is not None
    if isinstance(error, InputLost):
        return "lost", (error.value, error.kind, error.error)
    return "failed", pack_error(error, name)


def context_of(run_id: str) -> WorkerContext:
    """Return the context of a flow run on this worker."""
    return _contexts[run_id].context


def tell(worker: Worker, order: Any, attempt: int, phase: Phase) -> Future[Any] | None:
    """Tell the driver of a try; return what ends when the scheduler has it, of one taken up."""
    notice = [order.ticket, order.number, attempt, phase, worker.address]
    topic = plugin_name(order.run_id)
    if phase != "taken":
        worker.log_event(topic, notice)
        return None
    said = worker.scheduler.log_event(topic=topic, msg=notice)
    return asyncio.run_coroutine_threadsafe(said, worker.loop.asyncio_loop)  # type: ignore[attr-defined]


def _close(order: Order, worker: str) -> None:
    """End the task run of a call that was given up, if nobody else has."""
    message = (
        f"Step '{order.name}' was given up on worker {worker}: its run has gone. "
        "Run again: what has ended is reused."
    )
    with BulkReporter(UUID(order.run_id)) as reporter:
        reporter.report_existing(order.task_run_id, "Crashed", message)


def await_heard(taken: Future[Any] | None) -> None:
    """Wait until the scheduler has it on record that a call was taken up."""
    try:
        if taken is not None:
            taken.result(_HEARD_S)
    except (OSError, TimeoutError) as error:  # a worker without its scheduler soon ends by itself
        logger.debug("the scheduler does not answer: %r", error)


async def flush(run_id: str) -> None:
    """Bring what this worker has to say to the API, and what it wrote to the disk."""
    run = _contexts.get(run_id)
    if run is not None:
        await asyncio.to_thread(_flush, run)


def _flush(run: _Run) -> None:
    run.context.sync()
    logging.getLogger(EventsWorker.__name__).setLevel(logging.ERROR)  # says what it has left to do
    APILogWorker.drain_all(timeout=_DRAIN_S)
    EventsWorker.drain_all(timeout=_DRAIN_S)
