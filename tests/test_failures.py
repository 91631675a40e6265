"""Failures: what goes on, what is stopped, what is raised, and that a rerun resumes."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import pytest

from prefect_mlpipe import current, log_metrics, output_folder, pipeline, resolve, step
from prefect_mlpipe.errors import MlpipeError, StepFailed, StepTimedOut
from tests.project import Project, ran


@step
def one() -> int:
    ran("one")
    return 1


@step
def broken(x: int = 0) -> int:
    ran("broken")
    log_metrics(tried=x)
    raise ValueError(f"broken {x}")


@step
def add(a: int, b: int = 1) -> int:
    ran("add")
    return a + b


@step
def slow(seconds: float, after: int = 0) -> float:
    ran("slow")
    time.sleep(seconds)
    ran("slept")
    return seconds


def states(pipeline: Any) -> dict[str, str]:
    return {step.name: step.state for step in pipeline.runs.last()}


def test_what_does_not_depend_on_the_failed_step_still_runs(project: Project) -> None:
    @pipeline
    def p() -> Any:
        x = add(broken())
        return x, add(add(one()), 5)

    owned = project.own(p)
    with pytest.raises(ValueError, match="broken 0"):
        owned.local()
    assert project.ran() == ["add", "add", "broken", "one"]
    assert states(owned) == {
        "broken": "failed",
        "add": "skipped",
        "one": "ran",
        "add#2": "ran",
        "add#3": "ran",
    }
    assert owned.runs.last().state == "failed"


def test_a_rerun_resumes(project: Project) -> None:
    def built(fixed: bool) -> Any:
        @step
        def middle(x: int) -> int:
            ran("middle")
            if not fixed:
                raise ValueError("not yet")
            return x

        @pipeline
        def p() -> int:
            return add(middle(one()))

        return project.own(p)

    with pytest.raises(ValueError, match="not yet"):
        built(False).local()
    assert project.ran() == ["middle", "one"]
    assert built(True).local() == 2
    assert project.ran() == ["add", "middle"]


def test_a_failed_step_leaves_no_record_but_its_error_logs_and_metrics(project: Project) -> None:
    @pipeline
    def p() -> int:
        return broken(3)

    owned = project.own(p)
    with pytest.raises(ValueError, match="broken 3"):
        owned.local()
    result = owned.runs.last()["broken"]
    assert result.error is not None
    assert "Traceback" in result.error
    assert result.error.endswith("ValueError: broken 3")
    assert result.metrics == {"tried": 3}
    assert result.key is None
    with pytest.raises(MlpipeError, match=r"'broken' left no output: failed"):
        result.output.load()
    with pytest.raises(ValueError, match="broken 3"):
        owned.local()
    assert project.ran() == ["broken", "broken"]


def test_the_own_exception_is_raised_with_its_traceback(project: Project) -> None:
    @pipeline
    def p() -> int:
        return broken()

    with pytest.raises(ValueError, match="broken 0") as raised:
        project.own(p).local()
    assert raised.traceback[-1].name == "broken"


def test_several_come_in_an_exception_group(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return broken(1), broken(2)

    with pytest.raises(ExceptionGroup, match="2 steps of pipeline 'p' failed") as raised:
        project.own(p).local()
    assert {str(error) for error in raised.value.exceptions} == {"broken 1", "broken 2"}


def test_a_failure_at_resolve_comes_together_with_the_others(project: Project) -> None:
    @pipeline
    def p() -> Any:
        broken(2)
        resolve(broken(1))

    with pytest.raises(ExceptionGroup) as raised:
        project.own(p).local()
    assert {str(error) for error in raised.value.exceptions} == {"broken 1", "broken 2"}


def test_after_a_failure_at_resolve_the_rest_still_runs(project: Project) -> None:
    @pipeline
    def p() -> Any:
        x = broken()
        y = one()
        resolve(x)
        return y

    owned = project.own(p)
    with pytest.raises(ValueError, match="broken"):
        owned.local()
    assert states(owned) == {"broken": "failed", "one": "ran"}


def test_returning_what_hangs_on_a_failure_that_was_caught_raises_it(project: Project) -> None:
    @pipeline
    def p() -> Any:
        x = broken()
        try:
            resolve(x)
        except ValueError:
            return add(x)

    with pytest.raises(ValueError, match="broken"):
        project.own(p).local()


def test_two_nodes_of_one_key_fail_together(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return broken(), broken()

    owned = project.own(p)
    with pytest.raises(ValueError, match="broken"):
        owned.local()
    assert project.ran() == ["broken"]
    assert states(owned) == {"broken": "failed", "broken#2": "failed"}


def test_stop_starts_nothing_new_and_lets_run_what_runs(project: Project) -> None:
    failed = threading.Event()

    @step(cache=False)
    def fails() -> int:
        failed.set()
        raise ValueError("stop here")

    @step(cache=False)
    def running() -> int:
        assert failed.wait(20)
        time.sleep(0.2)
        ran("finished")
        return 1

    @pipeline
    def p() -> Any:
        x, y = running(), fails()
        return add(x), y

    owned = project.own(p, failures="stop")
    with pytest.raises(ValueError, match="stop here"):
        owned.local()
    assert project.ran() == ["finished"]
    assert states(owned) == {"running": "ran", "fails": "failed", "add": "cancelled"}
    assert owned.runs.last().state == "failed"


def test_stop_does_not_wait_for_the_other_items_of_a_map(project: Project) -> None:
    @step(cache=False)
    def fails(x: int) -> int:
        ran("fails")
        raise ValueError("stop here")

    @pipeline
    def p() -> Any:
        return fails.map([*range(200)]), one()

    owned = project.own(p, failures="stop", compute={"default": threads(1)})
    with pytest.raises((ValueError, ExceptionGroup)):
        owned.local()
    assert owned.runs.last()["one"].state in ("cancelled", "ran")


def threads(count: int) -> Any:
    from prefect_mlpipe.compute import Threads

    return Threads(max_workers=count)


def test_cancel_gives_up_what_runs_and_drops_its_result(project: Project) -> None:
    go, began, done = threading.Event(), threading.Event(), threading.Event()

    @step
    def hangs() -> int:
        began.set()
        go.wait(20)
        done.set()
        return 1

    hanging = hangs.with_options(ignore=[f"{__name__}.go"])

    @step(cache=False)
    def fails() -> int:
        assert began.wait(20)
        raise ValueError("cancel all")

    @pipeline
    def p() -> Any:
        return hanging.with_options(cache=False)(), fails()

    owned = project.own(p, failures="cancel")
    with pytest.raises(ValueError, match="cancel all"):
        owned.local()
    run = owned.runs.last()
    assert states(owned) == {"hangs": "cancelled", "fails": "failed"}
    assert "dropped" in (run["hangs"].error or "")
    assert run.state == "failed"
    go.set()
    assert done.wait(20)


def test_what_was_given_up_writes_no_record(project: Project) -> None:
    @step(timeout_seconds=0.1)
    def late(x: int) -> int:
        time.sleep(1.2)
        ran("late")
        return x

    @pipeline
    def p() -> int:
        return late(1)

    owned = project.own(p)
    for _ in range(2):
        with pytest.raises(StepTimedOut):
            owned.local()
        wait_for(project, ["late"])
    time.sleep(0.1)
    with pytest.raises(StepTimedOut):
        owned.local()
    wait_for(project, ["late"])


def wait_for(project: Project, names: list[str]) -> None:
    found: list[str] = []
    end = time.monotonic() + 20
    while found != names and time.monotonic() < end:
        time.sleep(0.02)
        found += project.ran()
    assert found == names


def test_a_timeout_is_reported_while_others_come_and_go(project: Project) -> None:
    @step(timeout_seconds=0.1, cache=False)
    def stuck() -> int:
        time.sleep(3)
        return 1

    @step(cache=False)
    def tick(x: int) -> int:
        time.sleep(0.05)
        return x + 1

    @pipeline
    def p() -> Any:
        stuck()
        x = 0
        for _ in range(30):
            x = tick(x)
        return x

    owned = project.own(p)
    with pytest.raises(StepTimedOut, match=r"(?s)'stuck'.*timeout_seconds +0.1"):
        owned.local()
    run = owned.runs.last()
    stuck_entry = next(e for e in run._document["nodes"] if e["name"] == "stuck")
    tick_entry = next(e for e in run._document["nodes"] if e["name"] == "tick#30")
    assert stuck_entry["ended"] < tick_entry["ended"]


def test_a_timeout_counts_as_a_try(project: Project) -> None:
    @step(timeout_seconds=0.1, retries=1, cache=False)
    def sometimes() -> int:
        ran("sometimes")
        if current().metrics == {} and len(_attempts) < 1:
            _attempts.append(1)
            time.sleep(1.5)
        return 1

    @pipeline
    def p() -> int:
        return sometimes()

    _attempts.clear()
    assert project.own(p).local() == 1
    assert project.ran() == ["sometimes", "sometimes"]


_attempts: list[int] = []


def test_retries_run_again_and_keep_the_last_metrics(project: Project) -> None:
    @step(retries=2, cache=False)
    def flaky() -> int:
        ran("flaky")
        _attempts.append(1)
        log_metrics(tries=len(_attempts))
        if len(_attempts) < 3:
            raise ValueError("again")
        return 1

    @pipeline
    def p() -> int:
        return flaky()

    _attempts.clear()
    owned = project.own(p)
    assert owned.local() == 1
    assert project.ran() == ["flaky"] * 3
    assert owned.runs.last()["flaky"].metrics == {"tries": 3}


@pytest.mark.parametrize("alone", [True, False])
def test_a_step_that_ends_the_process_is_a_failed_step(project: Project, alone: bool) -> None:
    @step(cache=False)
    def leaves() -> int:
        sys.exit(3)

    @step(cache=False)
    async def cancels() -> int:
        raise asyncio.CancelledError

    @pipeline
    def p() -> Any:
        return leaves() if alone else [leaves(), cancels(), one()]

    owned = project.own(p)
    with pytest.raises((StepFailed, BaseExceptionGroup)):
        owned.local()
    assert owned.runs.last().state == "failed"
    assert owned.runs.last()["leaves"].state == "failed"


def test_ctrl_c_ends_the_run_and_leaves_its_manifest(project: Project) -> None:
    @step
    def interrupted(x: int) -> int:
        folder = output_folder()
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    @pipeline
    def p() -> Any:
        return add(interrupted(one()))

    owned = project.own(p)
    with pytest.raises(KeyboardInterrupt):
        owned.local()
    assert owned.runs.last().state == "cancelled"
    assert states(owned) == {"one": "ran", "interrupted": "cancelled", "add": "cancelled"}
    assert project.ran() == ["one"]
    records = [path for path in (project.folder / "store/records").rglob("*") if path.is_file()]
    assert len(records) == 1


def test_an_error_that_cannot_be_stored_as_text_still_is_an_error(project: Project) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @step(cache=False)
    def odd() -> int:
        raise Odd

    @pipeline
    def p() -> int:
        return odd()

    owned = project.own(p)
    with pytest.raises(Odd):
        owned.local()
    assert owned.runs.last()["odd"].state == "failed"
