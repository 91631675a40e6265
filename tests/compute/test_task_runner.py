"""Tasks of ordinary Prefect flows, each on its compute.

All tests share one cluster and give its address, so each of them also checks that a given cluster
is left running and takes the next flow.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client
from prefect import Flow, flow, tags, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import allow_failure

from prefect_mlpipe import Resources, pipeline, step
from prefect_mlpipe.compute import Dask, RoutingTaskRunner, Threads, on
from prefect_mlpipe.errors import (
    ComputeUnavailable,
    InvalidPipeline,
    InvalidStep,
    NoSuchCompute,
    NoSuchWorker,
    StepFailed,
    Unshippable,
    WorkerLost,
)
from tests.compute import tasks
from tests.compute.work import WrongNumber
from tests.project import Project

SHOWN_S = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes with one thread and one 'GPU' each."""
    cluster = Dask(n_workers=2, threads_per_worker=1, resources={"GPU": 1}).start()
    yield cluster
    cluster.close()


@pytest.fixture
def runner(cluster: Any, api: Any) -> RoutingTaskRunner:
    return RoutingTaskRunner({"cpu": Dask(address=cluster.scheduler_address)})


class Ran:
    """A flow that has run, and what the API shows of it."""

    def __init__(self, runner: RoutingTaskRunner, body: Callable[[], Any], **options: Any) -> None:
        self.id = ""

        def remembering() -> Any:
            context = FlowRunContext.get()
            assert context is not None
            assert context.flow_run is not None
            self.id = str(context.flow_run.id)
            return body()

        self.flow: Flow[[], Any] = flow(name="routed", task_runner=runner, **options)(remembering)

    def __call__(self, **options: Any) -> Any:
        return self.flow(**options)

    def task_runs(self, count: int) -> dict[str, Any]:
        """Task runs by name without its suffix, once so many have ended."""
        where = FlowRunFilter(id=FlowRunFilterId(any_=[self.id]))
        deadline = time.monotonic() + SHOWN_S
        with get_client(sync_client=True) as client:
            while True:
                found = client.read_task_runs(flow_run_filter=where)
                ended = [run for run in found if run.state and _ended(run.state)]
                if len(ended) >= count or time.monotonic() > deadline:
                    return {run.name.rpartition("-")[0]: run for run in found}
                time.sleep(0.2)

    def states(self, count: int) -> dict[str, str]:
        return {name: run.state_name for name, run in self.task_runs(count).items()}

    def lines(self, wanted: int) -> list[str]:
        """What its task runs have logged, once there are so many lines of theirs."""
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        where = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self.id]))
        deadline = time.monotonic() + SHOWN_S
        with get_client(sync_client=True) as client:
            while True:
                found = [log.message for log in client.read_logs(where) if log.task_run_id]
                if len(found) >= wanted or time.monotonic() > deadline:
                    return found
                time.sleep(0.2)


def _ended(state: Any) -> bool:
    return bool(state.is_final()) or state.name == "NotReady"


def parents(run: Any) -> set[Any]:
    return {each.id for inputs in run.task_inputs.values() for each in inputs}


def test_settings_are_one_object_that_copies_and_pickles_keep_whole(cluster: Any) -> None:
    there = Dask(address=cluster.scheduler_address, cost_per_hour=2)
    runner = RoutingTaskRunner({"cpu": there, "gpu": Threads(max_workers=3)})
    copies = [
        runner.duplicate(),
        pickle.loads(pickle.dumps(runner)),
        cloudpickle.loads(cloudpickle.dumps(runner)),
    ]
    for copied in copies:
        assert copied == runner
        assert copied.options == runner.options
        assert copied.options.compute == {"cpu": there, "gpu": Threads(max_workers=3)}
    assert runner != RoutingTaskRunner({"cpu": there})
    assert "Threads" in repr(runner)


def test_each_task_goes_to_the_compute_that_its_tags_ask_for(runner: RoutingTaskRunner) -> None:
    def body() -> list[int]:
        with tags("nightly", *on("cpu")):
            around = tasks.here.submit()
        futures = [tasks.where.submit(), tasks.here.submit(), around]
        futures.append(tasks.where.with_options(tags=on("default")).submit())
        return [future.result() for future in futures]

    ran = Ran(runner, body)
    there, here, around, back = ran()
    assert os.getpid() not in (there, around)
    assert here == back == os.getpid()
    shown = {tag for run in ran.task_runs(4).values() for tag in run.tags}
    assert shown == {"nightly"}


@step(compute="cpu", resources=Resources(gpus=1), log_prints=True)
def a_step(value: int) -> tuple[int, int]:
    return value, os.getpid()


def test_a_step_as_task_has_the_compute_and_resources_of_the_step(
    runner: RoutingTaskRunner,
) -> None:
    task = a_step.as_task()
    assert task.tags == {"compute:cpu", "compute.gpus:1"}
    value, process = Ran(runner, lambda: task.submit(7).result())()
    assert value == 7
    assert process != os.getpid()


