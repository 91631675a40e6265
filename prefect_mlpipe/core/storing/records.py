"""Records under their keys: the first of a key stands, unless it is replaced on purpose.

Knows documents, the form of a record, and that many may lie together in a pack. Knows nothing of
when a record is good enough.

A record is sealed, so that a torn one is never believed; that is why records are created in place,
without a temporary file, at half the cost.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import orjson

from prefect_mlpipe.core.places.backends import LocalBackend
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.storing.moves import Moves
from prefect_mlpipe.core.storing.packs import WORTH, Packs
from prefect_mlpipe.core.storing.seals import Seal, Unsealed

FOLDER: Final = "records"

_TORN_ATTEMPTS = 5
_TORN_WAIT_S = 0.002
_DAMAGED = Unsealed("damaged")


class Records:
    """The records of one store.

    Args:
        documents: where they lie.
        packs: where many lie together.
        moves: is told of a key before another record takes the place of one that stands there.
    """

    def __init__(self, documents: Documents, packs: Packs, moves: Moves) -> None:
        self._documents, self._place = documents, documents.place
        self._packs, self._moves = packs, moves

    def read(self, key: str) -> Record | None:
        """Give the record of a key, `None` where there is none that can be believed."""
        backend = self._place.reading()
        if not isinstance(backend, LocalBackend):  # there each name costs a request
            packed = self._packs.read(key)
            if packed is not None:
                return packed
        data = backend.read(record_name(key))
        if data is not None:
            return self._believed(key, data)
        return self._packs.read(key)

    def read_many(
        self, keys: Sequence[str], *, fresh: bool = False, loose: bool = True
    ) -> dict[str, Record]:
        """Give the records that there are; of a remote store, all in a few calls.

        Args:
            keys: of the records.
            fresh: whether others may have written some since this store was last looked at.
            loose: whether those count that do not lie in packs.
        """
        found = self._packs.read_many(keys, fresh=fresh)
        if not loose:
            return found
        names = {record_name(key): key for key in keys if key not in found}
        for name, data in self._place.reading().read_many(list(names)).items():
            record = self._believed(names[name], data)
            if record is not None:
                found[record.key] = record
        return found

    def write(self, record: Record, *, replace: bool = False) -> Record:
        """Write a record, and give the one that stands: the first of a key, unless `replace`."""
        backend = self._place.writing()
        name = record_name(record.key)
        data = sealed(self._documents.seal, record)
        if not replace:
            packed = self._packs.read(record.key)
            if packed is not None:
                return packed
            if backend.create(name, data):
                return record
            standing = self._standing(record.key)
            if standing is not None:
                return standing  # else torn by a writer that was killed
        if not isinstance(backend, LocalBackend) or self._packs.has(record.key):
            self._moves.note(record.key)
        backend.replace(name, data)
        return record

    def write_many(self, records: Sequence[Record]) -> list[Record]:
        """Write records together, and give those that stand: the first of each key."""
        if len(records) < WORTH:
            return [self.write(record) for record in records]
        standing = self.read_many([record.key for record in records], fresh=True)
        new = {record.key: record for record in records if record.key not in standing}
        if new:
            self._packs.write(new.values())
        return [standing.get(record.key) or new[record.key] for record in records]

    def is_packed(self, key: str) -> bool:
        """Tell whether a record lies in a pack, so that it is read together with others."""
        return self._packs.has(key)

    def tidy(self) -> None:
        """Keep small what has to be looked through."""
        self._packs.tidy()

    def refused(self, key: str) -> str | None:
        """Say why the record of a key, once read here, was not believed; `None` if it was."""
        refused = self._documents.refused
        return (refused.get(record_name(key)) or self._packs.refused(key)) if refused else None

    def _believed(self, key: str, data: bytes) -> Record | None:
        record = unsealed(self._documents.seal, key, data)
        if isinstance(record, Unsealed):
            standing = None if record.unsigned else self._standing(key)
            if standing is None:
                self._documents.refuse(record_name(key), record)
            return standing
        return record

    def _standing(self, key: str) -> Record | None:
        """Read a record that another writer may be about to finish."""
        for attempt in range(_TORN_ATTEMPTS):
            if attempt:
                time.sleep(_TORN_WAIT_S)
            data = self._place.backend.read(record_name(key))
            record = data and unsealed(self._documents.seal, key, data)
            if isinstance(record, Record):
                return record
        return None


def record_name(key: str) -> str:
    """The name of the record of a key."""
    return f"{FOLDER}/{key[:2]}/{key}"


def sealed(seal: Seal, record: Record) -> bytes:
    """Give the bytes that stand for a record under its name; one line of JSON."""
    return seal.close(record_name(record.key), orjson.dumps(record.to_json()))


def unsealed(seal: Seal, key: str, data: bytes) -> Record | Unsealed:
    """Give the record of a key in sealed bytes, or why it is not believed."""
    try:
        record = Record.from_json(orjson.loads(seal.open(record_name(key), data)))
    except Unsealed as error:
        return error
    except (ValueError, TypeError, KeyError, AttributeError):  # whole, and no record
        return _DAMAGED
    return record if record.key == key else _DAMAGED
