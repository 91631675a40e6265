"""The connection to one cluster: all that is asked of dask, each with an end.

Knows dask's client and cluster. Knows nothing of calls: who waits for what is the `Cluster`'s. A
scheduler, a worker or a network may fall silent at any moment, and dask itself would wait for ever.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple

import psutil
from distributed import Client, Nanny

from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.compute.deaths import (
    MEMORY_TOPIC,
    count_ourselves,
    exit_topic,
    pulse,
    telling_exits,
    telling_no_exits,
)
from prefect_mlpipe.compute.usage import WorkerClock
from prefect_mlpipe.compute.worker import RunContext, flush, plugin_name
from prefect_mlpipe.errors import ComputeUnavailable

logger = logging.getLogger(__name__)

ANSWER_S = 10.0  # how long one question may take
KILL_S = 6.0  # how long a nanny may take to kill a worker; it first asks it to end, for 4 s
CLOSE_S = 10.0  # how long each part of closing may take
LOST_S = 2.0  # how long, where nobody answers

_ALL = "all"  # dask's topic of workers that come and go

# What a question to a cluster may end in.
UNANSWERED = (OSError, TimeoutError, concurrent.futures.TimeoutError, asyncio.TimeoutError)

Hear = Callable[[str, Any], object]


class Found(NamedTuple):
    """What is known of a worker that is silent.

    Attributes:
        pulse: what its nanny says of its process; `None` if it says nothing.
        holds: keys of what is to run there.
    """

    pulse: str | None
    holds: Collection[str]


class Connection:
    """One cluster and the client that talks to it.

    Args:
        name: of the compute.
        target: its settings.
        run_id: of the flow run.
        context: the context of the flow run, by `pack_context`.
        hear: is told of events (topic, content), on the client's loop.

    Attributes:
        ours: whether the cluster was started here.
        clock: how long its workers were there.
    """

    def __init__(
        self, name: str, target: ClusterTarget, run_id: str, context: bytes, hear: Hear
    ) -> None:
        self.ours = target.address is None
        self.clock = WorkerClock(given=not self.ours)
        self._name = name
        self._target = target
        self._run_id = run_id
        self._context = context
        self._hear = hear
        self._answer_s = min(ANSWER_S, target.silent_s)
        self._kills: list[concurrent.futures.Future[Any]] = []
        self._nannies: set[str] = set()  # workers whose nannies tell us of their end
        self._cluster: Any = None
        self._client: Any = None  # dask's client is not annotated

    def open(self) -> None:
        """Start the cluster if it is ours, and connect.

        Raises:
            ComputeUnavailable: it cannot be started or reached; says what is needed.
        """
        wait_s = self._target.workers_timeout_s
        try:
            self._cluster = _within(wait_s, self._target.start)
        except TimeoutError as error:
            raise ComputeUnavailable(
                f"Compute '{self._name}' has not started.",
                {"waited": f"{wait_s:g} s"},
                "See its log, or raise workers_timeout_s if it needs longer.",
            ) from error
        where = self._target.address if self._cluster is None else self._cluster
        try:
            self._client = Client(  # type: ignore[no-untyped-call]
                where, timeout=self._target.silent_s, set_as_default=False
            )
        except UNANSWERED as error:
            raise ComputeUnavailable(
                f"Compute '{self._name}' does not answer.",
                {"address": self._target.address, "error": f"{type(error).__name__}: {error}"},
                "Start its scheduler, or correct the address.",
            ) from error
        self.introduce()

    def introduce(self) -> None:
        """Tell the scheduler of the run, and it its workers; after a reconnect, once more.

        One that does not answer holds nothing up: it is told when it comes back.
        """
        exits = exit_topic(self._run_id)
        for topic in (plugin_name(self._run_id), exits, MEMORY_TOPIC):
            self._client.subscribe_topic(topic, partial(self._heard, topic))
        self._client.subscribe_topic(_ALL, self.clock.hear)
        context = RunContext(self._run_id, self._context)
        for plugin in (count_ourselves(self._client.id), context):
            self._quietly(self._answer_s, partial(self._client.register_plugin, plugin))
        self._nannies = set()
        self._quietly(self._answer_s, self.workers)

    def _heard(self, topic: str, event: tuple[float, Any]) -> None:
        self._hear(topic, event[1])

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        if self._client is None or self._client.scheduler is None:
            return self._target.address or "not started"
        return str(self._client.scheduler.address)

    @property
    def running(self) -> bool:
        """Whether what is submitted now gets to the scheduler, as far as is known."""
        return self._client is not None and self._client.status == "running"

    @property
    def closed(self) -> bool:
        """Whether dask has given up: the scheduler was closed, or did not come back."""
        return self._client is not None and self._client.status == "closed"

    # -- calls ----------------------------------------------------------------------------------

    def submit(
        self, function: Callable[[bytes], Any], order: bytes, key: str, where: Mapping[str, Any]
    ) -> Any:
        """Send an order to what takes it on a worker; return dask's future."""
        return self._client.submit(function, order, key=key, pure=False, retries=0, **where)

    def follow(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function on the client's loop."""
        self._client.loop.add_callback(wait)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something after some time, on the client's loop."""
        loop = self._client.loop
        loop.add_callback(loop.call_later, seconds, call)

    def cancel(self, future: Any) -> None:
        """Take back a submission, on the client's loop: the scheduler may not answer."""
        if future is not None:
            cancel = partial(self._client.cancel, [future], asynchronous=True)
            self._client.loop.add_callback(cancel)

    # -- workers --------------------------------------------------------------------------------

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the scheduler says of its workers, by address.

        Raises:
            OSError: it cannot be reached.
            TimeoutError: it does not answer.
        """
        if self.closed:
            raise OSError("the connection is closed")
        known: Mapping[str, Any] = self._client.sync(
            self._client.scheduler.identity, n_workers=-1, callback_timeout=self._answer_s
        )
        found: Mapping[str, Mapping[str, Any]] = known["workers"]
        self.clock.there(found)
        new, self._nannies = found.keys() - self._nannies, set(found)
        if new:
            self._aside(self._on_nannies(telling_exits(exit_topic(self._run_id)), list(new)))
        return found

    async def _on_nannies(self, function: Any, workers: list[str]) -> Mapping[str, Any]:
        """Run a function in the nannies of workers; those that have none are left out."""
        # On the client's loop it waits for nobody, which its annotation does not say.
        asked: Any = self._client.run(function, workers=workers, nanny=True, on_error="ignore")
        said: Mapping[str, Any] = await asyncio.wait_for(asked, self._answer_s)
        return said

    def examine(self, worker: str, then: Callable[[Found], object]) -> None:
        """Find out whether a silent worker does anything, and what it was given. Does not wait."""
        self._aside(self._examine(worker, then))

    async def _examine(self, worker: str, then: Callable[[Found], object]) -> None:
        said: Mapping[str, str] = {}
        try:
            said = await self._on_nannies(pulse(), [worker])
        except (*UNANSWERED, KeyError) as error:  # nor does its nanny answer; or it has just gone
            logger.debug("compute %s: nobody answers for %s: %r", self._name, worker, error)
        held = await asyncio.wait_for(self._client.processing([worker]), self._answer_s)
        then(Found(said.get(worker), held.get(worker, ())))

    def kill(self, worker: str) -> None:
        """Have a worker killed; its nanny starts another. Does not wait for that."""
        restart = self._client.scheduler.restart_workers(
            workers=[worker],
            timeout=KILL_S,
            wait_for_workers=False,
            on_error="return",
            stimulus_id="mlpipe-kill",
        )
        self._kills.append(self._aside(asyncio.wait_for(restart, 2 * ANSWER_S)))

    def _aside(self, work: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(self._logged(work), self._client.loop.asyncio_loop)

    async def _logged(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception as error:  # the scheduler is gone, or the connection is closed
            logger.debug("compute %s: %r", self._name, error)

    # -- the end --------------------------------------------------------------------------------

    def close(self, *, lost: bool) -> None:
        """Bring the workers' reports home and close what is ours; leave a given cluster running.

        Args:
            lost: whether the scheduler cannot be reached: nothing is asked of it then.
        """
        client, cluster = self._client, self._cluster
        if not self.ours:
            concurrent.futures.wait(self._kills, timeout=KILL_S)
        if client is not None and self.running and not lost:
            self._quietly(CLOSE_S, self._bring_home)
        own = _processes(cluster)
        if client is not None:
            self._quietly(LOST_S if lost else CLOSE_S, client.close)
        if cluster is not None:
            self._quietly(CLOSE_S, cluster.close)
        for process in own:
            if process.is_running():
                logger.debug("compute %s: kills its worker %d", self._name, process.pid)
                self._quietly(LOST_S, process.kill)
        self.clock.stop()

    def _bring_home(self) -> None:
        self._client.unsubscribe_topic(_ALL)  # else the scheduler would tell it that it leaves
        self._client.run(flush, self._run_id, on_error="ignore")
        if not self.ours:
            self._client.unregister_worker_plugin(plugin_name(self._run_id))
            forget = telling_no_exits(exit_topic(self._run_id))
            self._client.run(forget, nanny=True, on_error="ignore")
            self._client.unregister_scheduler_plugin(f"mlpipe-deaths-{self._client.id}")

    def _quietly(self, seconds: float, call: Callable[[], object]) -> None:
        """Call what may fail or hang, and go on after some time whatever it does."""
        try:
            _within(seconds, call)
        except Exception as error:  # it is closed already, or cannot be reached
            logger.debug("compute %s: %r", self._name, error)


def _processes(cluster: Any) -> list[psutil.Process]:
    """Return the processes of a cluster's workers, where they are children of this one."""
    nannies = [each for each in getattr(cluster, "workers", {}).values() if type(each) is Nanny]
    found = []
    for nanny in nannies:
        if nanny.pid is not None:
            try:
                found.append(psutil.Process(nanny.pid))
            except psutil.NoSuchProcess:  # it has just ended
                continue
    return found


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Call something that may hang.

    Raises:
        TimeoutError: it has not ended in time; it goes on by itself.
    """
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="mlpipe-within", daemon=True).start()
    return future.result(seconds)
