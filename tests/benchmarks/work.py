"""The trivial pipelines that the benchmarks run. A module of its own, as they are in real life."""

from __future__ import annotations

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from prefect_mlpipe import pipeline, step


def plain_increment(number: int) -> int:
    """The same without any of us."""
    return number + 1


@step
def increment(number: int) -> int:
    """Nearly nothing, so that all that is measured is what surrounds it."""
    return number + 1


@pipeline
def chain(length: int) -> int:
    """Call the step on its own output again and again."""
    number = 0
    for _ in range(length):
        number = increment(number)
    return number


@pipeline
def fan(length: int) -> list[int]:
    """Call the step once for each of many numbers."""
    return increment.map(range(length))


@task(cache_policy=NO_CACHE, persist_result=False)
def native_increment(number: int) -> int:
    """The step as a Prefect task."""
    return number + 1


@flow(persist_result=False)
def native_chain(length: int) -> int:
    """The chain as a Prefect flow."""
    number = 0
    for _ in range(length):
        number = native_increment(number)
    return number


@step
def large(count: int) -> np.ndarray:
    """Make an array of ones."""
    return np.ones(count)


@step(compute="other")
def doubled_there(array: np.ndarray) -> np.ndarray:
    """Double it on another cluster."""
    return array * 2


@step
def doubled_here(array: np.ndarray) -> np.ndarray:
    """Double it where it was made."""
    return array * 2


@step(compute="other")
def summed(array: np.ndarray) -> float:
    """Add it up."""
    return float(array.sum())


@pipeline
def large_passed(count: int) -> float:
    """Hand a large array from cluster to cluster."""
    return summed(doubled_here(doubled_there(large(count))))
