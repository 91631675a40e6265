"""Frames of polars as Arrow IPC files that polars, pyarrow and pandas open.

Knows polars and pyarrow. polars lends its columns to pyarrow and borrows them back, so nothing is
copied either way. Frames with what pyarrow does not know (Python objects, integers of 128 bits) are
left to pickle.

Worth arguing: the writer and reader of polars itself keep one or two types more, and make three
copies of a frame on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl  # type: ignore[import-not-found, unused-ignore]
import pyarrow as pa
from typing_extensions import override

from prefect_mlpipe.core.formats.arrow_format import (
    ArrowFile,
    ipc_file,
    is_view,
    table_in,
    without_waste,
)
from prefect_mlpipe.core.formats.base import Part

_EXACT = frozenset(
    {
        *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
        *(pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Binary),
        *(pl.Date, pl.Datetime, pl.Duration, pl.Time),
    }
)


class Polars(ArrowFile):
    """Frames of polars."""

    name = "polars"

    @override
    def accepts(self, value: object) -> bool:
        if not isinstance(value, pl.DataFrame):
            return False
        return type(value) is pl.DataFrame and value.width > 0 and pl.Object not in value.dtypes

    @override
    def exact(self, value: object) -> bool:
        assert isinstance(value, pl.DataFrame)
        return all(dtype.base_type() in _EXACT for dtype in value.dtypes)

    @override
    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, pl.DataFrame)
        frame = _numbered(value)
        table = frame.to_arrow(compat_level=pl.CompatLevel.newest())
        for at, (name, dtype) in enumerate(frame.schema.items()):
            if dtype.is_nested() and _holds_views(table.schema.field(at).type):
                # Which of their buffers is in use is hard to tell: these are copied.
                table = table.set_column(at, name, frame.select(name).to_arrow().column(0))
        table = without_waste(table).rename_columns(value.columns)
        return ipc_file(table.schema, table.to_batches())

    @override
    def load(self, data: memoryview) -> object:
        table = table_in(data)
        numbers = [str(number) for number in range(table.num_columns)]
        frame = pl.from_arrow(table.rename_columns(numbers), rechunk=False)
        assert isinstance(frame, pl.DataFrame)
        frame.columns = table.column_names
        return frame


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with other names: polars panics at a zero in one that it lends to others."""
    numbered = frame.clone()
    numbered.columns = [str(number) for number in range(frame.width)]
    return numbered


def _holds_views(kind: pa.DataType) -> bool:
    return is_view(kind) or any(_holds_views(kind.field(at).type) for at in range(kind.num_fields))
