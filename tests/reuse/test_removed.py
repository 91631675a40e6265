"""A store, or a part of it, that somebody removes while a run goes on: the run makes what it still
needs again, and ends right."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reuse.gate import Gate
from tests.reuse.lab import Lab, Process
from tests.reuse.mixed import MIXED

TWO = """
import numpy as np
from gate import say, until

@step
def first(x: int) -> np.ndarray:
    ran("first")
    return np.full(10_000, x)

@step
def second(values: np.ndarray) -> np.ndarray:
    ran("second")
    say("begun")
    until("go")
    return values + 1

@step
def third(values: np.ndarray, more: np.ndarray) -> int:
    ran("third")
    return int(values.sum() + more.sum())

@pipeline
def main(who: str, x: int = 1) -> int:
    one = first(x)
    return third(one, second(one))

@pipeline
def between(who: str, x: int = 1) -> int:
    one = first(x)
    resolve(one)
    say("begun")
    until("go")
    return third(one, one)
"""
PARTS = ["", "values", "records", "leases", "runs"]


@pytest.mark.parametrize("part", PARTS)
def test_a_store_may_be_removed_while_a_step_runs(
    lab: Lab, gate: Gate, start: Callable[..., Process], part: str
) -> None:
    lab.write(TWO)
    process = start(who="it")
    gate.seen("begun")
    shutil.rmtree(Path(lab.store) / part, ignore_errors=True)  # there are no runs yet
    gate.open("go")
    outcome = process.outcome()
    assert (outcome.value, outcome.error) == ("builtins.int 30000", None), outcome.traceback
    again = ["first"] if part in ("", "values") else []
    assert outcome.ran == sorted(["first", "second", "third", *again])
    said = [text for text in outcome.warnings if "The stored value of step 'first' is gone" in text]
    assert len(said) == len(again)
    later = start(who="it").outcome()
    assert (later.value, later.error) == ("builtins.int 30000", None)
    # Of a record that nobody asked for any more nobody saw that it was gone.
    assert later.ran == (["first"] if part == "records" else [])
    assert start(who="it").outcome().ran == []


@pytest.mark.parametrize("part", PARTS)
def test_a_store_may_be_removed_between_steps(
    lab: Lab, gate: Gate, start: Callable[..., Process], part: str
) -> None:
    lab.write(TWO)
    process = start(who="it", pipeline="between")
    gate.seen("begun")
    shutil.rmtree(Path(lab.store) / part, ignore_errors=True)
    gate.open("go")
    outcome = process.outcome()
    assert (outcome.value, outcome.error) == ("builtins.int 20000", None), outcome.traceback
    again = ["first"] if part in ("", "values") else []
    assert outcome.ran == sorted(["first", "third", *again])
    later = start(who="it", pipeline="between").outcome()
    assert (later.value, later.error) == ("builtins.int 20000", None)


@pytest.mark.parametrize("part", ["", "values", "records"])
def test_a_store_may_be_removed_at_any_moment(lab: Lab, part: str) -> None:
    lab.write(MIXED)
    right = lab.oracle()
    chance = random.Random(7)
    began = time.monotonic()
    lab.run()
    took = time.monotonic() - began
    for number in range(3):
        lab.store = str(lab.place / f"store-{number}")
        process = lab.start()
        end = time.monotonic() + chance.uniform(0.2, 1.0) * took
        while time.monotonic() < end:
            shutil.rmtree(Path(lab.store) / part, ignore_errors=True)
            time.sleep(chance.uniform(0.001, 0.02) * took)
        outcome = process.outcome()
        if outcome.error is None:
            assert outcome.value == right
        else:  # what is removed over and over is given up in the end
            error = str(outcome.error)
            assert "ValueMissing: " in error or "StoreUnavailable: " in error, outcome.traceback
            assert lab.store in error
        again = lab.run()
        assert (again.value, again.error) == (right, None), again.traceback


@pytest.mark.parametrize("readers", [2, 6])
def test_a_value_that_several_steps_miss_at_once_is_made_again_once(lab: Lab, readers: int) -> None:
    project = """
        import numpy as np

        @step
        def make(x: int) -> np.ndarray:
            ran("make")
            return np.full(10_000, x)

        @step
        def read(values: np.ndarray, number: int) -> int:
            ran("read")
            return int(values.sum()) + number

        @pipeline
        def main(readers: int, first: int = 0) -> list:
            made = make(1)
            return [read(made, first + number) for number in range(readers)]
        """
    lab.write(project)
    lab.run(f"readers={readers}")
    shutil.rmtree(Path(lab.store) / "values")
    outcome = lab.run(f"readers={readers}, first=100")
    assert outcome.value == lab.oracle(f"readers={readers}, first=100"), outcome.traceback
    assert outcome.ran == ["make", *["read"] * readers]
    assert outcome.reasons("make") == ["value missing"]
    (warning,) = outcome.warnings
    assert warning.startswith("The stored value of step 'make' is gone: the step runs again.")
