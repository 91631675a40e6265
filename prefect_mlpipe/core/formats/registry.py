"""Which format takes which value.

Knows nothing of stores. Formats of users are asked first, then the one for the value's type; pickle
stands at the end of every list.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict

from prefect_mlpipe.core.formats.base import Blob, Format, Json, Text
from prefect_mlpipe.core.formats.pickles import Pickle

JSON, TEXT, BLOB, PICKLE = Json(), Text(), Blob(), Pickle()

_by_type: dict[type, tuple[Format, ...]] = {
    **dict.fromkeys((type(None), bool, int, float, list, dict), (JSON, PICKLE)),
    OrderedDict: (PICKLE,),
    str: (TEXT, PICKLE),
    bytes: (BLOB, PICKLE),
}
_by_package = {
    "numpy": "npy",
    "pandas": "pandas",
    "pyarrow": "arrow",
    "polars": "polars",
    "torch": "safetensors",
    "cupy": "cupy",
    "cudf": "cudf",
}
_on_demand = {  # format → the module and class that are imported for it
    "npy": ("prefect_mlpipe.core.formats.npy_format", "Npy"),
    "pandas": ("prefect_mlpipe.core.formats.pandas_format", "Pandas"),
    "arrow": ("prefect_mlpipe.core.formats.arrow_format", "Arrow"),
    "polars": ("prefect_mlpipe.core.formats.polars_format", "Polars"),
    "safetensors": ("prefect_mlpipe.core.formats.torch_format", "Safetensors"),
    "cupy": ("prefect_mlpipe.core.formats.cupy_format", "Cupy"),
    "cudf": ("prefect_mlpipe.core.formats.cudf_format", "Cudf"),
}
_of_users: list[Format] = []
_by_name: dict[str, Format] = {format.name: format for format in (JSON, TEXT, BLOB, PICKLE)}


def register_format(format: Format) -> None:
    """Let a format of your own take the values that it accepts, before any of ours.

    Register it wherever values are read too: a reference names its format.

    Raises:
        ValueError: another format has this name.
    """
    standing = _by_name.get(format.name)
    if standing is not None and type(standing) is not type(format):
        raise ValueError(f"there is a format {format.name!r} already: {type(standing).__name__}")
    _by_name[format.name] = format
    _of_users[:] = [format, *(other for other in _of_users if other.name != format.name)]


def formats_for(value: object) -> tuple[Format, ...]:
    """The formats to try, in order; the last one accepts everything."""
    kind = type(value)
    ours = _by_type.get(kind)
    if ours is None:
        ours = _of_package(kind)
    elif isinstance(value, dict) and value:
        ours = _of_dict(value, ours)
    return (*_of_users, *ours) if _of_users else ours


def format_named(name: str) -> Format | None:
    """The format that a reference names, `None` where it is not known here."""
    if name in _on_demand and name not in _by_name:
        module, kind = _on_demand[name]
        try:
            _by_name[name] = getattr(importlib.import_module(module), kind)()
        except ImportError:  # the library is not installed here
            return None
    return _by_name.get(name)


def _of_package(kind: type) -> tuple[Format, ...]:
    """Formats by where a type comes from, so that no library is imported that is not in use."""
    name = _by_package.get(kind.__module__.partition(".")[0])
    format = format_named(name) if name else None
    return (PICKLE,) if format is None else (format, PICKLE)


def _of_dict(value: dict[object, object], ours: tuple[Format, ...]) -> tuple[Format, ...]:
    """The state of a torch module is a dict like any other, but for what is in it."""
    if type(next(iter(value.values()))).__module__.partition(".")[0] != "torch":
        return ours
    format = format_named("safetensors")
    return ours if format is None else (format, *ours)
