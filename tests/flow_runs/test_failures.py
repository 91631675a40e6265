"""What a flow run looks like when steps fail."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.errors import StepFailed
from tests.flow_runs.conftest import Seen


@step
def bad(x: int) -> int:
    raise ValueError(f"no {x}")


@step
def good(x: int, seconds: float = 0) -> int:
    time.sleep(seconds)
    return x


@step
def add(a: int, b: int) -> int:
    return a + b


@pipeline
def half() -> int:
    broken = bad(1)
    fine = good(good(2, 0.3))
    return add(broken, fine)


def test_the_steps_own_exception_is_raised_with_its_traceback(seen: Seen, store: str) -> None:
    with pytest.raises(ValueError, match="no 1") as caught:
        half.with_options(store=store, name="raised")()
    assert "bad" in [entry.name for entry in caught.traceback]
    run = seen.flow_run("raised")
    assert run["state_name"] == "Failed"
    assert "no 1" in run["state"]["message"]


def test_finish_runs_what_does_not_depend_on_the_failure(seen: Seen, store: str) -> None:
    with pytest.raises(ValueError, match="no 1"):
        half.with_options(store=store, name="finish")()
    states = seen.states("finish", 4)
    assert states == {
        "bad": "Failed",
        "good": "Completed",
        "good#2": "Completed",
        "add": "NotReady",
    }


def test_stop_starts_nothing_new(seen: Seen, store: str) -> None:
    with pytest.raises(ValueError, match="no 1"):
        half.with_options(store=store, name="stop", failures="stop")()
    states = seen.states("stop", 4)
    assert states == {
        "bad": "Failed",
        "good": "Completed",
        "good#2": "Cancelled",
        "add": "NotReady",
    }


def test_cancel_closes_what_runs(seen: Seen, store: str) -> None:
    @step
    def long(x: int) -> int:
        time.sleep(3)
        return x

    @pipeline(name="cancel", failures="cancel")
    def mine() -> list[int]:
        return [long(1), bad(good(1, 0.2))]

    with pytest.raises(ValueError, match="no 1"):
        mine.with_options(store=store)()
    runs = seen.task_runs("cancel", 3)
    assert runs["long"]["state_name"] == "Cancelled"
    assert runs["bad"]["state_name"] == "Failed"
    time.sleep(3)  # the thread that was given up has come back: it changes nothing
    assert seen.task_runs("cancel", 3)["long"]["state_name"] == "Cancelled"
    planned = {p.name: p.action for p in mine.with_options(store=store).plan()}
    assert planned == {"long": "run", "good": "reuse", "bad": "run"}


def test_several_failures_are_raised_as_a_group(seen: Seen, store: str) -> None:
    @pipeline(name="several")
    def mine() -> list[int]:
        return [bad(1), bad(2), good(3)]

    with pytest.raises(ExceptionGroup) as caught:
        mine.with_options(store=store)()
    assert sorted(map(str, caught.value.exceptions)) == ["no 1", "no 2"]
    assert seen.flow_run("several")["state_name"] == "Failed"


class Awkward(Exception):
    """Survives no pickling, as exceptions with two arguments often do."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(f"{what} {how}")
        self.lock = threading.Lock()


def test_an_exception_that_cannot_be_pickled_is_raised_as_it_is(seen: Seen, store: str) -> None:
    @step
    def breaks(x: int) -> int:
        raise Awkward("very", "badly")

    @pipeline(name="awkward")
    def mine() -> int:
        return breaks(1)

    with pytest.raises(Awkward, match="very badly"):
        mine.with_options(store=store)()
    assert seen.flow_run("awkward")["state_name"] == "Failed"
    assert seen.task_runs("awkward", 1)["breaks"]["state_name"] == "Failed"


def test_a_huge_exception_is_replaced_by_one_that_says_the_same(
    seen: Seen, store: str, tmp_path: Path
) -> None:
    @step
    def breaks(x: int) -> int:
        raise ValueError("too much", np.zeros(4_000_000))

    @pipeline(name="huge")
    def mine() -> int:
        return breaks(1)

    with pytest.raises(StepFailed, match=r"'breaks'.*ValueError.*too much"):
        mine.with_options(store=store)()
    state = mine.with_options(store=store)(return_state=True)
    assert state.is_failed()
    assert len(cloudpickle.dumps(state)) < 200_000
    assert len(seen.flow_run("huge")["state"]["message"]) < 20_000


def test_a_step_that_exits_fails_and_the_process_lives(seen: Seen, store: str) -> None:
    @step
    def leaves(x: int) -> int:
        raise SystemExit(3)

    @pipeline(name="leaves")
    def mine() -> int:
        return leaves(1)

    with pytest.raises(StepFailed, match="SystemExit"):
        mine.with_options(store=store)()
    assert seen.flow_run("leaves")["state_name"] == "Failed"
    assert seen.task_runs("leaves", 1)["leaves"]["state_name"] == "Crashed"


@step
def needs(flag: str, x: int) -> int:
    if not Path(flag).exists():
        raise FileNotFoundError(flag)
    return x


@pipeline(name="again")
def again(flag: str) -> int:
    return add(good(1), needs(flag, good(2)))


def test_running_again_resumes(seen: Seen, store: str, tmp_path: Path) -> None:
    flag: Any = tmp_path / "flag"
    mine = again.with_options(store=store)
    with pytest.raises(FileNotFoundError):
        mine(str(flag))
    flag.touch()
    assert mine(str(flag)) == 3
    states = seen.states("again", 4)
    assert states == {
        "good": "Cached",
        "good#2": "Cached",
        "needs": "Completed",
        "add": "Completed",
    }
