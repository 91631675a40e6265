"""Parameters as Prefect shows them: plain JSON, or a reference to the store.

A parameter that has no plain JSON (a table, a model), or more than 64 KiB of it, is stored, and
Prefect gets the reference; a run that is started with such a reference gets the value back. Knows
nothing of pipelines.

A reference names bytes in the store and never holds them: loading may mean unpickling, and whoever
may start a run must not thereby be able to run code of his own. Where a store is signed, so is it.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import logging
import os
import pathlib
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson
from prefect.utilities.callables import ParameterSchema
from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from prefect_mlpipe.core.formats.base import Unstorable
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.calls import load
from prefect_mlpipe.errors import InvalidParameters, StoreError
from prefect_mlpipe.replays import path_of

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

LIMIT_BYTES = 64 * 1024
HIDDEN = "***"
_MARK = "$mlpipe"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SECRET = (SecretStr, SecretBytes)
_PLAIN = (
    type(None),
    bool,
    int,
    float,
    str,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    enum.Enum,
    uuid.UUID,
    pathlib.PurePath,
    BaseModel,
    *_SECRET,
)


def show(name: str, value: Any, store: Callable[[], Store]) -> Any:
    """Return a parameter as it is if it is short plain JSON, else its reference in the store.

    Secrets are never shown nor stored, wherever they stand.

    Raises:
        InvalidParameters: it cannot be stored.
    """
    if isinstance(value, os.PathLike):
        return str(value)
    if _is_short(value):
        return _masked(value)
    if _has_secret(value):
        return HIDDEN
    try:
        stored = store().put(value, inline=False)
    except Unstorable as error:
        raise InvalidParameters(
            f"Parameter '{name}' can be neither shown as JSON nor stored.",
            {"at": f"{name}{error.path}", "type": error.type, "because": error.why},
            "Pass plain data; make what cannot be stored in a step. Nothing ran.",
        ) from error
    return _reference(stored, store())


@contextmanager
def refused_in_silence() -> Iterator[None]:
    """Keep Prefect from logging which parameter it refuses: our error says that better."""
    here, logger = threading.get_ident(), logging.getLogger("prefect.flows")

    def is_other(record: logging.LogRecord) -> bool:
        said = record.getMessage().startswith("Parameter validation failed")
        return not said or record.thread != here

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def refer(name: str, returned: Any, store: Store) -> Any:
    """Return what a pipeline returned as `show` would: what is stored already by its reference.

    Args:
        name: for errors.
        returned: with references for what is stored, as in `conduct.Returned`.
        store: where that is.

    Raises:
        InvalidParameters: it cannot be stored.
        InputLost: a value that has to be loaded for it is gone or damaged.
    """
    if type(returned) is StoredValue and returned.inline is None:
        return _reference(returned, store)
    return show(name, load(returned, store), lambda: store)


def _reference(stored: StoredValue, store: Store) -> dict[str, Any]:
    store.parameters.write(stored.checksum, {"value": stored.to_json()})
    reference = {_MARK: stored.type, "value": stored.to_json()}
    signature = store.signature(stored)
    return reference if signature is None else {**reference, "signature": signature}


def as_plain(value: Any) -> Any:
    """Return a value as plain JSON without secrets; `None` if it is long or has none."""
    if not _is_short(value):
        return None
    return orjson.loads(
        orjson.dumps(_masked(value), default=_as_json, option=orjson.OPT_NON_STR_KEYS)
    )


def kept(
    arguments: Mapping[str, Any], store: Callable[[], Store], *, large: bool
) -> dict[str, Any]:
    """Return arguments as JSON from which a run can be started again, files by absolute paths.

    Secrets are left out, and so is what can be kept in no way.

    Args:
        arguments: of a run.
        store: where what has no short JSON goes.
        large: whether such things are kept at all.
    """
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        value = with_absolute_paths(value)
        short = _is_plain(value) and not _has_secret(value) and _size(value) <= LIMIT_BYTES
        if short or (large and not _has_secret(value)):
            with suppress(InvalidParameters):  # neither JSON nor storable: not kept
                found[name] = to_jsonable_python(show(name, value, store), fallback=str)
    return found


def with_absolute_paths(value: Any) -> Any:
    """Return a value with its files and paths, also in lists, tuples and dicts, as absolute
    paths in plain text."""
    path = path_of(value)
    if path is not None:
        return path
    if type(value) in (list, tuple):
        return type(value)(map(with_absolute_paths, value))
    if type(value) is dict:
        return {name: with_absolute_paths(item) for name, item in value.items()}
    return value


def stored_in(parameters: Mapping[str, Any]) -> list[Any]:
    """Return the references among parameters, as JSON."""
    return [reference.get("value") for reference in references_in(parameters).values()]


def references_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return name → reference of those parameters that are references."""
    return {n: v for n, v in parameters.items() if isinstance(v, dict) and _MARK in v}


