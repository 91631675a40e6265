"""How far mapped steps have come: a bar on the terminal's line, a progress artifact in Prefect.

Knows counts of items, and Prefect's artifacts. Knows nothing of how items run. The API is asked
from a thread of its own, now and then, so that no item waits for it.
"""

from __future__ import annotations

import contextvars
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.logging import get_logger

from prefect_mlpipe.core.telling.describing import seconds_text
from prefect_mlpipe.reporting.events import plain

AFTER_S: Final = 2.0  # a mapped step that is over before has no artifact
EVERY_S: Final = 2.0
_WIDTH: Final = 24  # characters of a bar
_CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class MapCount:
    """One mapped step that goes on.

    Attributes:
        name: of the node.
        task_run_id: what Prefect calls it.
        done: how many items have ended.
        total: how many there are.
        since: when the first ones were sent, by the monotonic clock.
        done_then: how many had ended then, since they were reused.
    """

    name: str
    task_run_id: UUID | None
    done: int
    total: int
    since: float
    done_then: int = 0

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
        return self.done / self.total if self.total else 1.0

    @property
    def left_s(self) -> float | None:
        """How long the rest will take if it goes on like this; `None` where nothing tells."""
        ran = self.done - self.done_then
        if not ran:
            return None
        return (time.monotonic() - self.since) / ran * (self.total - self.done)

    def text(self) -> str:
        """As in '4,310/10,000  12 s left'."""
        left = self.left_s
        rest = f"  {seconds_text(left)} left" if left is not None and self.done < self.total else ""
        return f"{self.done:,}/{self.total:,}{rest}"

    def bar(self) -> str:
        """As in '━━━━━━━━━━╸─────────────'."""
        halves = round(self.share * _WIDTH * 2)
        full = "━" * (halves // 2) + ("╸" if halves % 2 else "")
        return full + "─" * (_WIDTH - len(full))


class ProgressArtifacts:
    """The progress artifacts of one flow run. Nothing is started before the first is due."""

    def __init__(self, flow_run_id: UUID) -> None:
        self._flow_run_id = flow_run_id
        self._context = contextvars.copy_context()  # settings and client of the flow run
        self._counts: dict[str, MapCount] = {}
        self._ids: dict[str, UUID] = {}
        self._told: dict[str, int] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def update(self, counts: Sequence[MapCount]) -> None:
        """Take in how far mapped steps have come. Never waits for the API."""
        for count in counts:
            self._counts[count.name] = count
            if self._thread is None and time.monotonic() - count.since > AFTER_S:
                self._thread = threading.Thread(
                    target=self._context.run, args=(self._work,), name="mlpipe-progress"
                )
                self._thread.daemon = True
                self._thread.start()

    def close(self) -> None:
        """Show how far they came in the end."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)  # one that hangs in a request is a daemon: left behind

    def _work(self) -> None:
        try:
            with get_client(sync_client=True) as client:
                while not self._over.wait(EVERY_S):
                    self._tell(client)
                self._tell(client)
        except httpx.HTTPError as error:
            get_logger("mlpipe").warning("Progress could not be shown in Prefect: %s", error)

    def _tell(self, client: SyncPrefectClient) -> None:
        for name, count in list(self._counts.items()):
            if self._told.get(name) == count.done:
                continue
            known = self._ids.get(name)
            if known is not None:
                update = ArtifactUpdate(data=_percent(count), description=_text(count))
                client.update_artifact(known, update)
            elif time.monotonic() - count.since > AFTER_S:
                new = ArtifactCreate(
                    key=_key(name),
                    type="progress",
                    description=_text(count),
                    data=_percent(count),
                    flow_run_id=self._flow_run_id,
                    task_run_id=count.task_run_id,
                )
                self._ids[name] = client.create_artifact(new).id
            self._told[name] = count.done


def _percent(count: MapCount) -> float:
    return round(100 * count.share, 1)


def _text(count: MapCount) -> str:
    return plain(f"{count.name}: {count.text()}")


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"progress-{name}".lower()).strip("-")
