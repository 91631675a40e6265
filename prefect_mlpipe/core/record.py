"""What the store holds about values and executed steps, and their form as JSON.

Knows nothing of how values become bytes, of files, or of Prefect. A record is written once and
never changed; the pointer from a key to a record is the store's. Records are tuples rather than
frozen dataclasses with a `__post_init__`: thousands are read in a cached run, and construction is
what that costs.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Json = Any


class StoredValue(NamedTuple):
    """A reference to one value in the store; what steps hand to each other.

    Attributes:
        digest: hash of the value, 64 hex digits.
        checksum: hash of the bytes that are stored.
        size: bytes stored.
        type: qualified name of the value's type, for people.
        format: name of the format that reads it.
        owners: distributions that own the types inside; their versions enter the key of a reader.
        inline: the bytes themselves where they are small, else `None`.
        name: final name of a stored file or folder, else `None`.
    """

    digest: str
    checksum: str
    size: int
    type: str
    format: str
    owners: tuple[str, ...] = ()
    inline: bytes | None = None
    name: str | None = None

    def to_json(self) -> list[Json]:
        """Return the fields as plain JSON."""
        inline = None if self.inline is None else b2a_base64(self.inline, newline=False).decode()
        return [*self[:5], list(self.owners), inline, self.name]

    @classmethod
    def from_json(cls, document: list[Json]) -> StoredValue:
        """Read what `to_json` wrote."""
        digest, checksum, size, type_, format_, owners, inline, name = document
        return cls(
            digest,
            checksum,
            size,
            type_,
            format_,
            tuple(owners),
            None if inline is None else a2b_base64(inline),
            name,
        )


class HeldCode(NamedTuple):
    """The user's code that an output holds: functions, classes, and the classes of objects.

    A stored value has code by name, as `helpers:clean`, or by itself, as a function that was made
    inside another.

    Attributes:
        names: name of code that it has by name → digest of what that was.
        made: label of code that it has by itself → kind, as `docstring` → digest of what shows of
            it in the code of the step; under "" of all that the step reaches.
        shows: kind → digest of what shows of the code that it has by itself.
        asks: what it asks of other code, once it is called: kinds.
    """

    names: Mapping[str, str]
    made: Mapping[str, Mapping[str, str]]
    shows: Mapping[str, str]
    asks: Sequence[str] = ()


class Record(NamedTuple):
    """What one executed step left behind.

    Attributes:
        key: digest of the manifest; of two whose outputs have code with different docstrings or
            names in them, one has a second key.
        manifest: the manifest as JSON (`core.manifest.Manifest.to_json`).
        digest: digest of the whole returned value.
        fields: one stored value for each declared field, or `{"": value}` for an undivided one.
        created: seconds since the epoch, by the clock of the machine that ran the step.
        duration_s: how long the function itself ran.
        metrics: what `log_metrics` gave.
        provenance: run id, run name, pipeline, node, host, compute.
        held: the user's code in the output, `None` if there is none.
    """

    key: str
    manifest: Mapping[str, Json]
    digest: str
    fields: Mapping[str, StoredValue]
    created: float
    duration_s: float
    metrics: Mapping[str, Json]
    provenance: Mapping[str, Json]
    held: HeldCode | None = None

    @property
    def size(self) -> int:
        """Bytes of all fields."""
        return sum(value.size for value in self.fields.values())

    def to_json(self) -> dict[str, Json]:
        """Return the fields as plain JSON."""
        document = self._asdict()
        document["fields"] = {name: value.to_json() for name, value in self.fields.items()}
        document["manifest"] = dict(self.manifest)
        del document["held"]
        if self.held is not None:
            document["held"] = [*self.held]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Record:
        """Read what `to_json` wrote."""
        fields = {name: StoredValue.from_json(value) for name, value in document["fields"].items()}
        return cls(
            document["key"],
            document["manifest"],
            document["digest"],
            fields,
            document["created"],
            document["duration_s"],
            document["metrics"],
            document["provenance"],
            HeldCode(*document["held"]) if "held" in document else None,
        )
