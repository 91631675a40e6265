from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_mlpipe.reporting import events, posting, task_runs
from prefect_mlpipe.reporting.task_runs import BulkReporter, TaskRunReport, task_run_ids
from tests.reporting.conftest import VISIBLE_S, Api, eventually
from tests.reporting.fake_api import Answer, FakeApi
from tests.server import free_port

NOW = datetime.now(UTC)
BOTH_WAYS = pytest.mark.parametrize("native", [False, True], ids=["bulk", "native"])


def reports(count: int, state: str = "Cached") -> list[TaskRunReport]:
    """A chain of steps."""
    ids = task_run_ids(count)
    return [
        TaskRunReport(
            id=ids[i],
            name=f"step-{i}",
            task_key=f"module.step_{i}",
            dynamic_key="0",
            state=state,
            message=f"message {i}",
            parents=tuple(ids[i - 1 : i]),
            start=NOW,
            end=NOW + timedelta(seconds=1),
            tags=("mlpipe",),
        )
        for i in range(count)
    ]


def posted(api: FakeApi) -> list[dict[str, Any]]:
    return [event for batch in api.bodies("/events") for event in batch]


@pytest.fixture(autouse=True)
def _nothing_known_of_any_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "_accepts_bulk", {})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers and short waits."""
    for name, value in {
        "BATCH": 5,
        "MAX_UNRECORDED": 10,
        "GATHER_S": 0.01,
        "POLL_S": 0.01,
        "FORGOTTEN_S": 0.1,
        "UNKNOWN_S": 1.0,
        "BACK_OFF_S": (0.01, 0.02),
    }.items():
        module = posting if hasattr(posting, name) else task_runs
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What the reporter warns of outside a flow run."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("prefect.mlpipe")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


# --- against a real server


@BOTH_WAYS
def test_reused_steps_are_shown_as_cached_with_message_and_edges(
    prefect_api: Api, native: bool
) -> None:
    flow_run = prefect_api.new_flow_run()
    chain = reports(4)
    with BulkReporter(flow_run, native=native) as reporter:
        for report in chain:
            reporter.report(report)
        assert reporter.flush(VISIBLE_S)
    shown = eventually(lambda: prefect_api.task_runs(flow_run), lambda s: len(s) == 4, VISIBLE_S)
    for i, report in enumerate(chain):
        task_run = shown[report.name]
        assert task_run["id"] == str(report.id)
        assert (task_run["state_type"], task_run["state_name"]) == ("COMPLETED", "Cached")
        assert task_run["state"]["message"] == f"message {i}"
        assert task_run["tags"] == ["mlpipe"]
    assert prefect_api.edges(flow_run) == {
        ("step-0", "step-1"),
        ("step-1", "step-2"),
        ("step-2", "step-3"),
    }


@BOTH_WAYS
def test_every_state_is_shown_by_its_name_and_type(prefect_api: Api, native: bool) -> None:
    flow_run = prefect_api.new_flow_run()
    expected = {name: kind.value for name, kind in events.STATE_TYPES.items()}
    with BulkReporter(flow_run, native=native) as reporter:
        for i, state in enumerate(expected):
            id = task_run_ids(1)[0]
            reporter.report(TaskRunReport(id, state, f"k{i}", "0", state, "", (), NOW, NOW))
    shown = eventually(
        lambda: prefect_api.task_runs(flow_run), lambda s: len(s) == len(expected), VISIBLE_S
    )
    assert {run["state_name"]: run["state_type"] for run in shown.values()} == expected


def test_times_are_those_of_the_step(prefect_api: Api) -> None:
    flow_run = prefect_api.new_flow_run()
    with BulkReporter(flow_run) as reporter:
        reporter.report(reports(1)[0])
    shown = eventually(lambda: prefect_api.task_runs(flow_run), len, VISIBLE_S)["step-0"]
    assert datetime.fromisoformat(shown["start_time"]) == NOW
    assert datetime.fromisoformat(shown["end_time"]) == NOW + timedelta(seconds=1)
    assert shown["total_run_time"] == 1.0


def test_a_thousand_reports_are_all_visible(prefect_api: Api) -> None:
    flow_run = prefect_api.new_flow_run()
    with BulkReporter(flow_run) as reporter:
        for report in reports(1000):
            reporter.report(report)
        assert reporter.flush(VISIBLE_S)
    count = eventually(lambda: prefect_api.count(flow_run), lambda n: n == 1000, VISIBLE_S)
    assert count == 1000


@BOTH_WAYS
def test_a_run_moves_on_when_it_is_reported_again(prefect_api: Api, native: bool) -> None:
    flow_run = prefect_api.new_flow_run()
    begun = replace(reports(1, "Running")[0], end=NOW)
    with BulkReporter(flow_run, native=native) as reporter:
        reporter.report(begun)
        assert reporter.flush(VISIBLE_S)
        reporter.report(replace(begun, state="Completed", end=NOW + timedelta(seconds=3)))
    shown = eventually(
        lambda: (
            prefect_api.task_runs(flow_run)["step-0"]["state_name"]
            if prefect_api.count(flow_run)
            else None
        ),
        lambda name: name == "Completed",
        VISIBLE_S,
    )
    assert shown == "Completed"


@BOTH_WAYS
def test_a_run_left_running_is_closed_and_keeps_its_edges(prefect_api: Api, native: bool) -> None:
    flow_run = prefect_api.new_flow_run()
    first, second = reports(2, "Running")
    with BulkReporter(flow_run, native=native) as reporter:
        reporter.report(replace(first, state="Completed"))
        reporter.report(second)
        assert reporter.flush(VISIBLE_S)
        reporter.report_existing(second.id, "Crashed", "the worker died")
        assert reporter.flush(VISIBLE_S)
    shown = eventually(
        lambda: prefect_api.task_runs(flow_run),
        lambda s: s.get("step-1", {}).get("state_name") == "Crashed",
        VISIBLE_S,
    )
    assert shown["step-1"]["state_type"] == "CRASHED"
    assert shown["step-1"]["state"]["message"] == "the worker died"
    assert shown["step-1"]["end_time"] is not None
    assert prefect_api.edges(flow_run) == {("step-0", "step-1")}


@BOTH_WAYS
def test_a_run_that_has_ended_is_not_closed_again(prefect_api: Api, native: bool) -> None:
    flow_run = prefect_api.new_flow_run()
    done = reports(1, "Completed")[0]
    with BulkReporter(flow_run, native=native) as reporter:
        reporter.report(done)
        assert reporter.flush(VISIBLE_S)
        reporter.report_existing(done.id, "Cancelled", "too late")
        assert reporter.flush(VISIBLE_S)
    eventually(lambda: prefect_api.count(flow_run), lambda n: n == 1, VISIBLE_S)
    assert prefect_api.task_runs(flow_run)["step-0"]["state_name"] == "Completed"


def test_what_could_not_be_shown_is_said_in_the_log_of_the_flow_run(prefect_api: Api) -> None:
    @flow
    def night() -> UUID:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        with BulkReporter(uuid4(), native=True) as reporter:  # no such flow run
            reporter.report(reports(1)[0])
        return context.flow_run.id

    flow_run = night()
    logs = eventually(
        lambda: prefect_api.post(
            "/logs/filter", {"logs": {"flow_run_id": {"any_": [str(flow_run)]}}}
        ),
        lambda found: any("could not be shown" in log["message"] for log in found),
        VISIBLE_S,
    )
    warnings = [log["message"] for log in logs if log["level"] == logging.WARNING]
    assert len(warnings) == 1
    assert "1 of 1 task runs could not be shown" in warnings[0]


def test_the_server_is_found_to_take_events_in_bulk(prefect_api: Api) -> None:
    assert posting.accepts_bulk(prefect_api.client)


# --- against an API on a bad day


def takes_all(method: str, path: str, body: Any) -> Answer:
    return 204, None


def test_no_thread_and_no_request_before_the_first_report() -> None:
    with FakeApi(takes_all).running() as api:
        before = set(threading.enumerate())  # a slow reporter of another test may still be there
        with BulkReporter(uuid4()) as reporter:
            assert reporter.flush(0)
        started = {thread.name for thread in set(threading.enumerate()) - before}
    assert api.asked == []
    assert "mlpipe-task-runs" not in started


def test_reports_come_in_batches_and_in_order(quick: None) -> None:
    chain = reports(10)
    with FakeApi(takes_all).running() as api, BulkReporter(uuid4(), native=False) as reporter:
        for report in chain:
            reporter.report(report)
        assert reporter.flush(10)
    assert all(len(batch) <= 5 for batch in api.bodies("/events"))
    names = [event["resource"]["prefect.resource.name"] for event in posted(api)]
    assert names == [report.name for report in chain]


def test_of_two_reports_of_one_run_that_wait_the_last_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_runs, "GATHER_S", 60.0)
    running = reports(1, "Running")[0]
    with FakeApi(takes_all).running() as api, BulkReporter(uuid4(), native=False) as reporter:
        reporter.report(running)
        reporter.report(replace(running, state="Completed"))
        assert reporter.flush(10)
    assert [event["event"] for event in posted(api)] == ["prefect.task-run.Completed"]


def test_an_api_is_asked_once_whether_it_takes_events_in_bulk(quick: None) -> None:
    with FakeApi(takes_all).running() as api:
        for _ in range(2):
            with BulkReporter(uuid4()) as reporter:
                reporter.report(reports(1)[0])
    assert [len(batch) for batch in api.bodies("/events")] == [0, 1, 1]


@pytest.mark.parametrize("status", [404, 405, 422])
def test_an_api_without_bulk_events_gets_the_same_reports_one_by_one(
    quick: None, status: int
) -> None:
    def answer(method: str, path: str, body: Any) -> Answer:
        if path == "/events":
            return status, {"detail": "no"}
        state = {"type": body["state"]["type"], "name": body["state"]["name"]}
        return 201, {
            "id": body["id"],
            "task_key": body["task_key"],
            "dynamic_key": body["dynamic_key"],
            "state": state,
            "state_name": state["name"],
        }

    with FakeApi(answer).running() as api, BulkReporter(uuid4()) as reporter:
        for report in reports(3):
            reporter.report(report)
        assert reporter.flush(10)
    created = api.bodies("/task_runs/")
    assert [body["name"] for body in created] == ["step-0", "step-1", "step-2"]
    assert [body["state"]["name"] for body in created] == ["Cached"] * 3
    assert created[1]["task_inputs"]["inputs"][0]["id"] == created[0]["id"]


def test_an_api_that_is_busy_for_a_while_gets_the_very_same_events_later(
    quick: None, warnings: list[str]
) -> None:
    def answer(method: str, path: str, body: Any) -> Answer:
        return (500, None) if len(api.asked) < 3 else (204, None)

    api = FakeApi(answer)
    with api.running(), BulkReporter(uuid4(), native=False) as reporter:
        reporter.report(reports(1)[0])
        assert reporter.flush(10)
    assert len(api.asked) == 4
    assert len({event["id"] for event in posted(api)}) == 1
    assert warnings == []


def test_when_nothing_answers_it_ends_in_time_with_one_warning(
    quick: None, warnings: list[str]
) -> None:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        reporter = BulkReporter(uuid4())
        for report in reports(7):
            reporter.report(report)
        assert not reporter.flush(0.3)
        reporter.close(timeout_s=0.1)
    assert len(warnings) == 1
    assert "7 of 7 task runs could not be shown" in warnings[0]
    assert "the API did not answer" in warnings[0]


def test_a_refused_login_is_said_once_for_all(quick: None, warnings: list[str]) -> None:
    with FakeApi(lambda *_: (401, {"detail": "who?"})).running(), BulkReporter(uuid4()) as reporter:
        for report in reports(7):
            reporter.report(report)
        assert not reporter.flush(10)
    assert len(warnings) == 1
    assert "7 of 7" in warnings[0]
    assert "401" in warnings[0]


def test_a_server_that_does_not_keep_up_is_not_flooded(quick: None, warnings: list[str]) -> None:
    with FakeApi(Slow()).running() as api, BulkReporter(uuid4(), native=False) as reporter:
        for report in reports(40):
            reporter.report(report)
        assert reporter.flush(10)
    assert len({event["id"] for event in posted(api)}) == 40
    asked = [path for _, path, _ in api.asked]
    assert "/task_runs/count" not in asked[:2]  # ten may be under way unseen
    assert all("/task_runs/count" in asked[i : i + 2] for i in range(1, len(asked) - 2))
    assert warnings == []


class Slow:
    """An API that records one more task run each time that it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, method: str, path: str, body: Any) -> Answer:
        if path != "/task_runs/count":
            return 204, None
        self.asked += 1
        return 200, min(self.asked % 7, len(body["task_runs"]["id"]["any_"]))


