"""Many processes that want the same, some of which are killed."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reuse.gate import NEVER, TOGETHER, Gate
from tests.reuse.lab import Lab, Process
from tests.reuse.mixed import recorded

ONE = """
import os
import time
import numpy as np

@step
def make(x: int) -> np.ndarray:
    ran("make")
    time.sleep(0.3)
    return np.full(50_000, os.getpid())

@pipeline
def main(who: str, x: int = 1) -> int:
    return int(resolve(make(x))[-1])
"""


def test_thirty_two_processes_compute_one_key_once(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(ONE)
    started = [start(NEVER, TOGETHER, who=f"{number}") for number in range(32)]
    gate.all_of(started)
    outcomes = [process.outcome() for process in started]
    assert [one.error for one in outcomes] == [None] * 32
    (winner,) = [process for process in started if process.ran()]
    assert winner.ran() == ["make"]
    assert {one.value for one in outcomes} == {f"builtins.int {winner.pid}"}
    left = [path for path in (Path(lab.store) / "leases").rglob("*") if path.is_file()]
    assert [path for path in left if path.name != "succession"] == []


CHAIN = """
import time
import numpy as np

@step
def grow(values: np.ndarray) -> np.ndarray:
    ran(f"grow-{int(values[0])}")
    time.sleep(0.03)
    return values + 1

@pipeline
def main(who: str, length: int = 10) -> int:
    values = np.zeros(20_000)
    for _ in range(length):
        values = grow(values)
    return int(resolve(values)[0])
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_eight_processes_four_are_killed_and_the_others_compute_at_most_one_step_more_for_each(
    lab: Lab, gate: Gate, start: Callable[..., Process], seed: int
) -> None:
    lab.write(CHAIN)
    chance = random.Random(seed)
    started = [start(NEVER, TOGETHER, who=f"{number}") for number in range(8)]
    gate.all_of(started)
    killed, survivors = started[:4], started[4:]
    for process in killed:
        time.sleep(chance.uniform(0.02, 0.15))
        process.kill()
    assert {process.wait() for process in killed} <= {-signal.SIGKILL, 0}
    outcomes = [process.outcome() for process in survivors]
    assert [(one.value, one.error) for one in outcomes] == [("builtins.int 10", None)] * 4
    counts = Counter(name for process in started for name in process.ran())
    assert counts.keys() == {f"grow-{number}" for number in range(10)}
    assert counts.total() <= 10 + len(killed)
    assert len(recorded(lab)) == 10
    later = start(who="later").outcome()
    assert (later.value, later.ran) == ("builtins.int 10", [])
