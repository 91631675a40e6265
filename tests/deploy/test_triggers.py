from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.deployments.runner import RunnerDeployment
from prefect.events import ResourceSpecification
from prefect.events.schemas.events import Resource
from pydantic import ValidationError

from prefect_mlpipe import DataChangeTrigger, File, Folder, pipeline
from prefect_mlpipe.deploy import watching
from prefect_mlpipe.deploy.watches import Watch
from prefect_mlpipe.errors import InvalidPipeline

DEPLOYMENT = UUID("00000000-0000-0000-0000-000000000001")


@pipeline
def digits(
    csv: File = File("a.csv"),
    files: list[File] | None = None,
    folder: Folder | None = None,
    depth: int | None = 3,
) -> None:
    """Takes paths in all the ways."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Watch, Any, UUID]]:
    """The watches that would have been started here."""
    found: list[tuple[Watch, Any, UUID]] = []
    monkeypatch.setattr(watching, "watch_here", lambda *given: found.append(given))
    return found


def deployed(trigger: DataChangeTrigger) -> Any:
    """The automation that Prefect would make."""
    trigger.set_deployment_id(DEPLOYMENT)
    return trigger.as_automation()


def parameters(trigger: DataChangeTrigger) -> Any:
    deployment = digits.to_deployment("new", triggers=[trigger])
    assert isinstance(deployment, RunnerDeployment)
    [bound] = deployment.triggers
    assert isinstance(bound, DataChangeTrigger)
    return bound.parameters


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"every": 1.5, "pattern": "*.csv", "recursive": False, "settle": 0, "per": "file"},
        {"on_delete": True, "pattern": "2026*", "store": "s3://ml/store"},
    ],
)
def test_labels_say_all_of_a_watch_and_match_themselves(options: dict[str, Any]) -> None:
    watch = Watch(name="raw", uri="s3://raw/digits/", **options)
    match = ResourceSpecification.model_validate(watch.labels())
    assert Watch.from_labels(dict(match.items())) == watch
    assert match.matches(Resource.model_validate(watch.labels()))
    other = watch.model_copy(update={"name": "other"})
    assert not match.matches(Resource.model_validate(other.labels()))


def test_events_carry_the_labels_as_somebody_has_spelled_them() -> None:
    asked = {
        "prefect.resource.id": "prefect-mlpipe.data.raw",
        "prefect-mlpipe.uri": "s3://raw/digits/",
        "prefect-mlpipe.every": "300",
        "prefect-mlpipe.recursive": "false",
    }
    match = ResourceSpecification.model_validate(asked)
    understood = Watch.from_labels(dict(match.items()))
    assert match.matches(Resource.model_validate(understood.labels()))


def test_labels_that_nobody_knows_are_refused() -> None:
    with pytest.raises(ValidationError, match="patern"):
        Watch.from_labels({"prefect-mlpipe.uri": "raw", "prefect-mlpipe.patern": "*.csv"})


def test_the_automation_waits_for_the_events_of_its_own_deployment(
    started: list[tuple[Watch, Any, UUID]],
) -> None:
    automation = deployed(DataChangeTrigger("s3://raw/digits/", name="new data"))
    [(watch, _, deployment_id)] = started
    assert deployment_id == DEPLOYMENT
    assert automation.name == "new data"
    assert automation.trigger.expect == {"prefect-mlpipe.data.changed"}
    assert automation.trigger.match.matches(Resource.model_validate(watch.labels()))
    assert automation.actions[0].deployment_id == DEPLOYMENT


def test_a_watch_keeps_its_name_when_it_only_looks_more_often(
    started: list[tuple[Watch, Any, UUID]],
) -> None:
    for trigger in (
        DataChangeTrigger("raw"),
        DataChangeTrigger("raw", every=5, settle=1, parameter="csv", name="x"),
        DataChangeTrigger("raw", pattern="*.csv"),
    ):
        deployed(trigger)
    names = [watch.name for watch, _, _ in started]
    assert names[0] == names[1] != names[2]


def test_two_deployments_watch_one_place_each_for_itself(
    started: list[tuple[Watch, Any, UUID]],
) -> None:
    for number in (1, 2):
        DataChangeTrigger("raw").set_deployment_id(UUID(int=number))
    assert len({watch.name for watch, _, _ in started}) == 2


def test_a_relative_path_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DataChangeTrigger("raw").uri == str(tmp_path / "raw")
    assert DataChangeTrigger(Path("raw")).uri == str(tmp_path / "raw")
    assert DataChangeTrigger("raw/").uri == f"{tmp_path}/raw/"
    assert DataChangeTrigger("file:///raw").uri == "/raw"
    assert DataChangeTrigger("s3://raw/digits/").uri == "s3://raw/digits/"


def test_times_may_be_timedeltas() -> None:
    trigger = DataChangeTrigger("raw", every=timedelta(minutes=5), settle=timedelta(seconds=1))
    assert (trigger.every, trigger.settle) == (300, 1)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"settle": -1}, {"per": "day"}, {"uri": ""}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataChangeTrigger(**{"uri": "raw", **wrong})


def test_a_file_gets_its_path_a_list_all_paths_and_a_folder_the_place() -> None:
    path = "{{ event.payload.path }}"
    assert parameters(DataChangeTrigger("raw", per="file", parameter="csv")) == {"csv": path}
    assert parameters(DataChangeTrigger("raw/", parameter="folder")) == {"folder": path}
    listed = parameters(DataChangeTrigger("raw/", parameter="files"))["files"]
    assert listed["__prefect_kind"] == "json"


def test_further_parameters_go_along() -> None:
    trigger = DataChangeTrigger("a.csv", parameter="csv", parameters={"depth": 3})
    assert parameters(trigger) == {"csv": "{{ event.payload.path }}", "depth": 3}


def test_a_burst_for_a_parameter_that_takes_one_file_is_refused_with_the_ways_out() -> None:
    with pytest.raises(InvalidPipeline, match=r"'csv'.*takes one file(.|\n)*per='file'"):
        parameters(DataChangeTrigger("raw/", parameter="csv"))


def test_an_unknown_parameter_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidPipeline, match=r"'cvs'(.|\n)*csv, files, folder, depth"):
        parameters(DataChangeTrigger("raw/", parameter="cvs"))


def test_a_parameter_that_takes_no_path_is_refused() -> None:
    with pytest.raises(InvalidPipeline, match=r"'depth'.*takes no path(.|\n)*integer"):
        parameters(DataChangeTrigger("raw/", parameter="depth"))


def test_a_store_in_the_watched_folder_is_refused(tmp_path: Path) -> None:
    stored = digits.with_options(store=str(tmp_path / "data" / "store"))
    for folder in (tmp_path, tmp_path / "data", f"{tmp_path}/data/store/"):
        with pytest.raises(InvalidPipeline, match="lies in the folder that is watched"):
            stored.to_deployment("new", triggers=[DataChangeTrigger(folder)])
    stored.to_deployment("new", triggers=[DataChangeTrigger(tmp_path / "data" / "sto")])


def test_what_is_seen_is_kept_in_the_store_of_the_pipeline(
    tmp_path: Path, started: list[tuple[Watch, Any, UUID]]
) -> None:
    stored = digits.with_options(store=str(tmp_path))
    deployment = stored.to_deployment("new", triggers=[DataChangeTrigger("raw")])
    assert isinstance(deployment, RunnerDeployment)
    for trigger in deployment.triggers:
        trigger.set_deployment_id(DEPLOYMENT)
    [(watch, store, _)] = started
    assert watch.store == store.url == str(tmp_path)


def test_it_is_one_of_prefects_triggers_for_any_flow() -> None:
    @flow
    def plain(path: str = "") -> None: ...

    trigger = DataChangeTrigger("raw", parameter="path")
    deployment = plain.to_deployment("new", triggers=[trigger])
    assert isinstance(deployment, RunnerDeployment)
    assert deployment.triggers[0] is trigger
    assert pickle.loads(pickle.dumps(trigger)) == trigger
