"""One open cluster: takes calls, sends them to workers, and sees to it that each comes to an end.

Knows dask's client. Knows nothing of graphs, decisions or Prefect.

All state belongs to one thread, which works through a queue of what is to be done: open, submit,
take in a result, look after the workers, close. What waits for a worker waits on the client's loop,
so neither the engine nor this thread is held up, and there is no lock. Nothing here waits without
an end: a worker, a scheduler or a connection that dies ends in an error that names the step.
"""

from __future__ import annotations

import concurrent.futures
import logging
import pickle
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

from distributed import Client, KilledWorker
from distributed.scheduler import NoValidWorkerError, NoWorkerError

from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.compute.item_orders import pack_calls
from prefect_mlpipe.compute.offers import Offer, no_such_worker, offers_of, restrictions
from prefect_mlpipe.compute.ticket import Ticket, nobody
from prefect_mlpipe.compute.travel import Order, pack_call, pack_step, unpack_error, with_parts
from prefect_mlpipe.compute.usage import Span, WorkerClock
from prefect_mlpipe.compute.worker import Result, RunContext, flush, plugin_name, run_order
from prefect_mlpipe.engine.calls import InputLost
from prefect_mlpipe.errors import (
    CodeMismatch,
    ComputeError,
    ComputeUnavailable,
    MlpipeError,
    WorkerLost,
)
from prefect_mlpipe.steps import Step

logger = logging.getLogger(__name__)

CONNECT_S = 30
ANSWER_S = 10.0  # how long the scheduler may take to say what workers there are
SILENT_S = 30.0  # how long it may not answer at all
CLOSE_S, WATCH_S = 20.0, 1.0