def test_futures_of_any_runner_are_arguments_wherever_they_are_nested(
    runner: RoutingTaskRunner,
) -> None:
    def body() -> Any:
        one = tasks.number.submit(1)
        two = tasks.add_here.submit(one, 1)
        other: Any = ThreadPoolTaskRunner(max_workers=1)
        with other:
            three = other.submit(tasks.add_here, {"numbers": (one, two)})
            total = tasks.add.submit({"all": [one, (two, three)]}, wait_for=[three])
            later = tasks.add_later.submit(total, one)
            mapped = tasks.add_later.map([one, two, 5], unmapped(later))
            return [total.result(), later.result(), mapped.result()]

    ran = Ran(runner, body)
    assert ran() == [6, 7, [8, 9, 12]]


def test_edges_are_drawn_between_computes(runner: RoutingTaskRunner) -> None:
    def body() -> int:
        one = tasks.number.submit(1)
        two = tasks.add_here.submit(one, 1)
        three = tasks.add.submit([one, two])
        return tasks.add_later.submit(three.result(), 1).result()

    ran = Ran(runner, body)
    assert ran() == 4
    runs = ran.task_runs(4)
    number, here, add = (runs[name] for name in ("number", "add_here", "add"))
    assert parents(number) == set()
    assert parents(here) == {number.id}
    assert parents(add) == {number.id, here.id}


def test_a_task_that_a_task_submits_is_its_child(runner: RoutingTaskRunner) -> None:
    ran = Ran(runner, lambda: tasks.nested.submit(3).result())
    assert ran() == 4
    runs = ran.task_runs(2)
    assert parents(runs["number"]) == {runs["nested"].id}


def test_logs_prints_and_artifacts_of_workers_reach_the_drivers_api(
    runner: RoutingTaskRunner, api: Any
) -> None:
    ran = Ran(runner, lambda: tasks.talk.submit(3).result())
    process, url = ran()
    assert url == api.api_url
    lines = ran.lines(2)
    assert f"in process {process}" in lines
    assert "got 3" in lines
    with get_client(sync_client=True) as client:
        (artifact,) = client.request(
            "POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": [f"told-{process}"]}}}
        ).json()
    assert artifact["flow_run_id"] == ran.id
    assert artifact["task_run_id"] == str(ran.task_runs(1)["talk"].id)


def test_a_failed_task_raises_its_own_error_and_what_needs_it_is_not_ready(
    runner: RoutingTaskRunner,
) -> None:
    seen: dict[str, Any] = {}

    def body() -> None:
        failed = tasks.fail.submit(7)
        below = tasks.add.submit(failed, 1)
        seen["forgiving"] = tasks.where.submit(allow_failure(failed)).result()
        below.wait()
        seen["below"] = below.state.name
        assert failed.state.is_failed()
        failed.result()

    ran = Ran(runner, body)
    with pytest.raises(WrongNumber, match="7 is wrong") as caught:
        ran()
    assert "raise WrongNumber(value)" in str(caught.value.__cause__)
    assert seen["below"] == "NotReady"
    assert isinstance(seen["forgiving"], int)
    assert ran.states(3) == {"fail": "Failed", "add": "NotReady", "where": "Completed"}


def test_a_failed_try_is_repeated_on_the_worker(runner: RoutingTaskRunner, tmp_path: Path) -> None:
    ran = Ran(runner, lambda: tasks.flaky.submit(str(tmp_path / "mark")).result())
    assert ran() == "second"
    assert ran.task_runs(1)["flaky"].run_count == 2


def test_what_would_end_the_workers_process_is_the_end_of_the_task_only(
    runner: RoutingTaskRunner,
) -> None:
    ran = Ran(runner, lambda: tasks.exits.submit(3).result())
    with pytest.raises(StepFailed, match="SystemExit"):
        ran()
    assert ran.states(1) == {"exits": "Crashed"}


def test_a_task_whose_worker_died_is_crashed_and_runs_again_as_its_retries_say(
    runner: RoutingTaskRunner, tmp_path: Path
) -> None:
    def body(task: Any, mark: str) -> Any:
        return task.submit(str(tmp_path / mark)).result()

    ran = Ran(runner, lambda: body(tasks.dies, "first"))
    with pytest.raises(WorkerLost, match="Task 'dies' was on a worker that died once"):
        ran()
    assert ran.states(1) == {"dies": "Crashed"}
    again = Ran(runner, lambda: body(tasks.dies.with_options(retries=1), "second"))
    assert again() == "alive"
    assert again.states(1) == {"dies": "Completed"}


def test_resources_choose_the_worker_and_what_none_offers_fails_at_once(
    runner: RoutingTaskRunner,
) -> None:
    assert Ran(runner, lambda: tasks.on_gpu.submit(1).result())() == 2
    ran = Ran(runner, lambda: tasks.on_many_gpus.submit(1).result())
    with pytest.raises(NoSuchWorker, match="gpus=64"):
        ran()
    assert ran.states(1) == {"on_many_gpus": "Crashed"}


