"""Arrays of a GPU through the store, beside the same by hand. Says so where there is no GPU."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from prefect_mlpipe.core.store import Store
from tests.benchmarks.measure import Row, in_turn, seconds
from tests.gpu import WITHOUT, devices

ROUNDS = 3


def benchmark_gpu_roundtrip(scale: float) -> list[Row]:
    """A cupy array of 1 GiB stored and restored, beside asnumpy, np.save, np.load and asarray."""
    if not devices():
        print(f"    not measured: {WITHOUT}", file=sys.stderr)
        return []
    import cupy

    count = max(1000, int(2**27 * scale))
    arrays = iter([cupy.random.default_rng(n).random(count) for n in range(2)] * ROUNDS)
    with tempfile.TemporaryDirectory(prefix="mlpipe-benchmark-") as folder:
        least = in_turn(
            {
                "ours": lambda: _timed(_through_store, next(arrays), folder),
                "by hand": lambda: _timed(_by_hand, next(arrays), folder),
            },
            ROUNDS,
        )
    what = f"cupy array of {count * 8 / 2**20:.0f} MiB stored and restored"
    by_hand = "asnumpy, np.save, np.load, asarray"
    return [Row(what, least["ours"] * 1e3, by_hand, least["by hand"] * 1e3, 1.3)]


def _timed(work: Any, array: Any, folder: str) -> float:
    import cupy

    def synchronized() -> None:
        work(array, folder)
        cupy.cuda.Device().synchronize()

    return seconds(synchronized)


def _through_store(array: Any, folder: str) -> Any:
    # A new store each time: what stands there already would not be written.
    with tempfile.TemporaryDirectory(dir=folder) as place:
        store = Store(f"{place}/store", cache_folder=f"{place}/cache")
        return store.get(store.put(array))


def _by_hand(array: Any, folder: str) -> Any:
    import cupy

    path = Path(folder) / "array.npy"
    np.save(path, cupy.asnumpy(array))
    try:
        return cupy.asarray(np.load(path))
    finally:
        path.unlink()
