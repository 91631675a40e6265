"""Encode plain values of the standard library: numbers, times, paths, patterns, partials.

Knows their types, each handled exactly. Knows nothing of classes that users derive from them: those
are objects.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import functools
import pathlib
import re
import struct
import types
import uuid
import zoneinfo
from collections.abc import Sequence
from typing import Any

from prefect_mlpipe.core.encoding.encode import Encoder, attributes, branch, leaf
from prefect_mlpipe.core.encoding.pieces import Piece, octets, packed, record, scalar, text


@leaf(bytearray)
def _bytearray(encoder: Encoder, value: bytearray) -> bytes:
    return packed("bytearray", octets(encoder.buffers, value))


@leaf(memoryview)
def _memoryview(encoder: Encoder, value: memoryview) -> bytes:
    plain = value if value.c_contiguous else value.tobytes()
    shape = scalar(tuple(value.shape or ()))
    return packed("memoryview", text(value.format), shape, octets(encoder.buffers, plain))


@leaf(range)
def _range(encoder: Encoder, value: range) -> bytes:
    return packed("range", scalar(value.start), scalar(value.stop), scalar(value.step))


@branch(slice)
def _slice(encoder: Encoder, value: slice) -> Sequence[Piece]:
    return record("slice", *map(encoder.encode, (value.start, value.stop, value.step)))


@leaf(decimal.Decimal)
def _decimal(encoder: Encoder, value: decimal.Decimal) -> bytes:
    return packed("decimal", text(str(value)))


@leaf(fractions.Fraction)
def _fraction(encoder: Encoder, value: fractions.Fraction) -> bytes:
    return packed("fraction", scalar(value.numerator), scalar(value.denominator))


@leaf(uuid.UUID)
def _uuid(encoder: Encoder, value: uuid.UUID) -> bytes:
    return packed("uuid", value.bytes)


@leaf(datetime.timedelta)
def _timedelta(encoder: Encoder, value: datetime.timedelta) -> bytes:
    return packed("timedelta", *map(scalar, (value.days, value.seconds, value.microseconds)))


@leaf(datetime.date)
def _date(encoder: Encoder, value: datetime.date) -> bytes:
    return packed("date", struct.pack("<i", value.toordinal()))


@branch(datetime.datetime)
def _datetime(encoder: Encoder, value: datetime.datetime) -> Sequence[Piece]:
    naive, zone = value.replace(tzinfo=None, fold=0), encoder.encode(value.tzinfo)
    return record("datetime", text(naive.isoformat()), scalar(value.fold), zone)


@branch(datetime.time)
def _time(encoder: Encoder, value: datetime.time) -> Sequence[Piece]:
    naive, zone = value.replace(tzinfo=None, fold=0), encoder.encode(value.tzinfo)
    return record("time", text(naive.isoformat()), scalar(value.fold), zone)


@leaf(datetime.timezone)
def _timezone(encoder: Encoder, value: datetime.timezone) -> bytes:
    offset = value.utcoffset(None)
    seconds = (offset.days, offset.seconds, offset.microseconds)
    return packed("timezone", scalar(seconds), text(value.tzname(None)))


@leaf(zoneinfo.ZoneInfo)
def _zone(encoder: Encoder, value: zoneinfo.ZoneInfo) -> bytes:
    if value.key is None:
        raise encoder.refuse(value, "a time zone without a name has no content to see")
    return packed("zone", text(value.key))


@branch(re.Pattern)
def _pattern(encoder: Encoder, value: re.Pattern[Any]) -> Sequence[Piece]:
    return record("pattern", encoder.encode(value.pattern), scalar(value.flags))


@leaf(pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
def _path(encoder: Encoder, value: pathlib.PurePath) -> bytes:
    kind = "path" if isinstance(value, pathlib.Path) else type(value).__name__
    return packed(kind, text(str(value)))


@leaf(type(NotImplemented))
def _not_implemented(encoder: Encoder, value: object) -> bytes:
    return packed("NotImplemented")


@leaf(object)
def _bare_object(encoder: Encoder, value: object) -> bytes:
    return packed("object")


@branch(types.MappingProxyType)
def _mapping_proxy(encoder: Encoder, value: Any) -> Sequence[Piece]:
    return record("mappingproxy", encoder.encode(dict(value)))


@branch(types.SimpleNamespace)
def _namespace(encoder: Encoder, value: types.SimpleNamespace) -> Sequence[Piece]:
    return record("namespace", *attributes(encoder, vars(value)))


@branch(functools.partial)
def _partial(encoder: Encoder, value: functools.partial[Any]) -> Sequence[Piece]:
    # Looking at the `__dict__` of a partial gives it an empty one.
    names = attributes(encoder, vars(value))
    parts = map(encoder.encode, (value.func, value.args, value.keywords))
    return record("partial", *parts, *names)


@branch(types.CellType)
def _cell(encoder: Encoder, value: types.CellType) -> Sequence[Piece]:
    try:
        content = value.cell_contents
    except ValueError:  # filled later, or never
        return record("empty cell")
    return record("cell", encoder.encode(content))
