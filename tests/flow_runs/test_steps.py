"""Executed steps are native task runs; the rest is shown beside them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from prefect import get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact

from prefect_mlpipe import pipeline, resolve, step
from prefect_mlpipe.errors import StepTimedOut, UnstableInput
from tests.flow_runs.conftest import Seen


@step(tags=["fast"])
def inc(x: int, by: int = 1) -> int:
    return x + by


@step
def add(a: int, b: int) -> int:
    return a + b


@pipeline
def diamond(x: int = 1) -> int:
    top = inc(x)
    return add(inc(top, 2), inc(top, 3))


EDGES = {("inc", "inc#2"), ("inc", "inc#3"), ("inc#2", "add"), ("inc#3", "add")}


def test_executed_steps_are_task_runs_with_names_tags_and_edges(seen: Seen, store: str) -> None:
    assert diamond.with_options(store=store, name="executed")() == 9
    runs = seen.task_runs("executed", 4)
    assert {name: run["state_name"] for name, run in runs.items()} == dict.fromkeys(
        ["inc", "inc#2", "inc#3", "add"], "Completed"
    )
    assert runs["inc"]["tags"] == ["fast"]
    assert seen.api.edges(seen.flow_run("executed")["id"]) == EDGES


@pytest.mark.parametrize("natively", [False, True], ids=["in bulk", "natively"])
def test_reused_steps_are_cached_task_runs_with_edges(
    seen: Seen, store: str, natively: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_MLPIPE_REPORT_NATIVELY", str(natively))
    name = f"reused {natively}"
    diamond.with_options(store=store).local()
    assert diamond.with_options(store=store, name=name)() == 9
    runs = seen.task_runs(name, 4)
    assert {run["state_name"] for run in runs.values()} == {"Cached"}
    assert "from run" in runs["add"]["state"]["message"]
    assert seen.api.edges(seen.flow_run(name)["id"]) == EDGES


def test_executed_and_reused_steps_are_linked(seen: Seen, store: str) -> None:
    mine = diamond.with_options(store=store, name="both")
    mine.local()
    mine.with_options(refresh=["inc#2"])()
    runs = seen.task_runs("both", 4)
    assert {n: r["state_name"] for n, r in runs.items()} == {
        "inc": "Cached",
        "inc#2": "Completed",
        "inc#3": "Cached",
        "add": "Cached",
    }
    assert seen.api.edges(seen.flow_run("both")["id"]) == EDGES


def test_a_mapped_step_has_a_task_run_and_so_have_its_items(seen: Seen, store: str) -> None:
    @step
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @pipeline(name="mapped")
    def mine(count: int) -> int:
        return total(inc.map(range(count)))

    assert mine.with_options(store=store)(3) == 6
    runs = seen.task_runs("mapped", 5)
    assert sorted(runs) == ["inc", "inc[0]", "inc[1]", "inc[2]", "total"]
    assert ("inc", "total") in seen.api.edges(seen.flow_run("mapped")["id"])


def test_what_could_not_be_decided_is_a_failed_task_run_with_the_message(
    seen: Seen, store: str
) -> None:
    @step
    def takes(value: Any) -> int:
        return 1

    @pipeline(name="undecided")
    def mine() -> int:
        return add(takes(threading.Lock()), 1)

    with pytest.raises(UnstableInput):
        mine.with_options(store=store)()
    runs = seen.task_runs("undecided", 2)
    assert runs["takes"]["state_name"] == "Failed"
    assert "cannot be cached" in runs["takes"]["state"]["message"]
    assert runs["add"]["state_name"] == "NotReady"


def test_retries_delays_and_conditions_are_prefects(seen: Seen, store: str) -> None:
    tries: list[str] = []

    @step(retries=2, retry_delay_seconds=[0.01, 0.02])
    def third_time(x: int) -> int:
        tries.append("third")
        if len(tries) < 3:
            raise ValueError("not yet")
        return x

    @pipeline(name="retried")
    def mine() -> int:
        return third_time(1)

    assert mine.with_options(store=store)() == 1
    assert seen.task_runs("retried", 1)["third_time"]["run_count"] == 3


def test_a_retry_condition_is_asked(api: object, store: str) -> None:
    tries: list[str] = []

    def only_value_errors(task: Any, run: Any, state: Any) -> bool:
        return "ValueError" in state.message

    @step(retries=5, retry_condition_fn=only_value_errors)
    def picky(x: int) -> int:
        tries.append("picky")
        raise ValueError if len(tries) < 3 else KeyError

    @pipeline
    def mine() -> int:
        return picky(1)

    with pytest.raises(KeyError):
        mine.with_options(store=store)()
    assert len(tries) == 3


@step(timeout_seconds=0.5)
def loops(x: int) -> int:
    while x:
        pass
    return x


@step(timeout_seconds=0.5)
async def awaits(x: int) -> int:
    await asyncio.sleep(60)
    return x


@step(timeout_seconds=0.5)
def sleeps(x: int) -> int:
    time.sleep(4)
    return x


@pipeline(name="timed out")
def slow(which: str) -> int:
    return {"loops": loops, "awaits": awaits, "sleeps": sleeps}[which](1)


@pytest.mark.parametrize("which", ["loops", "awaits", "sleeps"])
def test_a_step_past_its_timeout_is_reported_as_timed_out(
    seen: Seen, store: str, which: str
) -> None:
    with pytest.raises(StepTimedOut, match=which):
        slow.with_options(store=store, name=which)(which)
    run = seen.task_runs(which, 1)[which]
    assert (run["state_type"], run["state_name"]) == ("FAILED", "TimedOut")
    assert seen.flow_run(which)["state_type"] == "FAILED"


def test_a_step_that_was_given_up_is_not_tried_again_by_its_own_thread(
    seen: Seen, store: str
) -> None:
    begun: list[float] = []

    @step(timeout_seconds=0.3, retries=1)
    def sleeps(x: int) -> int:
        begun.append(time.monotonic())
        time.sleep(2)
        return x

    @pipeline(name="given up")
    def mine() -> int:
        return sleeps(1)

    with pytest.raises(StepTimedOut):
        mine.with_options(store=store)()
    time.sleep(2.5)  # both threads have come back by now
    assert len(begun) == 2
    body = {"flow_runs": {"id": {"any_": [seen.flow_run("given up")["id"]]}}}
    states = [run["state_name"] for run in seen.api.post("/task_runs/filter", body)]
    assert states == ["TimedOut", "TimedOut"]


def test_prints_and_log_lines_of_a_step_are_logged(seen: Seen, store: str) -> None:
    @step(log_prints=True)
    def talks(x: int) -> int:
        print("said so")
        get_run_logger().warning("warned so")
        return x

    @pipeline(name="talkative")
    def mine() -> int:
        return talks(1)

    mine.with_options(store=store)()
    seen.logs("talkative", "said so")
    seen.logs("talkative", "warned so")
    assert any(
        "warned so" in line for line in mine.with_options(store=store).runs.last()["talks"].logs
    )


def test_artifacts_and_runtime_of_a_step_are_those_of_its_task_run(seen: Seen, store: str) -> None:
    told: dict[str, Any] = {}

    @step
    def writes(x: int) -> int:
        create_markdown_artifact("# page", key="page-of-a-step")
        told.update(
            name=runtime.task_run.name,
            id=str(runtime.task_run.id),
            flow=runtime.flow_run.flow_name,
            parameters=dict(runtime.flow_run.parameters),
        )
        return x

    @pipeline(name="with page")
    def mine(x: int) -> int:
        return writes(x)

    mine.with_options(store=store)(3)
    run = seen.task_runs("with page", 1)["writes"]
    assert told == {"name": "writes", "id": run["id"], "flow": "with page", "parameters": {"x": 3}}
    pages = seen.api.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["page-of-a-step"]}}})
    assert [page["task_run_id"] for page in pages] == [run["id"]]


def test_hooks_of_steps_are_called(api: object, store: str) -> None:
    told: list[str] = []

    def note(task: Any, run: Any, state: Any) -> None:
        told.append(f"{run.name} {state.name}")

    @step(on_completion=[note])
    def good(x: int) -> int:
        return x

    @step(on_failure=[note])
    def bad(x: int) -> int:
        raise ValueError(x)

    @pipeline
    def mine() -> int:
        return bad(good(1))

    with pytest.raises(ValueError, match="1"):
        mine.with_options(store=store)()
    assert told == ["good Completed", "bad Failed"]


def test_a_concurrency_limit_on_a_tag_holds(seen: Seen, store: str) -> None:
    inside: list[int] = []
    most: list[int] = []

    @step(tags=["one-at-a-time"])
    def alone(x: int) -> int:
        inside.append(x)
        most.append(len(inside))
        time.sleep(0.05)
        inside.remove(x)
        return x

    @pipeline
    def mine() -> list[int]:
        return [alone(n) for n in range(3)]

    seen.api.client.create_concurrency_limit("one-at-a-time", 1)
    assert mine.with_options(store=store)() == [0, 1, 2]
    assert max(most) == 1


def test_independent_steps_run_at_the_same_time_also_async_ones(api: object, store: str) -> None:
    both = threading.Barrier(2, timeout=20)

    @step
    def waits(x: int) -> int:
        both.wait()
        return x

    @step
    async def waits_too(x: int) -> int:
        await asyncio.to_thread(both.wait)
        return x

    @pipeline
    def mine() -> list[int]:
        return [waits(1), waits_too(2)]

    assert mine.with_options(store=store)() == [1, 2]


def test_a_resolve_in_the_middle_goes_on_tracing(seen: Seen, store: str) -> None:
    @pipeline(name="steered")
    def mine(x: int) -> int:
        first = inc(x)
        return add(first, 10) if resolve(first) > 2 else first

    assert mine.with_options(store=store)(1) == 2
    assert mine.with_options(store=store)(2) == 13
    assert set(seen.task_runs("steered", 2)) == {"inc", "add"}
