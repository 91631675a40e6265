"""Segments: all records of a run in one object, so that a rerun asks a remote store once.

Knows records and places. Knows nothing of runs: a run manifest names the segment of its run.

A segment is a copy of records that lie under their own names. What stands there is what counts, and
whoever moves a key to another record says so first under `moved/`; a reader of a segment leaves out
what was moved. A segment is named by its content, so a run that reused everything writes none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson
from blake3 import blake3

from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.storing.moves import Moves
from prefect_mlpipe.core.storing.records import sealed, unsealed

FOLDER: Final = "segments"

WORTH = 8  # records; fewer are asked for one by one


class Segments:
    """The segments of one store. Cross-thread and cross-process safe."""

    def __init__(self, documents: Documents, moves: Moves) -> None:
        self._documents, self._place, self._moves = documents, documents.place, moves

    def write(self, records: Iterable[Record]) -> str | None:
        """Keep copies of records together, once; give the name of the segment."""
        unique = {record.key: record for record in records}
        if len(unique) < WORTH:
            return None
        lines = [sealed(self._documents.seal, unique[key]) for key in sorted(unique)]
        content = b"\n".join(lines)
        name = blake3(content).hexdigest()
        if not self._place.writing().exists(segment_name(name)):
            self._place.backend.replace(segment_name(name), content)
        return name

    def read(self, name: str) -> dict[str, Record]:
        """Give the records of a segment that were not moved since; two requests."""
        backend = self._place.reading()
        content = backend.read(segment_name(name))
        if content is None:
            return {}
        moved = self._moves.keys(fresh=True)
        found = (self._record(line) for line in content.split(b"\n"))
        return {each.key: each for each in found if each is not None and each.key not in moved}

    def _record(self, line: bytes) -> Record | None:
        """Give the record of a line; what is not believed here is asked for under its key."""
        try:
            key = orjson.loads(line)["content"]["key"]
        except (ValueError, TypeError, KeyError):
            return None
        record = unsealed(self._documents.seal, str(key), line)
        return record if isinstance(record, Record) else None


def segment_name(name: str) -> str:
    """The name under which a segment stands."""
    return f"{FOLDER}/{name}.jsonl"
