"""Pipelines on this process's threads, without Prefect, beside joblib.Memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import joblib

from tests.benchmarks.measure import Row, in_turn, seconds
from tests.benchmarks.work import chain, fan, plain_increment


def folder() -> AbstractContextManager[str]:
    return tempfile.TemporaryDirectory(prefix="mlpipe-benchmark-")


def fresh(work: Callable[[str], object]) -> float:
    """Time work on an empty store."""
    with folder() as store:
        return seconds(partial(work, store))


def run_chain(length: int, store: str) -> None:
    chain.with_options(store=store).local(length=length)


def run_fan(length: int, store: str) -> None:
    fan.with_options(store=store).local(length=length)


def joblib_chain(length: int, store: str) -> None:
    increment = joblib.Memory(store, verbose=0).cache(plain_increment)
    number = 0
    for _ in range(length):
        number = increment(number)


def benchmark_chain(scale: float) -> list[Row]:
    """A chain of 1,000 steps, executed and reused, beside joblib.Memory."""
    length = max(10, int(1000 * scale))
    return _beside_joblib(f"chain of {length} with local()", run_chain, length, 1.0, 0.7)


def benchmark_map(scale: float) -> list[Row]:
    """A map of 10,000 items. The targets are 0.1 and 0.02 ms where joblib takes 0.33 and 0.11."""
    length = max(10, int(10_000 * scale))
    return _beside_joblib(f"map of {length} with local()", run_fan, length, 0.3, 0.18)


def _beside_joblib(
    what: str, work: Callable[[int, str], None], length: int, executed: float, reused: float
) -> list[Row]:
    calls = min(length, 1000)
    with folder() as store, folder() as theirs:
        work(length, store)
        joblib_chain(calls, theirs)
        took = in_turn(
            {
                "executed": partial(fresh, partial(work, length)),
                "joblib executed": partial(fresh, partial(joblib_chain, calls)),
                "reused": partial(seconds, partial(work, length, store)),
                "joblib reused": partial(seconds, partial(joblib_chain, calls, theirs)),
            }
        )
    return [
        Row(
            f"{what}: {name}, per step",
            took[name] / length * 1000,
            f"joblib.Memory, {name}",
            took[f"joblib {name}"] / calls * 1000,
            target,
        )
        for name, target in (("executed", executed), ("reused", reused))
    ]


def benchmark_growth(scale: float) -> list[Row]:
    """What a reused step costs in a chain of 100, 1,000 and 10,000."""
    lengths = [max(10, int(length * scale)) for length in (100, 1000, 10_000)]
    with folder() as store:
        run_chain(lengths[-1], store)
        took = in_turn(
            {
                str(length): partial(seconds, partial(run_chain, length, store))
                for length in lengths
            },
            rounds=3,
        )
    each = {length: took[str(length)] / length * 1000 for length in lengths}
    small, middle, large = lengths
    return [
        Row(
            f"chain of {middle}, reused, per step",
            each[middle],
            f"chain of {small}",
            each[small],
            1.2,
        ),
        Row(
            f"chain of {large}, reused, per step",
            each[large],
            f"chain of {middle}",
            each[middle],
            1.2,
        ),
    ]
