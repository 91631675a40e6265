"""Against a real server: who watches, and that each change starts its run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments.runner import RunnerDeployment

from prefect_mlpipe import DataChangeTrigger
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.watching import look_once, requested, stop_watching, watch_data
from tests.deploy.serving import ended, eventually, flow_runs, serving
from tests.server import Server

SCRIPT = """
from prefect import serve
from prefect_mlpipe import DataChangeTrigger, File, pipeline, step

@step
def read(csv: File) -> str:
    return open(csv).read()

@pipeline
def inbox(csv: File = File("none.csv")) -> str:
    return read(csv)

@pipeline
def burst(paths: list[str] | None = None) -> None:
    pass

TRIGGER = DataChangeTrigger("raw", every=0.5, settle=0.5, per="file", parameter="csv")
BURST = DataChangeTrigger("raw", every=0.5, settle=2, parameter="paths")

if __name__ == "__main__":
    if HOW == "serve":
        inbox.serve(HOW, triggers=[TRIGGER])
    else:
        serve(
            inbox.to_deployment(HOW, triggers=[TRIGGER]),
            burst.to_deployment(HOW, triggers=[BURST]),
            limit=1,
        )
"""


def served(how: str) -> str:
    return SCRIPT.replace("HOW", repr(how))


def told(runs: Sequence[FlowRun]) -> list[str]:
    """The files that they were started for."""
    return sorted(Path(run.parameters["csv"]).name for run in runs)


def watched(store: Path) -> list[Any]:
    folder = store / "watches"
    return list(folder.iterdir()) if folder.exists() else []


@pytest.mark.timeout(600)
def test_a_dropped_file_starts_one_run_a_touched_one_none_and_a_restart_repeats_none(
    api: Server, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "before.csv").write_text("was there before")

    with serving(tmp_path, served("serve")) as process:
        assert eventually(lambda: watched(tmp_path / "store"), len)
        (raw / "deep").mkdir()
        (raw / "deep" / "first.csv").write_text("first")
        [run] = eventually(lambda: flow_runs("inbox/serve"), ended)
        assert ended([run]) == ["Completed"], (tmp_path / "serve.log").read_text()
        assert run.parameters == {"csv": str(raw / "deep" / "first.csv")}
        os.utime(raw / "deep" / "first.csv")
        (raw / "before.csv").write_text("was there before")
        process.kill()

    (raw / "second.csv").write_text("dropped while nobody watched")
    with serving(tmp_path, served("serve")):
        runs = eventually(lambda: flow_runs("inbox/serve"), lambda runs: len(runs) > 1)
        assert told(runs) == ["first.csv", "second.csv"]

    with serving(tmp_path, served("serve")):
        (raw / "third.csv").write_text("dropped after another restart, which repeated nothing")
        runs = eventually(lambda: flow_runs("inbox/serve"), lambda runs: len(runs) > 2)
        assert told(runs) == ["first.csv", "second.csv", "third.csv"]


@pytest.mark.timeout(600)
def test_prefects_own_serve_watches_too_and_ten_files_in_a_burst_start_one_run(
    api: Server, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    with serving(tmp_path, served("prefect")):
        assert eventually(lambda: watched(tmp_path / "store"), lambda seen: len(seen) == 2)
        for number in range(10):
            (tmp_path / "raw" / f"{number}.csv").write_text(str(number))
        by_file = eventually(lambda: flow_runs("inbox/prefect"), lambda runs: len(runs) == 10)
        assert told(by_file) == [f"{number}.csv" for number in range(10)]
        [burst] = eventually(lambda: flow_runs("burst/prefect"), len)
        paths = [str(tmp_path / "raw" / f"{number}.csv") for number in range(10)]
        assert burst.parameters == {"paths": paths}


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    yield
    stop_watching(within_s=20)


@flow
def score(paths: list[str] | None = None) -> None:
    """Run by workers only: its runs stay scheduled here."""


def test_for_a_work_pool_somebody_else_watches_and_tells_a_burst_once(
    api: Server, tmp_path: Path, no_threads_left: None
) -> None:
    raw, store = tmp_path / "raw", Store(tmp_path / "store", cache_folder=str(tmp_path / "cache"))
    raw.mkdir()
    with get_client(sync_client=True) as client:
        client.request("POST", "/work_pools/", json={"name": "watched", "type": "process"})
    trigger = DataChangeTrigger(raw, settle=0, parameter="paths").for_pipeline(score, store)
    deployment = score.to_deployment("new-data", work_pool_name="watched", triggers=[trigger])
    assert isinstance(deployment, RunnerDeployment)
    deployment_id = deployment.apply()
    assert isinstance(deployment_id, UUID)

    [watch] = [watch for watch in requested() if watch.uri == str(raw)]
    assert watch_data(str(tmp_path / "store")) >= 1
    for number in range(10):
        (raw / f"{number}.csv").write_text(str(number))
    look_once([watch], store)
    [run] = eventually(lambda: flow_runs(deployment_id), len)
    assert run.parameters == {"paths": [str(raw / f"{number}.csv") for number in range(10)]}
    look_once([watch], store)
    assert len(flow_runs(deployment_id)) == 1
    store.stat_index.close()


def test_a_serving_process_is_left_to_watch_for_itself(
    api: Server, tmp_path: Path, no_threads_left: None
) -> None:
    deployment = score.to_deployment("served", triggers=[DataChangeTrigger(tmp_path / "served")])
    assert isinstance(deployment, RunnerDeployment)
    deployment.apply()
    assert not [watch for watch in requested() if watch.uri == str(tmp_path / "served")]
