"""Steps and tasks on a Dask cluster, beside prefect-dask and bare `distributed`.

One cluster serves everyone by its address; its scheduler has a process of its own, so that the CPU
of this process is the client's alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from distributed import Client
from prefect import Flow

from prefect_mlpipe import pipeline, resolve
from prefect_mlpipe.compute import Dask, RoutingTaskRunner
from tests.benchmarks.flows import Recorder, connected
from tests.benchmarks.local import folder
from tests.benchmarks.measure import Row, in_turn, seconds
from tests.benchmarks.work import (
    chain,
    increment,
    large_passed,
    native_chain,
    native_increment,
    plain_increment,
)

WORKERS = 2
PATIENCE_S = 120.0
LOOK_S = 0.1

_CLUSTER = f"""
import sys
from prefect_mlpipe.compute import Dask

if __name__ == "__main__":
    cluster = Dask(n_workers={WORKERS}, threads_per_worker=1).start()
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
    cluster.close()
"""


@contextmanager
def workers() -> Iterator[tuple[Dask, Client]]:
    """Start a server, and a cluster in a process of its own."""
    with connected(), tempfile.TemporaryDirectory() as place:
        script = Path(place) / "cluster.py"
        script.write_text(_CLUSTER)
        root = str(Path(__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONPATH": root},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with Client(address, set_as_default=False) as client:
                yield Dask(address=address), client
        finally:
            process.communicate("")


class Window:
    """Counts the CPU of this process from the first of many submissions until the scheduler has
    them all. The workers are blocked meanwhile, so that nothing comes back.
    """

    def __init__(self, client: Client, count: int) -> None:
        self._client = client
        self._count = count
        self._cpu = 0.0
        self._closing = threading.Thread(target=self._close)

    def open(self) -> None:
        """Block the workers, and begin to count; called when all is ready for submissions."""
        self._place = tempfile.TemporaryDirectory()
        self._mark = Path(self._place.name) / "mark"
        self._mark.touch()
        infos = self._client.scheduler_info(n_workers=-1)["workers"]
        self._blocking = [
            self._client.submit(_blocks, str(self._mark), workers=[each], pure=False)
            for each in infos
        ]
        self._before = self._known()
        self._cpu = time.process_time()
        self._closing.start()

    def _known(self) -> int:
        return int(self._client.run_on_scheduler(_tasks))

    def _close(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._known() - self._before < self._count and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        self._cpu = time.process_time() - self._cpu
        self._mark.unlink()

    def seconds(self) -> float:
        """CPU for each submission."""
        self._closing.join()
        self._client.gather(self._blocking)
        self._place.cleanup()
        return self._cpu / self._count


def _blocks(mark: str) -> None:
    while Path(mark).exists():
        time.sleep(0.05)


def _tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def benchmark_dask_submit(scale: float) -> list[Row]:
    """CPU of the client for each submission, beside prefect-dask's task runner."""
    from prefect_dask import DaskTaskRunner

    count = max(20, int(100 * scale))
    with workers() as (there, client):
        routing = RoutingTaskRunner({"default": there})
        theirs = DaskTaskRunner(address=there.address)
        took = in_turn(
            {
                "runner": lambda: _submitted_tasks(Window(client, count), routing, count),
                "pipeline": lambda: _submitted_steps(Window(client, count), there, count),
                "prefect-dask": lambda: _submitted_tasks(Window(client, count), theirs, count),
            },
            rounds=3,
        )
    other = took["prefect-dask"] * 1000
    return [
        Row(f"client CPU of {what}", took[name] * 1000, "prefect-dask", other, 0.1)
        for name, what in (("runner", "a submitted task"), ("pipeline", "a submitted step"))
    ]


# A global: prefect-dask sends the flow to the workers with all that it closes over.
_windows: list[Window] = []


def _submit(count: int) -> None:
    native_increment.submit(-1).result()  # connects to the cluster
    _windows[-1].open()
    for future in [native_increment.submit(number) for number in range(count)]:
        future.wait()


def _submitted_tasks(window: Window, runner: Any, count: int) -> float:
    _windows.append(window)
    Flow(_submit, name="submitted tasks", task_runner=runner, persist_result=False)(count)
    return window.seconds()


def _submitted_steps(window: Window, there: Dask, count: int) -> float:
    @pipeline(name="submitted steps", compute={"default": there})
    def submitted() -> list[int]:
        resolve(increment(-1))
        window.open()
        return [increment(number) for number in range(count)]

    with folder() as store:
        submitted.with_options(store=store)()
    return window.seconds()


def benchmark_dask_executed(scale: float) -> list[Row]:
    """A chain of executed steps on Dask, beside a bare submission and a native Prefect task.

    What a step costs is taken from a long and a short chain: connecting drops out.
    """
    short, long = 10, max(20, int(100 * scale))
    with workers() as (there, client):
        recorder = Recorder()
        contenders: dict[str, Callable[[int], float]] = {
            "ours": partial(_executed, recorder, there),
            "bare": lambda length: seconds(partial(bare_chain, client, length)),
            "native": lambda length: recorder.timed(partial(native_chain, length), length),
        }
        took = in_turn(
            {
                f"{name} {length}": partial(contender, length)
                for length in (short, long)
                for name, contender in contenders.items()
            },
            rounds=3,
        )
    each = {
        name: (took[f"{name} {long}"] - took[f"{name} {short}"]) / (long - short) * 1000
        for name in contenders
    }
    both = each["bare"] + each["native"]
    return [
        Row("executed step on Dask", each["ours"], "Client.submit and a native task", both, 2.0)
    ]


def _executed(recorder: Recorder, there: Dask, length: int) -> float:
    with folder() as store:
        mine = chain.with_options(store=store, compute={"default": there})
        return recorder.timed(lambda: mine(length=length), length)


def bare_chain(client: Client, length: int) -> int:
    """The chain on Dask alone: each call waits for the one before."""
    number = 0
    for _ in range(length):
        number = client.submit(plain_increment, number, pure=False).result()
    return number


def benchmark_dask_memory(scale: float) -> list[Row]:
    """Memory of the driver while 5 GB go through three steps on two clusters of ours."""
    count = max(1000, int(208_000_000 * scale))  # of 8 bytes, three times over
    with connected():
        few = _peak(1000)
        many = _peak(count)
    size = f"{3 * 8 * count / 1e9:.1f} GB"
    grown = max(0.0, many - few)
    return [Row(f"driver's memory with {size} passing", grown, "budget", 200.0, 1.0, "MB")]


def _peak(count: int) -> float:
    """The most memory that this process had, in MB, above what it had before."""
    process = psutil.Process()
    before = process.memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    one = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": 0}
    computes = {"default": Dask(**one), "other": Dask(**one, resources={"other": 1})}
    with folder() as store:
        passed = large_passed.with_options(store=store, compute=computes)(count)
    assert passed == 4.0 * count
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return peak * 1024 / 1e6 - before / 1e6
