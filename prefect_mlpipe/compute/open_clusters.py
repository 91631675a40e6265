"""The clusters of one flow run: each opened by the first call that must run there, and closed as
soon as none can come any more.

Knows targets and how long each cluster was open. Knows nothing of what runs there: whoever calls
says how one is opened. Targets with equal settings share a cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Generic, TypeVar

from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.compute.targets import Target
from prefect_mlpipe.compute.usage import Span

if TYPE_CHECKING:
    from prefect_mlpipe.compute.cluster import Cluster

C = TypeVar("C", bound="Cluster")


class OpenClusters(Generic[C]):
    """Opens and closes clusters. Safe to call from any thread; only `close` waits.

    Args:
        opening: makes the cluster of a compute's name and target.
    """

    def __init__(self, opening: Callable[[str, ClusterTarget], C]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._open: list[C] = []
        self._leaving: list[C] = []

    def __len__(self) -> int:
        return len(self._open)

    def known(self, target: ClusterTarget) -> C | None:
        """Return the cluster of a target if it is open."""
        with self._lock:
            return next((each for each in self._open if each.target == target), None)

    def of(self, name: str, target: ClusterTarget) -> C:
        """Return the cluster of a target; the first who asks has it opened."""
        with self._lock:
            known = next((each for each in self._open if each.target == target), None)
            if known is None:
                known = self._opening(name, target)
                self._open.append(known)
            return known

    def release(self, wanted: Collection[Target | None]) -> None:
        """Close all but those of these targets."""
        with self._lock:
            for cluster in [each for each in self._open if each.target not in wanted]:
                self._open.remove(cluster)
                self._leaving.append(cluster)
                cluster.close(wait=False)

    def close(self) -> None:
        """Close all of them, and wait for it."""
        self.release(())
        for cluster in self._leaving:
            cluster.close(wait=True)

    def spans(self) -> list[Span]:
        """Return how long each cluster was, or is, open, in the order in which they were opened."""
        with self._lock:
            spans = [each.span() for each in (*self._leaving, *self._open)]
        return sorted(spans, key=lambda span: span.started)
