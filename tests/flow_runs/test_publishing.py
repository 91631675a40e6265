"""Publishing a value in a flow run."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_mlpipe import pipeline, publish, step
from prefect_mlpipe.errors import InvalidStep, RunNotFound
from prefect_mlpipe.publishing import published
from tests.flow_runs.conftest import Seen
from tests.reporting.conftest import eventually


@step
def model(depth: int) -> dict[str, int]:
    return {"depth": depth}


@pipeline
def trained(depth: int, name: str = "digits/model") -> dict[str, int]:
    made = model(depth)
    publish(made, name=name, alias="champion")
    return made


def test_a_published_value_is_read_back_by_name_alias_and_version(seen: Seen, store: str) -> None:
    mine = trained.with_options(store=store, name="publishes")
    mine(3)
    mine(3)
    assert seen.task_runs("publishes", 2)["publish"]["state_name"] == "Completed"
    assert published("digits/model", store=store) == {"depth": 3}
    mine(4)
    assert published("digits/model", "champion", store=store) == {"depth": 4}


def test_each_version_is_a_materialization_of_an_asset(seen: Seen, store: str) -> None:
    trained.with_options(store=store, name="materializes")(5, name="shown")
    run = seen.task_runs("materializes", 2)["publish"]
    query = {"filter": {"event": {"prefix": ["prefect.asset.materialization"]}}}

    def ours() -> list[dict[str, Any]]:
        events = seen.api.post("/events/filter", query)["events"]
        return [e for e in events if e["resource"]["prefect.resource.id"] == "mlpipe://shown"]

    (event,) = eventually(ours, bool, 30)
    assert event["payload"]["metadata"]["alias"] == "champion"
    assert f"prefect.task-run.{run['id']}" in [r["prefect.resource.id"] for r in event["related"]]


def test_a_name_that_cannot_be_used_is_refused(store: str) -> None:
    with pytest.raises(InvalidStep, match=r"no/\.\./way"):
        trained.with_options(store=store).local(1, name="no/../way")


def test_what_was_not_published_is_not_found(store: str) -> None:
    with pytest.raises(RunNotFound, match="nothing"):
        published("nothing", store=store)
