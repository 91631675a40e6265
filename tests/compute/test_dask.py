"""Steps on real worker processes.

Most tests share one cluster and give its address, so each of them also checks that a given cluster
is left running and takes the next run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client

from prefect_mlpipe.compute import Dask, Threads
from prefect_mlpipe.errors import (
    CodeMismatch,
    ComputeUnavailable,
    EnvironmentMismatch,
    NoSuchWorker,
    StepTimedOut,
    StoreNotShared,
    WorkerLost,
)
from tests.compute import work
from tests.core import gpu_stand_ins
from tests.project import Project

pytestmark = pytest.mark.usefixtures("api")

SHOWN_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes with one thread and one 'GPU' each."""
    cluster = Dask(n_workers=2, threads_per_worker=1, resources={"GPU": 1}).start()
    yield cluster
    cluster.close()


@pytest.fixture
def there(cluster: Any) -> Dask:
    """The shared cluster as a compute."""
    return Dask(address=cluster.scheduler_address)


@pytest.fixture
def client(cluster: Any) -> Iterator[Client]:
    """A client of the shared cluster, once the workers that earlier tests ended are back."""
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=SHOWN_S)
        yield client


@pytest.fixture
def on_dask(project: Project, there: Dask) -> Callable[[Any], Any]:
    """A pipeline with this test's store and the shared cluster."""
    return lambda pipeline: project.own(pipeline, compute={"default": there})


@pytest.fixture
def numbers(tmp_path: Path) -> str:
    path = tmp_path / "numbers.txt"
    path.write_text("1 2 3")
    return str(path)


def task_runs(pipeline: Any) -> dict[str, Any]:
    """The task runs of the last run by name, once they all have ended."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    run = pipeline.runs.last()
    where = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    deadline = time.monotonic() + SHOWN_S
    with get_client(sync_client=True) as client:
        while True:
            found = {each.name: each for each in client.read_task_runs(flow_run_filter=where)}
            ended = all(
                each.state_name == "NotReady" or (each.state and each.state.is_final())
                for each in found.values()
            )
            if (len(found) >= len(run.graph["nodes"]) and ended) or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


def messages(task_run: Any, count: int) -> list[str]:
    """What a task run has logged, once there are so many lines."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterTaskRunId

    where = LogFilter(task_run_id=LogFilterTaskRunId(any_=[task_run.id]))
    deadline = time.monotonic() + SHOWN_S
    with get_client(sync_client=True) as client:
        while True:
            found = [log.message for log in client.read_logs(log_filter=where)]
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


def on_each_worker(client: Client, function: Callable[..., Any], *args: Any) -> set[Any]:
    """What a function returns on both workers, also while one of them comes back."""
    client.wait_for_workers(2, timeout=SHOWN_S)
    workers = client.scheduler_info()["workers"]
    futures = [client.submit(function, *args, workers=[each], pure=False) for each in workers]
    return {future.result(timeout=SHOWN_S) for future in futures}


def states(pipeline: Any) -> dict[str, str]:
    return {step.name: step.state for step in pipeline.runs.last()}


def test_values_are_those_of_threads_and_reuse_goes_both_ways(
    on_dask: Callable[[Any], Any], numbers: str
) -> None:
    sums = on_dask(work.sums)
    assert sums.local(numbers) == (6, 12)
    assert sums(numbers) == (6, 12)
    assert set(states(sums).values()) == {"reused"}

    assert sums(numbers, 10) == (16, 32)
    assert states(sums) == {"load": "reused", "total": "ran", "double": "ran"}
    assert sums.local(numbers, 10) == (16, 32)
    assert set(states(sums).values()) == {"reused"}


@pytest.mark.parametrize("first", ["worker", "driver"])
def test_outputs_with_code_in_them_are_reused_whoever_made_them(
    on_dask: Callable[[Any], Any], first: str
) -> None:
    pipe = on_dask(work.code_passed_on)
    said = ["Greet somebody.", "Raise the voice.", "Speaks."]
    for run in (pipe, pipe.local) if first == "worker" else (pipe.local, pipe):
        assert run("hi") == said
    assert states(pipe) == {"makes_code": "reused", "asks_code": "reused"}


