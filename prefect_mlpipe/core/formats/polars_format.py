"""Frames of polars as Arrow IPC files.

Knows polars only. polars writes and reads the file itself: it knows best how its categories and
nested columns look in Arrow. Frames with Python objects are left to pickle.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import polars as pl  # type: ignore[import-not-found, unused-ignore]
from typing_extensions import override

from prefect_mlpipe.core.formats.base import Format, Part


class Polars(Format):
    """Frames of polars; read back once when stored."""

    name, suffix = "polars", ".arrow"

    @override
    def accepts(self, value: object) -> bool:
        if not isinstance(value, pl.DataFrame):
            return False
        return type(value) is pl.DataFrame and pl.Object not in value.dtypes

    @override
    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, pl.DataFrame)
        stream = io.BytesIO()
        value.write_ipc(stream)
        return (stream.getbuffer(),)

    @override
    def load(self, data: memoryview) -> object:
        return pl.read_ipc(io.BytesIO(data), use_pyarrow=False)
