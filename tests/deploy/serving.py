"""What tests of deployments share: a process that serves, and what the server knows of its runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun

T = TypeVar("T")

# Its first and its last step wait to be told that they may end; there are ten between them.
SLOW = """
import sys
import time
from pathlib import Path
from prefect_mlpipe import pipeline, step

@step
def add(x: int) -> int:
    return x + 1

@step(ignore=["folder"])
def wait(x: int, folder: str, name: str) -> int:
    (Path(folder) / f"{name} began").touch()
    while not (Path(folder) / f"{name} may end").exists():
        time.sleep(0.1)
    return x + 1

@pipeline
def slow(folder: str, start: int = 1) -> int:
    x = wait(add(start), folder, "one")
    for _ in range(10):
        x = add(x)
    return wait(x, folder, "two")

if __name__ == "__main__":
    slow(sys.argv[1])
"""


def eventually(look: Callable[[], T], is_right: Callable[[T], object], within_s: float = 120) -> T:
    """What `look` gives as soon as `is_right` holds of it; what it gave last when time is up.

    A server with SQLite that is busy tries an action again after a minute.
    """
    deadline = time.monotonic() + within_s
    while not is_right(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return seen


def flow_runs(deployment: str | UUID) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        if isinstance(deployment, str):
            deployment = client.read_deployment_by_name(deployment).id
        of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
        return client.read_flow_runs(flow_run_filter=of_it)


def ended(runs: Sequence[FlowRun]) -> list[str | None]:
    """The names of their final states, if all have one."""
    states = [run.state for run in runs if run.state is not None and run.state.is_final()]
    return [state.name for state in states] if len(states) == len(runs) else []


@contextmanager
def serving(folder: Path, script: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a script which serves, in this folder and with a store there."""
    (folder / "serve.py").write_text(script)
    environment = {
        **os.environ,
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_MLPIPE_STORE": str(folder / "store"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "serve.py"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
