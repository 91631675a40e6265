"""The documents of a store, and the shape that each must have.

Knows which fields readers rely on. Knows nothing of where documents lie, or of who reads them.

Worth arguing: a document of another shape comes from another version of this package, or from a
hand that wrote into the store. It is as good as a damaged one: the store does not give it out, so
that no reader need be ready for it. Fields that nobody relies on may be there or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, get_type_hints

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, create_model
from typing_extensions import TypedDict

from prefect_mlpipe.core.manifest import Manifest


def check_manifest(document: Any) -> Any:
    """Return what `Manifest.from_json` can read, as it is; a record has one, too.

    Raises:
        ValueError: it cannot be read.
    """
    _manifest().__pydantic_validator__.validate_python(document)
    return document


Strings = dict[str, str]
ManifestJson = Annotated[dict[str, Any], AfterValidator(check_manifest)]
Base64 = Annotated[
    str, Field(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")
]
StoredValueJson = tuple[str, str, int, str, str, list[str], Base64 | None, str | None]


class Code(TypedDict):
    """`core.telling.kept_code.KeptCode`."""

    parts: Strings
    looks: dict[str, tuple[str | None, Strings]]
    elsewhere: Strings


class Latest(TypedDict):
    """The key of what a function left last."""

    key: str


class Changed(TypedDict):
    """A file that has changed."""

    path: str
    kind: str


class Payload(TypedDict):
    """What an event says of changed files."""

    uri: str
    path: str
    changes: list[Changed]


class Event(TypedDict):
    """An event that is still to be told."""

    id: str
    payload: Payload


class Watch(TypedDict):
    """What a watcher of data has seen: `deploy.watcher`."""

    origin: str
    generation: int
    files: dict[str, tuple[str, str]]
    outbox: list[Event]


class Published(TypedDict):
    """A version of a published value."""

    value: StoredValueJson


class Entry(TypedDict):
    """One step of a run."""

    name: str
    items: int | None
    state: str
    reasons: list[tuple[str, str, str, str]]
    key: str | None
    earlier_key: str | None
    manifest: ManifestJson | None
    fields: dict[str, StoredValueJson] | None
    reused_from: str | None
    duration_s: float | None
    metrics: dict[str, Any]
    logs: list[str]
    error: str | None


class Run(TypedDict):
    """A run manifest."""

    id: str
    name: str
    pipeline: str
    state: str
    error: str | None
    started: float
    ended: float
    parameters: dict[str, Any]
    returned: Annotated[dict[str, Any], Field(min_length=1, max_length=1)] | None
    warnings: list[str]
    saved_s: float
    saved_bytes: int
    graph: dict[str, Any]
    nodes: list[Entry]


def read(data: bytes, shape: Any) -> dict[str, Any]:
    """Return a document.

    Raises:
        ValueError: it is no JSON, or has another shape.
    """
    _adapter(shape).validate_json(data, strict=True)
    found: dict[str, Any] = orjson.loads(data)
    return found


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


@cache
def _manifest() -> type[BaseModel]:
    optional = Manifest._field_defaults
    fields: Mapping[str, Any] = {
        name: (kind, None if name in optional else ...)  # what is made of it is thrown away
        for name, kind in get_type_hints(Manifest).items()
    }
    return create_model("_Manifest", __config__=ConfigDict(extra="forbid", strict=True), **fields)
