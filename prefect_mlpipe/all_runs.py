"""The runs of all pipelines in a store: for who has the store, but not the code.

Knows how runs lie in a store. `pipeline.runs` is the same for one pipeline, and needs its code.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Iterator
from itertools import islice

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import RunNotFound
from prefect_mlpipe.runs import NO_MANIFEST, Run, Runs


class AllRuns:
    """The finished runs in a store, newest first.

    AllRuns(open_store("/data/store")).list(state="failed")

    Args:
        store: where they are.
        pipeline: name of the only pipeline that counts; default: all.
    """

    def __init__(self, store: Store, pipeline: str | None = None) -> None:
        self._store = store
        self._pipeline = pipeline

    @property
    def pipelines(self) -> list[str]:
        """Names of the pipelines that have runs there."""
        return [self._pipeline] if self._pipeline else self._store.runs.pipelines()

    def __iter__(self) -> Iterator[Run]:
        each = (Runs(self._store, pipeline) for pipeline in self.pipelines)
        return heapq.merge(*each, key=lambda run: run.started, reverse=True)

    def list(self, limit: int = 20, state: str | None = None) -> list[Run]:
        """Return the newest runs, or the newest with a state."""
        return [*islice((run for run in self if state is None or run.state == state), limit)]

    def require(self) -> None:
        """Refuse a name under which no pipeline has a run in this store.

        Raises:
            RunNotFound: it says which pipelines have.
        """
        known = self._store.runs.pipelines()
        if self._pipeline is None or self._pipeline in known:
            return
        near = difflib.get_close_matches(self._pipeline, known)
        raise RunNotFound(
            f"No pipeline '{self._pipeline}' has a run in this store.",
            {"store": self._store.url, "pipelines": _shown(known)},
            f"Did you mean {' or '.join(map(repr, near))}?"
            if near
            else "Name one of these, or look in the store that it ran with.",
        )

    def get(self, run: str) -> Run:
        """Return a run by id or name; the newest one for `last`.

        Raises:
            RunNotFound: there is no such run in this store.
        """
        found = self._by_id(run) or next(
            (each for each in self if run in (each.name, "last")), None
        )
        if found is None:
            self.require()
            raise RunNotFound(
                f"There is no run '{run}' in this store.",
                {"store": self._store.url, "pipelines": _shown(self.pipelines)},
                f"See `mlpipe runs ls`, or look in the store that it ran with. {NO_MANIFEST}",
            )
        return found

    def _by_id(self, run: str) -> Run | None:
        for pipeline in self.pipelines:
            document = self._store.runs.read(pipeline, run)
            if document is not None:
                return Run(self._store, document)
        return None


def _shown(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
