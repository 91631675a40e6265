"""A run outlives a restart of its server, and all of it is shown afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.serving import SLOW, eventually
from tests.server import ask, free_port, running_server

WITHIN_S = 150


@pytest.mark.timeout(600)
def test_a_run_outlives_a_restart_of_the_server_and_all_its_task_runs_arrive(
    tmp_path: Path,
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "server").mkdir()
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        with running_server(tmp_path / "server", port) as server:
            script = subprocess.Popen(
                [sys.executable, "slow.py", str(tmp_path)],
                cwd=tmp_path,
                env={
                    **os.environ,
                    "PREFECT_API_URL": server.api_url,
                    "PREFECT_MLPIPE_STORE": str(tmp_path / "store"),
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                },
                stdout=log,
                stderr=log,
            )
            assert begins(tmp_path, "one")
        (tmp_path / "one may end").touch()
        assert begins(tmp_path, "two"), "steps wait for a server that is away"
        with running_server(tmp_path / "server", port) as server:
            (tmp_path / "two may end").touch()
            assert script.wait(WITHIN_S) == 0, (tmp_path / "log").read_text()
            [run] = ask(server, "POST", "/flow_runs/filter", {}).json()
            assert run["state_name"] == "Completed"

            def states() -> dict[str, str]:
                found = ask(server, "POST", "/task_runs/filter", {}).json()
                return {one["name"]: one["state_name"] for one in found}

            all_of_them: Callable[[dict[str, str]], object] = lambda found: (  # noqa: E731
                len(found) == 13 and set(found.values()) == {"Completed"}
            )
            assert all_of_them(found := eventually(states, all_of_them, WITHIN_S)), found


def begins(folder: Path, name: str) -> bool:
    return eventually((folder / f"{name} began").exists, bool, WITHIN_S)
