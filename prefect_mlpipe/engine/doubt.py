"""Whether the store takes what steps return, asked before their work is done.

Knows the store. Knows nothing of the queue: what its answers stop is the queue's.

A local store is tried once in a run, before the first step that must run; a remote one is believed,
since a try costs requests, until it has refused something.
"""

from __future__ import annotations

from prefect_mlpipe.core.manifest import sentences
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.errors import StoreUnavailable


class Doubt:
    """What one run thinks of its store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._doubted = store.is_local

    def problem(self, run: StepRun) -> StoreUnavailable | None:
        """Return the error of a run whose work could not be kept, `None` if it can."""
        if not self._doubted:
            return None
        try:
            self._store.require_writable()
        except StoreUnavailable as error:
            why = "; ".join(sentences(run.reasons, 3))
            return StoreUnavailable(
                f"Step '{run.name}' must run ({why}), but nothing can be written into the "
                f"store {self._store.url}. It did not run.",
                error.facts,
                error.advice,
            )
        self._doubted = False
        return None

    def grows(self, error: StoreUnavailable) -> bool:
        """Take in that the store refused something; return whether it will go on to do so.

        What a remote store refused once it may take the next time; that is tried beforehand.
        """
        if error.facts.get("store") != self._store.url:
            return False
        self._doubted = True
        return self._store.is_local
