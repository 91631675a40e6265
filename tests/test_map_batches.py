"""Items of a mapped step go in batches, and nobody can tell by what comes of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe import log_metrics, pipeline, step
from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.storing import records
from prefect_mlpipe.engine import batching
from prefect_mlpipe.errors import StoreUnavailable
from tests.project import Project, ran


@step
def double(x: int) -> int:
    ran(f"double({x})")
    return 2 * x


@step
def total(items: list[int]) -> int:
    ran("total")
    return sum(items)


@pipeline
def doubled(n: int, first: int = 0) -> list[int]:
    return double.map(range(first, n))


def names(project: Project, folder: str) -> list[str]:
    return [entry.name for entry in project.store._backend.list(folder)]


def test_many_items_leave_few_files_and_a_small_manifest(project: Project) -> None:
    owned = project.own(doubled)
    owned.local(3000)
    assert len(project.ran()) == 3000
    assert len(names(project, "records")) < 60
    assert len(names(project, "packs")) < 30
    run = owned.runs.last()
    assert len(run._document["nodes"]) == 1
    assert (run["double"].state, run["double[2999]"].state) == ("ran", "ran")
    assert run["double[2999]"].output.load() == 5998
    assert str(run["double[17]"].reasons[0]) == "first run"
    assert owned.local(3000)[-1] == 5998
    assert project.ran() == []
    assert owned.runs.last()["double[2999]"].reused_from == run.name


def test_a_record_of_an_item_serves_a_plain_call_and_another_pipeline(project: Project) -> None:
    @pipeline
    def plain(x: int) -> int:
        return double(x)

    @pipeline
    def summed(n: int) -> int:
        return total(double.map(range(n)))

    assert project.own(plain).local(7) == 14
    project.ran()
    project.own(doubled).local(100)
    assert len(project.ran()) == 99
    assert project.own(plain).local(33) == 66
    assert project.own(summed).local(100) == 9900
    assert project.ran() == ["total"]


def test_refreshed_items_run_and_the_next_run_takes_what_they_made(project: Project) -> None:
    @step
    def moment(x: int) -> int:
        import time

        return time.time_ns()

    @pipeline
    def p(n: int) -> list[int]:
        return moment.map(range(n))

    owned = project.own(p)
    first = owned.local(50)
    second = owned.with_options(refresh=["moment"]).local(50)
    assert not set(first) & set(second)
    assert owned.local(50) == second


def test_expired_items_run_again(project: Project) -> None:
    owned = project.own(doubled)
    owned.local(40)
    project.ran()
    short = double.with_options(cache_expiration=timedelta(microseconds=1))

    @pipeline
    def p(n: int) -> list[int]:
        return short.map(range(n))

    project.own(p).local(40)
    assert len(project.ran()) == 40


def test_metrics_logs_and_errors_of_items_are_kept(project: Project) -> None:
    @step
    def told(x: int) -> int:
        if x == 5:
            raise ValueError("five")
        if x % 2:
            log_metrics(x=x)
        return x

    @pipeline
    def p(n: int) -> list[int]:
        return told.map(range(n), allowed_failures=1, drop_failed=True)

    owned = project.own(p)
    for state in ("ran", "reused"):
        assert len(owned.local(30)) == 29
        run = owned.runs.last()
        assert [run[f"told[{i}]"].state for i in (3, 4, 5)] == [state, state, "failed"]
        assert run["told[3]"].metrics == {"x": 3}
        assert run.metrics["told[7].x"] == 7
        assert "five" in (run["told[5]"].error or "")


def test_items_are_spread_over_the_threads(project: Project) -> None:
    together = threading.Barrier(3, timeout=30)

    @step(cache=False)
    def meets(x: int) -> int:
        together.wait()
        return x

    @pipeline
    def p() -> list[int]:
        return meets.map(range(3))

    assert project.own(p).local() == [0, 1, 2]


def test_what_a_killed_process_had_finished_is_not_run_again(project: Project) -> None:
    source = """
        import os, time
        from prefect_mlpipe import pipeline, step
        from tests.project import ran

        @step
        def slow(x: int) -> int:
            time.sleep(0.02)
            ran(f"slow({x})")
            if x == 150 and os.environ.get("KILL"):
                os.kill(os.getpid(), 9)
            return x

        @pipeline
        def p() -> list[int]:
            return slow.map(range(200))

        if __name__ == "__main__":
            from prefect_mlpipe.compute import Threads
            one = {"default": Threads(max_workers=1)}
            p.with_options(store=os.environ["STORE"], compute=one).local()
    """
    path = project.folder / "killed.py"
    path.write_text("\n".join(line[8:] for line in source.splitlines()))
    environment = {"STORE": project.store.url, "PYTHONPATH": ":".join(sys.path)}

    def run(**extra: str) -> list[str]:
        subprocess.run(
            [sys.executable, str(path)],
            env={**os.environ, **environment, **extra},
            capture_output=True,
            check=False,
        )
        return project.ran()

    first = run(KILL="1")
    assert len(first) == 151
    again = set(run()) & set(first)
    # What was finished within the last quarter of a second before was not written yet.
    assert 1 <= len(again) < 60
    assert run() == []


def test_a_store_that_is_full_costs_the_items_and_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StoreUnavailable("the store is full.", {"store": project.store.url}, "Free some.")

    monkeypatch.setattr(records, "WORTH", 0)
    monkeypatch.setattr(project.store.packs, "write", full)
    with pytest.raises((StoreUnavailable, ExceptionGroup), match=r"ran|failed"):
        project.own(doubled).local(200)
    monkeypatch.undo()
    project.ran()
    assert project.own(doubled).local(200)[-1] == 398
    assert len(project.ran()) == 200


def test_reused_items_cost_few_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counting(name: str) -> None:
        real = getattr(RemoteBackend, name)

        def counted(self: RemoteBackend, what: Any, *rest: Any) -> Any:
            many = name == "read_many"
            asked.extend(what if many else [f"{name} {what}"])
            return real(self, what, *rest)

        monkeypatch.setattr(RemoteBackend, name, counted)

    def run(n: int) -> int:
        store = Store(f"memory://{tmp_path.name}{n}", cache_folder=str(tmp_path / "cache"))
        doubled.with_options(store=store).local(n)
        asked.clear()
        again = Store(store.url, cache_folder=str(tmp_path / "other"))
        assert doubled.with_options(store=again).local(n)[-1] == 2 * n - 2
        return len(asked)

    for name in ("read", "read_many", "exists", "list", "replace", "create"):
        counting(name)
    few, many = run(300), run(3000)
    # Packs of about one size are put together: there are a few more of ten times the records.
    assert many <= few + 16
    assert few < 40


def test_batches_grow_as_far_as_items_are_short() -> None:
    mapped = batching._Mapped()
    mapped.waiting.extend([None] * 10_000)  # type: ignore[list-item]
    assert mapped.size(4) == 1
    mapped.measure(1, 0.0001)
    assert mapped.size(4) == 16
    mapped.measure(16, 0.0016)
    assert mapped.size(4) == 256
    mapped.measure(256, 0.0256)
    assert mapped.size(4) == batching.LARGEST
    mapped.measure(1000, 100.0)
    assert mapped.size(4) <= 4
