"""What a run used of its computes, and what that cost.

Pure: knows targets, how long their clusters were open, and what ran. A price says what one worker
costs in an hour. A cluster of ours costs for as long as its workers are there, at work or not; one
that was given by its `address`, and threads, would be there anyway: they cost for the seconds that
steps ran on them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prefect_mlpipe.compute.targets import Target

_HOUR_S = 3600


class Span(NamedTuple):
    """How long one cluster was open.

    Attributes:
        target: its settings.
        started: when it was asked for, in seconds since 1970.
        stopped: when it was closed; `None` while it is open.
        worker_s: seconds that its workers were there, all of them together; `None` for a cluster
            that was given.
    """

    target: Target
    started: float
    stopped: float | None
    worker_s: float | None


class Work(NamedTuple):
    """One step, or item, that ran or was reused: on which compute, and for how many seconds."""

    compute: str
    seconds: float
    reused: bool


class WorkerClock:
    """Counts the seconds that workers are there. Belongs to one thread, but for `hear`.

    Args:
        given: whether the cluster is somebody else's, whose workers nobody counts here.
    """

    def __init__(self, *, given: bool) -> None:
        self.started = time.time()
        self.stopped: float | None = None
        self._given = given
        self._since: dict[str, float] = {}
        self._counted = 0.0

    def there(self, workers: Iterable[str]) -> None:
        """Take in which workers are there from the beginning."""
        for worker in workers:
            self._since.setdefault(worker, time.time())

    def hear(self, event: tuple[float, Any]) -> None:
        """Take in an event of the scheduler's topic `all`."""
        when, content = event
        if not isinstance(content, Mapping):
            return
        if content.get("action") == "add-worker":
            self._since.setdefault(content["worker"], when)
        elif content.get("action") == "remove-worker":
            self._counted += max(0.0, when - self._since.pop(content["worker"], when))

    def stop(self) -> None:
        """Take in that the cluster is closed."""
        if self.stopped is None:
            self.stopped = time.time()

    def span(self, target: Target) -> Span:
        """Return how long the cluster was there, so far."""
        now = time.time() if self.stopped is None else self.stopped
        counted = self._counted + sum(max(0.0, now - since) for since in [*self._since.values()])
        return Span(target, self.started, self.stopped, None if self._given else counted)


def usage(
    computes: Mapping[str, Target], spans: Sequence[Span], work: Iterable[Work]
) -> list[dict[str, Any]]:
    """Return what was used of each compute, as it stands in the run manifest.

    Names with equal settings share a cluster, and one entry. Computes of which nothing was used or
    saved have none.
    """
    busy: dict[str, float] = dict.fromkeys(computes, 0.0)
    saved: dict[str, float] = dict.fromkeys(computes, 0.0)
    for compute, seconds, reused in work:
        counted = saved if reused else busy
        counted[compute] = counted.get(compute, 0.0) + seconds
    entries = []
    for target, names in _shared(computes):
        own = [span for span in spans if span.target == target]
        busy_s, saved_s = (sum(counted[name] for name in names) for counted in (busy, saved))
        if own or busy_s or saved_s:
            entries.append(_entry(target, names, own, busy_s, saved_s))
    return entries


def _shared(computes: Mapping[str, Target]) -> list[tuple[Target, list[str]]]:
    """Return targets with the names that share them; threads are of one name each."""
    found: list[tuple[Target, list[str]]] = []
    for name, target in computes.items():
        known = next((names for each, names in found if target.shared and each == target), None)
        if known is None:
            found.append((target, [name]))
        else:
            known.append(name)
    return found


def _entry(
    target: Target, names: list[str], spans: list[Span], busy_s: float, saved_s: float
) -> dict[str, Any]:
    price = None if target.cost_per_hour is None else target.cost_per_hour / _HOUR_S
    worker_s = [span.worker_s for span in spans if span.worker_s is not None]
    # In `local()` everything runs on threads: a cluster that was never opened costs nothing.
    charged_s = sum(worker_s) if worker_s else busy_s if spans or not target.shared else 0.0
    return {
        "names": names,
        "kind": type(target).__name__,
        "clusters": [
            {"started": span.started, "stopped": span.stopped, "worker_s": span.worker_s}
            for span in spans
        ],
        "busy_s": busy_s,
        "saved_s": saved_s,
        "cost_per_hour": target.cost_per_hour,
        "cost": None if price is None else charged_s * price,
        "saved_cost": None if price is None else saved_s * price,
    }


def total(entries: Iterable[Mapping[str, Any]], what: str) -> float | None:
    """Return the sum of `cost` or `saved_cost`; `None` where no compute has a price."""
    known = [entry[what] for entry in entries if entry[what] is not None]
    return sum(known) if known else None