def test_a_flow_run_ends_before_a_slow_server_has_it_all(
    quick: None, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setattr(task_runs, "PATIENCE_S", 0.05)
    with FakeApi(Slow()).running() as api:
        with BulkReporter(uuid4(), native=False) as reporter:
            first, *others = reports(60)
            reporter.report(first)
            assert reporter.flush(10)  # the API is known to work
            for report in others:
                reporter.report(report)
        assert len(posted(api)) < 60
        # What a busy machine takes for forgotten is posted once more.
        ids = eventually(lambda: {e["id"] for e in posted(api)}, lambda all: len(all) >= 60, 20)
        assert len(ids) == 60
        with pytest.raises(RuntimeError, match="closed"):
            reporter.report(reports(1)[0])
        assert reporter.flush(10)
    assert warnings == []


PROGRAM = """
from uuid import UUID
from prefect_mlpipe.reporting import events, posting, task_runs
from tests.reporting.test_task_runs import reports
posting.MAX_UNRECORDED, task_runs.BATCH, posting.POLL_S, task_runs.PATIENCE_S = 10, 5, 0.01, 0.05
with task_runs.BulkReporter(UUID(int=7), native=False) as reporter:
    first, *others = reports(60)
    reporter.report(first)
    assert reporter.flush(10)
    for report in others:
        reporter.report(report)
"""


def test_a_program_does_not_exit_before_a_slow_server_has_it_all() -> None:
    with FakeApi(Slow()).running() as api:
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            "PREFECT_API_URL": api.url,
            "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
            "PYTHONPATH": str(root),
        }
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, check=True, timeout=60, cwd=root
        )
    assert len(posted(api)) == 60


