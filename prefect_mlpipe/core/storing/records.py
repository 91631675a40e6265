"""Records under their keys: the first of a key stands, unless it is replaced on purpose.

Knows documents and the form of a record. Knows nothing of when a record is good enough.

A record is sealed, so that a torn one is never believed; that is why records are created in place,
without a temporary file, at half the cost.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import orjson

from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.storing.seals import Seal, Unsealed

FOLDER: Final = "records"

_TORN_ATTEMPTS = 5
_TORN_WAIT_S = 0.002
_DAMAGED = Unsealed("damaged")


class Records:
    """The records of one store.

    Args:
        documents: where they lie.
        moving: is told of a key before another record takes the place of one that stands there.
    """

    def __init__(self, documents: Documents, moving: Callable[[str], None]) -> None:
        self._documents, self._place = documents, documents.place
        self._moving = moving

    def read(self, key: str) -> Record | None:
        """Give the record of a key, `None` where there is none that can be believed."""
        data = self._place.reading().read(record_name(key))
        return None if data is None else self._believed(key, data)

    def read_many(self, keys: Sequence[str]) -> dict[str, Record]:
        """Give the records that there are; of a remote store, all in one call."""
        names = {record_name(key): key for key in keys}
        found = {
            names[name]: self._believed(names[name], data)
            for name, data in self._place.reading().read_many(list(names)).items()
        }
        return {key: record for key, record in found.items() if record is not None}

    def write(self, record: Record, *, replace: bool = False) -> Record:
        """Write a record, and give the one that stands: the first of a key, unless `replace`."""
        backend = self._place.writing()
        name = record_name(record.key)
        data = sealed(self._documents.seal, record)
        if not replace:
            if backend.create(name, data):
                return record
            standing = self._standing(record.key)
            if standing is not None:
                return standing  # else torn by a writer that was killed
        self._moving(record.key)
        backend.replace(name, data)
        return record

    def refused(self, key: str) -> str | None:
        """Say why the record of a key, once read here, was not believed; `None` if it was."""
        return self._documents.refused.get(record_name(key))

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
