"""Encode frames, series and indexes of cudf, which live on a GPU, through Arrow in host memory.

Knows what cudf calls things, and Arrow. Imported only once such a value turns up.

Worth arguing: a frame counts by labels, index, dtypes and elements, as one of pandas does; but
elements go by Arrow, since what pandas makes of them takes a missing number for NaN. Which GPU
holds them does not count.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from prefect_mlpipe.core.encoding.encode import Encoder, Handler, as_branch
from prefect_mlpipe.core.encoding.host_copies import on_host
from prefect_mlpipe.core.encoding.pieces import Piece, record, scalar

_ALONE = "0"  # the name of a column that stands alone


def find(kind: type) -> Handler | None:
    """Return how a type of cudf is encoded, if it is a table or a part of one."""
    cudf: Any = sys.modules["cudf"]
    for base, encode in ((cudf.DataFrame, _frame), (cudf.Series, _series), (cudf.Index, _index)):
        if issubclass(kind, base):
            return as_branch(encode)
    return None


def _frame(encoder: Encoder, frame: Any) -> Sequence[Piece]:
    kind, labels = encoder.encode(type(frame)), encoder.encode(frame.columns)
    dtypes, index = scalar(tuple(map(str, frame.dtypes))), encoder.encode(frame.index)
    return record("cudf.frame", kind, labels, dtypes, index, *_rest(encoder, frame, frame))


def _series(encoder: Encoder, series: Any) -> Sequence[Piece]:
    kind, name = encoder.encode(type(series)), encoder.encode(series.name)
    dtype, index = scalar(str(series.dtype)), encoder.encode(series.index)
    column = series.to_frame(name=_ALONE)
    return record("cudf.series", kind, name, dtype, index, *_rest(encoder, series, column))


def _rest(encoder: Encoder, value: Any, columns: Any) -> list[Piece]:
    attributes = getattr(value, "attrs", None)
    return [encoder.encode(attributes or None), _elements(encoder, value, columns)]


def _index(encoder: Encoder, index: Any) -> Sequence[Piece]:
    kind, names = encoder.encode(type(index)), encoder.encode(list(index.names))
    if hasattr(index, "step"):
        bounds = map(scalar, (index.start, index.stop, index.step))
        return record("cudf.range", kind, names, *bounds)
    many = [str(level) for level in range(index.nlevels)]
    columns = index.to_frame(index=False, name=many if len(many) > 1 else many[0])
    dtypes = scalar(tuple(map(str, columns.dtypes)))
    return record("cudf.index", kind, names, dtypes, _elements(encoder, index, columns))


def _elements(encoder: Encoder, value: Any, columns: Any) -> Piece:
    # Without the metadata for pandas: it names releases.
    return encoder.encode(
        on_host(
            value,
            lambda: columns.to_arrow(preserve_index=False).replace_schema_metadata(None),
        )
    )
