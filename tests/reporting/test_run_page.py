"""What a person sees in Prefect's UI of a run whose steps we reported."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext

from prefect_mlpipe.reporting import artifacts
from prefect_mlpipe.reporting.artifacts import create_summary
from prefect_mlpipe.reporting.summary import StepRow
from prefect_mlpipe.reporting.task_runs import BulkReporter, TaskRunReport, task_run_ids
from tests.browser import COMPLETED, CRASHED, FAILED, Browser
from tests.reporting.conftest import VISIBLE_S, Api, eventually

ODD = "a|b <b>bold</b> _x_ `y`\n# no heading"
COLUMNS, ROWS = 5, 4


def flow_run_id() -> UUID:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run.id


def report_grid(reporter: BulkReporter) -> None:
    """Four rows of five steps; each but the first in a row has the one before as parent."""
    ids = task_run_ids(COLUMNS * ROWS)
    begin = datetime.now(UTC)
    for i, id in enumerate(ids):
        column, row = divmod(i, ROWS)
        state = {18: "Failed", 19: "Crashed", 17: "NotReady"}.get(i, "Cached")
        at = begin + timedelta(milliseconds=60 * column)
        reporter.report(
            TaskRunReport(
                id,
                f"step-{row}-{column}",
                f"module.step_{row}",
                str(column),
                state,
                "reused from red-fox",
                (ids[i - ROWS],) if column else (),
                at,
                at + timedelta(milliseconds=30),
            )
        )


@pytest.mark.browser
def test_the_page_of_a_run_shows_nodes_edges_states_log_and_summary(
    prefect_api: Api, browser: Browser
) -> None:
    @flow(name="digits")
    def digits() -> UUID:
        with BulkReporter(flow_run_id()) as reporter:
            report_grid(reporter)
        get_run_logger().info("step-0-0: reused (from red-fox)")
        create_summary([StepRow("train", "ran", ODD, 3.0, 1024)], "digits", "what ran, and why")
        time.sleep(0.4)  # the graph is drawn over the time of the run
        return flow_run_id()

    flow_run = digits()
    eventually(lambda: prefect_api.count(flow_run), lambda n: n == 20, VISIBLE_S)
    page = browser.run_page(
        f"{prefect_api.server.url}/runs/flow-run/{flow_run}",
        {"Logs": "(from red-fox)", "Task Runs": "step-0-0", "Artifacts": "what ran, and why"},
    )

    assert "20 Task runs" in page.head
    assert len(page.nodes(COMPLETED)) == 17
    assert page.arrows(COMPLETED) == 13
    assert (len(page.nodes(FAILED)), page.arrows(FAILED)) == (1, 1)
    assert (len(page.nodes(CRASHED)), page.arrows(CRASHED)) == (1, 1)
    assert "Cached" in page.tabs["Task Runs"].split("step-", 1)[1]
    assert "step-0-0: reused (from red-fox)" in page.tabs["Logs"]
    assert "what ran, and why" in page.tabs["Artifacts"]


@pytest.mark.browser
def test_odd_texts_are_read_on_the_page_as_they_are(prefect_api: Api, browser: Browser) -> None:
    @flow(name="digits")
    def digits() -> UUID | None:
        return create_summary([StepRow("train", "ran", ODD)], "digits *one*")

    with browser.open(f"{prefect_api.server.url}/artifacts/artifact/{digits()}") as page:
        page.wait_for("train")
        assert "a|b <b>bold</b> _x_ `y` # no heading" in page.text
        assert "digits *one*" in page.text
        assert page.run("[...document.querySelectorAll('table td')].length") >= 6


def test_a_summary_is_kept_as_an_artifact_of_the_flow_run(prefect_api: Api) -> None:
    @flow(name="digits")
    def digits() -> UUID:
        create_summary([StepRow("load", "reused")], "digits", "a night's run", key="digits-summary")
        return flow_run_id()

    found = prefect_api.post(
        "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [str(digits())]}}}
    )
    assert [artifact["key"] for artifact in found] == ["digits-summary"]
    assert found[0]["type"] == "markdown"
    assert found[0]["description"] == "a night's run"
    assert "| load | reused |" in found[0]["data"]


async def _in_a_running_loop(prefect_api: Api) -> UUID:
    @flow(name="digits")
    def digits() -> UUID | None:
        return create_summary([StepRow("load", "reused")], "digits")

    id = digits()
    assert id is not None
    return id


def test_a_summary_is_made_inside_a_running_event_loop_too(prefect_api: Api) -> None:
    import asyncio

    id = asyncio.run(_in_a_running_loop(prefect_api))
    assert prefect_api.get(f"/artifacts/{id}")["type"] == "markdown"


def test_a_summary_that_is_refused_costs_a_warning_and_not_the_run(
    prefect_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SyncPrefectClient, artifact: object) -> None:
        raise httpx.ReadTimeout("no answer")

    monkeypatch.setattr(SyncPrefectClient, "create_artifact", refuse)

    @flow(name="digits")
    def digits() -> tuple[UUID | None, UUID]:
        return create_summary([], "digits"), flow_run_id()

    artifact, flow_run = digits()
    assert artifact is None
    logs = eventually(
        lambda: prefect_api.post(
            "/logs/filter", {"logs": {"flow_run_id": {"any_": [str(flow_run)]}}}
        ),
        lambda found: any("summary could not be shown" in log["message"] for log in found),
        VISIBLE_S,
    )
    assert [log["level"] for log in logs if "summary could not" in log["message"]] == [30]


def test_a_summary_outside_a_flow_run_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="belongs to a flow run"):
        artifacts.create_summary([], "digits")
