"""What the tests of formats share."""

from __future__ import annotations

from typing import Any

from prefect_mlpipe.core.formats.base import Format, flattened
from prefect_mlpipe.core.formats.registry import formats_for


def dumped(value: object) -> tuple[Format, bytes]:
    """What the first format that accepts a value writes, in one piece."""
    format = next(format for format in formats_for(value) if format.accepts(value))
    return format, b"".join(flattened(format.dump(value)))


def loaded(format: Format, data: bytes) -> Any:
    return format.load(memoryview(bytearray(data)))


def round_trip(value: object) -> Any:
    return loaded(*dumped(value))


def name_of_format(value: object) -> str:
    return dumped(value)[0].name
