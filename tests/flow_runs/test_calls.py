"""A pipeline call is a native flow run that gives its values to a Python caller."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from prefect import flow, task

from prefect_mlpipe import Pipeline, pipeline, resolve, step
from prefect_mlpipe.errors import InvalidParameters, InvalidPipeline, UnresolvedOutput
from tests.flow_runs.conftest import Seen


@step
def double(x: int) -> int:
    return x * 2


@pipeline
def doubled(x: int = 1) -> int:
    return double(x)


def test_a_call_is_a_flow_run_with_parameters_state_and_logs(seen: Seen, store: str) -> None:
    assert doubled.with_options(store=store, name="call")(x=21) == 42
    run = seen.flow_run("call")
    assert (run["state_name"], run["parameters"]) == ("Completed", {"x": 21})
    seen.logs("call", "double: ran (first run)")


@step
def applied(how: Callable[[int], int]) -> int:
    return how(20)


@pipeline
def chosen(up: bool) -> int:
    return applied((lambda x: x + 1) if up else (lambda x: x - 1))


def test_the_log_names_the_code_that_changed_in_an_argument(seen: Seen, store: str) -> None:
    mine = chosen.with_options(store=store, name="chosen")
    mine.local(up=False)
    assert mine(up=True) == 21
    code = "tests.flow_runs.test_calls.chosen.<locals>.<lambda>"
    seen.logs("chosen", f"applied: ran (parameter 'how' changed: code of {code})")


def test_a_run_of_local_is_reused_by_a_flow_run(seen: Seen, store: str) -> None:
    mine = doubled.with_options(store=store, name="from local")
    mine.local(x=21)
    assert mine(x=21) == 42
    assert seen.task_runs("from local", 1)["double"]["state_name"] == "Cached"


def test_return_state_gives_a_state_that_holds_references_only(api: object, store: str) -> None:
    @step
    def zeros(count: int) -> Any:
        return np.zeros(count)

    @pipeline
    def large(count: int) -> dict[str, Any]:
        return {"zeros": zeros(count), "count": count}

    state = large.with_options(store=store)(4_000_000, return_state=True)
    assert state.is_completed()
    assert len(cloudpickle.dumps(state)) < 20_000
    value = state.result().load()
    assert value["count"] == 4_000_000
    assert value["zeros"].shape == (4_000_000,)


def test_a_pipeline_called_in_an_ordinary_flow_is_a_subflow(seen: Seen, store: str) -> None:
    @flow
    def outer() -> int:
        return doubled.with_options(store=store, name="in a flow")(4) + double(1)

    assert outer() == 10
    assert seen.flow_run("in a flow")["parent_task_run_id"] is not None


def test_a_pipeline_can_be_called_where_an_event_loop_runs(api: object, store: str) -> None:
    mine = doubled.with_options(store=store)

    async def cell() -> int:
        return mine(3)

    assert asyncio.run(cell()) == 6


# Prefect leaves the connection of its async client open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pipeline_can_be_called_from_a_thread_and_from_an_async_flow(
    api: object, store: str
) -> None:
    mine = doubled.with_options(store=store)

    @flow
    async def outer() -> list[int]:
        return [mine(2), await asyncio.to_thread(mine, 5)]

    assert asyncio.run(outer()) == [4, 10]


def test_a_step_in_an_ordinary_flow_is_the_function_and_as_task_a_native_task(seen: Seen) -> None:
    @flow(name="with a step")
    def ordinary() -> list[int]:
        return [double(2), double.as_task()(3), double.as_task().submit(4).result()]

    assert ordinary() == [4, 6, 8]
    assert len(seen.task_runs("with a step", 2)) == 2


def test_a_step_can_call_a_pipeline(seen: Seen, store: str) -> None:
    inner = doubled.with_options(store=store, name="called by a step")

    @step
    def calls(x: int) -> int:
        return inner(x) + 1

    @pipeline
    def outer(x: int) -> int:
        return calls(x)

    assert outer.with_options(store=store)(5) == 11
    assert seen.flow_run("called by a step")["state_name"] == "Completed"


def test_a_prefect_task_that_is_given_an_output_is_refused(api: object, store: str) -> None:
    @task
    def add_one(x: int) -> int:
        return x + 1

    @pipeline
    def mixed() -> int:
        return add_one(double(1))

    with pytest.raises(UnresolvedOutput, match="resolve"):
        mixed.with_options(store=store)()


def test_a_prefect_task_in_a_body_can_use_resolved_values(api: object, store: str) -> None:
    @task
    def add_one(x: int) -> int:
        return x + 1

    @pipeline
    def mixed() -> int:
        return double(add_one(resolve(double(1))))

    assert mixed.with_options(store=store)() == 6


def test_parameters_of_a_wrong_type_or_name_are_refused_without_a_flow_run(
    seen: Seen, store: str
) -> None:
    mine: Pipeline[..., Any] = doubled.with_options(store=store, name="never run")
    for wrong in ({"x": "many"}, {"y": 1}, {"x": 1, "y": 1}):
        with pytest.raises(InvalidParameters, match="'never run'"):
            mine(**wrong)
    assert seen.flow_runs("never run") == []


def test_flow_options_and_hooks_are_prefects(seen: Seen, store: str) -> None:
    told: list[str] = []

    @pipeline(
        name="with options",
        description="doubles",
        flow_run_name="x-is-{x}",
        on_completion=[lambda flow, run, state: told.append(f"{flow.name}: {state.name}")],
        store=store,
    )
    def mine(x: int) -> int:
        return double(x)

    assert mine.description == "doubles"
    assert mine(4) == 8
    assert told == ["with options: Completed"]
    assert seen.flow_run("with options")["name"] == "x-is-4"


@step
def noted(x: int, log: str) -> int:
    with open(log, "a") as file:
        file.write("noted\n")
    return x + 1


@step(cache=False)
def fails_at_first(x: int, log: str) -> int:
    with open(log, "a") as file:
        file.write("fails\n")
    if Path(log).read_text().count("fails") == 1:
        raise RuntimeError("the first time it fails")
    return x + 1


def test_a_flow_that_is_tried_again_reuses_what_it_has_and_returns_the_value(
    seen: Seen, store: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()

    @pipeline(name="tried again", retries=1)
    def mine(log: str) -> int:
        return fails_at_first(noted(1, log), log)

    assert mine.with_options(store=store)(str(log)) == 3
    assert log.read_text().split() == ["noted", "fails", "fails"]
    assert seen.flow_run("tried again")["run_count"] == 2


def test_a_flow_past_its_timeout_stops_and_nothing_stays_running(seen: Seen, store: str) -> None:
    @step
    def long(x: int) -> int:
        time.sleep(5)
        return x

    @pipeline(name="past its time", timeout_seconds=1)
    def mine() -> int:
        return double(long(1))

    with pytest.raises(TimeoutError):
        mine.with_options(store=store)()
    assert seen.flow_run("past its time")["state_name"] == "TimedOut"
    states = seen.states("past its time", 2)
    assert states == {"long": "Cancelled", "double": "Cancelled"}


def test_visualize_is_refused_with_what_to_call_instead() -> None:
    with pytest.raises(InvalidPipeline, match=r"graph\(\)"):
        doubled.visualize()


def test_with_options_keeps_class_and_all_options(store: str) -> None:
    first = doubled.with_options(store=store, retries=3, refresh=["double"])
    second = first.with_options(name="other", failures="stop").with_options(log_prints=True)
    assert type(second) is type(doubled)
    assert (second.name, second.retries, second.log_prints) == ("other", 3, True)
    assert (second.options.store, second.options.refresh) == (store, ("double",))
    assert second.options.failures == "stop"
    assert doubled.retries == 0
    assert doubled.options.store is None


def test_a_pickled_pipeline_is_the_same_pipeline(store: str) -> None:
    mine = doubled.with_options(store=store, name="pickled", retries=2)
    for copied in (pickle.loads(pickle.dumps(mine)), cloudpickle.loads(cloudpickle.dumps(mine))):
        assert (copied.name, copied.retries, copied.options) == ("pickled", 2, mine.options)
        assert copied.local(x=4) == 8
        assert mine.plan(x=4).complete
        assert [planned.action for planned in mine.plan(x=4)] == ["reuse"]
