"""Watch over a flow run: show that it lives, and notice that it is to be cancelled.

Knows the state of a flow run and Prefect's events. Knows nothing of what the run does or how it is
cancelled: it calls `on_cancel` once.

Prefect's own heartbeat thread sleeps in whole seconds and is waited for when a flow ends, so every
flow lasts a second more than its body. `without_prefect_heartbeat` switches it off, and `RunWatch`
sends the same events from a thread that waits on an event and so ends at once. Nobody tells a
script's flow run that it was cancelled, so the same thread asks.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.logging import get_logger
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    get_current_settings,
    temporary_settings,
)

HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEAT_S = 30.0
FIRST_HEARTBEAT_S = 1.0  # a flow run shorter than this needs no sign of life
POLL_S = 2.0
REQUEST_S = 10.0

_CANCELLED = frozenset({StateType.CANCELLING, StateType.CANCELLED})
_heartbeat_s: contextvars.ContextVar[float] = contextvars.ContextVar("mlpipe_heartbeat_s")


@contextmanager
def without_prefect_heartbeat() -> Iterator[None]:
    """Within it Prefect starts no heartbeat thread; `RunWatch` sends the heartbeats.

    How often is what `PREFECT_FLOWS_HEARTBEAT_FREQUENCY` says where the user has set it.
    """
    flows = get_current_settings().flows
    chosen = flows.heartbeat_frequency if "heartbeat_frequency" in flows.model_fields_set else None
    token = _heartbeat_s.set(chosen or _heartbeat_s.get(HEARTBEAT_S))
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield
    finally:
        _heartbeat_s.reset(token)


class RunWatch:
    """Heartbeats and cancellation of one flow run, on a thread of its own.

    Trouble with the API is logged at DEBUG and the thread goes on: a server that restarts costs
    neither the run nor the watch.

    Attributes:
        lost_sight: whether the API did not answer once. Prefect's own events of that time may be
            lost: the thread that sends them gives up, with all that waits.

    Args:
        flow_run_id: the flow run.
        on_cancel: called once, on the watch's thread, when the run is being cancelled.
        resource: more facts for the heartbeats, such as `{"prefect.resource.name": run name}`.
        poll_s: how often the state is read.
        heartbeat_s: how often a heartbeat is sent; None for what `without_prefect_heartbeat` found.
    """

    def __init__(
        self,
        flow_run_id: UUID,
        on_cancel: Callable[[], object],
        *,
        resource: Mapping[str, str] | None = None,
        poll_s: float = POLL_S,
        heartbeat_s: float | None = None,
    ) -> None:
        self._flow_run_id = flow_run_id
        self._on_cancel = on_cancel
        self._resource = {
            **(resource or {}),
            "prefect.resource.id": f"prefect.flow-run.{flow_run_id}",
        }
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s or _heartbeat_s.get(HEARTBEAT_S)
        self._logger = get_logger("mlpipe")
        self.lost_sight = False
        self._closed = threading.Event()
        # the context has the settings: a thread without them would start a server of its own
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._watch,), name="mlpipe-watch"
        )
        self._thread.daemon = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop. Does not wait for a request that is under way."""
        self._closed.set()

    def _watch(self) -> None:
        next_poll = time.monotonic() + self._poll_s
        next_beat = time.monotonic() + min(FIRST_HEARTBEAT_S, self._heartbeat_s)
        cancelled = False
        with ExitStack() as stack:
            client: SyncPrefectClient | None = None  # a short run never needs one
            while not self._wait_until(next_beat if cancelled else min(next_beat, next_poll)):
                now = time.monotonic()
                if now >= next_beat:
                    next_beat = now + self._heartbeat_s
                    emit_event(HEARTBEAT, resource=self._resource)  # logs its errors, raises none
                if not cancelled and now >= next_poll:
                    next_poll = now + self._poll_s
                    client = client or stack.enter_context(_own_client())
                    cancelled = self._look(client)

    def _wait_until(self, moment: float) -> bool:
        return self._closed.wait(max(0.0, moment - time.monotonic()))

    def is_cancelled(self) -> bool:
        """Ask now whether the run is being cancelled; not if the API does not answer."""
        try:
            with _own_client() as client:
                return self._is_cancelled(client)
        except Exception:  # its process is being ended: that must not fail for want of an answer
            self._logger.debug("The API could not be asked", exc_info=True)
            return False

    def _look(self, client: SyncPrefectClient) -> bool:
        """Read the state once; True when nothing more is to be looked for."""
        if not self._is_cancelled(client) or self._closed.is_set():
            return False
        try:
            self._on_cancel()
        except Exception:  # a thread has nobody to raise to: the run's log has to say it
            self._logger.exception("The flow run is cancelled, but stopping its steps failed")
        return True

    def _is_cancelled(self, client: SyncPrefectClient) -> bool:
        try:
            answer: Any = client.request(
                "GET", "/flow_runs/{id}", path_params={"id": self._flow_run_id}
            ).json()
            return answer["state_type"] in _CANCELLED
        except Exception:  # the next look may succeed; trouble with the API never ends a run
            self.lost_sight = True
            self._logger.debug("The state of the flow run could not be read", exc_info=True)
            return False


def _own_client() -> SyncPrefectClient:
    """Not the flow's client, which is closed when the flow ends."""
    return get_client(httpx_settings={"timeout": REQUEST_S}, sync_client=True)
