"""Clusters of ours: several at once, there only while they are needed, and what they cost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.compute import Dask, Threads
from tests.compute import work
from tests.flow_runs.conftest import Script, Seen, script, seen, store
from tests.project import Project
from tests.reporting.conftest import prefect_api

__all__ = ["prefect_api", "script", "seen", "store"]

PATIENCE_S = 60.0


def small(**more: Any) -> Dask:
    return Dask(n_workers=1, threads_per_worker=1, **more)


@step(compute="first")
def on_first(folder: str) -> tuple[int, int]:
    return met(folder, "first", "second"), os.getpid()


@step(compute="second")
def on_second(folder: str) -> tuple[int, int]:
    return met(folder, "second", "first"), os.getpid()


@step
def after(one: tuple[int, int]) -> bool:
    """Whether the worker that a step ran on goes away while this step runs."""
    return gone([one[1]])


@pipeline
def meeting(folder: str) -> tuple[tuple[int, int], tuple[int, int], bool]:
    one, two = on_first(folder), on_second(folder)
    return one, two, after(one)


def met(folder: str, own: str, other: str) -> int:
    """Say that one is there, and wait for the other: 1 if both were there at the same time."""
    (Path(folder) / own).touch()
    return int(eventually((Path(folder) / other).exists))


def eventually(look: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not look() and time.monotonic() < deadline:
        time.sleep(0.1)
    return look()


def gone(pids: list[int]) -> bool:
    return eventually(lambda: not any(map(runs, pids)))


def runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Dask]:
    """The targets whose clusters were started."""
    found: list[Dask] = []
    start = Dask._start

    def counted(self: Dask) -> Any:
        found.append(self)
        return start(self)

    monkeypatch.setattr(Dask, "_start", counted)
    return found


@pytest.mark.usefixtures("api")
def test_two_clusters_at_the_same_time_and_each_closed_once_nothing_needs_it(
    project: Project, started: list[Dask], tmp_path: Path
) -> None:
    first, second = small(cost_per_hour=3600), small(cost_per_hour=7200)
    mine = project.own(
        meeting, compute={"first": first, "second": second, "default": Threads(max_workers=1)}
    )
    (one, _), (two, _), closed_meanwhile = mine(str(tmp_path))
    assert one == two == 1
    assert closed_meanwhile
    assert sorted(each.cost_per_hour or 0 for each in started) == [3600, 7200]

    run = mine.runs.last()
    assert set(run.compute) == {"first", "second", "default"}
    use = run.compute["first"]
    ((opened, closed),) = use.spans
    assert run.started <= opened < closed
    assert use.worker_seconds is not None
    assert 0 < use.busy_seconds < use.worker_seconds < run.duration
    assert use.cost == pytest.approx(use.worker_seconds)
    assert run.compute["default"].spans == ()
    assert run.compute["default"].cost is None
    assert run.cost == pytest.approx(use.cost + (run.compute["second"].cost or 0))

    mine(str(tmp_path))
    assert len(started) == 2
    again = mine.runs.last()
    assert again.cost == 0
    assert again.compute["first"].spans == ()
    busy = [run.compute[name].busy_seconds for name in ("first", "second")]
    assert again.saved_cost == pytest.approx(busy[0] + 2 * busy[1])


@pytest.mark.usefixtures("api")
def test_a_failed_run_closes_its_cluster_and_has_counted(
    project: Project, started: list[Dask], seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    mine = project.own(work.failing, compute={"default": small(cost_per_hour=3600)})
    with pytest.raises(work.WrongNumber):
        mine(7)
    assert len(started) == 1
    spawned = {child.pid for child in psutil.Process().children(recursive=True)} - children
    assert not [pid for pid in spawned if runs(pid) and "tracker" not in _command(pid)]
    run = mine.runs.last()
    assert run.state == "failed"
    assert run.compute["default"].busy_seconds > 0
    assert run.cost is not None
    assert run.cost > 0
    assert "; cost " in capsys.readouterr().err
    pages = seen.api.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["mlpipe-failing"]}}})
    (page,) = [page for page in pages if page["flow_run_id"] == run.id]
    assert ", cost " in page["data"]


def _command(pid: int) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(psutil.Process(pid).cmdline())
    return ""


@pytest.mark.usefixtures("api")
def test_local_costs_what_its_threads_cost_and_no_cluster(project: Project, tmp_path: Path) -> None:
    for mark in ("first", "second"):
        (tmp_path / mark).touch()
    computes = {"first": small(cost_per_hour=9), "second": Threads(cost_per_hour=3600)}
    mine = project.own(pipeline(work_of_two), compute=computes)
    mine.local(str(tmp_path))
    run = mine.runs.last()
    assert run.compute["first"].cost == 0
    assert run.cost == pytest.approx(run.compute["second"].busy_seconds)


def work_of_two(folder: str) -> tuple[tuple[int, int], tuple[int, int]]:
    return on_first(folder), on_second(folder)


SCRIPT = """
    import os, time
    from prefect_mlpipe import pipeline, step
    from prefect_mlpipe.compute import Dask

    @step
    def waits(x: int) -> int:
        with open("begun.new", "w") as begun:
            begun.write(str(os.getpid()))
        os.rename("begun.new", "begun")
        time.sleep(600)
        return x

    @pipeline(name="{name}")
    def mine() -> int:
        return waits(1)

    if __name__ == "__main__":
        there = Dask(n_workers=2, threads_per_worker=1)
        mine.with_options(compute={{"default": there}})()
"""


def with_cluster(
    name: str, script: Callable[..., Script], folder: Path
) -> tuple[Script, list[int]]:
    """A script whose step runs on a worker; and all processes that it has started."""
    running = script(SCRIPT.format(name=name))
    assert eventually(lambda: (folder / "begun").exists() or running.over)
    assert not running.over, running.text
    family = psutil.Process(running.process.pid).children(recursive=True)
    pids = [child.pid for child in family]
    assert int((folder / "begun").read_text()) in pids
    assert len(pids) >= 2
    return running, pids


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_to_the_driver_closes_its_cluster(
    script: Callable[..., Script], seen: Seen, tmp_path: Path, number: signal.Signals
) -> None:
    name = f"a cluster ended by {number.name}"
    running, pids = with_cluster(name, script, tmp_path)
    running.signal(number)
    assert running.end() != 0
    assert gone(pids), [_command(pid) for pid in pids]
    (state,) = seen.states(name, 1).values()
    assert state in ("Crashed", "Cancelled")


def test_cancelling_in_prefect_closes_the_cluster(
    script: Callable[..., Script], seen: Seen, tmp_path: Path
) -> None:
    from prefect.states import Cancelling

    name = "a cluster cancelled in Prefect"
    running, pids = with_cluster(name, script, tmp_path)
    seen.api.client.set_flow_run_state(seen.flow_run(name)["id"], Cancelling())
    running.end()
    assert gone(pids), [_command(pid) for pid in pids]
    assert seen.states(name, 1) == {"waits": "Cancelled"}


def test_workers_end_by_themselves_when_the_driver_is_killed(
    script: Callable[..., Script], tmp_path: Path
) -> None:
    running, pids = with_cluster("a cluster whose driver is killed", script, tmp_path)
    running.signal(signal.SIGKILL)
    running.end()
    assert gone(pids), [_command(pid) for pid in pids]
