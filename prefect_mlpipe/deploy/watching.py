"""Who runs the watchers: threads of a serving process, or a process or flow for all the others.

Knows Prefect's deployments and automations, and threads. Knows nothing of what a watcher does.

A deployment without a work pool can only be run by the process that serves it, so that process
watches for it. A deployment with one is run by workers that come and go; there somebody has to
watch all the time: `mlpipe watch` as a process beside the workers, or the flow
`watch_data`, deployed with a schedule, as a run that looks once and ends. Both find in the server's
automations what there is to watch. Should two watch one place, nothing is told twice.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import Automation, EventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from pydantic import ValidationError

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.announcing import announce
from prefect_mlpipe.deploy.listing import KNOWN_S, listed
from prefect_mlpipe.deploy.places import place_of
from prefect_mlpipe.deploy.waking import Waker
from prefect_mlpipe.deploy.watcher import Watcher
from prefect_mlpipe.deploy.watches import EVENT, Watch
from prefect_mlpipe.reporting.api import ensure_api
from prefect_mlpipe.stores import open_store

logger = get_logger("mlpipe")

REFRESH_S = 30.0

_threads: dict[str, WatchThread] = {}
_lock = threading.Lock()


@dataclass
class WatchThread:
    """A thread that watches one place until it is stopped or its process ends.

    Attributes:
        watch: what to watch.
        store: keeps what was seen; default: the watch's, or that of the settings.
        deployment_id: watch only if this deployment is served, and not run by workers.
    """

    watch: Watch
    store: Store | None = None
    deployment_id: UUID | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it, with the Prefect settings of the caller."""
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._run,),
            name=f"mlpipe-watch {self.watch.uri}",
            daemon=True,  # it may be killed at any moment
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask it to stop."""
        self._stop.set()

    def join(self, within_s: float) -> None:
        """Wait until it has stopped, but not for ever."""
        if self._thread is not None:
            self._thread.join(within_s)

    def _run(self) -> None:
        waker = Waker(self.watch, self._stop)
        watcher: Watcher | None = None
        complaint = ""
        while not self._stop.is_set():
            try:
                if watcher is None:
                    if not self._is_ours():
                        return
                    watcher = _watcher(self.watch, self.store, known_at=time.monotonic() + KNOWN_S)
                    waker.prepare()
                wait = watcher.look()
                complaint = ""
            except Exception as error:  # of any library; the next look finds what this one did not
                complaint = _complain(self.watch, error, complaint)
                waker.pause(min(self.watch.every, REFRESH_S))
                continue
            if wait is None:
                waker.sleep(self.watch.every)
            else:
                waker.pause(wait)

    def _is_ours(self) -> bool:
        return self.deployment_id is None or bool(_is_served(self.deployment_id))


def watch_here(watch: Watch, store: Store | None, deployment_id: UUID) -> None:
    """Watch in a thread of this process, if it turns out that it serves the deployment."""
    with _lock:
        before = _threads.pop(watch.name, None)
        if before is not None:
            before.stop()
        _threads[watch.name] = WatchThread(watch, store, deployment_id)
        _threads[watch.name].start()


def stop_watching(within_s: float | None = None) -> None:
    """End the watching threads of this process; they end with it anyway.

    Args:
        within_s: how long to wait for them; default: not at all.
    """
    with _lock:
        threads = list(_threads.values())
        _threads.clear()
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(within_s or 0)


def watch_all(store: Store | None = None, stop: threading.Event | None = None) -> None:
    """Watch for all deployments that workers run, new ones included, until `stop`.

    Args:
        store: keeps what was seen; default: each watch's own, or that of the settings.
        stop: default: never.
    """
    stop = stop or threading.Event()
    threads: dict[Watch, WatchThread] = {}
    complaint = told = ""
    while not stop.is_set():
        try:
            wanted = requested()
            complaint, told = "", _tell(wanted, told)
        except Exception as error:  # the server is not there: what is known is watched on
            complaint = _complain(None, error, complaint)
            wanted = list(threads)
        for watch in threads.keys() - set(wanted):
            threads.pop(watch).stop()
        for watch in set(wanted) - threads.keys():
            threads[watch] = WatchThread(watch, store)
            threads[watch].start()
        stop.wait(REFRESH_S)
    for thread in threads.values():
        thread.stop()


@flow(name="watch-data", persist_result=False)
def watch_data(store: str | None = None) -> int:
    """Look once at every place that a deployment with a work pool waits for.

    Deploy it with a schedule, as often as changes shall be seen.

    Args:
        store: keeps what was seen between the runs, so all machines that run this must reach it;
            default: each watch's own, or that of the settings.

    Returns:
        The number of places.
    """
    return look_once(requested(), open_store(store) if store else None)


def look_once(watches: Sequence[Watch], store: Store | None = None) -> int:
    """Look at places until they have settled; return how many they were.

    Raises:
        ExceptionGroup: some could not be looked at; all others were.
    """
    errors: list[Exception] = []
    for watch in watches:
        try:
            watcher = _watcher(watch, store, known_at=0)
            while (pause := watcher.look()) is not None:
                time.sleep(pause)
        except Exception as error:  # raised below, when the others have been looked at
            error.add_note(f"while looking at {watch.uri}")
            errors.append(error)
    if errors:
        raise ExceptionGroup("Some places could not be looked at.", errors)
    return len(watches)


def requested() -> list[Watch]:
    """What the automations of the server wait for, if no serving process watches it.

    Not what automations wait for that have outlived their deployments.

    Raises:
        PrefectUnavailable: the API does not answer, or does not take our credentials.
    """
    ensure_api()
    return [
        watch
        for automation in map(Automation.model_validate, _waiting())
        if _is_for_workers(automation)
        for watch in _asked(automation)
    ]


def _is_for_workers(automation: Automation) -> bool:
    served = [_is_served(id) for id in _deployments(automation)]
    return not any(served) and (not served or any(each is not None for each in served))


def _watcher(watch: Watch, store: Store | None, known_at: float) -> Watcher:
    store = store or open_store(watch.store)

    def when_known(watch: Watch, told: Sequence[Mapping[str, Any]]) -> None:
        time.sleep(max(0.0, known_at - time.monotonic()))
        announce(watch, told)
        changes = sum(len(event["payload"]["changes"]) for event in told)
        logger.info("%s: %d changed, told in %d events", watch.uri, changes, len(told))

    return Watcher(watch, place_of(watch, store.stat_index), store, when_known)


def _tell(watches: Sequence[Watch], before: str) -> str:
    """Log what is watched, once as long as it stays the same."""
    places = sorted({watch.uri for watch in watches})
    said = f"Watching {len(places):,} place{'' if len(places) == 1 else 's'}"
    said += f": {', '.join(places)}" if places else "; no deployment of a work pool waits for data"
    if said != before:
        logger.info("%s", said)
    return said


def _complain(watch: Watch | None, error: Exception, before: str) -> str:
    """Log what went wrong, once as long as it stays the same."""
    what = watch.uri if watch else "The automations of the Prefect server"
    said = f"{what} cannot be looked at now, and will be later: {type(error).__name__}: {error}"
    level = logging.DEBUG if said == before else logging.WARNING
    logger.log(level, said, exc_info=error if level == logging.DEBUG else None)
    return said


def _is_served(deployment_id: UUID) -> bool | None:
    """Return whether a process serves a deployment, and not workers; `None` if it was deleted."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment(deployment_id).work_pool_name is None
        except ObjectNotFound:
            return None


def _waiting() -> Iterator[Mapping[str, Any]]:
    return (automation.content for automation in listed() if automation.expects(EVENT))


def _asked(automation: Automation) -> Iterator[Watch]:
    trigger = automation.trigger
    if not isinstance(trigger, EventTrigger):
        return
    try:
        yield Watch.from_labels(dict(trigger.match.items()))
    except ValidationError as error:
        logger.warning("The automation '%s' asks for no possible watch: %s", automation.name, error)


def _deployments(automation: Automation) -> list[UUID]:
    found = [getattr(action, "deployment_id", None) for action in automation.actions]
    return [id for id in found if id is not None]
