"""Workers, schedulers, networks and drivers die: each ends in a right state, and nothing hangs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compute.faults import FAULTS, Fault, suffer
from tests.compute.stage import Stage

pytestmark = [pytest.mark.usefixtures("api")]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_ends_in_a_right_state_and_the_next_run_goes_on_from_there(
    fault: Fault, stage: Stage, tmp_path: Path
) -> None:
    assert suffer(fault, stage, tmp_path).wrong() == []
