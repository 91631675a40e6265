"""A server of its own that asks for a password: curl, triggers, workers' reports, and nobody else.

The lines of curl are those of the README.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.events.clients import get_events_subscriber
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    temporary_settings,
)

from prefect_mlpipe.errors import PrefectUnavailable
from prefect_mlpipe.reporting.api import ensure_api
from tests.deploy.serving import ended, eventually, flow_runs, serving
from tests.server import AUTH, Server, ask, guarded_server
from tests.test_readme import marked

JSON = {"content-type": "application/json"}

allowed = partial(ask, password=AUTH)
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

SCRIPT = """
from prefect import serve
from prefect_mlpipe import CompletionTrigger, DataChangeTrigger, File, pipeline, step

@step
def read(csv: File) -> list[str]:
    with open(csv) as file:
        return file.read().split()

@step
def fit(words: list[str], depth: int) -> dict[str, int]:
    return {word: depth for word in words}

@pipeline
def iris(csv: File = File("raw/first.csv"), depth: int = 3) -> dict[str, object]:
    words = read(csv)
    return {"depth": depth, "words": words, "model": fit(words, depth)}

@step
def count(model: dict[str, int]) -> int:
    return len(model)

@pipeline
def score(model: dict[str, int]) -> int:
    return count(model)

@pipeline
def tick() -> int:
    return 1

NEW_MODEL = CompletionTrigger(iris, takes={"model": "model"})