def test_an_unknown_compute_and_tags_without_sense_are_refused(runner: RoutingTaskRunner) -> None:
    def asking(*wanted: str) -> Callable[[], Any]:
        return lambda: tasks.number.with_options(tags=wanted).submit(1)

    with pytest.raises(NoSuchCompute, match=r"'number' asks for compute 'tpu'(.|\n)*cpu, default"):
        Ran(runner, asking("compute:tpu"))()
    for wanted in (["compute.gpus:many"], ["compute.color:red"], ["compute:cpu", "compute:gpu"]):
        with pytest.raises(InvalidStep, match="Task 'number'"):
            Ran(runner, asking(*wanted))()


def test_what_cannot_come_back_from_a_worker_is_a_failure(runner: RoutingTaskRunner) -> None:
    ran = Ran(runner, lambda: tasks.gives_a_socket.submit().result())
    with pytest.raises(Unshippable, match="what it returned cannot be pickled"):
        ran()
    assert ran.states(1) == {"gives_a_socket": "Failed"}


def test_callbacks_waiting_and_completion_are_those_of_prefects_futures(
    runner: RoutingTaskRunner,
) -> None:
    called: list[Any] = []

    def body() -> list[int]:
        futures = [tasks.number.submit(value) for value in range(3)]
        futures[0].add_done_callback(called.append)
        futures[1].wait()
        assert futures[1].state.is_completed()
        found = sorted(future.result() for future in as_completed(futures))
        assert called == [futures[0]]
        return found

    assert Ran(runner, body)() == [0, 1, 2]


def test_cancel_all_of_the_flows_runner_reaches_the_copy_that_runs(
    runner: RoutingTaskRunner, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"

    def body() -> None:
        waiting = tasks.waits.submit(str(mark))
        below = tasks.add.submit(waiting)
        while not mark.exists():
            time.sleep(0.05)
        runner.cancel_all()
        assert waiting.state.is_cancelled()
        with pytest.raises(CancelledRun):
            below.result()

    ran = Ran(runner, body)
    ran()
    assert ran.states(1)["waits"] == "Cancelled"
    mark.unlink()


def test_what_nobody_waits_for_is_cancelled_when_the_flow_ends(
    runner: RoutingTaskRunner, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"

    def body() -> None:
        tasks.waits.submit(str(mark))
        while not mark.exists():
            time.sleep(0.05)

    ran = Ran(runner, body)
    ran()
    assert ran.states(1) == {"waits": "Cancelled"}
    mark.unlink()


def test_a_cluster_takes_no_task_outside_of_a_flow(runner: RoutingTaskRunner) -> None:
    with (
        runner.duplicate() as started,
        pytest.raises(ComputeUnavailable, match="outside of a flow"),
    ):
        started.submit(tasks.number, {"value": 1})
    with pytest.raises(RuntimeError, match="must be started"):
        runner.submit(tasks.number, {"value": 1})


def test_the_context_of_a_flow_goes_to_a_cluster_once(
    runner: RoutingTaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_mlpipe.compute import context

    packed: list[int] = []
    real = context.pack_context

    def counted(*args: Any) -> bytes:
        data = real(*args)
        packed.append(len(data))
        return data

    monkeypatch.setattr(context, "pack_context", counted)

    def body() -> int:
        return sum(future.result() for future in tasks.number.map(list(range(20))))

    assert Ran(runner, body)() == 190
    assert len(packed) == 1


def test_nothing_starts_before_a_task_needs_it_and_all_is_closed_with_the_flow(
    api: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    start = Dask._start

    def counted(self: Dask) -> Any:
        started.append(start(self))
        return started[-1]

    monkeypatch.setattr(Dask, "_start", counted)
    there = Dask(n_workers=1, threads_per_worker=1)
    runner = RoutingTaskRunner({"cpu": there, "same": there, "never": Dask(n_workers=7)})
    assert Ran(runner, lambda: tasks.here.submit().result())() == os.getpid()
    assert started == []

    def body() -> list[int]:
        same = tasks.number.with_options(tags=on("same"))
        return [tasks.number.submit(1).result(), same.submit(2).result()]

    threads = set(threading.enumerate())
    assert Ran(runner, body)() == [1, 2]
    (one,) = started
    assert one.status.name == "closed"
    left = {each.name for each in set(threading.enumerate()) - threads}
    assert not {name for name in left if name.startswith(("mlpipe-cpu", "mlpipe-same"))}
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        assert client.submit(os.getpid).result(SHOWN_S) != os.getpid()


@step(compute="cpu")
def process(value: int) -> int:
    return os.getpid()


def test_a_pipeline_takes_the_computes_of_its_task_runner(
    project: Project, runner: RoutingTaskRunner
) -> None:
    def body() -> int:
        return process(1)

    mine = project.own(pipeline(task_runner=runner)(body))
    assert mine.task_runner == runner
    assert mine() != os.getpid()
    elsewhere = mine.with_options(compute={"cpu": Threads()}, refresh=True)
    assert elsewhere() == os.getpid()
    with pytest.raises(InvalidPipeline, match="RoutingTaskRunner"):
        pipeline(task_runner=ThreadPoolTaskRunner())(body)
