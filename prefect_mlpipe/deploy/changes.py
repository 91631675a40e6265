"""What changed between two looks at a place, and whether the changing is over. Pure.

Knows nothing of files, events or clocks: a look is a mapping of names to states, a state is any
text that differs when the content may.

A state decides what is worth reading, never what has changed: only another content, another name
or a missing one is a change. A file is never told of before it was quiet for `settle` seconds, and
a burst is told of as a whole; but a place where something is written all the time must not keep
the rest waiting for ever, so that after some patience what is quiet is taken without the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import orjson

Kind = Literal["added", "modified", "deleted"]

PATIENCE = 30  # settling times that a whole burst may take
LIST_BYTES = 1 << 20  # Prefect takes events of 1.5 MB


class Seen(NamedTuple):
    """What is known of one file.

    Attributes:
        state: as the look gave it; empty if a file with this state may have another content.
        content: a hash or checksum.
    """

    state: str
    content: str


class Change(NamedTuple):
    """One file that is not what it was."""

    name: str
    kind: Kind
    content: str


def suspects(known: Mapping[str, Seen], look: Mapping[str, str]) -> dict[str, str | None]:
    """What may have changed, each with its present state; `None` for what is gone."""
    found: dict[str, str | None] = {
        name: state
        for name, state in look.items()
        if name not in known or not state or known[name].state != state
    }
    found.update((name, None) for name in known if name not in look)
    return found


def change(known: Mapping[str, Seen], name: str, seen: Seen | None) -> Change | None:
    """What the present content of a file makes of it; `None` where nothing has changed."""
    before = known.get(name)
    if seen is None:
        return None if before is None else Change(name, "deleted", "")
    if before is None:
        return Change(name, "added", seen.content)
    return None if before.content == seen.content else Change(name, "modified", seen.content)


@dataclass
class Burst:
    """What is suspect, and since when each is as it is.

    Attributes:
        settle: seconds without a change after which a file counts as written.
    """

    settle: float
    _since: dict[str, tuple[str | None, float]] = field(default_factory=dict)
    _began: float | None = None

    def update(self, suspects: Mapping[str, str | None], now: float) -> None:
        """Take the suspects of a new look."""
        before = self._since
        self._since = {
            name: before[name] if name in before and before[name][0] == state else (state, now)
            for name, state in suspects.items()
        }
        if not suspects:
            self._began = None
        elif self._began is None:
            self._began = now

    @property
    def pending(self) -> Set[str]:
        """The suspects."""
        return self._since.keys()

    def ready(self, now: float) -> dict[str, str | None]:
        """What can be read: all or nothing, until patience ends."""
        quiet = {
            name: state
            for name, (state, since) in self._since.items()
            if now - since >= self.settle
        }
        if len(quiet) == len(self._since):
            return quiet
        assert self._began is not None
        return quiet if now - self._began >= PATIENCE * self.settle else {}

    def taken(self, now: float) -> None:
        """What was ready is dealt with; patience with the rest begins anew."""
        self._began = now

    def pause(self, now: float) -> float | None:
        """Seconds until another look may find it settled; `None` if nothing is suspect."""
        if not self._since:
            return None
        newest = max(since for _, since in self._since.values())
        return max(self.settle - (now - newest), self.settle / 10)


def portions(changes: Iterable[Change], limit: int = LIST_BYTES) -> list[list[Change]]:
    """Changes in lists that fit into an event each."""
    found: list[list[Change]] = []
    size = limit
    for one in changes:
        size += len(orjson.dumps(one.name)) + 64
        if size > limit:
            found.append([])
            size = 0
        found[-1].append(one)
    return found
