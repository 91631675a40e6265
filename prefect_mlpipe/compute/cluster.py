"""One open cluster: takes calls, sends them to workers, and sees to it that each comes to an end.

Knows calls and what dask says of them. Knows nothing of graphs, decisions or Prefect; what is asked
of dask is `connection`'s.

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
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar
from uuid import UUID

from distributed import KilledWorker
from distributed.scheduler import NoValidWorkerError, NoWorkerError

from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.compute.connection import CLOSE_S, KILL_S, UNANSWERED, Connection, Found
from prefect_mlpipe.compute.deaths import (
    DISCONNECTED,
    MEMORY_TOPIC,
    UNKNOWN,
    Cause,
    exit_topic,
    of_exit,
    of_memory,
    of_silence,
    scheduler_lost,
    worker_lost,
)
from prefect_mlpipe.compute.item_orders import pack_calls
from prefect_mlpipe.compute.offers import no_such_worker, restrictions
from prefect_mlpipe.compute.ticket import Phase, Ticket, nobody
from prefect_mlpipe.compute.travel import Order, pack_call, pack_step, unpack_error, with_parts
from prefect_mlpipe.compute.usage import Span
from prefect_mlpipe.compute.watching import Workers
from prefect_mlpipe.compute.worker import Result, run_order
from prefect_mlpipe.engine.calls import Done, InputLost
from prefect_mlpipe.errors import (
    CodeMismatch,
    ComputeError,
    ComputeUnavailable,
    MlpipeError,
    WorkerLost,
)
from prefect_mlpipe.steps import Step

logger = logging.getLogger(__name__)

WATCH_S = 1.0
MOURN_S = 3.0  # how long a death waits for what its nanny has to say of it
REPORTED_S = 10.0  # after so long a worker that lives has told the API of what ended there

Closing = Callable[[UUID, str, str], object]


class Cluster:
    """One cluster, from its start to its end. Opened by the first call that must run there.

    Safe to call from any thread; nothing here waits but `close`.

    Args:
        name: of the compute.
        target: its settings.
        run_id: of the flow run.
        context: the context of the flow run, by `pack_context`.
        closing: told of task runs (id, state, message) whose worker may have died before it could
            tell of their end.
    """

    # What runs on a worker, and takes what `_order` gives.
    _function: ClassVar[staticmethod[[bytes], Result]] = staticmethod(run_order)

    def __init__(
        self, name: str, target: ClusterTarget, run_id: str, context: bytes, closing: Closing
    ) -> None:
        self.name = name
        self.target = target
        self._run_id = run_id
        self._closing = closing
        self._connection = Connection(name, target, run_id, context, self._hear)
        self._opened = self._lost = self._closed = False
        self._broken: ComputeError | None = None
        self._tickets: dict[str, Ticket] = {}
        self._steps: dict[tuple[Step[..., Any], bool], bytes] = {}
        self._workers = Workers(time.monotonic())
        self._causes: dict[str, Cause] = {}  # worker → why it died
        self._mourned: dict[str, list[tuple[Ticket, int]]] = {}  # worker → what was there
        self._replaced: set[str] = set()  # workers that died for a step's timeout
        self._suspects: dict[str, float] = {}  # silent worker → when it was last examined
        self._ended_lately: deque[tuple[float, str, UUID, str]] = deque()
        self._watched = time.monotonic()
        self._inbox: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._inbox.put(self._open)
        self._thread = threading.Thread(target=self._work, name=f"mlpipe-{name}", daemon=True)
        self._thread.start()

    @property
    def threads(self) -> int:
        """How many calls its workers run at a time, as far as that is known."""
        return int(sum(offer.cpus for offer in list(self._workers.offers.values())))

    def span(self) -> Span:
        """Return how long it was open, so far."""
        return self._connection.clock.span(self.target)

    def submit(self, ticket: Ticket) -> None:
        """Send a call to a worker; its `settle` is told what came of it."""
        self._queue(self._take, ticket)

    def abandon(self, ticket: Ticket, *, replace_worker: bool) -> None:
        """Drop a call; nothing more is told of it.

        Args:
            ticket: the call.
            replace_worker: whether the worker that it has begun on is to be killed: nothing else
                ends a call that blocks.
        """
        ticket.settle = nobody
        self._queue(self._drop, ticket, replace_worker)

    def close(self, *, wait: bool) -> None:
        """Bring the workers' reports home and close what is ours; leave a given cluster running."""
        self._inbox.put(self._shut)
        if wait:
            self._thread.join(4 * CLOSE_S)

    def _queue(self, call: Callable[..., object], *args: Any) -> None:
        self._inbox.put(partial(call, *args))

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
                    {
                        "cluster": self._connection.address,
                        "error": f"{type(error).__name__}: {error}",
                    },
                    "See the log of its scheduler.",
                ),
            )
            error.__cause__ = cause
        self._broken = error
        for ticket in list(self._tickets.values()):
            self._settle(ticket, None, error)

    def _open(self) -> None:
        started = time.monotonic()
        self._connection.open()
        self._opened = True
        self._workers.answered = time.monotonic()
        seconds = time.monotonic() - started
        where = self._connection.address
        logger.info("compute %s: open after %.1f s (%s)", self.name, seconds, where)

    # -- calls ----------------------------------------------------------------------------------

    def _take(self, ticket: Ticket) -> None:
        self._tickets[ticket.id] = ticket
        if self._broken is not None:
            self._settle(ticket, None, self._broken)
        else:
            self._send(ticket)

    def _send(self, ticket: Ticket) -> None:
        """Submit a call for the first time or again."""
        ticket.begun = False
        ticket.stranded = not self._connection.running
        if ticket.stranded:
            return
        try:
            where = self._place(ticket)
            order = self._order(ticket)
        except MlpipeError as error:
            self._settle(ticket, None, error)
            return
        except UNANSWERED:
            ticket.stranded = True
            return
        key = f"{ticket.call.step.name}-{ticket.id}-{ticket.number}"
        ticket.future = self._connection.submit(self._function, order, key, where)
        collect = partial(self._collect, ticket, ticket.number, ticket.future)
        self._connection.follow(collect)

    def _place(self, ticket: Ticket) -> dict[str, Any]:
        if not ticket.needs.special:
            return {}
        offers = self._workers.take_in(self._connection.workers(), time.monotonic())
        if self._workers.hopeless(ticket.needs):
            raise self._no_such_worker(ticket)
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
            self._queue(self._failed, ticket, number, error)
        else:
            self._queue(self._ended, ticket, number, result)

    def _hear(self, topic: str, event: Any) -> None:
        """Take in an event, on the client's loop."""
        if topic == MEMORY_TOPIC:
            self._queue(self._ran_out_of_memory, event)
        elif topic == exit_topic(self._run_id):
            self._queue(self._exited, event["worker"], event["status"])
        else:
            self._queue(self._noticed, *event)

    def _noticed(self, name: str, number: int, attempt: int, phase: Phase, worker: str) -> None:
        ticket = self._tickets.get(name)
        if ticket is None or number != ticket.number:
            return
        before, deaths = ticket.worker, ticket.deaths
        ticket.notice(attempt, phase, worker)
        if worker not in self._workers.offers:  # it may die before the next look at all of them
            with suppress(*UNANSWERED):
                self._workers.take_in(self._connection.workers(), time.monotonic())
        again = ticket.deaths > deaths  # on a scheduler that took no plugin
        if again and not ticket.may_go_again(self.target.allowed_failures):
            self._lose(ticket, self._causes.get(before, UNKNOWN))

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
        state = "Failed" if kind == "failed" else "Completed"
        lately = (time.monotonic(), ticket.worker, ticket.task_run_id, state)
        self._ended_lately.append(lately)
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
            self._mourn(ticket, number, error.last_worker.address)
        elif isinstance(error, NoValidWorkerError | NoWorkerError):
            self._settle(ticket, None, self._no_such_worker(ticket))
        elif isinstance(error, CancelledError | concurrent.futures.CancelledError):
            logger.debug("%s: taken back: %r", ticket.name, error)
            ticket.future = None
            ticket.stranded = True  # the connection was lost, and with it all that was sent
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
        self._connection.cancel(future)
        if replace_worker and ticket.begun:
            self._replaced.add(ticket.worker)
            self._connection.kill(ticket.worker)

    # -- deaths ---------------------------------------------------------------------------------

    def _ran_out_of_memory(self, event: dict[str, Any]) -> None:
        offer = self._workers.offers.get(event["worker"])
        self._causes[event["worker"]] = of_memory(event, offer)

    def _exited(self, worker: str, status: int) -> None:
        self._causes.setdefault(worker, of_exit(status))
        self._bury(worker)

    def _mourn(self, ticket: Ticket, number: int, worker: str) -> None:
        """Take in a death; what its nanny has to say of it may come a moment later."""
        ticket.worker = worker
        self._mourned.setdefault(worker, []).append((ticket, number))
        wait_s = 0.0 if worker in self._causes or worker in self._replaced else MOURN_S
        self._connection.later(wait_s, partial(self._queue, self._bury, worker))

    def _bury(self, worker: str) -> None:
        """Send what was on a worker that died to others."""
        mourned = self._mourned.pop(worker, None)
        if mourned is None:
            return
        self._close_lately_ended(worker)
        cause = self._causes.get(worker, UNKNOWN)
        for ticket, number in mourned:
            if self._awaited(ticket, number):
                self._go_again(ticket, cause, blameless=worker in self._replaced)

    def _go_again(self, ticket: Ticket, cause: Cause, *, blameless: bool) -> None:
        """Send a call to another worker, if it may be."""
        ticket.died(blameless=blameless)
        done = self._recorded(ticket)
        if done is not None:
            self._settle(ticket, done, None)
            self._closing(ticket.task_run_id, "Completed", "its worker died after it was recorded")
        elif ticket.may_go_again(self.target.allowed_failures):
            logger.warning(
                "%s: its worker %s is lost (%s); the step is sent to another one",
                ticket.name,
                ticket.worker,
                cause.because,
            )
            self._send(ticket)
        else:
            self._lose(ticket, cause)

    def _recorded(self, ticket: Ticket) -> Done | None:
        """Return what a call has recorded before its worker died, if it has: it need not run."""
        call = ticket.call
        if ticket.calls:  # of a batch, whoever takes the rest up looks
            return None
        if call.replace:  # what stands may be what was there before
            return None
        record = call.store.records.read(call.key)
        if record is None:
            return None
        return Done(record, record.provenance.get("run_id") == call.current.run_id)

    def _close_lately_ended(self, worker: str) -> None:
        """See to it that what has ended on a worker before it died has also ended for Prefect."""
        for _, there, task_run_id, state in self._ended_lately:
            if there == worker:
                self._closing(task_run_id, state, f"its worker {worker} died soon afterwards")

    def _lose(self, ticket: Ticket, cause: Cause) -> None:
        self._connection.cancel(ticket.future)
        self._settle(ticket, None, worker_lost(ticket, self.name, cause))

    def _scheduler_lost(self, ticket: Ticket, why: str) -> WorkerLost:
        return scheduler_lost(ticket, self.name, self._connection.address, why)

    def _no_such_worker(self, ticket: Ticket) -> ComputeError:
        offers = self._workers.offers.values()
        return no_such_worker(
            ticket.name, self.name, ticket.needs, self._connection.address, offers
        )

    def _unusable(self, ticket: Ticket, error: BaseException) -> ComputeUnavailable:
        unusable = ComputeUnavailable(
            f"Step '{ticket.name}' could not be run on a worker.",
            {"compute": self.name, "error": f"{type(error).__name__}: {error}"},
            "Its workers need prefect_mlpipe and Prefect in the driver's versions, and reach the "
            "Prefect API and the store.",
        )
        unusable.__cause__ = error
        return unusable

    # -- the watch ------------------------------------------------------------------------------

    def _watch(self) -> None:
        """See to it that nothing waits for what will not come."""
        self._watched = now = time.monotonic()
        kept_s = REPORTED_S + 2 * self.target.silent_s  # one that is silent may not have lived
        while self._ended_lately and now - self._ended_lately[0][0] > kept_s:
            self._ended_lately.popleft()
        if not self._opened or self._broken is not None:
            return
        if not self._tickets:
            self._workers.answered = now  # nobody has asked
            return
        try:
            known = self._connection.workers()
        except UNANSWERED as error:
            self._unanswered(error)
            return
        now = time.monotonic()
        self._workers.take_in(known, now)
        for worker, seconds in self._workers.silent(now, self.target.silent_s):
            self._suspect(worker, seconds, now)
        tickets = list(self._tickets.values())
        stranded = [ticket for ticket in tickets if ticket.stranded]
        if stranded and self._connection.running:
            self._connection.introduce()
            for ticket in stranded:
                self._go_again(ticket, DISCONNECTED, blameless=False)
        for ticket in tickets:
            if not (ticket.begun or ticket.stranded):
                self._look_after(ticket, now)

    def _unanswered(self, error: BaseException) -> None:
        silent_s = time.monotonic() - self._workers.answered
        if self._connection.closed or silent_s > self.target.silent_s:
            self._lost = True
            why = f"it has not answered for {silent_s:.0f} s ({error!r})"
            for ticket in list(self._tickets.values()):
                self._settle(ticket, None, self._scheduler_lost(ticket, why))

    def _look_after(self, ticket: Ticket, now: float) -> None:
        """See to it that a call that has not begun waits for a worker that may come."""
        missing_s = self._workers.missing_s(ticket.needs, now)
        if missing_s > self.target.workers_timeout_s or self._workers.hopeless(ticket.needs):
            self._connection.cancel(ticket.future)
            self._settle(ticket, None, self._no_such_worker(ticket))
            return
        there = self._workers.offers.keys()
        if ticket.pinned and there and there.isdisjoint(ticket.pinned):
            self._send(ticket)  # those that it was to run on were replaced

    def _suspect(self, worker: str, seconds: float, now: float) -> None:
        """Have a worker examined that was not heard of for too long."""
        last = self._suspects.get(worker)
        if last is None or now - last > self.target.silent_s / 3:
            self._suspects[worker] = now
            self._connection.examine(worker, partial(self._queue, self._examined, worker, seconds))

    def _examined(self, worker: str, seconds: float, found: Found) -> None:
        """Kill a silent worker that does nothing; on somebody's cluster only if it is in our way.

        One that computes in C code and holds Python's lock is silent, too: it is left alone.
        """
        keys = {ticket.future.key for ticket in self._tickets.values() if ticket.future is not None}
        in_our_way = self._connection.ours or not keys.isdisjoint(found.holds)
        if found.pulse == "works" or not in_our_way:
            return
        self._causes[worker] = cause = of_silence(seconds, found.pulse)
        logger.warning("compute %s: kills worker %s: %s", self.name, worker, cause.because)
        self._suspects[worker] = time.monotonic() + KILL_S  # by then it is gone
        self._connection.kill(worker)

    # -- the end --------------------------------------------------------------------------------

    def _shut(self) -> None:
        self._closed = True
        for ticket in list(self._tickets.values()):
            self._settle(ticket, None, self._scheduler_lost(ticket, "it was closed"))
        self._connection.close(lost=self._lost)