if __name__ == "__main__":
    serve(
        iris.to_deployment(
            "over-http",
            triggers=[DataChangeTrigger("raw", every=1, settle=0.5, per="file", parameter="csv")],
        ),
        score.to_deployment("new-model", triggers=[NEW_MODEL]),
        tick.to_deployment("by-cron", cron="* * * * *"),
        tick.to_deployment("by-interval", interval=30),
    )
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with basic auth, which this process and those that it starts can use."""
    with guarded_server(tmp_path_factory.mktemp("guarded")) as server:
        yield server


@pytest.fixture(scope="module")
def served(guarded: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a process that serves the script."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "raw").mkdir()
    (folder / "raw" / "first.csv").write_text("a b c")
    with serving(folder, SCRIPT):
        eventually(lambda: (folder / "store" / "watches").exists(), bool, 60)
        yield folder


class Shell:
    """Runs the lines of the README, each as it stands there."""

    def __init__(self, server: Server) -> None:
        self.lines = [line for line in marked("test: curl").splitlines() if "curl" in line]
        self.known = {**os.environ, "API": server.api_url, "AUTH": AUTH}

    def run(self, number: int) -> Any:
        """Run a line, and give the JSON that it prints."""
        done = subprocess.run(
            ["bash", "-c", self.lines[number]], env=self.known, capture_output=True, check=True
        )
        return json.loads(done.stdout)


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    shutil.which("curl") is None and os.environ.get("MLPIPE_TESTS_REQUIRE_CURL") != "1",
    reason="needs curl",
)
def test_the_lines_of_the_readme_start_a_run_and_read_its_state_and_outputs(
    guarded: Server, served: Path
) -> None:
    shell = Shell(guarded)
    shell.known["DEPLOYMENT"] = shell.run(0)["id"]
    shell.known["RUN"] = shell.run(1)["id"]
    run = eventually(lambda: shell.run(2), lambda run: run["state_type"] in FINAL, 150)
    assert run["state_name"] == "Completed", (served / "serve.log").read_text()
    assert run["parameters"] == {"depth": 4}
    [page] = shell.run(3)
    outputs = {row["name"]: row for row in json.loads(page["data"])}
    assert outputs["depth"]["value"] == 4
    assert outputs["words"]["value"] == ["a", "b", "c"]
    assert outputs["model"]["value"] == {"a": 4, "b": 4, "c": 4}


@pytest.mark.timeout(600)
def test_a_file_starts_a_run_whose_model_starts_the_next_and_all_reports_arrive(
    guarded: Server, served: Path
) -> None:
    (served / "raw" / "second.csv").write_text("d e")

    def told() -> list[Any]:
        runs = flow_runs("iris/over-http")
        return [run for run in runs if "second" in run.parameters.get("csv", "")]

    [run] = eventually(told, ended, 150)
    assert ended([run]) == ["Completed"], (served / "serve.log").read_text()

    def scored() -> list[Any]:
        runs = flow_runs("score/new-model")
        return [run for run in runs if set(run.parameters["model"]) == {"d", "e"}]

    assert ended(eventually(scored, ended, 150)) == ["Completed"], (
        served / "serve.log"
    ).read_text()

    deployment = allowed(guarded, "GET", "/deployments/name/iris/over-http").json()["id"]
    body = {"parameters": {"csv": run.parameters["csv"]}}
    made = allowed(guarded, "POST", f"/deployments/{deployment}/create_flow_run", body)
    assert made.status_code == 201, made.text

    def states() -> dict[str, str]:
        asked = {"flow_runs": {"id": {"any_": [made.json()["id"]]}}}
        found = allowed(guarded, "POST", "/task_runs/filter", asked).json()
        return {run["name"]: run["state_name"] for run in found}

    reused = {"read": "Cached", "fit": "Cached"}
    assert eventually(states, reused.__eq__, 150) == reused


def test_what_cannot_be_run_is_refused_and_says_why(guarded: Server, served: Path) -> None:
    def by_name() -> httpx.Response:
        return allowed(guarded, "GET", "/deployments/name/iris/over-http")

    found = eventually(by_name, lambda answer: answer.status_code == 200, 60)
    path = f"/deployments/{found.json()['id']}/create_flow_run"
    for wrong, why in [
        ({"parameters": {"detph": 4}}, "detph"),
        ({"parameters": {"depth": "deep"}}, "depth"),
        ({"parameters": {"csv": 5}}, "csv"),
    ]:
        answer = allowed(guarded, "POST", path, wrong)
        assert answer.status_code == 409
        assert why in answer.json()["detail"]
    nowhere = "/deployments/00000000-0000-0000-0000-000000000000/create_flow_run"
    for missing in (
        allowed(guarded, "POST", nowhere, {}),
        allowed(guarded, "GET", "/deployments/name/iris/nosuch"),
    ):
        assert (missing.status_code, missing.json()["detail"]) == (404, "Deployment not found")
    for password in (None, "admin:guessed"):
        nobody = ask(guarded, "POST", path, {"parameters": {"depth": 4}}, password)
        assert (nobody.status_code, nobody.json()) == (401, {"exception_message": "Unauthorized"})


def test_without_the_password_nothing_can_be_read(guarded: Server) -> None:
    paths = httpx.get(f"{guarded.url}/openapi.json", timeout=60).json()["paths"]
    open_to_all = {"/health", "/ready"}
    assert len(paths) > 100
    with httpx.Client(base_url=guarded.api_url, headers=JSON, timeout=60) as client:
        for path, methods in paths.items():
            if path in open_to_all:
                continue
            some = re.sub(r"\{.*?\}", "00000000-0000-0000-0000-000000000000", path)
            for method in methods:
                for credentials in (None, ("admin", "guessed")):
                    answer = client.request(method, some, content=b"{}", auth=credentials)
                    assert answer.status_code == 401, (method, path)


@pytest.mark.parametrize("password", [None, "admin:guessed"])
def test_who_does_not_know_it_is_told_which_setting_it_stands_in(
    guarded: Server, password: str | None
) -> None:
    ensure_api()
    with (
        temporary_settings({PREFECT_API_AUTH_STRING: password}),
        pytest.raises(PrefectUnavailable, match="PREFECT_SERVER_API_AUTH_STRING"),
    ):
        ensure_api()


@pytest.mark.parametrize("password", [None, "admin:guessed"])
def test_nor_can_events(guarded: Server, password: str | None) -> None:
    async def listen() -> None:
        async with get_events_subscriber(reconnection_attempts=0):
            pytest.fail("somebody listens")

    with (
        temporary_settings({PREFECT_API_AUTH_STRING: password}),
        pytest.raises(Exception, match=r"401|Unable to authenticate"),
    ):
        asyncio.run(listen())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["by-cron", "by-interval"])
def test_schedules_fire(guarded: Server, served: Path, how: str) -> None:
    def over() -> list[Any]:
        return [run for run in flow_runs(f"tick/{how}") if ended([run])]

    found = eventually(over, bool, 120)
    assert {run.state_name for run in found} == {"Completed"}, (served / "serve.log").read_text()
    assert all(run.auto_scheduled for run in found)