def test_steps_are_native_task_runs_with_edges_logs_and_metrics(
    on_dask: Callable[[Any], Any], numbers: str
) -> None:
    sums = on_dask(work.logging_sums)
    assert sums(numbers) == 7
    found = task_runs(sums)
    assert {name: run.state_name for name, run in found.items()} == {
        "load": "Completed",
        "total": "Completed",
        "log": "Completed",
    }
    parents = {
        name: {parent.id for inputs in run.task_inputs.values() for parent in inputs}
        for name, run in found.items()
    }
    assert parents == {
        "load": set(),
        "total": {found["load"].id},
        "log": {found["total"].id},
    }
    printed = next(line for line in messages(found["total"], 2) if "in process" in line)
    assert printed != f"in process {os.getpid()}"
    assert "got 7" in messages(found["log"], 2)
    run = sums.runs.last()
    assert run["total"].metrics == {"count": 3}
    assert any("got 7" in line for line in run["log"].logs)


def test_a_failed_try_is_repeated_on_the_worker(
    on_dask: Callable[[Any], Any], tmp_path: Path
) -> None:
    retrying = on_dask(work.retrying)
    assert retrying(str(tmp_path / "mark")) == "second"
    assert task_runs(retrying)["flaky"].run_count == 2


def test_the_steps_own_exception_is_raised_with_its_traceback(
    on_dask: Callable[[Any], Any],
) -> None:
    failing = on_dask(work.failing)
    with pytest.raises(work.WrongNumber, match="7 is wrong") as caught:
        failing(7)
    assert "raise WrongNumber(number)" in str(caught.value.__cause__)
    assert states(failing) == {"fail": "failed", "double": "skipped"}
    assert task_runs(failing)["fail"].state_name == "Failed"


def test_a_step_whose_worker_died_once_is_run_by_another(
    on_dask: Callable[[Any], Any], tmp_path: Path
) -> None:
    dying = on_dask(work.dying)
    assert dying(str(tmp_path / "mark")) == ("alive", 8)
    assert states(dying) == {"dies": "ran", "double": "ran"}
    assert task_runs(dying)["dies"].state_name == "Completed"


def test_a_step_that_always_ends_its_worker_ends_as_crashed(
    project: Project, cluster: Any, tmp_path: Path
) -> None:
    once = Dask(address=cluster.scheduler_address, allowed_failures=1)
    dying = project.own(work.dying, compute={"default": once})
    with pytest.raises(WorkerLost, match="Step 'dies' was on a worker that died 2 times") as lost:
        dying(str(tmp_path / "mark"), always=True)
    assert str(lost.value.facts["worker"]).startswith("tcp://")
    assert states(dying) == {"dies": "failed", "double": "ran"}
    assert task_runs(dying)["dies"].state_name == "Crashed"


def test_a_step_with_effects_is_not_run_again_unasked(
    on_dask: Callable[[Any], Any], tmp_path: Path
) -> None:
    with pytest.raises(WorkerLost, match="died once"):
        on_dask(work.dying_uncached)(str(tmp_path / "mark"))


def test_a_step_gets_a_worker_with_what_it_needs(on_dask: Callable[[Any], Any]) -> None:
    assert on_dask(work.with_gpu)(1) == 2


def load_stand_in() -> None:
    sys.modules["cupy"] = gpu_stand_ins.cupy


def unload_stand_in() -> None:
    del sys.modules["cupy"]


def times_emptied() -> int:
    return gpu_stand_ins.cupy.pool.emptied


def test_device_memory_goes_back_after_steps_that_fail_too_and_after_batches(
    on_dask: Callable[[Any], Any], client: Client
) -> None:
    def emptied() -> int:
        return sum(client.run(times_emptied).values())

    client.run(load_stand_in)
    try:
        assert on_dask(work.root)(4) == 2
        assert emptied() == 1
        with pytest.raises(ValueError, match=r"domain|negative"):  # each Python has its own words
            on_dask(work.root)(-1)
        assert emptied() == 2
        assert on_dask(work.roots)(9) == [3, 3, 3]
        assert emptied() > 2
    finally:
        client.run(unload_stand_in)


