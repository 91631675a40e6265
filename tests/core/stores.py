"""What the tests of stores share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prefect_mlpipe.core.places.backends import LocalBackend
from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.store import Store

LARGE = np.arange(300_000.0)


def reopened(store: Store, cache: str = "cache") -> Store:
    """The same store as another process, or with another cache another machine, sees it."""
    folder = Path(store._cache_folder).parent / cache
    return Store(store.url, cache_folder=str(folder), **store._options)


def creates_once(store: Store) -> bool:
    """Whether of several that create a record or a lease only the first one succeeds."""
    return isinstance(store._backend, LocalBackend) or store._backend.honours_create()


def path_of(store: Store, value: StoredValue) -> Path:
    path = store.local_path(value)
    assert path is not None
    return Path(path)


def a_record(key: str = "ab" * 32, number: int = 0, **metrics: float) -> Record:
    value = StoredValue("d" * 64, "c" * 64, 5, "int", "json", ("numpy",), b"12345")
    return Record(
        key, {"code": {"x": 1}}, "d" * 64, {"": value}, 12.5, 0.25, metrics, {"run": str(number)}
    )


def forced(write: Callable[[Path], object], path: Path) -> None:
    """Write a read-only file."""
    path.chmod(0o644)
    write(path)


def python(code: str, *arguments: object) -> str:
    """Run code in a fresh process that sees the modules of this one."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_keeping_times(path: Path) -> None:
    facts = path.stat()
    flip(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
