"""Encode numpy arrays and scalars, sparse matrices and arrays that live on a GPU.

Knows dtypes and memory layouts. Knows nothing of tables. Imported only once such a value turns up.

Worth arguing: an array counts by class, dtype, shape and elements in C order. How it lies in memory
does not count, nor whether it is a memory map: that is how a stored array comes back. The dtype
counts as it is, byte order and offsets of fields included, since a step can see it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from blake3 import blake3

from prefect_mlpipe.core.encoding.encode import Encoder, Handler, as_branch
from prefect_mlpipe.core.encoding.host_copies import on_host
from prefect_mlpipe.core.encoding.pieces import (
    INLINE_BYTES,
    Piece,
    count,
    octets,
    packed,
    record,
    scalar,
    text,
    threads,
    type_name,
)

_BLOCK_BYTES: Final = 1 << 24

Array = np.ndarray[Any, Any]


def find(kind: type) -> Handler | None:
    """Return how a type of numpy, scipy or cupy is encoded, if it is special."""
    if issubclass(kind, np.ma.MaskedArray):
        return as_branch(_masked)
    if issubclass(kind, np.ndarray):
        return as_branch(_array if kind in (np.ndarray, np.memmap) else _array_subclass)
    if issubclass(kind, np.generic):
        return as_branch(_generic)
    if issubclass(kind, np.dtype):
        return as_branch(lambda encoder, value: [dtype(value), *_metadata(encoder, value)])
    return _of_another_library(kind)


def _of_another_library(kind: type) -> Handler | None:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name.startswith("scipy.sparse."):
        return as_branch(_sparse)
    if name.startswith("cupy.") and kind.__name__ == "ndarray":
        return as_branch(_of_gpu)
    if kind is np.ufunc:
        return _ufunc
    return None


def dtype(value: np.dtype[Any]) -> bytes:
    """Encode a dtype as it is, but for its metadata."""
    if value.names is not None and value.fields is not None:
        fields = [_field(name, value.fields[name]) for name in value.names]
        flags = scalar((value.itemsize, value.isalignedstruct))
        kind = text("" if value.type is np.void else type_name(value.type))  # a record has more
        return packed("numpy.struct", flags, kind, *fields)
    if value.subdtype is not None:
        return packed("numpy.subarray", dtype(value.subdtype[0]), scalar(value.subdtype[1]))
    if value.kind == "T":
        na = getattr(value, "na_object", "")
        return packed("numpy.string", text(f"{type(na).__name__} {na!r}"))
    if value.isbuiltin == 2:  # made by another library; all of one size have the same `str`
        return packed("numpy.dtype", text(value.str), text(type_name(value.type)))
    return packed("numpy.dtype", text(value.str))


def _metadata(encoder: Encoder, value: np.dtype[Any]) -> list[Piece]:
    """Encode the metadata of a dtype and of its fields, if there is any."""
    found = _metadata_in(value)
    return [] if found is None else record("numpy.metadata", encoder.encode(found))


def _metadata_in(value: np.dtype[Any]) -> object:
    own = dict(value.metadata) if value.metadata else None
    inner = [_metadata_in(value.fields[name][0]) for name in value.names or () if value.fields]
    if value.subdtype is not None:
        inner.append(_metadata_in(value.subdtype[0]))
    return None if own is None and not any(inner) else [own, inner]


def _field(name: str, entry: Any) -> bytes:
    kind, offset, *title = entry
    known_as = title[0] if title else None
    return packed("field", text(name), dtype(kind), scalar(offset), scalar(known_as))


def elements(encoder: Encoder, array: Array) -> list[Piece]:
    """Encode the elements in C order."""
    if array.dtype.names is not None:
        # Field by field: the bytes between fields are whatever memory held.
        return [each for name in array.dtype.names for each in elements(encoder, array[name])]
    if array.dtype.hasobject or array.dtype.kind == "T":
        return [encoder.encode(array.ravel().tolist() if array.ndim else [array.item()])]
    if array.dtype.char in "gG":
        array = _without_padding(array)
    if array.flags.c_contiguous or array.nbytes <= INLINE_BYTES:
        return [octets(encoder.buffers, _as_octets(np.ascontiguousarray(array)))]
    return [b"\x01" + count(array.nbytes) + _in_blocks(array)]


def _without_padding(array: Array) -> Array:
    """Clear the bytes that extended precision leaves as memory held them."""
    if np.finfo(np.longdouble).nmant != 63:
        return array  # all bytes of a number are used here
    plain = array.copy(order="C")
    each = plain.reshape(-1).view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)
    each[:, 10:] = 0
    return plain


def _as_octets(array: Array) -> memoryview:
    if array.nbytes == 0:
        return memoryview(b"")
    return array.reshape(-1).view(np.uint8).data


def _in_blocks(array: Array) -> bytes:
    """Hash a large array that does not lie in C order without a second copy of it."""
    hasher = blake3(max_threads=threads())
    stack = [array]
    while stack:
        part = stack.pop()
        if part.nbytes <= _BLOCK_BYTES or part.ndim == 0:
            hasher.update(_as_octets(np.ascontiguousarray(part)))
        elif len(part) == 1:
            stack.append(part[0])
        else:
            rows = max(1, len(part) * _BLOCK_BYTES // part.nbytes)
            stack.extend(part[at : at + rows] for at in reversed(range(0, len(part), rows)))
    return hasher.digest()


def _array(encoder: Encoder, array: Array) -> Sequence[Piece]:
    header = (dtype(array.dtype), scalar(array.shape), *_metadata(encoder, array.dtype))
    return record("numpy.ndarray", *header, *elements(encoder, array))


def _array_subclass(encoder: Encoder, array: Array) -> Sequence[Piece]:
    kind, state = encoder.encode(type(array)), getattr(array, "__dict__", None) or None
    plain = _array(encoder, array.view(np.ndarray))
    return record("numpy.subclass", kind, encoder.encode(state), *plain)


_OF_MASKED: Final = frozenset(vars(np.ma.array([0])))


def _masked(encoder: Encoder, array: Any) -> Sequence[Piece]:
    # A pickled array comes back with a mask of its full shape, so a missing one counts as that.
    mask = np.ma.getmaskarray(array)
    parts = (np.ma.getdata(array).view(np.ndarray), mask.view(np.ndarray))
    plain = [piece for part in parts for piece in _array(encoder, part)]
    kind, fill = encoder.encode(type(array)), encoder.encode(array.fill_value)
    own = {name: item for name, item in vars(array).items() if name not in _OF_MASKED}
    extras = (scalar(bool(array.hardmask)), encoder.encode(own or None))
    return record("numpy.masked", kind, fill, *extras, *plain)


def _generic(encoder: Encoder, value: Any) -> Sequence[Piece]:
    array = np.asarray(value)
    kind = type(value)
    name = b"" if kind.__module__ == "numpy" else encoder.encode(kind)
    return record("numpy.scalar", name, dtype(value.dtype), *elements(encoder, array))


def _ufunc(encoder: Encoder, value: np.ufunc) -> Piece:
    name = value.__name__
    for library in ("numpy", "scipy.special"):
        found = getattr(sys.modules.get(library), name, None)
        if found is value:
            return packed("ufunc", text(f"{library}.{name}"))
    made_of = [each for each in gc.get_referents(value) if callable(each)]
    if not made_of:
        raise encoder.refuse(value, "what a ufunc of compiled code does cannot be seen")
    return encoder.branch(
        value,
        lambda _, each: record(
            "numpy.frompyfunc",
            scalar((each.nin, each.nout)),
            encoder.encode(each.identity),
            *map(encoder.encode, made_of),
        ),
    )


_SPARSE_PARTS: Final = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
    "lil": ("rows", "data"),
}


def _sparse(encoder: Encoder, value: Any) -> Sequence[Piece]:
    # Not by its attributes: reading `has_sorted_indices` adds one.
    if value.format == "dok":
        items: object = {_place(key): item for key, item in value.items()}
        parts = [encoder.encode(items), dtype(value.dtype)]
    elif value.format == "coo" and hasattr(value, "coords"):
        parts = [encoder.encode(value.data), encoder.encode(list(value.coords))]
    else:
        parts = [encoder.encode(getattr(value, name)) for name in _SPARSE_PARTS[value.format]]
    kind = encoder.encode(type(value))
    return record("scipy.sparse", kind, scalar(tuple(map(int, value.shape))), *parts)


def _place(key: Any) -> int | tuple[int, ...]:
    return tuple(map(int, key)) if isinstance(key, tuple) else int(key)


def of_gpu(value: Any) -> Array:
    """Return the copy in host memory of an array of cupy, in the order in which it lies."""
    found: Array = on_host(value, lambda: value.get(order="A"))
    return found


def _of_gpu(encoder: Encoder, value: Any) -> Sequence[Piece]:
    return record("cupy.ndarray", encoder.encode(of_gpu(value)))
