"""Cancelled in Prefect, Ctrl-C, SIGTERM: a run ends in a clear state, and the next resumes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import runtime
from prefect.states import Cancelling

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import RunCancelled
from tests.flow_runs.conftest import Script, Seen

SCRIPT = """
    import os, sys, time
    from prefect_mlpipe import pipeline, step

    @step
    def quick(x: int) -> int:
        return x

    @step
    def slow(x: int) -> int:
        open("begun", "w").close()
        time.sleep(0 if os.path.exists("hurry") else 120)
        return x

    @step
    def last(x: int) -> int:
        return x + 1

    @pipeline(name="{name}")
    def mine() -> int:
        return last(slow(quick(1)))

    if __name__ == "__main__":
        print("value", mine())
"""


def stopped(
    name: str,
    script: Callable[..., Script],
    seen: Seen,
    folder: Path,
    stop: Callable[[Script], Any],
) -> tuple[Script, dict[str, str]]:
    """Run the script until a step runs, stop it, and see what became of its steps."""
    running = script(SCRIPT.format(name=name))
    seen.wait_for(lambda: (folder / "begun").exists() or running.over)
    assert not running.over, running.text
    stop(running)
    running.end()
    states = seen.states(name, 3)
    return running, states


def leaves_a_run_manifest_and_resumes(
    name: str, script: Callable[..., Script], seen: Seen, folder: Path, store: str, state: str
) -> None:
    document = Store(store).runs.last(name)
    assert document is not None
    assert document["state"] == state
    assert not list(Path(store).rglob("*.tmp*"))
    for record in Path(store).rglob("*.json"):
        json.loads(record.read_bytes())
    (folder / "hurry").touch()
    again = script(SCRIPT.format(name=name))
    assert again.end() == 0, again.text
    assert "value 2" in again.text
    states = seen.states(name, 3)
    assert states == {"quick": "Cached", "slow": "Completed", "last": "Completed"}


def test_cancelling_in_prefect_stops_the_run_of_a_plain_script(
    script: Callable[..., Script], seen: Seen, tmp_path: Path, store: str
) -> None:
    def cancel(running: Script) -> None:
        run_id = seen.flow_run("cancelled in Prefect")["id"]
        seen.api.client.set_flow_run_state(run_id, Cancelling())

    name = "cancelled in Prefect"
    running, states = stopped(name, script, seen, tmp_path, cancel)
    assert "RunCancelled" in running.text
    assert seen.flow_run(name)["state_name"] == "Cancelled"
    assert states == {"quick": "Completed", "slow": "Cancelled", "last": "Cancelled"}
    leaves_a_run_manifest_and_resumes(name, script, seen, tmp_path, store, "cancelled")


def test_a_process_that_is_ended_for_a_cancellation_leaves_a_cancelled_run(
    script: Callable[..., Script], seen: Seen, tmp_path: Path, store: str
) -> None:
    name = "cancelled by who serves it"

    def cancel(running: Script) -> None:
        seen.api.client.set_flow_run_state(seen.flow_run(name)["id"], Cancelling())
        running.signal(signal.SIGTERM)

    _, states = stopped(name, script, seen, tmp_path, cancel)
    assert states == {"quick": "Completed", "slow": "Cancelled", "last": "Cancelled"}
    leaves_a_run_manifest_and_resumes(name, script, seen, tmp_path, store, "cancelled")


@pytest.mark.parametrize(
    ("number", "state"),
    [(signal.SIGINT, "cancelled"), (signal.SIGTERM, "crashed")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_ends_the_process_and_leaves_nothing_running(
    script: Callable[..., Script],
    seen: Seen,
    tmp_path: Path,
    store: str,
    number: signal.Signals,
    state: str,
) -> None:
    name = f"ended by {number.name}"
    running, states = stopped(name, script, seen, tmp_path, lambda it: it.signal(number))
    assert running.process.returncode != 0
    assert seen.flow_run(name)["state_type"] in ("CRASHED", "CANCELLED")
    assert states.pop("quick") == "Completed"
    assert set(states) == {"slow", "last"}
    assert set(states.values()) <= {"Crashed", "Cancelled"}
    leaves_a_run_manifest_and_resumes(name, script, seen, tmp_path, store, state)


def test_the_process_ends_although_a_step_that_was_given_up_still_sleeps(
    script: Callable[..., Script], seen: Seen
) -> None:
    running = script("""
        import time
        from prefect_mlpipe import pipeline, step

        @step(timeout_seconds=0.5)
        def sleeps(x: int) -> int:
            time.sleep(600)
            return x

        @pipeline(name="asleep")
        def mine() -> int:
            return sleeps(1)

        if __name__ == "__main__":
            mine()
    """)
    assert running.end() == 1
    assert "StepTimedOut" in running.text
    assert seen.task_runs("asleep", 1)["sleeps"]["state_name"] == "TimedOut"


def test_cancelling_a_run_that_only_traces_its_body_stops_it_at_the_next_wait(
    seen: Seen, store: str
) -> None:
    @step
    def cancels(x: int) -> int:
        seen.api.client.set_flow_run_state(runtime.flow_run.id, Cancelling())
        return x

    @step
    def waits(x: int) -> int:
        time.sleep(30)
        return x

    @pipeline(name="cancels itself")
    def mine() -> list[int]:
        return [cancels.with_options(cache=False)(1), waits(2)]

    with pytest.raises(RunCancelled):
        mine.with_options(store=store)()
    state = mine.with_options(store=store)(return_state=True)
    assert state.is_cancelled()
