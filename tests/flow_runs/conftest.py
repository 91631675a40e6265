"""What the tests of flow runs share: a store, the API as they read it, and scripts to run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.conftest import Api, eventually, prefect_api
from tests.server import Server

__all__ = ["prefect_api"]

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PATIENCE_S = 60.0


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


class Seen:
    """What the API says of the runs of one pipeline."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def flow_runs(self, name: str) -> list[dict[str, Any]]:
        """The flow runs of a flow, newest last."""
        body = {"flows": {"name": {"any_": [name]}}, "sort": "START_TIME_ASC"}
        found: list[dict[str, Any]] = self.api.post("/flow_runs/filter", body)
        return found

    def flow_run(self, name: str) -> dict[str, Any]:
        """The latest flow run of a flow."""
        return self.flow_runs(name)[-1]

    def task_runs(self, name: str, count: int) -> dict[str, dict[str, Any]]:
        """Task runs of the latest flow run by name, as soon as that many have ended."""
        run_id = self.flow_run(name)["id"]

        def ended(found: dict[str, Any]) -> bool:
            settled = [t for t in found.values() if t["state_type"] in FINAL | {"PENDING"}]
            return len(settled) >= count

        found = eventually(lambda: self.api.task_runs(run_id), ended, 30)
        assert ended(found), found
        return found

    @staticmethod
    def wait_for(look: Callable[[], object]) -> None:
        """Wait until something comes true."""
        assert eventually(look, bool, PATIENCE_S), "it did not come true"

    def states(self, name: str, count: int) -> dict[str, str]:
        """Names of the states of the task runs of the latest flow run."""
        return {node: run["state_name"] for node, run in self.task_runs(name, count).items()}

    def logs(self, name: str, wanted: str) -> list[str]:
        """Log lines of the latest flow run, as soon as one contains what is wanted."""
        body = {"logs": {"flow_run_id": {"any_": [self.flow_run(name)["id"]]}}, "limit": 200}

        def lines() -> list[str]:
            return [row["message"] for row in self.api.post("/logs/filter", body)]

        found = eventually(lines, lambda lines: any(wanted in line for line in lines), 20)
        assert any(wanted in line for line in found), found
        return found


@pytest.fixture
def seen(prefect_api: Api) -> Seen:
    return Seen(prefect_api)


class Script:
    """A user's script in a process of its own."""

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self.path = path
        self.out = path.with_suffix(".out")
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(path)],
                env=environment,
                cwd=path.parent,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.out.read_text(errors="replace")

    def until(self, wanted: str) -> None:
        """Wait until it has printed something."""
        eventually(lambda: self.text, lambda text: wanted in text or self.over, PATIENCE_S)
        assert wanted in self.text, self.text

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end and return the exit status."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"The script did not end:\n{self.text}")


@pytest.fixture
def script(tmp_path: Path, api: Server, store: str) -> Iterator[Callable[..., Script]]:
    """Writes a script and starts it; one that is left over is killed."""
    started: list[Script] = []

    def start(source: str, **environment: str) -> Script:
        path = tmp_path / f"script_{len(started)}.py"
        path.write_text(textwrap.dedent(source))
        known = {**os.environ, "PREFECT_MLPIPE_STORE": store, "PYTHONUNBUFFERED": "1"}
        root = str(Path(__file__).parents[2])
        path_of_package = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        started.append(Script(path, {**known, "PYTHONPATH": path_of_package, **environment}))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()
