"""Tell Prefect what changed, so that it is on record there: once, however often it is told.

Knows events and Prefect's API. Knows nothing of places, outputs, and what was seen or taken.

Prefect's own `emit_event` hands an event to a queue in memory and says nothing when it gets lost.
Here an event counts as told when the API has it on record; until then it is sent again under the
same id, which a Prefect server acts upon once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.events.clients import get_events_client
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.utilities.asyncutils import run_coro_as_sync

from prefect_mlpipe.deploy.watches import EVENT, Watch
from prefect_mlpipe.errors import PrefectUnavailable

PAGE = 50  # the most that the API gives at once
FLIGHT = 500  # events under way; a server's queue holds 10,000, of everyone
RECORDED_S = 30.0  # servers put events on record every 5 s
POLL_S = 0.5

T = TypeVar("T")
Announce = Callable[[Watch, Sequence[Mapping[str, Any]]], None]


def announce(watch: Watch, told: Sequence[Mapping[str, Any]]) -> None:
    """Get events on record in Prefect; those that are there already are not sent again.

    Args:
        watch: what they are about.
        told: of each its `id` and `payload`.

    Raises:
        PrefectUnavailable: the API did not put all of them on record.
        Exception: whatever Prefect's client raises for an API that does not answer.
    """
    labels = watch.labels()
    put_on_record(
        Event(id=UUID(one["id"]), event=EVENT, resource=labels, payload=dict(one["payload"]))
        for one in told
    )


def put_on_record(events: Iterable[Event]) -> None:
    """Get events on record in Prefect, as `announce` does."""
    for some in _portions(events, FLIGHT):
        missing = {event.id for event in some}
        missing -= _recorded(missing)
        if missing:
            run_coro_as_sync(_send([event for event in some if event.id in missing]))
            _wait(missing)


async def _send(events: Sequence[Event]) -> None:
    async with get_events_client(checkpoint_every=1) as client:
        for event in events:
            await client.emit(event)


def _wait(ids: set[UUID]) -> None:
    deadline = time.monotonic() + RECORDED_S
    while missing := ids - _recorded(ids):
        if time.monotonic() > deadline:
            raise PrefectUnavailable(
                "The Prefect API took events and did not put them on record.",
                {"events": len(missing), "waited": f"{RECORDED_S:.0f} s"},
                "They are sent again later; the server's log says what is wrong.",
            )
        time.sleep(POLL_S)


def _recorded(ids: Iterable[UUID]) -> set[UUID]:
    found: set[UUID] = set()
    with get_client(sync_client=True) as client:
        for page in _portions(ids, PAGE):
            asked = EventFilter(id=EventIDFilter(id=page))
            found.update(event.id for event in client.read_events(asked, limit=PAGE).events)
    return found


def _portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    everything = list(items)
    for at in range(0, len(everything), size):
        yield everything[at : at + size]
