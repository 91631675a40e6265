"""A working copy that is deployed, and the worker that runs what was deployed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.versions import Versions
from prefect_mlpipe.runs import Runs

FLOW = """
    from prefect_mlpipe import pipeline, step
    from helpers import FACTOR

    @step
    def scaled(x: int) -> int:
        return x * FACTOR

    @pipeline
    def NAME(x: int = 1) -> int:
        return scaled(x)
"""
DEPLOY = """
    if __name__ == "__main__":
        NAME.deploy("frozen", "POOL", ignore_warnings=True, print_next_steps=False)
"""


class WorkingCopy:
    """A folder with a pipeline in `flow.py`; name of the pipeline and of the work pool are one."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / "copy"
        self.folder.mkdir()
        self.name = name
        self.store = Store(str(folder / "store"), cache_folder=str(folder / "cache"))
        self._elsewhere = folder / "worker"
        self._elsewhere.mkdir()
        self._environment = {
            **os.environ,
            "PREFECT_MLPIPE_CACHE": str(folder / "worker-cache"),
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        with get_client(sync_client=True) as client:
            client.request("POST", "/work_pools/", json={"name": name, "type": "process"})

    @property
    def versions(self) -> Versions:
        return Versions(self.store, self.name)

    @property
    def runs(self) -> Runs:
        return Runs(self.store, self.name)

    def write(self, **modules: str) -> None:
        """Write modules by name; `NAME` and `POOL` stand for those of the pipeline."""
        for name, source in modules.items():
            text = dedent(source).replace("NAME", self.name).replace("POOL", self.name)
            (self.folder / f"{name}.py").write_text(text)

    def script(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `flow.py`, as its author does."""
        done = subprocess.run(
            [sys.executable, "flow.py", *words],
            cwd=self.folder,
            env={**self._environment, "PREFECT_MLPIPE_STORE": self.store.url},
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def deploy(self, flow: str = FLOW, deploy: str = DEPLOY, **modules: str) -> str:
        """Write and deploy the pipeline; return the name of its version."""
        self.write(flow=dedent(flow) + dedent(deploy), **modules)
        self.script()
        default = self.versions.default
        assert default is not None
        return default.name

    def start(self, **parameters: Any) -> str:
        """Make a run of the deployment, for a worker to run."""
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(f"{self.name}/frozen")
            return str(client.create_flow_run_from_deployment(found.id, parameters=parameters).id)

    def work(self) -> None:
        """Have a worker, which works elsewhere, run what waits; it knows no store."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", self.name, "--run-once"],
            cwd=self._elsewhere,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def ended(self, run_id: str) -> FlowRun:
        """What Prefect knows of a run."""
        with get_client(sync_client=True) as client:
            return client.read_flow_run(UUID(run_id))

    def logs(self, run_id: str) -> str:
        """What a run has logged."""
        where = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run_id)]))
        with get_client(sync_client=True) as client:
            return "\n".join(log.message for log in client.read_logs(where))
