"""Where faults happen: clusters of ours, somebody's cluster of plain dask processes, a network."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

from prefect_mlpipe.compute import Dask

ROOT = Path(__file__).parents[2]
START_S = 60.0
SILENT_S = 5.0


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What a condition returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} has not come to pass within {seconds:g} s")
        time.sleep(0.05)
    return found


def children() -> set[int]:
    """The processes below this one that are no zombies."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.add(child.pid)
    return found


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Foreign:
    """Somebody's cluster: `dask scheduler` and `dask worker`, with dask's own settings."""

    def __init__(self, workers: int = 2) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mlpipe-foreign-")
        self._scheduler_file = Path(self._folder.name, "scheduler.json")
        self._processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--port", "0")
        self.workers = [self._start("worker", "--nthreads", "1") for _ in range(workers)]
        wait_for(self._scheduler_file.exists, START_S, "the scheduler")
        with Client(scheduler_file=str(self._scheduler_file), set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=START_S)
            self.address = str(client.scheduler.address)

    def _start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        # The first order has scheduler and workers import this, and they can say nothing meanwhile.
        preload = ["--preload", "prefect_mlpipe.compute.worker"]
        command = [sys.executable, "-m", "dask", kind, "--host", "127.0.0.1", "--no-dashboard"]
        process = subprocess.Popen(
            [*command, "--scheduler-file", str(self._scheduler_file), *preload, *options],
            cwd=self._folder.name,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def nanny_of(self, worker: int) -> int:
        """The pid of the `dask worker` process that started a worker's process."""
        above = {each.pid for each in psutil.Process(worker).parents()}
        return next(each.pid for each in self.workers if each.pid in above)

    def close(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._folder.cleanup()


class Network:
    """What lies between a driver and a scheduler; it can fall silent without a word."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._to = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = threading.Event()
        self._open.set()
        self._ends: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self._open.clear()

    def heal(self) -> None:
        """What was on its way arrives."""
        self._open.set()

    def reset(self) -> None:
        """Break the connections that there are; new ones can be made."""
        for end in self._ends[1:]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # each is closed by the thread that reads it
        del self._ends[1:]

    def close(self) -> None:
        self.heal()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(self._to)
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with one:
            with contextlib.suppress(OSError):
                while data := one.recv(65536):
                    self._open.wait()
                    other.sendall(data)
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)


class Stage:
    """The clusters that faults share as long as these outlive them."""

    def __init__(self) -> None:
        resource_tracker.ensure_running()  # Python's own, which stays once a process was spawned
        self._given: Any = None
        self._foreign: Foreign | None = None

    def given(self) -> Any:
        """A cluster that was started as ours are, with two workers."""
        if self._given is None:
            limit = "600MB"
            self._given = Dask(n_workers=2, threads_per_worker=1, memory_limit=limit).start()
        return self._given

    def foreign(self) -> Foreign:
        """Somebody's cluster with two workers."""
        if self._foreign is None:
            self._foreign = Foreign()
        return self._foreign

    def close(self) -> None:
        if self._given is not None:
            self._given.close()
        if self._foreign is not None:
            self._foreign.close()
