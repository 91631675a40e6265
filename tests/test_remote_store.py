"""A store on S3: two machines that share it, and what a rerun asks of the server."""

from __future__ import annotations

import threading
from pathlib import Path

import fsspec
import numpy as np

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.core.store import Store
from tests.project import Project, ran
from tests.s3 import S3, counted_requests

LENGTH = 60


@step
def begin(seed: int) -> int:
    ran("begin")
    return seed


@step
def advance(value: int) -> int:
    ran("advance")
    return value + 1


@step
def table(value: int) -> np.ndarray:
    ran("table")
    return np.arange(float(value + 10_000))


@pipeline
def chain(seed: int = 0) -> np.ndarray:
    value = begin(seed)
    for _ in range(LENGTH):
        value = advance(value)
    return table(value)


def machine(folder: Path, s3: S3, bucket: str, name: str) -> Store:
    """The bucket as a machine with a cache of its own sees it."""
    return Store(f"{bucket}/store", cache_folder=str(folder / name), **s3.options)


def test_a_rerun_on_another_machine_takes_a_handful_of_requests(
    project: Project, tmp_path: Path, s3: S3, bucket: str
) -> None:
    first = chain.with_options(store=machine(tmp_path, s3, bucket, "first")).local()
    assert len(project.ran()) == LENGTH + 2
    for name in ("second", "third"):
        again = chain.with_options(store=machine(tmp_path, s3, bucket, name))
        with counted_requests() as requests:
            found = again.local()
        assert len(requests) <= 20, "\n".join(requests)
        assert project.ran() == []
        np.testing.assert_array_equal(found, first)


def test_a_refreshed_step_is_seen_by_a_rerun_elsewhere(
    project: Project, tmp_path: Path, s3: S3, bucket: str
) -> None:
    module = project.module(
        "noise",
        """
        import time
        from prefect_mlpipe import pipeline, step
        from tests.project import ran

        @step(ignore=["time"])
        def moment(at: int) -> int:
            ran("moment")
            return time.time_ns()

        @pipeline
        def moments(count: int = 12) -> list[int]:
            return [moment(at) for at in range(count)]

        @pipeline
        def others(count: int = 12) -> list[int]:
            return [moment(at) for at in range(count)]
        """,
    )
    first = module.moments.with_options(store=machine(tmp_path, s3, bucket, "a")).local()
    other = module.others.with_options(store=machine(tmp_path, s3, bucket, "b"), refresh=True)
    newer = other.local()
    project.ran()
    again = module.moments.with_options(store=machine(tmp_path, s3, bucket, "a")).local()
    assert (again, project.ran()) == (newer, [])
    assert again != first


TOGETHER = threading.Barrier(3, timeout=60)


@step(ignore=["TOGETHER"])
def meet(number: int) -> int:
    TOGETHER.wait()
    return number


@pipeline
def meeting() -> list[int]:
    return [meet(number) for number in range(3)]


def test_steps_that_do_not_need_each_other_run_at_the_same_time(tmp_path: Path) -> None:
    store = Store("memory://together", cache_folder=str(tmp_path))
    assert meeting.with_options(store=store).local() == [0, 1, 2]
    fsspec.filesystem("memory").store.clear()
