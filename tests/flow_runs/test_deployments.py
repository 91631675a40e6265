"""Pipelines as deployments: served, run by a worker, started over REST."""

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
from prefect.flows import Flow, load_flow_from_entrypoint

from prefect_mlpipe import File, Pipeline, RunOptions, pipeline, step
from tests.flow_runs.conftest import FINAL, Script, Seen
from tests.reporting.conftest import Api, eventually
from tests.server import ask

FLOW = """
    import contextvars
    import logging
    import threading

    from prefect_mlpipe import pipeline, step

    logger = logging.getLogger(__name__)
    lock = threading.Lock()
    again = threading.RLock()
    here = contextvars.ContextVar("here", default=5)
    local = threading.local()


    @step
    def inc(x: int) -> int:
        local.value = 1
        with lock, again:
            logger.info("increments")
            return x + here.get() - 4


    @pipeline
    def mine(x: int = 1) -> int:
        return inc(inc(x))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a flow in a file."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "mine.py").write_text(textwrap.dedent(FLOW))
    return tmp_path / "flows"


@step
def inc(x: int) -> int:
    return x + 1


@pipeline(name="described")
def described(
    count: int, csv: File = File("data.csv"), depth: float = 0.5, run: RunOptions = RunOptions()
) -> int:
    """Count things.

    Args:
        count: how many there are.
        csv: where they stand.
    """
    return inc(count)


def test_the_schema_of_a_deployment_is_complete() -> None:
    schema: Any = described.to_deployment("d")._parameter_openapi_schema.model_dump()
    properties = schema["properties"]
    assert schema["required"] == ["count"]
    assert schema["additionalProperties"] is False
    assert properties["count"]["type"] == "integer"
    assert properties["count"]["description"] == "how many there are."
    assert properties["csv"]["type"] == "string"
    assert properties["csv"]["default"] == "data.csv"
    assert properties["depth"]["default"] == 0.5
    options = schema["definitions"]["RunOptions"]
    assert set(options["properties"]) == {"refresh", "targets", "failures"}


def test_the_api_refuses_unknown_names_and_wrong_types(prefect_api: Api) -> None:
    deployment_id = described.to_deployment("over REST").apply()
    path = f"/deployments/{deployment_id}/create_flow_run"
    for wrong in ({"count": 1, "cuont": 2}, {"count": "many"}, {}):
        answer = ask(prefect_api.server, "POST", path, {"parameters": wrong})
        assert answer.status_code == 409, answer.text
    assert ask(prefect_api.server, "POST", path, {"parameters": {"count": 1}}).status_code == 201


def test_a_pipeline_is_found_by_its_entrypoint(folder: Path, store: str) -> None:
    found: Any = load_flow_from_entrypoint(f"{folder / 'mine.py'}:mine")
    assert isinstance(found, Pipeline)
    assert found.with_options(store=store).local(1) == 3


def test_options_of_ours_survive_from_source(folder: Path) -> None:
    found: Any = Flow.from_source(str(folder), "mine.py:mine")
    assert isinstance(found, Pipeline)
    deployment: Any = found.to_deployment("from source")
    assert deployment.entrypoint == "mine.py:mine"
    assert deployment._parameter_openapi_schema.additionalProperties is False


def run_by_hand(folder: Path, store: str, name: str) -> Pipeline[..., Any]:
    """The pipeline of the folder after a run with `x=4` in this process."""
    found: Any = load_flow_from_entrypoint(f"{folder / 'mine.py'}:mine")
    assert found.with_options(store=store).local(4) == 6
    renamed: Pipeline[..., Any] = found.with_options(store=store, name=name)
    return renamed


def start_run(seen: Seen, flow: str, deployment: str, parameters: dict[str, Any]) -> str:
    """Start a run of a deployment over REST, as soon as there is one."""

    def deployments() -> list[dict[str, Any]]:
        body = {"deployments": {"name": {"any_": [deployment]}}}
        found: list[dict[str, Any]] = seen.api.post("/deployments/filter", body)
        return found

    (found,) = eventually(deployments, bool, 60)
    made = seen.api.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
    return str(made["id"])


def state_of(seen: Seen, run_id: str) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        found: dict[str, Any] = ask(seen.api.server, "GET", f"/flow_runs/{run_id}").json()
        return found

    return eventually(read, lambda run: run["state_type"] in FINAL, 90)


def test_serve_runs_a_script_with_loggers_locks_and_context_variables_and_shares_its_keys(
    script: Callable[..., Script], seen: Seen, folder: Path, store: str
) -> None:
    by_hand = run_by_hand(folder, store, "served")
    main = """
    if __name__ == "__main__":
        mine.with_options(name="served").serve(name="by serve", print_starting_message=False)
    """
    running = script(
        textwrap.dedent(FLOW) + textwrap.dedent(main), PREFECT_RUNNER_POLL_FREQUENCY="1"
    )
    run = state_of(seen, start_run(seen, "served", "by serve", {"x": 4}))
    assert run["state_name"] == "Completed", running.text
    assert set(seen.task_runs("served", 2)) == {"inc", "inc#2"}
    assert [each.state for each in by_hand.runs.get(run["id"])] == ["reused", "reused"]
    running.signal(signal.SIGINT)
    running.end()


@contextlib.contextmanager
def worker(pool: str, folder: Path, store: str) -> Iterator[None]:
    environment = {
        **os.environ,
        "PREFECT_MLPIPE_STORE": store,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    prefect = [sys.executable, "-m", "prefect"]
    create = [*prefect, "work-pool", "create", pool, "--type", "process"]
    subprocess.run(create, env=environment, check=True, capture_output=True)
    deploy = [*prefect, "--no-prompt", "deploy", "mine.py:mine", "-n", "by deploy", "-p", pool]
    made = subprocess.run(deploy, env=environment, cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    start = [*prefect, "worker", "start", "--pool", pool, "--run-once"]
    process = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def test_a_worker_runs_what_prefect_deploy_made_and_shares_the_keys_of_a_run_by_hand(
    folder: Path, seen: Seen, store: str
) -> None:
    by_hand = run_by_hand(folder, store, "mine")
    with worker("processes", folder, store):
        run_id = start_run(seen, "mine", "by deploy", {"x": 4})
        assert state_of(seen, run_id)["state_name"] == "Completed"
        assert set(seen.task_runs("mine", 2)) == {"inc", "inc#2"}
    assert [each.state for each in by_hand.runs.get(run_id)] == ["reused", "reused"]
