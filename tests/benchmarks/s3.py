"""S3, on rclone's own server: large values beside plain s3fs and `rclone copyto`, and a rerun.

All of them send to the same server on the same machine, which also takes part of its processors.
Ours writes the value to the cache too, and checks what it reads; the others do neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prefect_mlpipe.core.places import transfers
from prefect_mlpipe.core.places.remote_backend import opened
from prefect_mlpipe.core.store import Store
from tests.benchmarks import work
from tests.benchmarks.measure import Row, in_turn, seconds
from tests.s3 import KEY, S3, SECRET, counted_requests, running_rclone

ROUNDS = 3


def benchmark_s3(scale: float) -> list[Row]:
    """Put and get of 1 GiB: the transfer alone, and a whole value with its cache and checksum."""
    with tempfile.TemporaryDirectory(prefix="mlpipe-benchmark-") as folder:
        (Path(folder) / "server").mkdir()
        with running_rclone(Path(folder) / "server") as server:
            return _Contest(server, Path(folder), int((1 << 30) * scale)).rows()


def benchmark_s3_rerun(scale: float) -> list[Row]:
    """A chain of 1,000 steps that another machine has run: what a rerun asks of the server."""
    with tempfile.TemporaryDirectory(prefix="mlpipe-benchmark-") as name:
        folder = Path(name)
        (folder / "server").mkdir()
        with running_rclone(folder / "server") as server:
            bucket = server.make_bucket()
            run = partial(_run_chain, server, bucket, folder, max(20, int(1000 * scale)))
            cold = seconds(lambda: run("first"))
            with counted_requests() as requests:
                again = seconds(lambda: run("second"))
    return [
        Row("chain on S3, reused elsewhere", len(requests), "budget", 20, 1.0, "requests"),
        Row("chain on S3, reused elsewhere", again * 1000, "executed", cold * 1000),
    ]


def _run_chain(server: S3, bucket: str, folder: Path, length: int, machine: str) -> None:
    store = Store(f"{bucket}/store", cache_folder=str(folder / machine), **server.options)
    assert work.chain.with_options(store=store).local(length) == length


class _Contest:
    """One array, as a file and in memory, and everybody's way to the server and back."""

    def __init__(self, server: S3, folder: Path, size: int) -> None:
        self.server, self.folder = server, folder
        self.bucket = server.make_bucket()
        self.array = np.random.default_rng(0).random(size // 8)
        self.source = folder / "source.bin"
        self.array.tofile(self.source)
        self.plain = server.files
        self.ours, _ = opened(self.bucket, server.options)

    def rows(self) -> list[Row]:
        took = in_turn(
            {
                "put": lambda: self._put(self._our_put),
                "s3fs put": lambda: self._put(self.plain.put_file),
                "rclone put": lambda: self._put(self._rclone),
                "value put": self._value_put,
                "get": lambda: self._get(self._our_get),
                "s3fs get": lambda: self._get(self.plain.get_file),
                "rclone get": lambda: self._get(self._rclone),
                "value get": self._value_get,
            },
            rounds=ROUNDS,
        )
        size = f"{self.array.nbytes >> 20} MiB"
        return [
            Row(f"S3 {what} of {size}", took[ours] * 1000, them, took[theirs] * 1000, target)
            for way in ("put", "get")
            for what, ours, them, theirs, target in (
                (way, way, "s3fs", f"s3fs {way}", 1.0),
                (way, way, "rclone copyto", f"rclone {way}", None),
                (f"{way}, cached, checked", f"value {way}", "s3fs", f"s3fs {way}", None),
            )
        ]

    def _put(self, put: Callable[[str, str], object]) -> float:
        target = f"{self.bucket}/object"
        if self.plain.exists(target):
            self.plain.rm_file(target)
        return seconds(lambda: put(str(self.source), target))

    def _get(self, get: Callable[[str, str], object]) -> float:
        target = self.folder / "target.bin"
        target.unlink(missing_ok=True)
        return seconds(lambda: get(f"{self.bucket}/object", str(target)))

    def _our_put(self, source: str, target: str) -> None:
        transfers.upload_file(self.ours, target, source)

    def _our_get(self, source: str, target: str) -> None:
        transfers.download(self.ours, source, target)

    def _rclone(self, source: str, target: str) -> None:
        program = shutil.which("rclone", path=os.path.dirname(sys.executable)) or "rclone"
        address = f":s3,provider=Rclone,endpoint='{self.server.endpoint}':"
        environment = {
            **os.environ,
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_S3_ACCESS_KEY_ID": KEY,
            "RCLONE_S3_SECRET_ACCESS_KEY": SECRET,
        }
        places = [place.replace("s3://", address) for place in (source, target)]
        subprocess.run([program, "copyto", "-q", *places], env=environment, check=True)

    def _store(self, cache: str) -> Store:
        return Store(
            f"{self.bucket}/store", cache_folder=str(self.folder / cache), **self.server.options
        )

    def _value_put(self) -> float:
        self.array[0] = time.time()
        self.stored: Any = None
        shutil.rmtree(self.folder / "writer", ignore_errors=True)
        store = self._store("writer")
        store.prepare()
        took = seconds(lambda: setattr(self, "stored", store.put(self.array)))
        shutil.rmtree(self.folder / "reader", ignore_errors=True)
        return took

    def _value_get(self) -> float:
        store = self._store("reader")
        return seconds(lambda: float(store.get(self.stored)[::512].sum()))
