"""Pipelines as Prefect flows against a running server, beside native Prefect tasks.

The server is one of its own on loopback, with the settings that we advise. Between rounds it gets
the time to record what it was sent: a busy server would slow the next contender.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from tests.benchmarks.local import folder
from tests.benchmarks.measure import Row, in_turn, seconds
from tests.benchmarks.work import chain, native_chain
from tests.server import running_server

PATIENCE_S = 120.0


@contextmanager
def connected() -> Iterator[None]:
    """Start a server, and let Prefect in this process use it.

    Prefect's own heartbeats make every short flow last whole seconds; they are off for everyone.
    """
    with (
        tempfile.TemporaryDirectory(prefix="mlpipe-benchmark-") as home,
        running_server(Path(home)) as server,
        temporary_settings(
            {PREFECT_API_URL: server.api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        ),
    ):
        yield


def recorded() -> int:
    """How many ended task runs the server shows."""
    body = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    with get_client(sync_client=True) as client:
        return int(client.request("POST", "/task_runs/count", json=body).json())


class Recorder:
    """Runs contenders, and waits after each until the server shows all of its task runs."""

    def __init__(self) -> None:
        self.expected = recorded()
        self.waited: list[float] = []

    def timed(self, work: Callable[[], object], runs: int) -> float:
        taken = seconds(work)
        self.expected += runs
        start = time.perf_counter()
        while recorded() < self.expected:
            if time.perf_counter() - start > PATIENCE_S:
                raise TimeoutError(f"{recorded()} of {self.expected} task runs can be seen")
            time.sleep(0.05)
        self.waited.append(time.perf_counter() - start)
        return taken


def run_chain(length: int, store: str) -> None:
    chain.with_options(store=store)(length=length)


def benchmark_flow_reused(scale: float) -> list[Row]:
    """1,000 reused steps as a flow, over an empty flow, and until the server shows them."""
    length = max(10, int(1000 * scale))
    with connected(), folder() as store:
        chain.with_options(store=store).local(length=length)
        recorder, visible = Recorder(), Recorder()
        run_chain(0, store)
        took = in_turn(
            {
                "empty": lambda: recorder.timed(partial(run_chain, 0, store), 0),
                "reused": lambda: visible.timed(partial(run_chain, length, store), length),
            }
        )
    each = (took["reused"] - took["empty"]) / length * 1000
    shown = sorted(visible.waited)[len(visible.waited) // 2] * 1000
    return [
        Row(
            f"flow of {length} reused steps, per step over an empty flow", each, "budget", 1.0, 1.0
        ),
        Row(
            f"flow of {length} reused steps, in all",
            took["reused"] * 1000,
            "empty flow",
            took["empty"] * 1000,
        ),
        Row("until all can be seen in the API", shown, "budget", 3.0 * length, 1.0),
    ]


def benchmark_flow_executed(scale: float) -> list[Row]:
    """A chain of executed steps as a flow, beside the same chain of native Prefect tasks.

    What a step costs is taken from a long and a short chain: entering and leaving drop out.
    """
    short, long = 10, max(20, int(300 * scale))
    with connected():
        recorder = Recorder()
        took = in_turn(
            {
                f"{name} {length}": partial(contender, recorder, length)
                for length in (short, long)
                for name, contender in (("ours", _executed), ("native", _native))
            }
        )
    ours = (took[f"ours {long}"] - took[f"ours {short}"]) / (long - short) * 1000
    native = (took[f"native {long}"] - took[f"native {short}"]) / (long - short) * 1000
    return [Row("executed step of a flow, threads", ours, "native Prefect task", native, 1.3)]


def _executed(recorder: Recorder, length: int) -> float:
    with folder() as store:
        return recorder.timed(partial(run_chain, length, store), length)


def _native(recorder: Recorder, length: int) -> float:
    return recorder.timed(partial(native_chain, length), length)
