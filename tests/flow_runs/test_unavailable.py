"""Prefect's API that is not there, and one that lives as long as the process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.errors import PrefectUnavailable
from tests.flow_runs.conftest import Script
from tests.server import free_port


@step
def inc(x: int) -> int:
    return x + 1


@pipeline
def mine(x: int) -> int:
    return inc(x)


def test_an_api_that_does_not_answer_is_one_clear_error(store: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: nowhere}),
        pytest.raises(PrefectUnavailable, match="does not answer") as caught,
    ):
        mine.with_options(store=store)(1)
    assert nowhere in str(caught.value)
    assert mine.with_options(store=store).local(1) == 2


def test_a_temporary_server_is_started_and_said_so(script: Callable[..., Script]) -> None:
    running = script(
        """
        from prefect_mlpipe import pipeline, step

        @step
        def inc(x: int) -> int:
            return x + 1

        @pipeline
        def mine(x: int) -> int:
            return inc(inc(x))

        if __name__ == "__main__":
            print("value", mine(1), mine(1))
        """,
        PREFECT_SERVER_EPHEMERAL_ENABLED="true",
        PREFECT_API_URL="",
    )
    assert running.end(180) == 0, running.text
    assert "Waiting for a temporary Prefect server" in running.text
    assert "value 3 3" in running.text
    assert "could not be shown" not in running.text


def test_a_worker_that_imports_the_script_does_not_start_the_run_again(
    script: Callable[..., Script],
) -> None:
    running = script(
        """
        import multiprocessing
        from prefect_mlpipe import pipeline

        @pipeline
        def mine():
            return None

        if __name__ == "__main__":
            worker = multiprocessing.get_context("spawn").Process(target=print)
            worker.start()
            worker.join()
            print("the worker ended with", worker.exitcode)
        else:
            mine()
        """
    )
    assert running.end() == 0, running.text
    assert "the worker ended with 1" in running.text
    assert "Pipeline 'mine' is called while a worker process imports its script." in running.text