@pytest.mark.parametrize("name", ["with_many_gpus", "with_much_memory"])
def test_what_no_worker_offers_fails_at_once(on_dask: Callable[[Any], Any], name: str) -> None:
    pipeline = on_dask(getattr(work, name))
    # The first of two equal workers is enough to know; the other may still be on its way.
    with pytest.raises(NoSuchWorker, match=r"[12] x \(cpus=1, memory=.*, GPU=1\)"):
        pipeline(1)
    assert [run.state_name for run in task_runs(pipeline).values()] == ["Crashed"]


def test_a_call_that_blocks_past_its_timeout_costs_its_worker(
    on_dask: Callable[[Any], Any], client: Client
) -> None:
    before = on_each_worker(client, os.getpid)
    blocking = on_dask(work.blocking)
    with pytest.raises(StepTimedOut, match="'blocks'"):
        blocking(1)
    assert task_runs(blocking)["blocks"].state_name == "TimedOut"
    deadline = time.monotonic() + SHOWN_S
    while len(before & on_each_worker(client, os.getpid)) != 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(before & on_each_worker(client, os.getpid)) == 1


def test_large_outputs_do_not_pass_through_the_driver(on_dask: Callable[[Any], Any]) -> None:
    arrays = on_dask(work.arrays)
    arrays(10)
    process, count = psutil.Process(), 25_000_000
    before = process.memory_info().rss
    assert arrays(count) == np.arange(count, dtype=np.float64).sum()
    assert process.memory_info().rss - before < 50_000_000


def test_workers_run_the_drivers_code_and_not_what_they_have_imported(
    project: Project, there: Dask, client: Client
) -> None:
    pipeline = _changed_behind_the_workers(project, there, client)
    assert pipeline(10) == 1010
    assert pipeline.local(10) == 1010
    assert set(states(pipeline).values()) == {"reused"}


