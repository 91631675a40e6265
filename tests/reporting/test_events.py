from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from prefect_mlpipe.reporting.events import (
    MAX_EDGES,
    MAX_TEXT,
    STATE_TYPES,
    Closing,
    TaskRunReport,
    closing_event,
    task_run_event,
    task_run_ids,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FLOW_RUN, PARENT = uuid.UUID(int=7), uuid.UUID(int=8)
REPORT = TaskRunReport(
    id=uuid.UUID("01a20616-3b96-7ffb-bfa2-0716d47c47cb"),
    name="train#2",
    task_key="models.train-abc",
    dynamic_key="1",
    state="Cached",
    message="reused from run 'x'",
    parents=(PARENT,),
    start=NOON,
    end=NOON + timedelta(seconds=2),
    tags=("gpu",),
)


def test_new_ids_are_uuids_of_version_7_that_differ_and_sort_by_time() -> None:
    ids = task_run_ids(1000)
    assert len(set(ids)) == 1000
    assert {(id.version, id.variant) for id in ids} == {(7, uuid.RFC_4122)}
    later = task_run_ids(1)[0]
    assert later.int >> 80 >= ids[0].int >> 80
    assert task_run_ids(0) == []


def test_an_event_says_all_that_the_server_makes_a_task_run_of() -> None:
    event = orjson.loads(orjson.dumps(task_run_event(REPORT, FLOW_RUN)))
    assert event["event"] == "prefect.task-run.Cached"
    assert event["occurred"] == "2026-11-22T12:00:02+00:00"
    assert event["resource"]["prefect.resource.id"] == f"prefect.task-run.{REPORT.id}"
    assert event["resource"]["prefect.orchestration"] == "client"
    assert event["related"][0]["prefect.resource.id"] == f"prefect.flow-run.{FLOW_RUN}"
    state = event["payload"]["validated_state"]
    assert (state["type"], state["name"]) == ("COMPLETED", "Cached")
    assert state["message"] == "reused from run 'x'"
    assert event["payload"]["task_run"] == {
        "name": "train#2",
        "task_key": "models.train-abc",
        "dynamic_key": "1",
        "run_count": 1,
        "flow_run_run_count": 1,
        "task_inputs": {"inputs": [{"input_type": "task_run", "id": str(PARENT)}]},
        "expected_start_time": "2026-11-22T12:00:00+00:00",
        "start_time": "2026-11-22T12:00:00+00:00",
        "end_time": "2026-11-22T12:00:02+00:00",
        "total_run_time": 2.0,
        "tags": ["gpu"],
    }


def test_a_report_made_twice_is_the_same_event_and_another_state_is_another() -> None:
    again = task_run_event(REPORT, FLOW_RUN)["id"]
    assert again == task_run_event(REPORT, FLOW_RUN)["id"]
    others = [
        replace(REPORT, state="Failed"),
        replace(REPORT, end=REPORT.end + timedelta(microseconds=1)),
        replace(REPORT, id=uuid.UUID(int=REPORT.id.int + 1)),
    ]
    assert len({again, *(task_run_event(other, FLOW_RUN)["id"] for other in others)}) == 4


@pytest.mark.parametrize("state", STATE_TYPES)
def test_only_what_is_under_way_has_no_end(state: str) -> None:
    task_run = task_run_event(replace(REPORT, state=state), FLOW_RUN)["payload"]["task_run"]
    assert (task_run["end_time"] is None) == (state in {"Pending", "Running"})
    assert (task_run["start_time"] is None) == (state in {"Pending", "NotReady"})
    assert task_run["expected_start_time"] == NOON


def test_texts_that_json_or_a_database_would_refuse_are_made_plain() -> None:
    odd = replace(REPORT, name="file\udcff", message="a\0b" + "x" * 10_000)
    event = task_run_event(odd, FLOW_RUN)
    orjson.dumps(event)
    assert event["payload"]["task_run"]["name"] == "file\\udcff"
    message = event["payload"]["validated_state"]["message"]
    assert message.startswith("a\\0bxx")
    assert len(message) <= MAX_TEXT + 1


def test_a_wide_fan_in_draws_a_bounded_number_of_edges() -> None:
    wide = replace(REPORT, parents=tuple(task_run_ids(5000)))
    inputs = task_run_event(wide, FLOW_RUN)["payload"]["task_run"]["task_inputs"]["inputs"]
    assert len(inputs) == MAX_EDGES


KNOWN = {
    "name": "train-0",
    "task_key": "k",
    "dynamic_key": "0",
    "run_count": 1,
    "flow_run_run_count": 1,
    "task_inputs": {"call": [{"input_type": "task_run", "id": str(PARENT)}]},
    "expected_start_time": "2026-11-22T12:00:00Z",
    "start_time": "2026-11-22T12:00:01Z",
    "created": "2026-11-22T12:00:00Z",
    "tags": [],
}


def test_closing_keeps_what_the_run_was_and_comes_after_its_last_state() -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)  # the clock of another machine
    known = {**KNOWN, "state": {"timestamp": ahead.isoformat()}}
    event = closing_event(Closing(REPORT.id, "Crashed", "worker died"), known, FLOW_RUN)
    assert event["occurred"] > ahead
    task_run = event["payload"]["task_run"]
    assert task_run["task_inputs"] == KNOWN["task_inputs"]
    assert task_run["start_time"] == KNOWN["start_time"]
    assert task_run["end_time"] == event["occurred"]
    assert task_run["total_run_time"] > 3600
    assert event["payload"]["validated_state"]["type"] == "CRASHED"


def test_a_run_that_never_started_can_be_closed() -> None:
    known = {**KNOWN, "start_time": None, "state": None}
    event = closing_event(Closing(REPORT.id, "Cancelled", ""), known, FLOW_RUN)
    assert "total_run_time" not in event["payload"]["task_run"]
    assert event["payload"]["task_run"]["start_time"] is None