def test_a_batch_that_the_server_forgot_is_posted_again_and_then_counted_as_lost(
    quick: None, warnings: list[str]
) -> None:
    def answer(method: str, path: str, body: Any) -> Answer:
        if path == "/task_runs/count":
            ids = body["task_runs"]["id"]["any_"]
            return 200, 0 if str(chain[0].id) in ids else len(ids)
        return 204, None

    chain = reports(15)
    with FakeApi(answer).running() as api, BulkReporter(uuid4(), native=False) as reporter:
        for report in chain:
            reporter.report(report)
        assert not reporter.flush(10)
    batches = api.bodies("/events")
    assert batches.count(batches[0]) == 2
    assert len(batches) == 4
    assert len(warnings) == 1
    assert "5: the server took it and did not record it" in warnings[0]


def test_a_run_to_close_that_the_api_never_hears_of_is_waited_for_and_said(
    quick: None, warnings: list[str]
) -> None:
    api = FakeApi(lambda *_: (200, []))
    with api.running(), BulkReporter(uuid4(), native=False) as reporter:
        reporter.report_existing(uuid4(), "Crashed", "")
        assert not reporter.flush(10)
    assert len(api.bodies("/task_runs/filter")) > 1
    assert posted(api) == []
    assert "1: the API does not know the task run" in warnings[0]


