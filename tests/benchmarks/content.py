"""Digests of large values, beside the bare hash and joblib.hash."""

from __future__ import annotations

from functools import partial

import joblib
import numpy as np
import pandas as pd
from blake3 import blake3

from prefect_mlpipe.core.digest import digest
from tests.benchmarks.measure import Row, in_turn, seconds


def benchmark_digest(scale: float) -> list[Row]:
    """An array of 1 GiB, and a table of a million rows."""
    return [_array(int(2**27 * scale)), _table(int(1_000_000 * scale))]


def _array(length: int) -> Row:
    array = np.random.default_rng(0).random(length)
    took = in_turn(
        {
            "ours": partial(seconds, lambda: digest(array)),
            "blake3": partial(
                seconds,
                lambda: blake3(memoryview(array).cast("B"), max_threads=blake3.AUTO).digest(),
            ),
        }
    )
    size = f"{array.nbytes / 2**20:.0f} MiB"
    return Row(
        f"digest of an array of {size}", took["ours"] * 1000, "blake3", took["blake3"] * 1000, 1.25
    )


def _table(rows: int) -> Row:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            **{name: random.random(rows) for name in ("amount", "price", "weight")},
            "count": random.integers(0, 100, rows),
            "city": random.choice(["Berlin", "Paris", "Tokyo"], rows),
        }
    )
    took = in_turn(
        {
            "ours": partial(seconds, lambda: digest(frame)),
            "joblib": partial(seconds, lambda: joblib.hash(frame)),
        },
        rounds=3,
    )
    return Row(
        f"digest of a table of {rows:,} rows",
        took["ours"] * 1000,
        "joblib.hash",
        took["joblib"] * 1000,
        0.2,
    )
