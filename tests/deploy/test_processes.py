"""The three processes of `deployments/compose.yaml`, started by hand: a server with a PostgreSQL, a
worker, and the one that watches; with a password, and what becomes of it all when some die.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from prefect_mlpipe.deploy.automations import crash_silent_runs
from prefect_mlpipe.reporting.api import server_environment
from tests.deploy.serving import SLOW, ended, eventually, flow_runs
from tests.postgres import running_postgres
from tests.server import Server, guarded_server

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
WITHIN_S = 150

SLOW_YAML = """
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $PWD }}"
deployments:
  - {name: by-worker, entrypoint: "slow.py:slow", work_pool: {name: mlpipe}}
"""


@dataclass
class Processes:
    """The three processes, and the folder that they work in."""

    folder: Path
    server: Server
    environment: dict[str, str]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def prefect(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def start_worker(self) -> subprocess.Popen[bytes]:
        options = ["--pool", "mlpipe", "--type", "process"]
        self.workers.append(self.start("worker", "-m", "prefect", "worker", "start", *options))
        return self.workers[-1]

    def run(self, deployment: str, **parameters: Any) -> Any:
        """Start a run of a deployment, as any system would."""
        if self.workers[-1].poll() is not None:  # it gives up when its server is away for long
            self.start_worker()
        with httpx.Client(auth=("admin", "for the tests"), timeout=60) as client:
            api = self.server.api_url
            found = client.get(f"{api}/deployments/name/{deployment}").json()
            path = f"{api}/deployments/{found['id']}/create_flow_run"
            return client.post(path, json={"parameters": parameters}).json()["id"]

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        with httpx.Client(auth=("admin", "for the tests"), timeout=60) as client:
            url = f"{self.server.api_url}{path}"
            return (client.get(url) if body is None else client.post(url, json=body)).json()

    def state(self, run: str, wanted: str) -> str:
        """The name of the state of a run, as soon as it is this one."""
        look: Callable[[], str] = lambda: self.get(f"/flow_runs/{run}")["state_name"]  # noqa: E731
        return eventually(look, wanted.__eq__, WITHIN_S)

    def task_runs(self, run: str, count: int) -> dict[str, str]:
        """The states of the task runs of a run, as soon as so many have ended."""
        asked = {"flow_runs": {"id": {"any_": [run]}}}

        def look() -> dict[str, str]:
            found = self.get("/task_runs/filter", asked)
            return {one["name"]: one["state_name"] for one in found if one["end_time"]}

        return eventually(look, lambda found: len(found) >= count, WITHIN_S)

    def logs(self) -> str:
        texts = [path.read_text(errors="replace") for path in self.folder.glob("*.log")]
        return "\n".join(text[-6000:] for text in texts)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    folder = tmp_path_factory.mktemp("processes")
    shutil.copytree(ROOT / "deployments", folder / "deployments")
    (folder / "slow.py").write_text(SLOW)
    (folder / "slow.yaml").write_text(SLOW_YAML)
    for name in ("data", "server"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        database = stack.enter_context(running_postgres())
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setenv("PREFECT_API_DATABASE_CONNECTION_URL", database)
        server = stack.enter_context(guarded_server(folder / "server"))
        environment = {
            **os.environ,
            "PWD": str(folder),
            "MLPIPE_DATA": str(folder / "data"),
            "PREFECT_MLPIPE_STORE": str(folder / "store"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        processes = Processes(folder, server, environment)
        processes.prefect("work-pool", "create", "mlpipe", "--type", "process")
        processes.prefect("deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
        processes.prefect("deploy", "--prefect-file", "slow.yaml", "--all")
        processes.start_worker()
        watcher = processes.start("watcher", "-m", "prefect_mlpipe", "watch")
        try:
            yield processes
        finally:
            for process in (*processes.workers, watcher):
                kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, as the death of its machine would."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for each in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()


@pytest.mark.timeout(600)
def test_a_retrained_model_and_new_data_start_what_waits_for_them(processes: Processes) -> None:
    run = processes.run("retrain/nightly")
    assert processes.state(run, "Completed") == "Completed", processes.logs()

    def scored() -> list[Any]:
        return flow_runs("score/new-model")

    first = eventually(scored, ended, WITHIN_S)
    assert ended(first) == ["Completed"], processes.logs()
    assert first[0].parameters["model"]["$mlpipe"].endswith("ExtraTreesClassifier")

    again = processes.run("retrain/nightly")
    assert processes.state(again, "Completed") == "Completed"
    assert set(processes.task_runs(again, 3).values()) == {"Cached"}

    eventually(lambda: (processes.folder / "store" / "watches").glob("*more-digits*"), any, 60)
    scans = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    with gzip.open(str(scans), "rt") as lines:
        head = [next(lines) for _ in range(20)]
    (processes.folder / "data" / "more.csv").write_text("".join(head))
    [new] = eventually(lambda: flow_runs("retrain/new-data"), ended, WITHIN_S)
    assert ended([new]) == ["Completed"], processes.logs()
    assert new.parameters == {"more": str(processes.folder / "data")}
    both = eventually(scored, lambda runs: len(runs) == 2 and ended(runs), WITHIN_S)
    assert ended(both) == ["Completed", "Completed"], processes.logs()
    nightly = processes.run("retrain/nightly")
    assert processes.state(nightly, "Completed") == "Completed"
    assert set(processes.task_runs(nightly, 3).values()) == {"Cached"}, "the new data is forgotten"


@pytest.mark.timeout(600)
def test_a_run_whose_worker_is_killed_crashes_and_its_rerun_does_what_was_missing(
    processes: Processes, tmp_path: Path
) -> None:
    crash_silent_runs(timedelta(seconds=10), ["slow"])
    run = processes.run("slow/by-worker", folder=str(tmp_path))
    began = tmp_path / "one began"
    assert eventually(began.exists, bool, WITHIN_S), processes.logs()
    time.sleep(3)  # a sign of life, and the first task run, are on their way
    kill(processes.workers[-1])
    assert processes.state(run, "Crashed") == "Crashed"

    for name in ("one", "two"):
        (tmp_path / f"{name} may end").touch()
    processes.start_worker()
    again = processes.run("slow/by-worker", folder=str(tmp_path))
    assert processes.state(again, "Completed") == "Completed", processes.logs()
    states = processes.task_runs(again, 13)
    assert states.pop("add") == "Cached"
    assert set(states.values()) == {"Completed"}
    assert len(states) == 12


def test_the_compose_file_has_the_same_processes_and_says_what_each_needs() -> None:
    services = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text())["services"]
    assert services.keys() == {"database", "server", "worker", "watcher"}
    for name in ("server", "worker", "watcher"):
        program, *words = services[name]["command"].split()
        installed = Path(sys.executable).with_name(program)
        asked = subprocess.run([installed, *words, "--help"], capture_output=True, text=True)
        assert asked.returncode == 0, asked.stderr
    for name in ("worker", "watcher"):
        environment = services[name]["environment"]
        assert environment["PREFECT_API_URL"] == "http://server:4200/api"
        assert "$" in environment["PREFECT_API_AUTH_STRING"]
        assert services[name]["depends_on"] == {"server": {"condition": "service_healthy"}}
    advised = server_environment()
    assert advised.items() <= services["server"]["environment"].items()
    assert all(f"{name}={value}" in README.read_text() for name, value in advised.items())
    assert (
        "postgresql+asyncpg"
        in (services["server"]["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"])
    )
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"]).returncode:
        said = {**os.environ, "AUTH": "admin:x", "POSTGRES_PASSWORD": "x"}
        file = ROOT / "deployments" / "compose.yaml"
        subprocess.run(["docker", "compose", "-f", file, "config", "-q"], env=said, check=True)


def test_what_is_served_by_hand_is_what_the_yaml_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "deployments"))
    from served import deployments

    found = {f"{one.flow_name}/{one.name}" for one in deployments("/data/digits")}
    written = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())["deployments"]
    entrypoints = {one["name"]: one["entrypoint"].rpartition(":")[2] for one in written}
    assert found == {f"{flow}/{name}" for name, flow in entrypoints.items()}
    parameters = {one.name: one.parameters for one in deployments("/data/digits")}
    data = {one["name"]: one.get("parameters", {}) for one in written}
    assert parameters == {
        name: {n: v.replace("{{ $MLPIPE_DATA }}", "/data/digits") for n, v in each.items()}
        for name, each in data.items()
    }
