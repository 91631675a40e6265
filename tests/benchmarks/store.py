"""What the store costs: large values beside the same by hand, and stores of many records.

Each contender has a process of its own, since memory that was in use once is not given back. CPU
seconds stand beside the elapsed ones: they tell the same story on a machine that is shared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from blake3 import blake3

from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.store import Store
from tests.benchmarks.local import folder, run_chain
from tests.benchmarks.measure import Row, in_turn, seconds

Took = dict[str, float]

RECORDS = (100, 10_000, 100_000)
CACHED_MS = 50.0
ROUNDS = 3


def took(contender: str, place: str, size: int) -> Took:
    """What one contender took in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.large", contender, place, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: Took = json.loads(done.stdout.splitlines()[-1])
    return found


def benchmark_store_array(scale: float) -> list[Row]:
    """512 MiB float64 through make, double and sum, beside np.save and np.load(mmap)."""
    length = max(1000, int(2**26 * scale))
    size = f"{length * 8 / 2**20:.0f} MiB through three steps"
    rows = _beside_hand(size, "arrays", length, "np.save and mmap by hand", 1.3, 1.1)
    return [*rows, *_cached(size, length)]


def benchmark_store_frame(scale: float) -> list[Row]:
    """A table of a million rows through two steps and a sum, beside feather."""
    rows = max(1000, int(1_000_000 * scale))
    what = f"a table of {rows:,} rows through two steps"
    return _beside_hand(what, "frames", rows, "feather by hand", None, None)


def benchmark_store_worker(scale: float) -> list[Row]:
    """What memory the driver and a Dask worker need for 512 MiB through three steps."""
    length = max(1000, int(2**26 * scale))
    with _place() as place:
        found = took("worker", place, length)
    size, value = f"{length * 8 / 2**20:.0f} MiB through three steps", length * 8 / 2**20
    return [
        Row(f"{size}: peak of the driver", found["peak"], "one value", value, unit="MiB"),
        Row(f"{size}: peak of a Dask worker", found["worker"], "two values", 2 * value, unit="MiB"),
    ]


def benchmark_store_records(scale: float) -> list[Row]:
    """Lookups and hits in stores of 100, 10,000 and 100,000 records."""
    counts = [max(50, int(count * scale)) for count in RECORDS]
    with folder() as place:
        stores = {count: _filled(f"{place}/{count}", count) for count in counts}
        lookups = in_turn(
            {str(n): partial(seconds, partial(_look, s, n)) for n, s in stores.items()}
        )
        hits = in_turn(
            {str(n): partial(seconds, partial(run_chain, 100, s.url)) for n, s in stores.items()}
        )
    few = str(counts[0])
    return [
        Row(
            f"{what} among {count:,} records",
            found[str(count)] * 1000 / 100,
            f"among {counts[0]:,}",
            found[few] * 1000 / 100,
            1.2,
        )
        for what, found in (("a lookup", lookups), ("a reused step", hits))
        for count in counts[1:]
    ]


def _beside_hand(
    what: str, ours: str, size: int, beside: str, time: float | None, memory: float | None
) -> list[Row]:
    both = _best({ours: size, f"{ours} by hand": size})
    mine, theirs = both[ours], both[f"{ours} by hand"]
    return [
        Row(f"{what}: cold", mine["seconds"] * 1000, beside, theirs["seconds"] * 1000, time),
        Row(f"{what}: cold, CPU", mine["cpu"] * 1000, beside, theirs["cpu"] * 1000),
        Row(f"{what}: peak", mine["peak"], beside, theirs["peak"], memory, "MiB"),
    ]


def _best(contenders: dict[str, int]) -> dict[str, Took]:
    """The least of each contender in an empty place, in turn."""
    rounds: dict[str, list[Took]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, size in contenders.items():
            with _place() as place:
                rounds[name].append(took(name, place, size))
    return {
        name: {each: min(took[each] for took in all_) for each in all_[0]}
        for name, all_ in rounds.items()
    }


def _cached(what: str, length: int) -> list[Row]:
    """The same again, when all is stored: beside a small array, and beside an empty pipeline."""
    sizes = {"large": ("arrays", length), "small": ("arrays", 100_000), "empty": ("empty", 0)}
    with _place() as large, _place() as small, _place() as empty:
        places = {"large": large, "small": small, "empty": empty}
        for name, (contender, size) in sizes.items():
            took(contender, places[name], size)
        found = in_turn(
            {
                name: partial(_seconds, contender, places[name], size)
                for name, (contender, size) in sizes.items()
            },
            rounds=ROUNDS,
        )
    over = (found["large"] - found["empty"]) * 1000
    return [
        Row(f"{what}: cached, over an empty pipeline", over, "budget", CACHED_MS, 1.0),
        Row(f"{what}: cached", found["large"] * 1000, "0.8 MiB, cached", found["small"] * 1000),
    ]


def _seconds(contender: str, place: str, size: int) -> float:
    return took(contender, place, size)["seconds"]


@contextmanager
def _place() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mlpipe-benchmark-") as parent:
        Path(parent, "store").mkdir()
        yield f"{parent}/store"


def _key(number: int) -> str:
    return blake3(str(number).encode()).hexdigest()


def _filled(place: str, count: int) -> Store:
    """A store of so many records, and a chain of a hundred steps that are among them."""
    store = Store(place, cache_folder=f"{place}-cache")
    value = StoredValue("d" * 64, "c" * 64, 1, "int", "json", (), b"1")
    for number in range(count):
        store.records.write(Record(_key(number), {}, "d" * 64, {"": value}, 1.0, 0.1, {}, {}))
    run_chain(100, place)
    _look(store, count)  # opens it
    return store


def _look(store: Store, count: int) -> None:
    """Read a hundred records from everywhere in the store."""
    step = max(1, count // 100)
    for number in range(0, 100 * step, step):
        store.records.read(_key(number % count))
