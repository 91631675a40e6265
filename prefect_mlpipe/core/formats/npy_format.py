"""NumPy arrays to bytes and back, in NumPy's own layout.

Knows nothing of stores. Imported when the first array is stored or loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib import format as npy
from typing_extensions import override

from prefect_mlpipe.core.formats.base import Format, Part

MAX_DESCRIPTION = 8192  # NumPy refuses longer headers unless told otherwise


class Npy(Format):
    """NumPy arrays in NumPy's own `.npy` layout; loading one maps the file.

    A non-contiguous array is copied once. The order in memory, C or Fortran, is kept.
    """

    name, suffix, maps = "npy", ".npy", True

    @override
    def accepts(self, value: object) -> bool:
        return type(value) is np.ndarray and self.fits(value.dtype)

    def fits(self, dtype: np.dtype[np.generic]) -> bool:
        """Tell whether the description in an npy header gives back this very dtype."""
        return _fits_npy(dtype)

    @override
    def exact(self, value: object) -> bool:
        return True

    @override
    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, np.ndarray)
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        flat = np.ascontiguousarray(value.T if fortran else value).reshape(-1).view(np.uint8)
        header = {
            "descr": npy.dtype_to_descr(value.dtype),
            "fortran_order": fortran,
            "shape": value.shape,
        }
        return (_npy_header(header), flat.data)

    @override
    def load(self, data: memoryview) -> object:
        stream = _Head(data)
        reader = npy.read_array_header_1_0 if data[6] == 1 else npy.read_array_header_2_0
        shape, fortran, dtype = reader(stream)  # type: ignore[arg-type]
        flat = np.frombuffer(data[stream.position :], dtype, count=math.prod(shape))
        return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)

    @override
    def split(self, data: memoryview) -> list[memoryview]:
        width = 2 if bytes(data[6:7]) == b"\x01" else 4
        header = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
        return [data[:header], data[header:]]


class _Head:
    """The little of a file object that NumPy's header readers ask for."""

    def __init__(self, data: memoryview) -> None:
        self._data, self.position = data, npy.MAGIC_LEN

    def read(self, count: int, /) -> bytes:
        found = bytes(self._data[self.position : self.position + count])
        self.position += len(found)
        return found


def _npy_header(header: dict[str, object]) -> bytes:
    """The bytes before the data; NumPy pads them so that the data is aligned to 64."""
    pieces: list[bytes] = []
    npy.write_array_header_1_0(_Pieces(pieces), header)
    return b"".join(pieces)


class _Pieces:
    def __init__(self, pieces: list[bytes]) -> None:
        self.write = pieces.append


def _fits_npy(dtype: np.dtype[np.generic]) -> bool:
    if dtype.isbuiltin == 1:
        return not dtype.hasobject
    if dtype.hasobject or dtype.metadata is not None:
        return False
    try:
        described = npy.dtype_to_descr(dtype)
        back = npy.descr_to_dtype(described)
    except (TypeError, ValueError):
        return False
    if not str(described).isascii() or len(str(described)) > MAX_DESCRIPTION:
        return False
    return bool(back == dtype and repr(back) == repr(dtype) and back.str == dtype.str)