class Cluster:
    """One cluster, from its start to its end. Opened by the first call that must run there.

    Safe to call from any thread; nothing here waits but `close`.

    Args:
        name: of the compute.
        target: its settings.
        run_id: of the flow run.
        context: the context of the flow run, by `pack_context`.
    """

    # What runs on a worker, and takes what `_order` gives.
    _function: ClassVar[staticmethod[[bytes], Result]] = staticmethod(run_order)

    def __init__(self, name: str, target: ClusterTarget, run_id: str, context: bytes) -> None:
        self.name = name
        self.target = target
        self._run_id = run_id
        self._context = context
        self._cluster: Any = None
        self._client: Any = None  # dask's client is not annotated
        self._broken: ComputeError | None = None
        self._tickets: dict[str, Ticket] = {}
        self._steps: dict[tuple[Step[..., Any], bool], bytes] = {}
        self._restarted: set[str] = set()
        self._replacing: list[threading.Thread] = []
        self._threads = 0
        self._had: list[Offer] = []  # what workers have offered at any time
        self._without_workers: float | None = None
        self._answered = self._watched = time.monotonic()
        self._closed = False
        self._clock = WorkerClock(given=target.address is not None)
        self._inbox: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._inbox.put(self._open)
        self._thread = threading.Thread(target=self._work, name=f"mlpipe-{name}", daemon=True)
        self._thread.start()

    @property
    def threads(self) -> int:
        """How many calls its workers run at a time, as far as that is known."""
        return self._threads

    def submit(self, ticket: Ticket) -> None:
        """Send a call to a worker; its `settle` is told what came of it."""
        self._inbox.put(partial(self._take, ticket))

    def abandon(self, ticket: Ticket, *, replace_worker: bool) -> None:
        """Drop a call; nothing more is told of it.

        Args:
            ticket: the call.
            replace_worker: whether the worker that it has begun on is to be killed: nothing else
                ends a call that blocks.
        """
        ticket.settle = nobody
        self._inbox.put(partial(self._drop, ticket, replace_worker))

    def close(self, *, wait: bool) -> None:
        """Bring the workers' reports home and close what is ours; leave a given cluster running."""
        self._inbox.put(self._shut)
        if wait:
            self._thread.join(CLOSE_S)

    def span(self) -> Span:
        """Return how long it was open, so far."""
        return self._clock.span(self.target)

    # -- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closed:
            try:
                task = self._inbox.get(timeout=WATCH_S)
            except Empty:
                task = self._watch
            try:
                task()
                if time.monotonic() - self._watched > 2 * WATCH_S:
                    self._watch()
            except Exception as error:
                self._break(error)

    def _break(self, error: Exception) -> None:
        """End everything: what went wrong was no call's own fault."""
        if not isinstance(error, ComputeError):
            cause, error = (
                error,
                ComputeUnavailable(
                    f"Compute '{self.name}' does not work.",
                    {"cluster": self._address, "error": f"{type(error).__name__}: {error}"},
                    "See the log of its scheduler.",
                ),
            )
            error.__cause__ = cause
        self._broken = error
        for ticket in list(self._tickets.values()):
            self._settle(ticket, None, error)

    def _open(self) -> None:
        started = time.monotonic()
        self._cluster = self.target.start()
        where = self.target.address if self._cluster is None else self._cluster
        try:
            self._client = Client(  # type: ignore[no-untyped-call]
                where, timeout=CONNECT_S, set_as_default=False
            )
        except (OSError, TimeoutError) as error:
            raise ComputeUnavailable(
                f"Compute '{self.name}' does not answer.",
                {"address": self.target.address, "error": f"{type(error).__name__}: {error}"},
                "Start its scheduler, or correct the address.",
            ) from error
        self._client.register_plugin(RunContext(self._run_id, self._context))
        self._client.subscribe_topic(plugin_name(self._run_id), self._hear)
        self._client.subscribe_topic("all", self._clock.hear)
        self._clock.there(self._client.scheduler_info(n_workers=-1)["workers"])
        seconds = time.monotonic() - started
        logger.info("compute %s: open after %.1f s (%s)", self.name, seconds, self._address)

    @property
    def _address(self) -> str:
        if self._client is None or self._client.scheduler is None:
            return self.target.address or "not started"
        return str(self._client.scheduler.address)

    # -- calls ----------------------------------------------------------------------------------

    def _take(self, ticket: Ticket) -> None:
        self._tickets[ticket.id] = ticket
        if self._broken is not None:
            self._settle(ticket, None, self._broken)
        else:
            self._send(ticket)

    def _send(self, ticket: Ticket) -> None:
        """Submit a call for the first time or again."""
        try:
            where = self._place(ticket)
            order = self._order(ticket)
        except MlpipeError as error:
            self._settle(ticket, None, error)
            return
        ticket.begun = False
        future = self._client.submit(
            self._function,
            order,
            key=f"{ticket.call.step.name}-{ticket.id}-{ticket.number}",
            pure=False,
            retries=0,
            **where,
        )
        ticket.future = future
        self._client.loop.add_callback(self._collect, ticket, ticket.number, future)

    def _place(self, ticket: Ticket) -> dict[str, Any]:
        if not ticket.needs.special:
            return {}
        offers = self._offers()
        if offers and not any(offer.fits(ticket.needs) for offer in self._had):
            raise no_such_worker(
                ticket.name, self.name, ticket.needs, self._address, offers.values()
            )
        where = restrictions(ticket.needs, offers)
        ticket.pinned = tuple(where.get("workers", ()))
        return where

    def _order(self, ticket: Ticket) -> bytes:
        call, step = ticket.call, ticket.call.step
        packed = self._steps.get((step, ticket.by_value))
        if packed is None:
            packed = pack_step(step, by_value=ticket.by_value)
            self._steps[step, ticket.by_value] = packed
        ticket.number += 1
        order = Order(
            self._run_id,
            ticket.id,
            ticket.number,
            ticket.task_run_id,
            ticket.name,
            ticket.parents,
            call.manifest.code,
            call.manifest.function,
            dict(call.manifest.environment),
            packed,
            self._pack_calls(ticket),
            bool(ticket.calls),
        )
        return pickle.dumps(order)

    def _pack_calls(self, ticket: Ticket) -> bytes:
        remote = self.target.remote and not self.target.shared_store
        if ticket.calls:
            return pack_calls(ticket.calls, remote=remote, by_value=ticket.by_value)
        return pack_call(ticket.call, remote=remote, by_value=ticket.by_value)

    async def _collect(self, ticket: Ticket, number: int, future: Any) -> None:
        """Wait for a submission, on the client's loop."""
        try:
            result = await future
        except (Exception, CancelledError, concurrent.futures.CancelledError) as error:
            self._inbox.put(partial(self._failed, ticket, number, error))
        else:
            self._inbox.put(partial(self._ended, ticket, number, result))

    def _hear(self, event: tuple[float, list[Any]]) -> None:
        """Take in a notice, on the client's loop."""
        self._inbox.put(partial(self._noticed, *event[1]))

    def _noticed(self, name: str, number: int, attempt: int, begins: bool, worker: str) -> None:
        ticket = self._tickets.get(name)
        if ticket is None or number != ticket.number:
            return
        deaths = ticket.deaths
        ticket.notice(attempt, begins, worker)
        if ticket.deaths > deaths and not ticket.may_go_again(self.target.allowed_failures):
            self._lose(ticket)

    def _ended(self, ticket: Ticket, number: int, result: Result) -> None:
        if not self._awaited(ticket, number):
            return
        kind, content, attempts, metrics, logs = result
        call = ticket.call
        if kind == "refused":
            self._refused(ticket, content)
            return
        if kind == "items":
            self._settle(ticket, content, None)
            return
        if kind != "done":
            call.failed()
        call.attempt, call.attempt_started = attempts, 0.0
        call.current.metrics, call.current.logs = dict(metrics), logs
        ticket.ever_begun = True
        if kind == "done":
            self._settle(ticket, content, None)
        elif kind == "lost":
            self._settle(ticket, None, InputLost(*content))
        else:
            data, text = content
            self._settle(ticket, None, unpack_error(data, text, ticket.name))

    def _refused(self, ticket: Ticket, error: ComputeError) -> None:
        """Send the user's modules along if the worker has others; else give up."""
        if isinstance(error, CodeMismatch):
            if not ticket.by_value:
                ticket.by_value = True
                self._send(ticket)
                return
            error = with_parts(error, ticket.call.step)
        self._settle(ticket, None, error)

    def _failed(self, ticket: Ticket, number: int, error: BaseException) -> None:
        if not self._awaited(ticket, number):
            return
        if isinstance(error, KilledWorker):
            self._killed(ticket, error)
        elif isinstance(error, NoValidWorkerError | NoWorkerError):
            self._no_worker(ticket)
        elif isinstance(error, CancelledError | concurrent.futures.CancelledError):
            self._settle(ticket, None, self._scheduler_lost(ticket, str(error)))
        else:
            self._settle(ticket, None, self._unusable(ticket, error))

    def _awaited(self, ticket: Ticket, number: int) -> bool:
        return number == ticket.number and ticket.id in self._tickets

    def _settle(self, ticket: Ticket, done: Any, error: BaseException | None) -> None:
        self._tickets.pop(ticket.id, None)
        ticket.future = None
        ticket.settle(done, error)

    def _drop(self, ticket: Ticket, replace_worker: bool) -> None:
        self._tickets.pop(ticket.id, None)
        future, ticket.future = ticket.future, None
        self._cancel(future)
        if replace_worker and ticket.begun:
            self._replace(ticket.worker)

    def _cancel(self, future: Any) -> None:
        """Take back a submission, on the client's loop: the scheduler may not answer."""
        if future is not None:
            cancel = partial(self._client.cancel, [future], asynchronous=True)
            self._client.loop.add_callback(cancel)

    def _replace(self, worker: str) -> None:
        """Kill a worker; its nanny starts another. Does not wait for that."""
        self._restarted.add(worker)
        restart = partial(
            self._client.sync,
            self._client.scheduler.restart_workers,
            workers=[worker],
            timeout=ANSWER_S,
            wait_for_workers=False,
            on_error="return",
            stimulus_id="mlpipe-timeout",
            callback_timeout=2 * ANSWER_S,
        )

        def replace() -> None:
            try:
                restart()
            except Exception as error:  # the scheduler is gone, or the cluster is closed
                logger.debug("compute %s: worker %s not replaced: %r", self.name, worker, error)

        replacing = threading.Thread(target=replace, name="mlpipe-replace-worker", daemon=True)
        replacing.start()
        self._replacing.append(replacing)

    # -- deaths ---------------------------------------------------------------------------------

    def _killed(self, ticket: Ticket, error: KilledWorker) -> None:
        worker = error.last_worker.address
        ticket.worker = worker
        ticket.died(blameless=worker in self._restarted)
        if ticket.may_go_again(self.target.allowed_failures):
            logger.warning(
                "%s: worker %s died, the step is sent to another one", ticket.name, worker
            )
            self._send(ticket)
        else:
            self._lose(ticket)

    def _lose(self, ticket: Ticket) -> None:
        died = ticket.deaths + ticket.unlucky
        times = f"{died} times" if died > 1 else "once"
        error = WorkerLost(
            f"Step '{ticket.name}' was on a worker that died {times}.",
            {"compute": self.name, "worker": ticket.worker, "tries": ticket.call.attempt},
            "The step may have used more memory than the worker has, or have ended its process. "
            f"Raise memory_limit of compute '{self.name}', or memory in the step's Resources.",
        )
        self._cancel(ticket.future)
        self._settle(ticket, None, error)

    def _scheduler_lost(self, ticket: Ticket, why: str) -> WorkerLost:
        return WorkerLost(
            f"Step '{ticket.name}' was on a cluster whose scheduler is gone.",
            {"compute": self.name, "scheduler": self._address, "because": why},
            "Run again: what has ended is reused.",
        )

    def _no_worker(self, ticket: Ticket) -> None:
        offers = self._offers()
        error = no_such_worker(ticket.name, self.name, ticket.needs, self._address, offers.values())
        self._settle(ticket, None, error)

    def _unusable(self, ticket: Ticket, error: BaseException) -> ComputeUnavailable:
        unusable = ComputeUnavailable(
            f"Step '{ticket.name}' could not be run on a worker.",
            {"compute": self.name, "error": f"{type(error).__name__}: {error}"},
            "Its workers need prefect_mlpipe and Prefect in the driver's versions, and reach the "
            "Prefect API and the store.",
        )
        unusable.__cause__ = error
        return unusable

    def _offers(self) -> dict[str, Offer]:
        """Ask the scheduler what workers there are."""
        known: Mapping[str, Any] = self._client.sync(
            self._client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_S
        )
        self._answered = time.monotonic()
        offers = offers_of(known["workers"])
        self._threads = int(sum(offer.cpus for offer in offers.values()))
        self._had = [*{str(offer): offer for offer in (*self._had, *offers.values())}.values()]
        return offers

    def _watch(self) -> None:
        """See to it that nothing waits for what will not come."""
        self._watched = time.monotonic()
        if not self._tickets or self._client is None or self._broken is not None:
            return
        try:
            offers = self._offers()
        except (OSError, TimeoutError, concurrent.futures.TimeoutError) as error:
            gone = self._client.status == "closed"
            if gone or time.monotonic() - self._answered > SILENT_S:
                for ticket in list(self._tickets.values()):
                    self._settle(ticket, None, self._scheduler_lost(ticket, repr(error)))
            return
        now = time.monotonic()
        self._without_workers = None if offers else self._without_workers or now
        waited = 0.0 if self._without_workers is None else now - self._without_workers
        for ticket in list(self._tickets.values()):
            if ticket.begun:
                continue
            if waited > self.target.workers_timeout_s or self._hopeless(ticket, offers):
                self._no_worker(ticket)
            elif ticket.pinned and offers and not offers.keys() & set(ticket.pinned):
                self._send(ticket)  # those that it was to run on were replaced

    def _hopeless(self, ticket: Ticket, offers: Mapping[str, Offer]) -> bool:
        return bool(offers) and not any(offer.fits(ticket.needs) for offer in self._had)

    # -- the end --------------------------------------------------------------------------------

    def _shut(self) -> None:
        self._closed = True
        client = self._client
        for ticket in list(self._tickets.values()):
            self._settle(ticket, None, self._scheduler_lost(ticket, "it was closed"))
        if self._cluster is None:
            for replacing in self._replacing:
                replacing.join(ANSWER_S)
        if client is not None and client.status == "running":
            _within(CLOSE_S / 2, partial(self._bring_home, client))
        for end in (client, self._cluster):
            if end is not None:
                _within(CLOSE_S / 2, end.close)
        self._clock.stop()

    def _bring_home(self, client: Any) -> None:
        client.unsubscribe_topic("all")  # else the scheduler would tell this client that it leaves
        client.run(flush, self._run_id, on_error="ignore")
        if self._cluster is None:
            client.unregister_worker_plugin(plugin_name(self._run_id))


def _within(seconds: float, call: Callable[[], object]) -> None:
    """Call something that may hang, and go on after some time whatever it does."""

    def run() -> None:
        try:
            call()
        except Exception as error:  # it is closed already, or cannot be reached
            logger.debug("while closing a cluster: %r", error)

    thread = threading.Thread(target=run, name="mlpipe-close", daemon=True)
    thread.start()
    thread.join(seconds)
