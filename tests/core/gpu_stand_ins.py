"""Stand-ins for cupy and cudf, made of NumPy and pandas, for machines without a GPU.

They have the few names that we use, and prove where values go and what counts in them. What the
real ones do, tests/gpu asks.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


class Pool:
    """A memory pool that counts how often it was emptied."""

    def __init__(self) -> None:
        self.emptied = 0

    def free_all_blocks(self) -> None:
        self.emptied += 1


class ndarray:
    """An array that is not NumPy's, and comes to the host by `get` only."""

    def __init__(self, held: np.ndarray, device: int = 0) -> None:
        self.held, self.device, self.copied = held, device, 0

    @property
    def dtype(self) -> np.dtype:
        return self.held.dtype

    def get(self, order: str = "C") -> np.ndarray:
        self.copied += 1
        return self.held.copy(order=order)

    def __reduce__(self) -> Any:
        return array, (self.get(),)


def array(held: np.ndarray, order: str = "K") -> ndarray:
    return ndarray(np.array(held, order=order))


class Index:
    def __init__(self, held: pd.Index) -> None:
        self.held = held

    @property
    def names(self) -> list[Any]:
        return list(self.held.names)

    @property
    def nlevels(self) -> int:
        return self.held.nlevels

    def to_frame(self, index: bool, name: Any) -> DataFrame:
        return DataFrame(self.held.to_frame(index=index, name=name))


class RangeIndex(Index):
    @property
    def start(self) -> int:
        return self.held.start

    @property
    def stop(self) -> int:
        return self.held.stop

    @property
    def step(self) -> int:
        return self.held.step


class _Table:
    def __init__(self, held: Any) -> None:
        self.held = held

    @property
    def index(self) -> Index:
        kind = RangeIndex if isinstance(self.held.index, pd.RangeIndex) else Index
        return kind(self.held.index)

    def __reduce__(self) -> Any:
        return type(self), (self.held,)


class DataFrame(_Table):
    @property
    def columns(self) -> pd.Index:
        return self.held.columns

    @property
    def dtypes(self) -> pd.Series:
        return self.held.dtypes

    def to_arrow(self, preserve_index: bool | None = None) -> pa.Table:
        return pa.Table.from_pandas(self.held, preserve_index=preserve_index)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> DataFrame:
        return cls(table.to_pandas())

    def __getitem__(self, name: str) -> Series:
        return Series(self.held[name])


class Series(_Table):
    @property
    def name(self) -> Any:
        return self.held.name

    @property
    def dtype(self) -> Any:
        return self.held.dtype

    def rename(self, name: Any) -> Series:
        return Series(self.held.rename(name))

    def to_frame(self, name: str) -> DataFrame:
        return DataFrame(self.held.to_frame(name=name))


def _module(name: str, *content: Any) -> Any:
    made = ModuleType(name)
    for each in content:
        each.__module__ = name
        setattr(made, each.__name__, each)
    return made


cupy = _module("cupy", ndarray, array)
cupy.pool, cupy.pinned = Pool(), Pool()
cupy.get_default_memory_pool = lambda: cupy.pool
cupy.get_default_pinned_memory_pool = lambda: cupy.pinned
cudf = _module("cudf", DataFrame, Series, Index, RangeIndex)
