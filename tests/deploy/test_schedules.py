"""Against a real server: what a deployment says, as the API serves it."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, Literal
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval, RRule, Schedule
from pydantic import BaseModel, Field

from prefect_mlpipe import File, Folder, RunOptions, pipeline
from tests.reporting.conftest import Api, prefect_api

__all__ = ["prefect_api"]

PARIS = ZoneInfo("Europe/Paris")


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Tree(BaseModel):
    """A tree."""

    depth: int = Field(3, description="how deep")


@pipeline
def form(
    count: int,
    csv: File = File("data.csv"),
    folder: Folder | None = None,
    share: float = 0.5,
    day: dt.date = dt.date(2026, 1, 1),
    at: dt.datetime | None = None,
    wait: dt.timedelta = dt.timedelta(hours=1),
    kind: Literal["a", "b"] = "a",
    mood: Mood = Mood.GOOD,
    many: list[int] = [1, 2],  # noqa: B006
    tree: Tree = Tree(),  # noqa: B008
    run: RunOptions = RunOptions(),
) -> None:
    """Take parameters of many kinds.

    Args:
        count: how many
            there are.
        csv (File): where they stand.
        mood: how it is.
    """


def apply(**options: Any) -> UUID:
    deployment = form.to_deployment(f"form-{uuid4()}", parameters={"count": 1}, **options)
    assert isinstance(deployment, RunnerDeployment)
    deployment_id = deployment.apply()
    assert isinstance(deployment_id, UUID)
    return deployment_id


def test_the_form_has_types_defaults_choices_and_the_words_of_the_docstring(
    prefect_api: Api,
) -> None:
    served = prefect_api.get(f"/deployments/{apply()}")["parameter_openapi_schema"]
    fields, models = served["properties"], served["definitions"]
    assert served["required"] == ["count"]
    assert served["additionalProperties"] is False
    assert fields["count"]["type"] == "integer"
    assert fields["count"]["description"] == "how many\nthere are."
    assert fields["csv"]["description"] == "where they stand."
    assert (fields["csv"]["type"], fields["csv"]["format"]) == ("string", "file-path")
    assert fields["folder"]["anyOf"][0]["format"] == "directory-path"
    assert fields["day"]["format"] == "date"
    assert fields["at"]["anyOf"][0]["format"] == "date-time"
    assert (fields["wait"]["format"], fields["wait"]["default"]) == ("duration", "PT1H")
    assert fields["kind"]["enum"] == ["a", "b"]
    assert models["Mood"]["enum"] == ["good", "bad"]
    assert fields["mood"]["description"] == "how it is."
    assert fields["many"]["items"] == {"type": "integer"}
    assert fields["many"]["default"] == [1, 2]
    assert fields["tree"]["default"] == {"depth": 3}
    assert models["Tree"]["properties"]["depth"]["description"] == "how deep"
    options = models["RunOptions"]["properties"]
    assert options["failures"]["anyOf"][0]["enum"] == ["finish", "stop", "cancel"]
    assert all(option["description"] for option in options.values())
    assert [name for name, field in sorted(fields.items(), key=lambda f: f[1]["position"])] == [
        *form.parameters.properties
    ]


def test_parameters_tags_limits_and_what_happens_to_overlaps_pass_through(
    prefect_api: Api,
) -> None:
    cancel_new = ConcurrencyLimitStrategy.CANCEL_NEW
    limit = ConcurrencyLimitConfig(limit=1, collision_strategy=cancel_new)
    made = apply(tags=["nightly"], concurrency_limit=limit, paused=True, description="every night")
    served = prefect_api.get(f"/deployments/{made}")
    assert served["parameters"] == {"count": 1}
    assert served["tags"] == ["nightly"]
    assert served["description"] == "every night"
    assert served["paused"] is True
    assert served["global_concurrency_limit"]["limit"] == 1
    assert served["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


def winter(hour: int) -> dt.datetime:
    return dt.datetime(2030, 3, 1, hour, tzinfo=PARIS)


@pytest.mark.parametrize(
    ("schedule", "change", "fires"),
    [
        pytest.param(schedule, change, fires, id=f"{name} in {when}")
        for when, change, fires in [
            ("spring", "2030-03-29", ["29 02", "30 02", "31 01", "01 01", "02 01"]),
            ("autumn", "2030-10-25", ["25 01", "26 01", "27 02", "28 02", "29 02"]),
        ]
        for name, schedule in [
            ("cron", Cron("0 3 * * *", timezone="Europe/Paris")),
            ("rrule", RRule("DTSTART:20300301T030000\nFREQ=DAILY", timezone="Europe/Paris")),
            ("interval", Interval(dt.timedelta(days=1), winter(3), timezone="Europe/Paris")),
        ]
        # Prefect counts days from its anchor: one of the other half of the year is an hour off.
        if not (name == "interval" and when == "autumn")
    ],
)
def test_the_next_five_fire_times_keep_the_hour_across_a_change_of_summer_time(
    prefect_api: Api, schedule: Schedule, change: str, fires: list[str]
) -> None:
    made = apply(schedules=[schedule])
    start = dt.datetime.fromisoformat(f"{change}T00:00:00+00:00")
    window = {"start_time": start.isoformat(), "end_time": (start + dt.timedelta(9)).isoformat()}
    body = {**window, "min_runs": 5, "max_runs": 5}
    prefect_api.client.request("POST", f"/deployments/{made}/schedule", json=body)  # type: ignore[arg-type]
    asked = {
        "flow_runs": {
            "deployment_id": {"any_": [str(made)]},
            "expected_start_time": {"after_": window["start_time"]},
        },
        "sort": "EXPECTED_START_TIME_ASC",
    }
    found = prefect_api.post("/flow_runs/filter", asked)
    times = [dt.datetime.fromisoformat(run["expected_start_time"]) for run in found]
    assert [f"{time:%d %H}" for time in times[:5]] == fires
    assert {time.astimezone(PARIS).hour for time in times} == {3}
    assert {run["parameters"]["count"] for run in found} == {1}


def test_an_interval_without_a_time_of_day_keeps_its_distance(prefect_api: Api) -> None:
    made = apply(schedules=[Interval(dt.timedelta(hours=6), winter(3), timezone="UTC")])
    served = prefect_api.get(f"/deployments/{made}")["schedules"]
    assert [one["schedule"]["interval"] for one in served] == [6 * 3600]
