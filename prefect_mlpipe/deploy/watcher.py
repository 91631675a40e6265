"""Watch a place: look, wait until it is settled, tell what changed, remember it.

Knows a place, a store and somebody to tell. Knows nothing of Prefect, of threads, or of who runs
it: see `deploy.watching` for that.

What was seen and what is still to be told are one document, written in one piece before anything
is told. So a watcher that is killed at any moment loses no change; and since what is to be told
has its ids from the content of the document, telling it again, or by two watchers of one place,
is telling it once.

The first look at a place only remembers what is there: data that was there before a pipeline
waited for changes is no change.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.announcing import Announce
from prefect_mlpipe.deploy.changes import Burst, Change, Seen, change, portions, suspects
from prefect_mlpipe.deploy.places import Place
from prefect_mlpipe.deploy.watches import Watch
from prefect_mlpipe.errors import InputChanged, MissingFile

logger = logging.getLogger(__name__)

_IDS = uuid.UUID("6f0f6c52-2f4b-4b8a-9a3c-7a4f0c1d5e21")


class Watcher:
    """Looks at one place, as often as it is asked. For one thread only.

    Args:
        watch: what to watch.
        place: where it lies.
        store: keeps what was seen, under the watch's name.
        announce: is given what changed; what it raises is raised by `look`, and it is asked again.
        clock: seconds, of any origin.
    """

    def __init__(
        self,
        watch: Watch,
        place: Place,
        store: Store,
        announce: Announce,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watch = watch
        self._place = place
        self._store = store
        self._announce = announce
        self._clock = clock
        self._burst = Burst(watch.settle)
        self._origin = ""
        self._generation = 0
        self._files: dict[str, Seen] = {}
        self._outbox: list[dict[str, Any]] = []

    def look(self) -> float | None:
        """Look once and tell what has changed and settled.

        Returns:
            After how many seconds to look again, because something may have settled by then;
            `None` if there is nothing to wait for.
        """
        if not self._origin:
            self._adopt(self._store.watches.read(self.watch.name))
        self._tell()
        look = self._place.look()
        if not self._origin:
            self._begin(look or {})
            return None
        if look is None and "" not in self._files:
            return None  # a folder not made yet, or not mounted: that says nothing of its files
        self._burst.update(suspects(self._files, look or {}), self._clock())
        ready = self._burst.ready(self._clock())
        if ready:
            left = self._take(ready)
            self._burst.taken(self._clock())
        else:
            left = bool(self._burst.pending)
        return self._burst.pause(self._clock()) if left else None

    def _begin(self, look: Mapping[str, str]) -> None:
        seen = self._read(look)
        files = {name: one for name, one in seen.items() if one is not None}
        self._save(uuid.uuid4().hex, 0, files, [])
        logger.debug("%s: %d files at the first look", self.watch.uri, len(files))

    def _take(self, ready: Mapping[str, str | None]) -> bool:
        """Read what is ready, and tell what changed. Says whether something is left."""
        seen = self._read(ready)
        left = len(seen) < len(self._burst.pending)
        found = [change(self._files, name, one) for name, one in sorted(seen.items())]
        changes = [one for one in found if one is not None and self._counts(one)]
        files = {name: one for name, one in {**self._files, **seen}.items() if one is not None}
        if not changes and files == self._files:
            return left
        stored = self._store.watches.read(self.watch.name)
        if stored is not None and _head(stored) != (self._origin, self._generation):
            self._adopt(stored)  # another watcher was first; its look may have seen less
            return True
        generation = self._generation + bool(changes)
        self._save(self._origin, generation, files, self._events(generation, changes))
        self._tell()
        return left

    def _counts(self, one: Change) -> bool:
        return one.kind != "deleted" or self.watch.on_delete

    def _read(self, states: Mapping[str, str | None]) -> dict[str, Seen | None]:
        """The content of files; what is being written or is gone again is left for later."""
        seen: dict[str, Seen | None] = {}
        for name, state in states.items():
            try:
                seen[name] = None if state is None else self._place.read(name, state)
            except (MissingFile, InputChanged) as error:
                logger.debug("%s is not settled: %s", self.watch.uri, error)
        return seen

    def _events(self, generation: int, changes: Sequence[Change]) -> list[dict[str, Any]]:
        groups = [[one] for one in changes] if self.watch.per == "file" else portions(changes)
        head = [self.watch.name, self._origin, generation]
        return [
            {"id": _id([*head, *map(list, group)]), "payload": self._payload(group)}
            for group in groups
        ]

    def _payload(self, changes: Sequence[Change]) -> dict[str, Any]:
        one = self.watch.per == "file"
        return {
            "uri": self.watch.uri,
            "path": self._place.path(changes[0].name) if one else self.watch.uri,
            "changes": [
                {"path": self._place.path(name), "kind": kind} for name, kind, _ in changes
            ],
        }

    def _tell(self) -> None:
        if not self._outbox:
            return
        self._announce(self.watch, self._outbox)
        self._save(self._origin, self._generation, self._files, [])

    # --- what is remembered -------------------------------------------------------------------

    def _save(
        self, origin: str, generation: int, files: dict[str, Seen], outbox: list[dict[str, Any]]
    ) -> None:
        document = {
            "origin": origin,
            "generation": generation,
            "uri": self.watch.uri,
            "files": {name: list(seen) for name, seen in files.items()},
            "outbox": outbox,
        }
        self._store.watches.write(self.watch.name, document)
        self._store.sync()
        self._adopt(document)

    def _adopt(self, document: Mapping[str, Any] | None) -> None:
        if document is None:
            return
        self._origin, self._generation = _head(document)
        self._files = {name: Seen(*seen) for name, seen in document["files"].items()}
        self._outbox = document["outbox"]


def _head(document: Mapping[str, Any]) -> tuple[str, int]:
    return document["origin"], document["generation"]


def _id(what: object) -> str:
    return str(uuid.uuid5(_IDS, orjson.dumps(what).hex()))
