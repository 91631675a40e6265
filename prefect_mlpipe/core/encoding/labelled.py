"""Encode datasets of xarray and images of Pillow.

Knows what users see of them. Imports neither: it is imported once such a value turns up.

Worth arguing: neither counts by its attributes, as other objects do. Reading `attrs` of a dataset
makes an empty dict of nothing, and an image that was opened remembers where its file lay.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from prefect_mlpipe.core.encoding.encode import Branch, Encoder, Handler, as_branch
from prefect_mlpipe.core.encoding.pieces import Piece, count, record, text


def find(kind: type) -> Handler | None:
    """Return how a type of xarray or Pillow is encoded, if it has content of its own."""
    for library, name, encode in _KINDS:
        base = getattr(sys.modules.get(library), name, None)
        if base is not None and issubclass(kind, base):
            return as_branch(encode)
    return None


def _variable(encoder: Encoder, value: Any) -> Sequence[Piece]:
    data = value.data
    lies_here = value._in_memory or isinstance(value, sys.modules["xarray"].IndexVariable)
    if not lies_here and not type(data).__module__.startswith("dask"):
        raise encoder.refuse(value, "its data lies in an open file; load() it")
    kind, dims = encoder.encode(type(value)), encoder.encode(list(value.dims))
    return record("xarray.variable", kind, dims, encoder.encode(data), *_extras(encoder, value))


def _array(encoder: Encoder, value: Any) -> Sequence[Piece]:
    kind, name = encoder.encode(type(value)), encoder.encode(value.name)
    coordinates = _coordinates(encoder, value)
    return record("xarray.array", kind, name, encoder.encode(value.variable), *coordinates)


def _dataset(encoder: Encoder, value: Any) -> Sequence[Piece]:
    variables = _named(encoder, value.data_vars, value.variables)
    parts = (*_coordinates(encoder, value), *_extras(encoder, value))
    return record("xarray.dataset", encoder.encode(type(value)), *variables, *parts)


def _tree(encoder: Encoder, value: Any) -> Sequence[Piece]:
    name, own = encoder.encode(value.name), encoder.encode(value.to_dataset(inherit=False))
    children = encoder.encode(dict(value.children))
    return record("xarray.tree", encoder.encode(type(value)), name, own, children)


def _coordinates(encoder: Encoder, value: Any) -> list[Piece]:
    indexes = {name: [type(index)] for name, index in value.xindexes.items()}
    for name, index in value.indexes.items():
        indexes[name].append(index)
    variables = _named(encoder, value.coords, value.coords.variables)
    return [*variables, encoder.encode(indexes)]


def _named(encoder: Encoder, names: Iterable[Any], variables: Any) -> list[Piece]:
    pieces = [encoder.encode(each) for name in names for each in (name, variables[name])]
    return [count(len(pieces)), *pieces]


def _extras(encoder: Encoder, value: Any) -> list[Piece]:
    return [encoder.encode(dict(value.attrs)), encoder.encode(dict(value.encoding))]


def _image(encoder: Encoder, value: Any) -> Sequence[Piece]:
    if getattr(value, "fp", None) is not None and getattr(value, "n_frames", 1) > 1:
        raise encoder.refuse(value, "its frames lie in an open file; pass a File")
    try:
        pixels = value.tobytes()
    except (ValueError, OSError) as error:
        raise encoder.refuse(value, f"its file cannot be read: {error}") from error
    kind, mode, size = encoder.encode(type(value)), text(value.mode), encoder.encode(value.size)
    palette = encoder.encode(value.getpalette() if value.mode in ("P", "PA") else None)
    known = encoder.encode(dict(value.info))
    return record("pillow.image", kind, mode, size, palette, known, encoder.encode(pixels))


_KINDS: Final[tuple[tuple[str, str, Branch], ...]] = (
    ("xarray", "Variable", _variable),
    ("xarray", "DataArray", _array),
    ("xarray", "Dataset", _dataset),
    ("xarray", "DataTree", _tree),
    ("PIL.Image", "Image", _image),
)
