"""Small things stay small: a tiny step leaves one file, whatever it returns and however many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prefect_mlpipe import pipeline, step
from tests.project import Project

STEPS = 1000


@step
def grow(value: Any) -> Any:
    return value + 1


@pipeline
def chain(first: Any, length: int) -> Any:
    value = first
    for _ in range(length):
        value = grow(value)
    return value


def files(project: Project) -> int:
    return sum(path.is_file() for path in (project.folder / "store").rglob("*"))


@pytest.mark.parametrize("first", [0, np.zeros(8)], ids=["numbers", "small arrays"])
def test_a_chain_of_a_thousand_tiny_steps_leaves_at_most_one_file_a_step(
    project: Project, first: Any
) -> None:
    owned = project.own(chain)
    owned.local(first, 1)
    before = files(project)
    assert np.all(owned.local(first, 1 + STEPS) == first + 1 + STEPS)
    # the run itself leaves its manifest
    assert files(project) - before <= STEPS + 1
    assert project.stored_files() == []
    before = files(project)
    owned.local(first, 1 + STEPS)
    assert files(project) - before <= 1