def test_other_code_than_that_of_the_key_is_refused(
    project: Project, there: Dask, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_mlpipe.compute import cluster

    pipeline = _changed_behind_the_workers(project, there, client)
    by_name = cluster.pack_step
    monkeypatch.setattr(cluster, "pack_step", lambda step, by_value: by_name(step, by_value=False))
    with pytest.raises(CodeMismatch, match="'scaled'") as caught:
        pipeline(10)
    assert "helpers_of_ours.factor" in str(caught.value.facts["differs"])
    assert pipeline.runs.last()["scaled"].key is None
    assert pipeline.plan(10).steps[0].action == "run"


def _changed_behind_the_workers(project: Project, there: Dask, client: Client) -> Any:
    """A pipeline whose module the workers have imported before it was changed."""
    name = "helpers_of_ours"
    source = """
        from prefect_mlpipe import pipeline, step

        def factor():
            return {factor}

        @step
        def scaled(number):
            return number * factor() + number

        @pipeline
        def scaling(number):
            return scaled(number)
    """
    (project.folder / f"{name}.py").write_text(_dedent(source.format(factor=2)))

    def import_anew(folder: str) -> int:
        import importlib

        sys.path.insert(0, folder)
        sys.modules.pop(name, None)
        found: int = importlib.import_module(name).factor()
        sys.path.remove(folder)
        return found

    assert on_each_worker(client, import_anew, str(project.folder)) == {2}
    module = project.module(name, source.format(factor=100))
    return project.own(module.scaling, compute={"default": there})


def _dedent(source: str) -> str:
    from textwrap import dedent

    return dedent(source)


def test_other_versions_than_those_of_the_key_are_refused(
    on_dask: Callable[[Any], Any], client: Client
) -> None:
    def pretend(version: str | None) -> None:
        from prefect_mlpipe.compute import worker
        from prefect_mlpipe.core.environment import versions

        real = versions
        if version is None:
            worker.versions = real
        else:
            worker.versions = lambda names: dict.fromkeys(names, version)

    on_each_worker(client, pretend, "0.1")
    try:
        with pytest.raises(EnvironmentMismatch, match=r"numpy +driver 2\..*, worker 0\.1"):
            on_dask(work.arrays)(3)
    finally:
        on_each_worker(client, pretend, None)


def test_names_with_equal_settings_share_a_cluster_and_threads_run_beside_it(
    project: Project, there: Dask, numbers: str
) -> None:
    computes = {"default": Threads(), "cpu": there, "gpu": there}
    sums = project.own(work.sums, compute=computes)
    assert sums(numbers) == (6, 12)


def test_a_local_store_is_refused_where_workers_are_elsewhere(project: Project) -> None:
    elsewhere = Dask(address="tcp://10.255.255.1:8786")
    pipeline = project.own(work.failing, compute={"default": elsewhere})
    with pytest.raises(StoreNotShared, match="shared_store=True"):
        pipeline(1)


def test_an_address_where_nobody_answers_is_an_error(project: Project) -> None:
    nobody = Dask(address="tcp://127.0.0.1:1", silent_s=1)
    pipeline = project.own(work.failing, compute={"default": nobody})
    with pytest.raises(ComputeUnavailable, match=r"tcp://127\.0\.0\.1:1"):
        pipeline(1)


def test_a_worker_that_never_comes_is_not_waited_for_for_ever(project: Project) -> None:
    empty = Dask(n_workers=0, workers_timeout_s=2)
    pipeline = project.own(work.with_gpu, compute={"default": empty})
    with pytest.raises(NoSuchWorker, match="gpus=1") as caught:
        pipeline(1)
    assert caught.value.facts["offers"] == "no worker"
    assert pipeline.runs.last()["on_gpu"].state == "failed"


def test_items_that_have_ended_are_not_run_again_when_a_worker_dies(
    project: Project, there: Dask, tmp_path: Path
) -> None:
    from tests.compute import doomed

    items = project.own(doomed.fated_items, compute={"default": there})
    assert items(str(tmp_path), "killed once") == [0, 2, 4, 6, 8, 10]
    lines = (tmp_path / "ran.txt").read_text().split()[::2]
    assert lines.count("item3") == 2
    # Those that were on the same worker, or about to be told of, may be begun once more; no others.
    assert sorted({*lines}) == [f"item{number}" for number in range(6)]
    (tmp_path / "ran.txt").unlink()
    assert items(str(tmp_path), "killed once") == [0, 2, 4, 6, 8, 10]
    assert not (tmp_path / "ran.txt").exists()


def test_a_step_with_effects_is_run_as_often_as_its_retries_say(
    project: Project, there: Dask, tmp_path: Path
) -> None:
    from tests.compute import doomed

    pipeline = project.own(doomed.fated_with_effects, compute={"default": there})
    with pytest.raises(WorkerLost, match="died 2 times"):
        pipeline(str(tmp_path), "killed")
    lines = (tmp_path / "ran.txt").read_text().split()[::2]
    assert lines == ["first", "doomed", "doomed"]


def test_a_cluster_of_ours_starts_only_when_it_is_needed_and_leaves_nothing_behind(
    project: Project, numbers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[set[int]] = []
    start = Dask._start

    def counted(self: Dask) -> Any:
        cluster = start(self)
        started.append({child.pid for child in psutil.Process().children(recursive=True)})
        return cluster

    monkeypatch.setattr(Dask, "_start", counted)
    resource_tracker.ensure_running()  # Python's own, which stays once a process was spawned
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    one = Dask(n_workers=1, threads_per_worker=1)
    sums = project.own(work.sums, compute={"default": one})
    assert sums(numbers) == (6, 12)
    assert len(started) == 1
    left = [pid for pid in started[0] - before if psutil.pid_exists(pid) and _runs(pid)]
    assert left == []

    assert sums(numbers) == (6, 12)
    assert len(started) == 1


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_scheduler_that_goes_away_ends_the_step_as_crashed(
    project: Project, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    doomed = Dask(n_workers=1, threads_per_worker=1).start()

    def close_once_it_runs() -> None:
        while not mark.exists():
            time.sleep(0.1)
        doomed.close()

    closer = threading.Thread(target=close_once_it_runs)
    closer.start()
    there = Dask(address=doomed.scheduler_address)
    waiting = project.own(work.waiting, compute={"default": there})
    with pytest.raises(WorkerLost, match="'wait'"):
        waiting(str(mark))
    closer.join()
    assert task_runs(waiting)["wait"].state_name == "Crashed"
