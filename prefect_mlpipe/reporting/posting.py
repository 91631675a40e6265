"""Get reports of task runs into Prefect's API, one way or the other.

Knows what the API accepts and how much of it at a time. Knows nothing of threads, or of what is
reported by whom.

Up to a batch of reports goes in one request to the public `POST /events`. An API that does not take
events that way (it is asked once) gets the same reports through the client's ordinary methods: one
request each, slower but right, though the times shown are then those of the report.

The server keeps events in a bounded queue in memory and forgets what does not fit, without telling
anyone. So no more than `MAX_UNRECORDED` reports are ever under way: batch by batch the API is asked
whether they are on record, and a batch that it has forgotten is posted again.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import orjson
from prefect import Task
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State, TaskRunResult
from prefect.logging import get_logger

from prefect_mlpipe.reporting.events import (
    FINAL_TYPES,
    MAX_EDGES,
    STATE_TYPES,
    Closing,
    TaskRunReport,
    closing_event,
    plain,
    task_run_event,
)

MAX_UNRECORDED = 2000  # the server's queue holds 10,000 events, of everyone
POLL_S = 0.2  # between two looks at what the server has recorded
FORGOTTEN_S = 20.0  # no new record of a batch for so long: the server has lost it
UNKNOWN_S = 30.0  # how long a run to close may be unknown to a server that lags behind

Entry = TaskRunReport | Closing

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_REFUSED_AT_ALL = frozenset({401, 403})
_JSON = {"content-type": "application/json"}
_accepts_bulk: dict[str, bool] = {}  # API URL → what the probe found


class NotNow(Exception):
    """The API cannot take it now: try again, after `pause_s` if that is known."""

    def __init__(self, why: str, pause_s: float | None = None) -> None:
        super().__init__(why)
        self.pause_s = pause_s


@dataclass(slots=True)
class _Posted:
    """A batch that the API has taken and not yet put on record."""

    body: bytes
    ids: list[str]
    recorded: int = 0
    since: float = field(default_factory=time.monotonic)
    posted_again: bool = False


class Sender:
    """Gets entries into the API, one way or the other. For one thread only."""

    def __init__(
        self,
        client: SyncPrefectClient,
        flow_run_id: UUID,
        native: bool | None,
        lost: Counter[str],
    ) -> None:
        self._client = client
        self._flow_run_id = flow_run_id
        self._native = native
        self._lost = lost
        self._posted: deque[_Posted] = deque()
        self._stand_ins: dict[str, Task[..., Any]] = {}

    def send(self, todo: dict[UUID, Entry]) -> None:
        """Send what can be sent now and remove it from `todo`; also what never can, and count it.

        Raises:
            NotNow: something is left.
        """
        if self._native is None:
            self._native = not accepts_bulk(self._client)
        known = self._known([entry.id for entry in todo.values() if isinstance(entry, Closing)])
        unknown = self._sort_out(todo, known)
        if self._native:
            self._send_natively(todo, unknown)
        else:
            self._send_in_bulk(todo, known, unknown)
        if todo:
            raise NotNow("the API does not know the task run", POLL_S)

    def _sort_out(
        self, todo: dict[UUID, Entry], known: Mapping[UUID, Mapping[str, Any]]
    ) -> frozenset[UUID]:
        """Drop what has ended already and what is unknown for too long; the rest waits."""
        unknown = set()
        for entry in list(todo.values()):
            if not isinstance(entry, Closing):
                continue
            if entry.id not in known:
                if time.monotonic() - entry.since > UNKNOWN_S:
                    self._lost["the API does not know the task run"] += 1
                    del todo[entry.id]
                else:
                    unknown.add(entry.id)
            elif known[entry.id]["state_type"] in FINAL_TYPES:
                del todo[entry.id]
        return frozenset(unknown)

    def _send_in_bulk(
        self,
        todo: dict[UUID, Entry],
        known: Mapping[UUID, Mapping[str, Any]],
        unknown: frozenset[UUID],
    ) -> None:
        ready = [entry for entry in todo.values() if entry.id not in unknown]
        if not ready:
            return
        self._make_room(len(ready))
        events = [
            task_run_event(entry, self._flow_run_id)
            if isinstance(entry, TaskRunReport)
            else closing_event(entry, known[entry.id], self._flow_run_id)
            for entry in ready
        ]
        body = orjson.dumps(events)
        try:
            self._request("/events", body)
        except httpx.HTTPStatusError as error:
            get_logger("mlpipe").debug("Events in bulk were refused", exc_info=error)
            self._send_natively(todo, unknown)
            return
        self._posted.append(_Posted(body, [str(entry.id) for entry in ready]))
        for entry in ready:
            del todo[entry.id]

    def _send_natively(self, todo: dict[UUID, Entry], unknown: frozenset[UUID]) -> None:
        for entry in [entry for entry in todo.values() if entry.id not in unknown]:
            try:
                with _transient_errors():
                    self._send_one(entry)
            except httpx.HTTPStatusError as error:
                why = f"the API answered {error.response.status_code}"
                if error.response.status_code in _REFUSED_AT_ALL:
                    self._lost[why] += len(todo)
                    todo.clear()
                    return
                self._lost[why] += 1
            del todo[entry.id]

    def _send_one(self, entry: Entry) -> None:
        state: State[Any] = State(
            type=STATE_TYPES[entry.state], name=entry.state, message=plain(entry.message)
        )
        if isinstance(entry, TaskRunReport):
            made = self._client.create_task_run(
                task=self._stand_in(entry.task_key),
                flow_run_id=self._flow_run_id,
                dynamic_key=entry.dynamic_key,
                id=entry.id,
                name=plain(entry.name),
                extra_tags=entry.tags,
                state=state,
                task_inputs={"inputs": [TaskRunResult(id=id) for id in entry.parents[:MAX_EDGES]]},
            )
            if made.state_name == entry.state:
                return  # else it was there before, in another state
        self._client.set_task_run_state(entry.id, state, force=True)

    def _stand_in(self, task_key: str) -> Task[..., Any]:
        """The client wants a `Task` to read the key from."""
        if task_key not in self._stand_ins:
            task = Task(fn=_never_called)
            task.task_key = task_key
            self._stand_ins[task_key] = task
        return self._stand_ins[task_key]

    def _make_room(self, count: int) -> None:
        """Raise `NotNow` while the server has too many of our events to record."""
        while self._posted:
            waiting = sum(len(posted.ids) - posted.recorded for posted in self._posted)
            if waiting + count <= MAX_UNRECORDED:
                return
            oldest = self._posted[0]
            recorded, now = self._recorded(oldest.ids), time.monotonic()
            if recorded == len(oldest.ids):
                self._posted.popleft()
                continue
            if recorded > oldest.recorded:
                oldest.recorded, oldest.since = recorded, now
            elif now - oldest.since > FORGOTTEN_S:
                self._post_again(oldest)
            raise NotNow("the server records more slowly than steps are reported", POLL_S)

    def _post_again(self, posted: _Posted) -> None:
        if posted.posted_again:
            self._lost["the server took it and did not record it"] += (
                len(posted.ids) - posted.recorded
            )
            self._posted.popleft()
        else:
            self._request("/events", posted.body)  # same ids: what is on record stays as it is
            posted.posted_again, posted.since = True, time.monotonic()

    def _recorded(self, ids: list[str]) -> int:
        body = orjson.dumps({"task_runs": {"id": {"any_": ids}}})
        return int(self._request("/task_runs/count", body).json())

    def _known(self, ids: Sequence[UUID]) -> dict[UUID, Mapping[str, Any]]:
        found: dict[UUID, Mapping[str, Any]] = {}
        for first in range(0, len(ids), 200):  # the API's page size
            some = ids[first : first + 200]
            body = orjson.dumps({"task_runs": {"id": {"any_": some}}, "limit": 200})
            answer = self._request("/task_runs/filter", body).json()
            found.update({UUID(task_run["id"]): task_run for task_run in answer})
        return found

    def _request(self, path: Any, body: bytes) -> httpx.Response:
        with _transient_errors():
            return self._client.request("POST", path, content=body, headers=_JSON)


def ended_task_runs(ids: Sequence[UUID]) -> set[UUID]:
    """Which of these task runs have ended, as far as the API knows; none if it does not answer."""
    found: set[UUID] = set()
    with get_client(sync_client=True) as client, suppress(httpx.HTTPError):
        for first in range(0, len(ids), 200):  # the API's page size
            some = {"id": {"any_": [str(id) for id in ids[first : first + 200]]}}
            answer = client.request("POST", "/task_runs/filter", json={"task_runs": some}).json()
            found.update(UUID(one["id"]) for one in answer if one["state_type"] in FINAL_TYPES)
    return found


def accepts_bulk(client: SyncPrefectClient) -> bool:
    """Whether the API takes a list of events at once. It is asked once in the life of the process.

    Prefect Cloud is not asked: that it would record them as task runs is not known.
    """
    if client.server_type == ServerType.CLOUD:
        return False
    url = str(client.api_url)
    if url not in _accepts_bulk:
        with _transient_errors():
            try:
                client.request("POST", "/events", content=b"[]", headers=_JSON)
                _accepts_bulk[url] = True
            except httpx.HTTPStatusError as error:
                if error.response.status_code in _TRANSIENT | _REFUSED_AT_ALL:
                    raise
                _accepts_bulk[url] = False
    return _accepts_bulk[url]


@contextmanager
def _transient_errors() -> Iterator[None]:
    """Turn what may pass into `NotNow`; a refusal goes through as `HTTPStatusError`."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in _TRANSIENT or "CSRF" in error.response.text:
            raise NotNow(f"the API answered {status}") from error
        raise
    except httpx.TransportError as error:
        raise NotNow(f"the API did not answer: {type(error).__name__}") from error


def _never_called() -> None:
    """Stands in for the function of a task run that is only reported."""