def test_a_run_that_is_unknown_holds_up_no_other(quick: None) -> None:
    api = FakeApi(lambda *_: (200, []))
    with api.running(), BulkReporter(uuid4(), native=False) as reporter:
        reporter.report_existing(uuid4(), "Crashed", "")
        reporter.report(reports(1)[0])
        assert len(eventually(lambda: posted(api), len, 10)) == 1


def test_reports_from_many_threads_all_arrive(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "MAX_UNRECORDED", 10_000)
    with FakeApi(takes_all).running() as api, BulkReporter(uuid4(), native=False) as reporter:
        threads = [
            threading.Thread(target=lambda: list(map(reporter.report, reports(50))))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reporter.flush(20)
    assert len({event["id"] for event in posted(api)}) == 400


def test_a_state_that_does_not_exist_is_refused_at_once() -> None:
    with BulkReporter(uuid4()) as reporter:
        with pytest.raises(ValueError, match="No state 'Done'"):
            reporter.report(replace(reports(1)[0], state="Done"))
        with pytest.raises(ValueError, match="does not close"):
            reporter.report_existing(uuid4(), "Running", "")


def test_a_closed_reporter_takes_nothing_more() -> None:
    reporter = BulkReporter(uuid4())
    reporter.close()
    reporter.close()
    with pytest.raises(RuntimeError, match="closed"):
        reporter.report(reports(1)[0])
