"""Arrays of cupy as `.npy` files, through host memory.

Knows the few names of cupy that it takes, and imports cupy only to load: where there is none, such
a value can still be checked, moved and pruned. It comes back on the current device of the process
that loads it; where there is no GPU that is an error, and never an array of NumPy: a step that was
promised the one would fail on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from prefect_mlpipe.core.encoding.arrays import of_gpu
from prefect_mlpipe.core.formats.base import Format, Part
from prefect_mlpipe.core.formats.npy_format import Npy

_NPY = Npy()


class Cupy(Format):
    """Arrays of cupy in NumPy's own `.npy` layout. The order in memory, C or Fortran, is kept."""

    name, suffix, maps = "cupy", ".npy", True

    @override
    def accepts(self, value: Any) -> bool:
        kind = type(value)
        is_array = kind.__name__ == "ndarray" and kind.__module__.partition(".")[0] == "cupy"
        return is_array and _NPY.fits(value.dtype)

    @override
    def exact(self, value: object) -> bool:
        return True

    @override
    def dump(self, value: object) -> Sequence[Part]:
        return _NPY.dump(of_gpu(value))

    @override
    def load(self, data: memoryview) -> object:
        import cupy

        return cupy.array(_NPY.load(data), order="K")

    @override
    def split(self, data: memoryview) -> list[memoryview]:
        return _NPY.split(data)
