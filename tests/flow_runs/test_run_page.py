"""What a person sees of a pipeline's run in the Prefect UI."""

from __future__ import annotations

import time

import pytest
from prefect import get_run_logger

from prefect_mlpipe import pipeline, step
from tests.browser import COMPLETED, Browser
from tests.flow_runs.conftest import Seen


@pytest.mark.browser
def test_the_page_shows_what_ran_what_was_reused_why_and_what_the_steps_logged(
    seen: Seen, store: str, browser: Browser
) -> None:
    @step
    def load(rows: int) -> list[int]:
        return list(range(rows))

    @step
    def train(table: list[int], rate: int) -> int:
        get_run_logger().info("fitting with rate %s", rate)
        time.sleep(0.4)  # the graph is drawn over the time of the run
        return sum(table) * rate

    @step
    def evaluate(model: int) -> float:
        time.sleep(0.4)
        return 1 / model

    @pipeline(name="page-of-a-run", store=store)
    def page_of_a_run(rate: int = 1) -> float:
        return evaluate(train(load(10), rate))

    page_of_a_run()
    page_of_a_run(rate=2)
    states = seen.states("page-of-a-run", 3)
    assert states == {"load": "Cached", "train": "Completed", "evaluate": "Completed"}

    page = browser.run_page(
        f"{seen.api.server.url}/runs/flow-run/{seen.flow_run('page-of-a-run')['id']}",
        {"Logs": "evaluate: ran", "Task Runs": "evaluate", "Artifacts": "mlpipe-page-of-a-run"},
    )
    assert "3 Task runs" in page.head
    assert len(page.nodes(COMPLETED)) == 3
    assert page.arrows(COMPLETED) == 2
    assert "Cached" in page.tabs["Task Runs"]
    assert "fitting with rate 2" in page.tabs["Logs"]
    assert "train: ran (parameter 'rate' changed: 1 → 2)" in page.tabs["Logs"]
