"""Frames and series of cudf as Arrow IPC files, through host memory.

Knows pyarrow and the few names of cudf that it takes, and imports cudf only to load: where there is
none, such a value can still be checked, moved and pruned. It comes back on the current device of
the process that loads it; where there is no GPU that is an error, and never a frame of pandas.

cudf writes into the file's metadata what pandas needs to know of the index, and reads it there.
What it does not keep (some names of an index) shows when the round trip is tried, and goes to
pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from typing_extensions import override

from prefect_mlpipe.core.formats.arrow_format import ArrowFile, ipc_file, table_in
from prefect_mlpipe.core.formats.base import Part, is_json

_KEY: Final = b"prefect_mlpipe"
_ALONE: Final = "values"  # the name of the column of a series


class Cudf(ArrowFile):
    """Frames and series of cudf."""

    name = "cudf"

    @override
    def accepts(self, value: Any) -> bool:
        kind = type(value)
        if kind.__module__.partition(".")[0] != "cudf":
            return False
        if kind.__name__ == "Series":
            return value.name is None or (type(value.name) is str and is_json(value.name))
        names = list(value.columns) if kind.__name__ == "DataFrame" else []
        return len(names) > 0 and all(type(name) is str and is_json(name) for name in names)

    @override
    def dump(self, value: Any) -> Sequence[Part]:
        alone = type(value).__name__ == "Series"
        table = (value.to_frame(name=_ALONE) if alone else value).to_arrow()
        ours = orjson.dumps({"series": alone, "name": value.name if alone else None})
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: ours})
        return ipc_file(table.schema, table.to_batches())

    @override
    def load(self, data: memoryview) -> object:
        import cudf

        table = table_in(data)
        metadata = dict(table.schema.metadata)
        ours = orjson.loads(metadata.pop(_KEY))
        frame = cudf.DataFrame.from_arrow(table.replace_schema_metadata(metadata))
        return frame[_ALONE].rename(ours["name"]) if ours["series"] else frame
