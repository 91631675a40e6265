"""Against a real server: what starts when another pipeline has completed, and with what."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import pandas as pd
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow

from prefect_mlpipe import CompletionTrigger, File, Pipeline, pipeline, resolve, step
from prefect_mlpipe.deploy import completing, listing
from prefect_mlpipe.deploy.outputs import parts
from prefect_mlpipe.errors import PrefectUnavailable
from tests.deploy.serving import eventually, flow_runs
from tests.server import Server

Deploy = Callable[..., UUID]


@pytest.fixture(autouse=True)
def known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests is one process, which knows a new automation at once."""
    monkeypatch.setattr(listing, "KNOWN_S", 1.0)


class Prepared(NamedTuple):
    table: pd.DataFrame
    rows: int
    note: str


@step
def prepare(rows: int, note: str) -> Prepared:
    return Prepared(pd.DataFrame({"x": range(rows)}), rows, note)


@pipeline
def prep(rows: int = 1, note: str = "") -> Prepared:
    return prepare(rows, note)


@step
def add_up(features: pd.DataFrame) -> int:
    return int(features["x"].sum())


@pipeline
def score(features: pd.DataFrame, rows: int = 0) -> int:
    return add_up(features)


@pytest.fixture
def deploy(api: Server) -> Deploy:
    """Deploys a flow with triggers, to a pool without workers: its runs stay scheduled."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="unattended", type="process"), overwrite=True)

    def deploy_one(what: Flow[..., Any], *triggers: CompletionTrigger) -> UUID:
        made = what.to_deployment(
            f"after {uuid.uuid4()}", work_pool_name="unattended", triggers=list(triggers)
        )
        assert isinstance(made, RunnerDeployment)
        deployment_id = made.apply()
        assert isinstance(deployment_id, UUID)
        return deployment_id

    return deploy_one


def own(what: Pipeline[..., Any], folder: Path) -> Pipeline[..., Any]:
    """The pipeline with a store and a name of its own."""
    return what.with_options(store=str(folder / "store"), name=f"{what.name}-{uuid.uuid4()}")


def started(deployment: UUID, count: int) -> list[FlowRun]:
    """The runs of a deployment, oldest first, as soon as there are so many."""
    found = eventually(lambda: flow_runs(deployment), lambda runs: len(runs) >= count)
    return sorted(found, key=lambda run: str(run.expected_start_time))


def test_a_run_starts_only_if_what_is_taken_has_changed_and_gets_it_by_reference(
    deploy: Deploy, tmp_path: Path
) -> None:
    first, second = own(prep, tmp_path), own(score, tmp_path)
    trigger = CompletionTrigger(first, takes={"table": "features", "rows": "rows"})
    deployment = deploy(second, trigger)

    first(rows=3)
    first(rows=3)  # all reused
    first(rows=3, note="another")  # made anew, and what is taken is the same
    [run] = started(deployment, 1)
    assert run.parameters["rows"] == 3
    assert run.parameters["features"]["$mlpipe"] == "pandas.DataFrame"
    assert second(**run.parameters) == 0 + 1 + 2

    first(rows=4)
    first(rows=3)
    runs = started(deployment, 3)
    assert [run.parameters["rows"] for run in runs] == [3, 4, 3]


def test_what_counts_as_changed(deploy: Deploy, tmp_path: Path) -> None:
    first, plain = own(prep, tmp_path), tick.with_options(name=f"tick-{uuid.uuid4()}")
    not_passed = deploy(nothing, CompletionTrigger(first.name, takes={"rows": None}))
    anything = deploy(nothing, CompletionTrigger(first))
    always = CompletionTrigger(first, takes={"rows": None}, only_if_changed=False)
    each_time = deploy(nothing, always)
    by_name = deploy(nothing, CompletionTrigger(first.name))
    of_a_flow = deploy(nothing, CompletionTrigger(plain))

    first(rows=1)
    first(rows=1)
    first(rows=1, note="another")
    for _ in range(2):
        plain()
    assert len(started(by_name, 3)) == 3
    assert len(started(each_time, 3)) == 3
    assert len(started(of_a_flow, 2)) == 2
    assert len(started(anything, 2)) == 2
    assert [run.parameters for run in started(not_passed, 1)] == [{}]


def test_a_failed_run_and_one_of_some_targets_start_nothing(deploy: Deploy, tmp_path: Path) -> None:
    @step
    def divide(by: int) -> float:
        return 1 / by

    @pipeline
    def halve(by: int) -> float:
        return divide(by)

    first = own(halve, tmp_path)
    deployment = deploy(nothing, CompletionTrigger(first, takes={"result": None}))
    with pytest.raises(ZeroDivisionError):
        first(0)
    first.with_options(targets=["divide"])(1)
    assert flow_runs(deployment) == []
    first(2)
    assert len(started(deployment, 1)) == 1


def test_a_run_that_is_killed_before_or_after_it_told_is_told_of_once_by_its_rerun(
    deploy: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own(prep, tmp_path)
    deployment = deploy(nothing, CompletionTrigger(first))

    class Killed(BaseException):
        """Ends a run where nothing catches it."""

    def killed(*_: object) -> None:
        raise Killed

    tell = completing._announce

    def killed_after(*given: Any) -> None:
        tell(*given)
        raise Killed

    for dying in (killed, killed_after):
        monkeypatch.setattr(completing, "_announce", dying)
        with pytest.raises(Killed):
            first()
    monkeypatch.setattr(completing, "_announce", tell)
    first()
    first()
    assert len(started(deployment, 1)) == 1


def test_an_api_that_cannot_be_told_fails_the_run_and_its_rerun_tells(
    deploy: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own(prep, tmp_path)
    deployment = deploy(nothing, CompletionTrigger(first))
    monkeypatch.setattr(completing, "PATIENCE_S", 0.1)
    monkeypatch.setattr(completing, "PAUSE_S", 0.2)

    def deaf(*_: object) -> None:
        raise httpx.ConnectError("nobody listens")

    with monkeypatch.context() as patched:
        patched.setattr(completing, "put_on_record", deaf)
        with pytest.raises(PrefectUnavailable, match="Run it again"):
            first()
    assert flow_runs(deployment) == []
    first()
    assert len(started(deployment, 1)) == 1


def test_what_is_not_returned_is_said_in_the_log_and_the_run_is_well(
    deploy: Deploy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = own(prep, tmp_path)
    deploy(nothing, CompletionTrigger(first.name, takes={"tabel": None}))
    first()
    assert "'tabel', which this pipeline does not return" in caplog.text
    assert "returns: result, table, rows, note" in caplog.text


def test_dicts_and_files_and_lists_are_taken_too(deploy: Deploy, tmp_path: Path) -> None:
    @step
    def write(text: str) -> File:
        path = tmp_path / "made.txt"
        path.write_text(text)
        return File(path)

    @step
    def count(number: int) -> list[int]:
        return list(range(number))

    @pipeline
    def make(text: str) -> dict[str, Any]:
        return {"file": write(text), "numbers": count(50_000), "long": resolve(count(3))}

    @step
    def read(file: File, numbers: list[int]) -> str:
        return f"{file.name} {Path(file).read_text()} {len(numbers)}"

    @pipeline
    def show(file: File, numbers: list[int], long: list[int]) -> str:
        return read(file, numbers)

    first, second = own(make, tmp_path), own(show, tmp_path)
    takes = {"file": "file", "numbers": "numbers", "long": "long"}
    deployment = deploy(second, CompletionTrigger(first, takes=takes))
    first("hello")
    [run] = started(deployment, 1)
    assert run.parameters["long"] == [0, 1, 2]
    assert second(**run.parameters) == "made.txt hello 50000"


def test_parts_have_the_names_of_fields_keys_and_places() -> None:
    assert parts(5) == {"result": 5}
    assert parts({"a": 1, 2: 3}) == {"result": {"a": 1, 2: 3}, "a": 1}
    assert parts((1, 2)) == {"result": (1, 2), "0": 1, "1": 2}
    assert parts({"result": 1}) == {"result": 1}


@flow
def nothing() -> None:
    """Its runs stay scheduled here."""


@flow
def tick() -> int:
    """Returns the same each time."""
    return 1
