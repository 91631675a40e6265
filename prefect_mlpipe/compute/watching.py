"""What is known of the workers of one cluster: what they offer, and which of them are silent.

Pure: knows what dask's scheduler says of its workers, but not dask. The scheduler says when it last
heard of each; that is by its own clock, so it only counts here whether it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_mlpipe.compute.offers import Needs, Offer, offers_of


class Workers:
    """The workers of one cluster.

    Attributes:
        offers: worker address → what it has, of those that are there.
        answered: when the scheduler last said so, by the monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self.offers: dict[str, Offer] = {}
        self.answered = now
        self._had: dict[str, Offer] = {}
        self._heard: dict[str, tuple[float, float]] = {}  # address → scheduler's time, ours
        self._fitting: dict[Needs, float] = {}

    def take_in(self, workers: Mapping[str, Mapping[str, Any]], now: float) -> dict[str, Offer]:
        """Take in what the scheduler says; return what the workers offer."""
        self.answered = now
        self.offers = offers_of(workers)
        self._had.update((str(offer), offer) for offer in self.offers.values())
        heard = self._heard
        self._heard = {}
        for address, info in workers.items():
            seen = float(info.get("last_seen") or 0)
            before = heard.get(address)
            self._heard[address] = before if before and before[0] == seen else (seen, now)
        return self.offers

    def silent(self, now: float, limit_s: float) -> list[tuple[str, float]]:
        """Return the workers that were not heard of for longer than a limit, and for how long."""
        found = [(address, now - since) for address, (_, since) in self._heard.items()]
        return [(address, seconds) for address, seconds in found if seconds > limit_s]

    def hopeless(self, needs: Needs) -> bool:
        """Whether there are workers, and none that was ever there had what a step needs."""
        return bool(self.offers) and not any(offer.fits(needs) for offer in self._had.values())

    def missing_s(self, needs: Needs, now: float) -> float:
        """Return how long it is that no worker which is there has what a step needs."""
        if any(offer.fits(needs) for offer in self.offers.values()):
            self._fitting[needs] = now
        return now - self._fitting.setdefault(needs, now)
