"""Items of mapped steps in batches on real worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe.compute import Dask
from prefect_mlpipe.errors import WorkerLost
from tests.compute import work
from tests.compute.test_dask import messages, task_runs
from tests.project import Project

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    cluster = Dask(n_workers=2, threads_per_worker=1).start()
    yield cluster.scheduler_address
    cluster.close()


@pytest.fixture
def on_dask(project: Project, address: str) -> Callable[[Any], Any]:
    computes = {"default": Dask(address=address)}
    return lambda pipeline: project.own(pipeline, compute=computes)


def lines(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def test_items_run_once_each_in_one_task_run_that_has_their_logs(
    on_dask: Callable[[Any], Any], tmp_path: Path
) -> None:
    noting, log = on_dask(work.noting), tmp_path / "log"
    expected = [2 * number for number in range(120)]
    assert noting(str(log), 120) == expected
    assert lines(log) == Counter(range(120))
    found = task_runs(noting)
    assert found["noted"].state_name == "Completed"
    assert len(found) <= 1 + 20
    assert "item 119" in messages(found["noted"], 120)
    assert any("item 17" in line for line in noting.runs.last()["noted[17]"].logs)

    assert noting(str(log), 121) == [*expected, 240]
    assert lines(log) == Counter(range(121))
    assert noting.local(str(log), 121)[-1] == 240
    assert sum(lines(log).values()) == 121


def test_after_the_death_of_a_worker_only_what_was_not_finished_runs_again(
    on_dask: Callable[[Any], Any], tmp_path: Path
) -> None:
    mortals, mark = on_dask(work.mortals), tmp_path / "mark"
    assert mortals(str(mark), 400, 250) == [*range(400)]
    ran = lines(Path(f"{mark}.log"))
    assert set(ran) == {*range(400)}
    # One batch lost what it had not yet written: a quarter of a second of items of 10 ms each.
    assert ran.total() - 400 <= 40
    run = mortals.runs.last()
    assert {run[f"mortal[{number}]"].state for number in range(400)} == {"ran"}


def test_an_item_that_kills_its_worker_fails_alone(on_dask: Callable[[Any], Any]) -> None:
    poisoning = on_dask(work.poisoning)
    assert poisoning(60) == [number for number in range(60) if number != 11]
    run = poisoning.runs.last()
    assert [run[f"poisoned[{n}]"].state for n in (10, 11, 12)] == ["ran", "failed", "ran"]
    assert "poisoned" in (run["poisoned[11]"].error or "")
    assert WorkerLost.__name__ in (run["poisoned[11]"].error or "")


def test_an_items_own_error_and_large_arguments_travel(on_dask: Callable[[Any], Any]) -> None:
    picking = on_dask(work.picking)
    assert picking(50) == [float(number) for number in range(50) if number != 7]
    run = picking.runs.last()
    assert "WrongNumber: 7 is wrong" in (run["picky[7]"].error or "")
    assert "raise WrongNumber(number)" in (run["picky[7]"].error or "")
