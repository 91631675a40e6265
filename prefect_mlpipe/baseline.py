"""What a step is compared with to say what changed: itself in the last run, or its latest record.

Knows the store and the form of a run manifest. Knows nothing of how a step is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.entries import Entries

Json = Any


class Baseline:
    """What a step is compared with: itself in the last run, or its function's latest record.

    Args:
        store: where they are.
        pipeline: whose runs count.
        run: manifest of a run to compare with instead of the last.

    Attributes:
        compared: name of a node → key of the record that it was compared with.
    """

    def __init__(self, store: Store, pipeline: str, run: Mapping[str, Json] | None = None) -> None:
        self._store = store
        self._pipeline = pipeline
        self._run = run
        self._nodes = Entries(run or {})
        self._latest: dict[str, Record | None] = {}
        self.compared: dict[str, str] = {}

    def key(self, node: str) -> str | None:
        """Return the key that a node had when it last succeeded in this pipeline."""
        self._last_run()
        return self._nodes.key(node)

    def _last_run(self) -> Mapping[str, Json]:
        if self._run is None:
            self._run = self._store.runs.last(self._pipeline) or {"nodes": []}
            self._nodes = Entries(self._run)
        return self._run

    def records(self) -> dict[str, Record]:
        """Return the records of the last run by key, if its store keeps them together."""
        if self._store.is_local:
            return {}
        segment = self._last_run().get("segment")
        return self._store.segments.read(segment) if segment else {}

    def record(self, node: Node) -> Record | None:
        """Return the record to compare a node with, `None` if there never was one."""
        found = self._record(node)
        if found is not None:
            self.compared[node.name] = found.key
        return found

    def earlier_key(self, node: str) -> str | None:
        """Return the key of what a node was compared with, or had when it last succeeded."""
        return self.compared.get(node) or self.key(node)

    def _record(self, node: Node) -> Record | None:
        key = self.key(node.name)
        found = self._store.records.read(key) if key else None
        if found is not None and found.manifest["function"] == node.step.qualified_name:
            return found
        function = node.step.qualified_name
        if function not in self._latest:
            latest = self._store.latest.read(function)
            self._latest[function] = self._store.records.read(latest["key"]) if latest else None
        # Else what stood at this place: a function of the same code may have left the record.
        return self._latest[function] or found

    def manifest(self, node: Node) -> Manifest | None:
        """Return the manifest to compare a node with."""
        record = self.record(node)
        return None if record is None else Manifest.from_json(record.manifest)
