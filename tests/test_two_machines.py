"""One bucket, and machines that have nothing else in common: homes, paths, caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prefect_mlpipe import File, output_folder, pipeline, step
from prefect_mlpipe.core.store import Store
from tests.project import Project, ran
from tests.s3 import S3

SCRIPT = """
import json, sys
import numpy as np
from prefect_mlpipe import File, output_folder, pipeline, step

@step
def make(n: int) -> np.ndarray:
    return np.arange(n * 1.0)

@step
def write(array: np.ndarray) -> File:
    path = output_folder() / "sum.txt"
    path.write_text(str(array.sum()))
    return File(path)

@step
def read(file: File, times: int) -> float:
    return float(open(file).read()) * times

@pipeline
def sums(n: int = 100_000, times: int = 1) -> float:
    return read(write(make(n)), times)

value = sums.local(times=int(sys.argv[1]))
run = sums.runs.last()
names = ("make", "write", "read")
print(json.dumps([value, [name for name in names if run[name].reused_from is None]]))
"""


def on_a_machine(folder: Path, s3: S3, bucket: str, times: int) -> tuple[float, list[str]]:
    """Run the script in a process that knows this folder only: its value, and what ran."""
    (folder / "project").mkdir(parents=True)
    (folder / "project" / "sums.py").write_text(SCRIPT)
    environment = {
        **{name: value for name, value in os.environ.items() if name[:7] != "PREFECT"},
        **s3.environment,
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_MLPIPE_STORE": f"{bucket}/store",
        "PREFECT_MLPIPE_PROGRESS": "false",
    }
    done = subprocess.run(
        [sys.executable, "sums.py", str(times)],
        cwd=folder / "project",
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    value, names = json.loads(done.stdout.splitlines()[-1])
    return value, names


def test_a_second_machine_reuses_what_the_first_one_made(
    s3: S3, bucket: str, tmp_path: Path
) -> None:
    total = float(np.arange(100_000.0).sum())
    first = on_a_machine(tmp_path / "one", s3, bucket, 1)
    assert first == (total, ["make", "write", "read"])
    assert on_a_machine(tmp_path / "another" / "place", s3, bucket, 1) == (total, [])
    assert on_a_machine(tmp_path / "third", s3, bucket, 2) == (total * 2, ["read"])


@step
def make() -> np.ndarray:
    ran("make")
    return np.arange(100_000.0)


@step
def add(array: np.ndarray, times: int) -> float:
    ran("add")
    return float(array.sum()) * times


@step
def write() -> File:
    ran("write")
    path = output_folder() / "a.txt"
    path.write_text("7")
    return File(path)


@step
def read(file: File, times: int) -> float:
    ran("read")
    return float(Path(file).read_text()) * times


@pipeline
def both(times: int = 1) -> list[float]:
    return [add(make(), times), read(write(), times)]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "a flipped bit": flip,
    "truncated": lambda data: data[: len(data) // 2],
    "deleted": lambda data: None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_was_damaged_in_the_bucket_is_made_again_and_the_run_says_so(
    s3: S3, bucket: str, tmp_path: Path, project: Project, damage: str
) -> None:
    def machine(name: str) -> Store:
        return Store(bucket, cache_folder=str(tmp_path / name), **s3.options)

    total = float(np.arange(100_000.0).sum())
    assert both.with_options(store=machine("one")).local() == [total, 7.0]
    assert project.ran() == ["add", "make", "read", "write"]
    for name in s3.files.find(f"{bucket}/values"):
        if name.endswith((".npy", "a.txt")):
            changed = DAMAGE[damage](s3.files.cat_file(name))
            if changed is None:
                s3.files.rm_file(name)
            else:
                s3.files.pipe_file(name, changed)
    second = both.with_options(store=machine("two"))
    assert second.local(times=2) == [total * 2, 14.0]
    assert project.ran() == ["add", "make", "read", "write"]
    word = "missing" if damage == "deleted" else "damaged"
    run = second.runs.last()
    for name in ("make", "write"):
        assert word in " ".join(map(str, run[name].reasons)), run[name].reasons
    assert both.with_options(store=machine("three")).local(times=3) == [total * 3, 21.0]
    assert project.ran() == ["add", "read"]
