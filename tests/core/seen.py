"""What a step can see of a value, as text: equal for equal values, and only for those.

Written without any of the package's own digests, so that tests can hold those against it. It is
also copied into the projects of `tests.reuse`, so it imports nothing of the tests.

How things lie in memory is left out, as DESIGN says: strides, chunks, whether an array is a view,
read-only or a memory map.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import functools
import operator
import pathlib
import re
import struct
import types
import uuid
from array import array
from collections import ChainMap, defaultdict, deque
from typing import Any


def seen(value: Any) -> str:
    """All that can be seen of a value, and of what is in it."""
    return _seen(value, [])


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _seen(value: Any, around: list[int]) -> str:
    levels = 0
    while type(value) is list and len(value) == 1 and value[0] is not value:
        value, levels = value[0], levels + 1
    text = "[" * (levels % 10) + f"{levels}:" if levels else ""
    if id(value) in around:
        return f"{text}<the {len(around) - around.index(id(value))}th around>"
    look = _look_of(type(value))
    return f"{text}{_name(type(value))}({look(value, [*around, id(value)])})"


def _all(values: Any, around: list[int]) -> str:
    return ", ".join(_seen(each, around) for each in values)


def _look_of(kind: type) -> Any:
    for base in kind.__mro__:
        library = base.__module__.partition(".")[0]
        if base in _LOOKS:
            return _LOOKS[base]
        if library in _LIBRARIES:
            look = _LIBRARIES[library](kind)
            if look is not None:
                return look
    return _object


def _number(value: Any, around: list[int]) -> str:
    parts = (value.real, value.imag) if isinstance(value, complex) else (value,)
    return " ".join(struct.pack(">d", part).hex() for part in parts)


def _plain(value: Any, around: list[int]) -> str:
    return ascii(value)


def _attributes(value: Any, around: list[int]) -> str:
    kind = type(value)
    cached = {n for b in kind.__mro__ for n, v in vars(b).items() if _is_cache(v)}
    found = dict(getattr(value, "__dict__", {}))
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name not in ("__weakref__", "__dict__") and hasattr(value, name):
                found[name] = getattr(value, name)
    names = sorted(set(found) - cached - {"_attrs_cached_hash"})
    return " ".join(f"{name}={_seen(found[name], around)}" for name in names)


def _is_cache(value: object) -> bool:
    return isinstance(value, functools.cached_property)


def _object(value: Any, around: list[int]) -> str:
    private = getattr(value, "__pydantic_private__", None)
    extra = [private] if private else []
    if isinstance(value, (list, tuple, set, frozenset, dict, str, bytes, int, float)):
        base = next(each for each in type(value).__mro__ if each in _LOOKS)
        extra.append(_LOOKS[base](value, around))
    attributes = _attributes(value, around)
    if not attributes and type(value).__getstate__ is not object.__getstate__:
        extra.append(value.__getstate__())  # its state lies in C
    return f"{attributes} {_all(extra, around)}"


def _mapping(value: Any, around: list[int]) -> str:
    return _all([each for pair in value.items() for each in pair], around)


def _unordered(value: Any, around: list[int]) -> str:
    return ", ".join(sorted(_seen(each, around) for each in value))


def _exception(value: Any, around: list[int]) -> str:
    chain = (value.__cause__, value.__context__, value.__suppress_context__)
    return _all([value.args, *getattr(value, "exceptions", ()), vars(value), *chain], around)


def _function(value: Any, around: list[int]) -> str:
    code = value.__code__
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    parts = (value.__qualname__, code.co_code, code.co_consts, value.__defaults__, cells)
    return _all((*parts, vars(value)), around)


def _code(value: Any, around: list[int]) -> str:
    return _all((value.co_name, value.co_code, value.co_consts), around)


def _time(value: Any, around: list[int]) -> str:
    zone = value.tzinfo
    named = getattr(zone, "key", None) or ascii(zone)
    return f"{value.replace(tzinfo=None)!a} fold={value.fold} {_name(type(zone))} {named}"


_OPAQUE = (
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
    operator.itemgetter,
    types.GenericAlias,
    types.UnionType,
    types.BuiltinFunctionType,
)
_LOOKS: dict[type, Any] = {
    **dict.fromkeys((float, complex), _number),
    **dict.fromkeys((int, bool, str, bytes, bytearray, type(None), type(...), range), _plain),
    **dict.fromkeys((list, tuple), _all),
    **dict.fromkeys((set, frozenset), _unordered),
    deque: lambda value, around: f"{_all(value, around)} maxlen={value.maxlen}",
    dict: _mapping,
    types.MappingProxyType: _mapping,
    ChainMap: lambda value, around: _all(value.maps, around),
    defaultdict: lambda value, around: f"{value.default_factory} {_mapping(value, around)}",
    datetime.datetime: _time,
    datetime.time: _time,
    datetime.date: _plain,
    datetime.timedelta: _plain,
    enum.Enum: lambda value, around: f"{value._name_} {_seen(value._value_, around)}",
    BaseException: _exception,
    types.FunctionType: _function,
    types.CodeType: _code,
    functools.partial: lambda value, around: _all(
        (value.func, value.args, value.keywords, vars(value)), around
    ),
    re.Pattern: lambda value, around: _all((value.pattern, value.flags), around),
    types.MethodType: lambda value, around: _all((value.__func__, value.__self__), around),
    **dict.fromkeys(_OPAQUE, _plain),
    slice: lambda value, around: _all((value.start, value.stop, value.step), around),
    type: lambda value, around: _name(value),
    array: lambda value, around: f"{value.typecode} {value.tobytes().hex()}",
    memoryview: lambda value, around: f"{value.format} {value.shape} {value.tobytes().hex()}",
}


# numpy and scipy


def _numpy(kind: type) -> Any:
    import numpy as np

    if issubclass(kind, np.ma.MaskedArray):
        return _masked
    if issubclass(kind, np.ndarray):
        return _array
    if issubclass(kind, np.generic):
        return lambda value, around: _elements(np.asarray(value), around)
    if issubclass(kind, (np.random.Generator, np.random.BitGenerator)):
        return lambda value, around: _seen(getattr(value, "bit_generator", value).state, around)
    if issubclass(kind, np.random.RandomState):
        return lambda value, around: _seen(value.get_state(legacy=False), around)
    if issubclass(kind, np.dtype):
        return lambda value, around: _dtype(value)
    return None


def _dtype(kind: Any) -> str:
    custom = kind.type.__name__ if kind.kind == "V" or kind.isbuiltin == 2 else ""
    return f"{kind!r} {kind.str} {custom} {dict(kind.metadata or {})}"


def _elements(value: Any, around: list[int]) -> str:
    import numpy as np

    header = f"{_dtype(value.dtype)} {value.shape}"
    if value.dtype.names is not None:
        fields = [_elements(np.asarray(value[name]), around) for name in value.dtype.names]
        return f"{header} {fields}"
    if value.dtype.hasobject or value.dtype.kind == "T":
        return f"{header} {_all([value[at] for at in np.ndindex(value.shape)], around)}"
    if value.dtype.char in "gG":
        return f"{header} {[repr(each) for each in value.ravel()]}"
    return f"{header} {value.tobytes('C').hex()}"


def _array(value: Any, around: list[int]) -> str:
    import numpy as np

    return f"{_elements(value.view(np.ndarray), around)} {_attributes(value, around)}"


def _masked(value: Any, around: list[int]) -> str:
    import numpy as np

    parts = (np.ma.getdata(value).view(np.ndarray), np.ma.getmaskarray(value))
    settings = (value.fill_value, value.hardmask)
    return f"{[_elements(part, around) for part in parts]} {_all(settings, around)}"


def _scipy(kind: type) -> Any:
    return _sparse if "sparse" in kind.__module__ else None


def _sparse(value: Any, around: list[int]) -> str:
    names = ("data", "indices", "indptr", "coords", "offsets", "rows")
    parts = [getattr(value, name) for name in names if hasattr(value, name)]
    if value.format == "dok":
        parts = [{key: item for key, item in value.items()}]
    return _all([value.format, tuple(map(int, value.shape)), *parts], around)


# tables


def _pandas(kind: type) -> Any:
    import pandas as pd

    if issubclass(kind, pd.DataFrame):
        return _frame
    if issubclass(kind, pd.Series):
        return lambda value, around: _all(
            (value.name, value.index, value.array, value.attrs), around
        )
    if issubclass(kind, pd.MultiIndex):
        return _multi
    if issubclass(kind, pd.Index):
        return _index
    if issubclass(kind, pd.Timestamp):
        return lambda value, around: f"{value.unit} {value.asm8} {_time(value, around)}"
    if issubclass(kind, pd.api.extensions.ExtensionArray):
        return _extension
    if issubclass(kind, pd.api.extensions.ExtensionDtype):
        return lambda value, around: _pandas_dtype(value, around)
    if issubclass(kind, pd.Timedelta):
        return lambda value, around: f"{value.unit} {value.asm8}"
    return _plain


def _frame(value: Any, around: list[int]) -> str:
    columns = [value.iloc[:, at].array for at in range(value.shape[1])]
    flags = (value.flags.allows_duplicate_labels, [getattr(value, n) for n in value._metadata])
    return _all((value.columns, value.index, value.attrs, flags, *columns), around)


def _multi(value: Any, around: list[int]) -> str:
    levels = [value.get_level_values(at) for at in range(value.nlevels)]
    kinds = [_pandas_dtype(level.dtype, around) for level in value.levels]
    order = [list(level) for level in value.remove_unused_levels().levels]
    return _all((list(value.names), kinds, [list(level) for level in levels], order), around)


def _index(value: Any, around: list[int]) -> str:
    frequency = getattr(value, "freq", None)
    custom = (getattr(frequency, "holidays", None), getattr(frequency, "weekmask", None))
    bounds = [getattr(value, name, None) for name in ("start", "stop", "step")]
    return _all((value.name, str(frequency), custom, bounds, value.array), around)


def _pandas_dtype(kind: Any, around: list[int]) -> str:
    named = [getattr(kind, name, None) for name in ("storage", "ordered", "tz", "unit", "freq")]
    inner = getattr(kind, "categories", None)
    return f"{kind!r} {named!r} {_seen(inner, around)} {_name(type(named[2]))}"


def _extension(value: Any, around: list[int]) -> str:
    kind = _pandas_dtype(value.dtype, around)
    inner = list(value._sparse_index.indices) if hasattr(value, "_sparse_index") else None
    return f"{kind} {_all(list(value), around)} {inner}"


def _pyarrow(kind: type) -> Any:
    import pyarrow as pa

    if issubclass(kind, (pa.Table, pa.RecordBatch)):
        return lambda value, around: (
            f"{_schema(value.schema)} {_all([each.to_pylist() for each in value.columns], around)}"
            f" {[_dictionaries(column) for column in value.columns]}"
        )
    if issubclass(kind, (pa.Array, pa.ChunkedArray)):
        return lambda value, around: (
            f"{_arrow_type(value.type)} {_seen(value.to_pylist(), around)} {_dictionaries(value)}"
        )
    if issubclass(kind, pa.Scalar):
        return lambda value, around: f"{value.type} {value!r}"
    if issubclass(kind, pa.Schema):
        return lambda value, around: _schema(value)
    return _plain


def _schema(value: Any) -> str:
    return f"{value.to_string(truncate_metadata=False)} {list(map(_arrow_type, value.types))}"


def _arrow_type(kind: Any) -> str:
    import pyarrow as pa

    inner = [kind.field(at) for at in range(kind.num_fields)]
    named = [(each.name, each.nullable, each.metadata, _arrow_type(each.type)) for each in inner]
    custom = kind.__arrow_ext_serialize__() if isinstance(kind, pa.ExtensionType) else b""
    return f"{kind} {named} {custom!r}"


def _dictionaries(value: Any) -> str:
    import pyarrow as pa

    whole = pa.chunked_array([value]) if isinstance(value, pa.Array) else value
    if pa.types.is_dictionary(whole.type):
        whole = whole.unify_dictionaries()
        return str({tuple(chunk.dictionary.to_pylist()) for chunk in whole.chunks})
    codes = [
        chunk.type_codes.to_pylist() for chunk in whole.chunks if isinstance(chunk, pa.UnionArray)
    ]
    return str([each for part in codes for each in part])


def _polars(kind: type) -> Any:
    import polars as pl

    if issubclass(kind, pl.DataFrame):
        return lambda value, around: f"{value.height} {_all(value.get_columns(), around)}"
    if issubclass(kind, pl.Series):
        return lambda value, around: (
            f"{value.name!a} {value.dtype!r} {_seen(value.to_list(), around)}"
        )
    return _plain


# the rest


def _xarray(kind: type) -> Any:
    import xarray as xr

    if issubclass(kind, xr.Variable):
        return lambda value, around: _all(
            (value.dims, value.values, dict(value.attrs), dict(value.encoding)), around
        )
    if issubclass(kind, (xr.DataArray, xr.Dataset)):
        return _labelled
    return None


def _labelled(value: Any, around: list[int]) -> str:
    inner = getattr(value, "data_vars", None)
    parts = [dict(value.coords.variables), list(value.indexes), dict(value.attrs)]
    parts += [dict(value.encoding), value.variable if inner is None else {}]
    parts += [value.name if inner is None else {name: inner[name].variable for name in inner}]
    return _all(parts, around)


def _pil(kind: type) -> Any:
    from PIL import Image

    return _image if issubclass(kind, Image.Image) else None


def _image(value: Any, around: list[int]) -> str:
    palette = value.getpalette() if value.mode in ("P", "PA") else None
    return _all((value.mode, value.size, value.tobytes(), dict(value.info), palette), around)


def _torch(kind: type) -> Any:
    import torch

    if issubclass(kind, torch.dtype):
        return _plain
    return _tensor if issubclass(kind, torch.Tensor) else None


def _tensor(value: Any, around: list[int]) -> str:
    import torch

    content = value if value.layout is torch.strided else value.to_dense()
    header = f"{value.dtype} {tuple(value.shape)} {value.layout} {value.requires_grad}"
    return f"{header} {content.detach().tolist()} {_attributes(value, around)}"


def _places(kind: type) -> Any:
    if kind.__name__ not in ("File", "Folder"):
        return None
    named = kind.__name__ == "File"  # what a folder is called is a matter of where it lies
    return lambda value, around: f"{ascii(value.name) if named else ''} {_contents(value)}"


def _contents(place: Any) -> list[Any]:
    root = pathlib.Path(place)
    inside = [root] if root.is_file() else sorted(root.rglob("*"))
    found = [(str(p.relative_to(root)), p.read_bytes() if p.is_file() else None) for p in inside]
    return sorted(found, key=lambda pair: pair[0])


_LIBRARIES: dict[str, Any] = {
    "prefect_mlpipe": _places,
    "numpy": _numpy,
    "scipy": _scipy,
    "pandas": _pandas,
    "pyarrow": _pyarrow,
    "polars": _polars,
    "xarray": _xarray,
    "PIL": _pil,
    "torch": _torch,
}
