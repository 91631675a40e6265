"""Large values handed from step to step, and the same by hand. Run alone, in a process of its own.

`python -m tests.benchmarks.large CONTENDER FOLDER SIZE` prints the seconds, the CPU seconds and the
peak of memory above what was there before, in MiB, as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from prefect_mlpipe import log_metrics, pipeline, step

CITIES = np.array(["Berlin", "Paris", "Tokyo"], dtype=object)


def plain_make(length: int) -> np.ndarray:
    return np.random.default_rng(0).random(length)


def plain_double(array: np.ndarray) -> np.ndarray:
    return array * 2


def plain_total(array: np.ndarray) -> float:
    return float(array.sum())


def plain_frame(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            **{name: random.random(rows) for name in ("amount", "price", "weight")},
            "count": random.integers(0, 100, rows),
            "city": pd.Series(CITIES[random.integers(0, 3, rows)], dtype="str"),
        }
    )


def plain_value(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=frame["price"] * frame["count"])


def plain_sold(frame: pd.DataFrame) -> float:
    return float(frame["value"].sum())


def memory(name: str) -> float:
    """A line of `/proc/self/status`, in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024


@step
def make(length: int) -> np.ndarray:
    return plain_make(length)


@step
def double(array: np.ndarray) -> np.ndarray:
    return plain_double(array)


@step
def total(array: np.ndarray) -> float:
    return plain_total(array)


@pipeline
def arrays(size: int) -> float:
    """An array of so many numbers through three steps."""
    return total(double(make(size)))


@step
def double_there(array: np.ndarray) -> np.ndarray:
    """Tells what memory the process had at most, and before."""
    before = memory("VmRSS")
    doubled = plain_double(array)
    log_metrics(before=before)
    return doubled


@step
def total_there(array: np.ndarray) -> float:
    found = plain_total(array)
    log_metrics(peak=memory("VmHWM"))
    return found


@pipeline
def elsewhere(size: int) -> float:
    """The same, and the steps tell of their process."""
    return total_there(double_there(make(size)))


@step
def frame(rows: int) -> pd.DataFrame:
    return plain_frame(rows)


@step
def value(table: pd.DataFrame) -> pd.DataFrame:
    return plain_value(table)


@step
def sold(table: pd.DataFrame) -> float:
    return plain_sold(table)


@pipeline
def frames(size: int) -> float:
    """A table of so many rows through two steps, and a sum of it."""
    return sold(value(frame(size)))


@step
def nothing() -> float:
    return 0.0


@pipeline
def empty(size: int) -> float:
    """As little as a pipeline can do."""
    return nothing()


def arrays_by_hand(folder: str, length: int) -> float:
    np.save(f"{folder}/made.npy", plain_make(length))
    doubled = plain_double(np.load(f"{folder}/made.npy", mmap_mode="r"))
    np.save(f"{folder}/doubled.npy", doubled)
    del doubled
    return plain_total(np.load(f"{folder}/doubled.npy", mmap_mode="r"))


def frames_by_hand(folder: str, rows: int) -> float:
    plain_frame(rows).to_feather(f"{folder}/made.feather", compression="uncompressed")
    table = plain_value(pd.read_feather(f"{folder}/made.feather"))
    table.to_feather(f"{folder}/valued.feather", compression="uncompressed")
    del table
    return plain_sold(pd.read_feather(f"{folder}/valued.feather"))


def on_a_worker(folder: str, size: int) -> float:
    from prefect_mlpipe.compute import Dask

    compute = {"default": Dask(n_workers=1, threads_per_worker=1)}
    return elsewhere.with_options(store=folder, compute=compute)(size)


CONTENDERS: dict[str, Callable[[str, int], float]] = {
    "arrays": lambda folder, size: arrays.with_options(store=folder).local(size),
    "frames": lambda folder, size: frames.with_options(store=folder).local(size),
    "empty": lambda folder, size: empty.with_options(store=folder).local(size),
    "arrays by hand": arrays_by_hand,
    "frames by hand": frames_by_hand,
    "worker": on_a_worker,
}


def main(contender: str, folder: str, size: int) -> dict[str, float]:
    """Do it, and say what it took."""
    with_small = f"{folder}-small"
    Path(with_small).mkdir(exist_ok=True)
    if contender != "worker":
        CONTENDERS[contender](with_small, 1000)  # imports, and the code that was never read before
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    resident, cpu, start = memory("VmRSS"), cpu_seconds(), time.perf_counter()
    CONTENDERS[contender](folder, size)
    took = {
        "seconds": time.perf_counter() - start,
        "cpu": cpu_seconds() - cpu,
        "peak": memory("VmHWM") - resident,
    }
    if contender == "worker":
        run = elsewhere.with_options(store=folder).runs.last()
        took["worker"] = run["total_there"].metrics["peak"] - run["double_there"].metrics["before"]
    return took


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    from tests.benchmarks import large  # the steps belong to this module, not to `__main__`

    print(json.dumps(large.main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