def restore(parameters: Mapping[str, Any], store: Callable[[], Store]) -> dict[str, Any]:
    """Return parameters with references replaced by the values they stand for.

    Raises:
        InvalidParameters: a reference is none, or what it stands for is not in this store.
    """
    return {
        name: _loaded(name, value, store) if isinstance(value, dict) and _MARK in value else value
        for name, value in parameters.items()
    }


_REFERENCE_SCHEMA = {
    "type": "object",
    "title": "A stored value",
    "properties": {_MARK: {"type": "string"}, "value": {"type": "array"}},
    "required": [_MARK, "value"],
}


class _ClosedSchema(ParameterSchema):
    """The schema of parameters that refuses unknown names, so that the API does."""

    additionalProperties: bool = False


def close_schema(deployment: RunnerDeployment, taken: Iterable[str] = ()) -> RunnerDeployment:
    """Have the API refuse runs of a deployment with parameters that the pipeline does not have.

    Args:
        deployment: is changed.
        taken: parameters that may come as references to stored values, whatever their type.
    """
    schema = deployment._parameter_openapi_schema.model_dump()
    deployment._parameter_openapi_schema = _ClosedSchema(**closed(schema, taken))
    return deployment


def closed(schema: Mapping[str, Any], taken: Iterable[str] = ()) -> dict[str, Any]:
    """Return a schema of parameters that refuses unknown names; see `close_schema`."""
    fields = dict(schema.get("properties", {}))
    for name in taken:
        if name in fields:
            fields[name] = _or_reference(fields[name])
    return {**schema, "properties": fields, "additionalProperties": False}


def taken_in(schema: Mapping[str, Any]) -> list[str]:
    """Return the parameters that a closed schema lets come as references."""
    fields: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    return [name for name, field in fields.items() if _REFERENCE_SCHEMA in field.get("anyOf", ())]


ANY = "any"  # of what a schema does not say


def json_types(schema: Mapping[str, Any]) -> set[str]:
    """Return the types of JSON that a parameter takes, by its schema; `ANY` if it does not say."""
    if "anyOf" in schema:
        return {each for other in schema["anyOf"] for each in json_types(other)}
    return {str(schema.get("type", ANY))}


_OF_THE_FIELD = ("title", "description", "position", "default")


def _or_reference(schema: Mapping[str, Any]) -> dict[str, Any]:
    field = {word: schema[word] for word in _OF_THE_FIELD if word in schema}
    content = {word: said for word, said in schema.items() if word not in field}
    return {**field, "anyOf": [content, _REFERENCE_SCHEMA]} if content else field


def _loaded(name: str, reference: Mapping[str, Any], store: Callable[[], Store]) -> Any:
    try:
        stored = StoredValue.from_json(reference["value"])
        inside = "/" not in (stored.name or "") and stored.name not in (".", "..")
        if stored.inline is not None or not inside or not _DIGEST.fullmatch(stored.checksum):
            raise ValueError("it does not name a value in a store")
        if store().signature(stored) != reference.get("signature"):
            raise ValueError("it is not signed with the signing key of the settings")
        return store().get(stored)
    except (KeyError, TypeError, ValueError, StoreError) as error:
        raise InvalidParameters(
            f"Parameter '{name}' is a reference that cannot be followed.",
            {"problem": str(error).partition("\n")[0], "store": store().url},
            "Use the store of the run that the reference comes from, or pass the value.",
        ) from error


def _is_short(value: Any) -> bool:
    return _is_plain(value) and _size(value) <= LIMIT_BYTES


def _is_plain(value: Any) -> bool:
    if isinstance(value, _PLAIN):
        return True
    if type(value) in (list, tuple, set, frozenset):
        return all(map(_is_plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, f.name)) for f in dataclasses.fields(value))
    return type(value) is dict and all(
        isinstance(name, str) and _is_plain(item) for name, item in value.items()
    )


def _masked(value: Any) -> Any:
    """Return plain data with `***` for each secret; a pydantic model masks its own."""
    if isinstance(value, _SECRET):
        return HIDDEN
    if type(value) in (list, tuple, set, frozenset):
        return [_masked(item) for item in value]
    if type(value) is dict:
        return {name: _masked(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _masked(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def _has_secret(value: Any) -> bool:
    if isinstance(value, _SECRET):
        return True
    if isinstance(value, Mapping):
        return any(map(_has_secret, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_has_secret, value))
    if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        return any(map(_has_secret, vars(value).values())) if hasattr(value, "__dict__") else False
    return False


def _size(value: Any) -> int:
    return len(orjson.dumps(value, default=_as_json, option=orjson.OPT_NON_STR_KEYS))


def _as_json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
