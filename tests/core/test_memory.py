"""Storing or loading a large value takes no second one: bytes, counted in fresh processes.

What is counted is what belongs to the process alone (`RssAnon`): pages of a file that it maps are
the system's to drop, and they are at most the value itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.core.stores import python

MIB = 1 << 20
SIZE = 256 * MIB
ALLOWED = SIZE * 15 // 100

MEASURE = """
import gc, os, sys, threading, time
import numpy as np
from prefect_mlpipe.core.files import Folder
from prefect_mlpipe.core.store import Store

def own():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024

class Peak:
    def __enter__(self):
        gc.collect()
        self.base = self.top = own()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.ended.wait(0.0005):
            self.top = max(self.top, own())

    def __exit__(self, *error):
        self.ended.set()
        self.thread.join()
        print(max(self.top, own()) - self.base)

def numbers(count):
    return np.arange(count, dtype="f8")

def strings(count):
    import pyarrow as pa
    words = pa.array([f"row {number:05d} of a long list of words" for number in range(1000)])
    return words.take(pa.array(np.arange(count) % 1000))

def columns(rows):
    return {"a": numbers(rows), "b": numbers(rows), "i": np.arange(rows), "s": strings(rows)}

def make(kind, size):
    if kind == "array":
        return numbers(size // 8)
    if kind == "array in Fortran's order":
        return np.asfortranarray(numbers(size // 8).reshape(-1, 64))
    if kind == "arrays in a list":
        return [numbers(size // 32) for _ in range(4)]
    if kind == "folder":
        os.makedirs(sys.argv[1] + f"-{size}")
        for name in range(4):
            numbers(size // 32).tofile(sys.argv[1] + f"-{size}/{name}")
        return Folder(sys.argv[1] + f"-{size}")
    if kind == "tensors":
        import torch
        return {str(name): torch.arange(size // 32, dtype=torch.float64) for name in range(4)}
    import pyarrow as pa
    table = pa.table(columns(size // 64))
    if kind == "pyarrow":
        return table
    if kind == "pyarrow in chunks":
        rows = len(table) // 7
        return pa.concat_tables([table.slice(at * rows, rows) for at in range(7)])
    if kind == "polars":
        import polars
        return polars.from_arrow(table)
    frame = table.to_pandas(split_blocks=True)
    if kind == "pandas with nulls":
        frame.loc[::7, "s"] = None
        frame["n"] = frame["i"].astype("Int64").where(frame["i"] % 5 > 0)
    return frame

store, kind = Store(sys.argv[1], cache_folder=sys.argv[1] + "-cache"), sys.argv[2]
store.get(store.put(make(kind, 1 << 20), inline=False))
value = make(kind, int(sys.argv[3]))
with Peak():
    stored = store.put(value)
print(stored.size, stored.format)
del value
with Peak():
    loaded = store.get(stored)
"""  # the first, small value: libraries are imported, and their pools are there

KINDS = {
    "array": "npy",
    "array in Fortran's order": "npy",
    "arrays in a list": "pickle",
    "pandas": "pandas",
    "pandas with nulls": "pandas",
    "pyarrow": "arrow",
    "pyarrow in chunks": "arrow",
    "polars": "polars",
    "tensors": "safetensors",
    "folder": "folder",
}


@pytest.mark.skipif(sys.platform != "linux", reason="counts what Linux tells of a process")
@pytest.mark.parametrize("kind", KINDS)
def test_storing_or_loading_takes_no_second_value(kind: str, tmp_path: Path) -> None:
    if kind in ("polars", "tensors"):
        pytest.importorskip({"polars": "polars", "tensors": "torch"}[kind])
    put, stored, got = python(MEASURE, tmp_path / "store", kind, SIZE).splitlines()
    size, format = stored.split()
    assert format == KINDS[kind]
    assert int(size) > SIZE * 9 // 10
    assert int(put) < ALLOWED
    assert int(got) < ALLOWED
