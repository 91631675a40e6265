"""What the tests of stores share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.store import Store

LARGE = np.arange(300_000.0)


def reopened(store: Store, cache: str = "cache") -> Store:
    """The same store as another process, or with another cache another machine, sees it."""
    folder = Path(store._cache_folder).parent / cache
    return Store(store.url, cache_folder=str(folder))


def path_of(store: Store, value: StoredValue) -> Path:
    path = store.local_path(value)
    assert path is not None
    return Path(path)


VALUE = StoredValue("d" * 64, "c" * 64, 5, "int", "json", ("numpy",), b"12345")
MANIFEST = Manifest("m.train", "c" * 64, {"x": "d" * 64}, {}, "1", {"python": "3"}, {"x": "1"}, {})


def a_record(key: str = "ab" * 32, number: int = 0, **metrics: float) -> Record:
    run = {"run": str(number)}
    return Record(key, MANIFEST.to_json(), "d" * 64, {"": VALUE}, 12.5, 0.25, metrics, run)


def some_code(**parts: str) -> dict[str, Any]:
    looks = {label: ["def f(): ...", {"default x": "1"}] for label in parts}
    return {"parts": parts, "looks": looks, "elsewhere": {"helpers.other": "c" * 64}}


def a_run(name: object = "one", state: str = "completed") -> dict[str, Any]:
    """The manifest of a run of one step, which failed."""
    node = {
        "name": "train",
        "items": None,
        "state": "failed",
        "reasons": [["first run", "", "", ""]],
        "key": None,
        "earlier_key": "ab" * 32,
        "manifest": MANIFEST.to_json(),
        "fields": {"": VALUE.to_json()},
        "reused_from": None,
        "duration_s": 0.5,
        "metrics": {"accuracy": 0.5},
        "logs": ["trained"],
        "error": "ValueError: too deep",
    }
    return {
        "id": str(name),
        "name": "brave-otter",
        "pipeline": "digits",
        "state": state,
        "error": None,
        "started": 1.0,
        "ended": 2.0,
        "parameters": {"depth": 3},
        "returned": None,
        "warnings": [],
        "saved_s": 0,
        "saved_bytes": 0,
        "graph": {"nodes": []},
        "nodes": [node],
    }


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
