"""Parameters as Prefect shows them: plain JSON, or a reference to the store.

A parameter that has no plain JSON (a table, a model), or more than 64 KiB of it, is stored, and
Prefect gets the reference; a run that is started with such a reference gets the value back. Knows
nothing of pipelines.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import os
import pathlib
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from pydantic import BaseModel, SecretBytes, SecretStr

from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.store import Store

LIMIT_BYTES = 64 * 1024
_MARK = "$mlpipe"
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
)


def show(value: Any, store: Callable[[], Store]) -> Any:
    """Return a parameter as it is if it is short plain JSON, else its reference in the store."""
    if isinstance(value, SecretStr | SecretBytes):
        return "***"
    if isinstance(value, os.PathLike):
        return str(value)
    if _is_plain(value) and _size(value) <= LIMIT_BYTES:
        return value
    stored = store().put(value)
    return {_MARK: stored.type, "value": stored.to_json()}


def restore(parameters: dict[str, Any], store: Callable[[], Store]) -> dict[str, Any]:
    """Return parameters with references replaced by the values they stand for."""
    return {
        name: store().get(StoredValue.from_json(value["value"]))
        if isinstance(value, dict) and _MARK in value
        else value
        for name, value in parameters.items()
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, _PLAIN):
        return True
    if type(value) in (list, tuple, set, frozenset):
        return all(map(_is_plain, value))
    return type(value) is dict and all(
        isinstance(name, str) and _is_plain(item) for name, item in value.items()
    )


def _size(value: Any) -> int:
    return len(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS))
