from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.schemas.objects import State, StateType
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Cancelled, Cancelling, Running

from prefect_mlpipe.reporting.watch import HEARTBEAT, RunWatch, without_prefect_heartbeat
from tests.reporting.conftest import VISIBLE_S, Api, eventually
from tests.reporting.fake_api import Answer, FakeApi


class Calls:
    """Counts, and lets a test wait for the first."""

    def __init__(self) -> None:
        self.count = 0
        self.first = threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.first.set()


def watch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mlpipe-watch"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    for thread in watch_threads():  # of the runs of other tests, in a request that is under way
        thread.join(30)
    yield
    for thread in watch_threads():
        thread.join(5)
    assert watch_threads() == []


@pytest.mark.parametrize("state", [Cancelling(), Cancelled()], ids=["cancelling", "cancelled"])
def test_a_cancelled_run_is_noticed_once(prefect_api: Api, state: State) -> None:
    flow_run, cancelled = prefect_api.new_flow_run(), Calls()
    with RunWatch(flow_run, cancelled, poll_s=0.05):
        assert not cancelled.first.wait(0.3)
        prefect_api.client.set_flow_run_state(flow_run, state, force=True)
        assert cancelled.first.wait(VISIBLE_S)
        threading.Event().wait(0.2)  # some polls more, if there were any
    assert cancelled.count == 1


def test_any_other_state_is_let_be(prefect_api: Api) -> None:
    flow_run, cancelled = prefect_api.new_flow_run(), Calls()
    with RunWatch(flow_run, cancelled, poll_s=0.02):
        for state in (Running(name="Retrying"), State(type=StateType.PAUSED, name="Paused")):
            prefect_api.client.set_flow_run_state(flow_run, state, force=True)
        assert not cancelled.first.wait(0.2)


def test_trouble_with_the_api_does_not_end_the_watch() -> None:
    answers: Iterator[Answer] = iter([(500, None), (404, {}), (200, {}), (200, ["?"])])

    def answer(method: str, path: str, body: Any) -> Answer:
        return next(answers, (200, {"state_type": "CANCELLING"}))

    cancelled = Calls()
    with FakeApi(answer).running(), RunWatch(uuid4(), cancelled, poll_s=0.01):
        assert cancelled.first.wait(20)


def test_a_failing_callback_is_logged_and_not_repeated() -> None:
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("prefect.mlpipe")
    logger.addHandler(handler)
    calls = Calls()

    def fail() -> None:
        calls()
        raise OSError("no")

    try:
        api = FakeApi(lambda *_: (200, {"state_type": "CANCELLED"}))
        with api.running(), RunWatch(uuid4(), fail, poll_s=0.01):
            assert calls.first.wait(20)
            eventually(lambda: said, len, 5)
    finally:
        logger.removeHandler(handler)
    assert calls.count == 1
    assert len(said) == 1


def test_a_short_run_asks_nothing() -> None:
    with FakeApi(lambda *_: (200, {})).running() as api, RunWatch(uuid4(), Calls()):
        pass
    assert api.asked == []


def test_closing_ends_the_thread_though_the_next_look_is_far_away() -> None:
    watch = RunWatch(uuid4(), Calls(), poll_s=3600.0, heartbeat_s=3600.0)
    with watch:
        assert len(watch_threads()) == 1
    for thread in watch_threads():
        thread.join(10)
    assert watch_threads() == []


def heartbeats(api: Api, flow_run: UUID) -> list[Any]:
    filter = {
        "event": {"name": [HEARTBEAT]},
        "resource": {"id": [f"prefect.flow-run.{flow_run}"]},
    }
    return list(api.post("/events/filter", {"filter": filter})["events"])


def test_heartbeats_are_found_where_automations_look_for_them(prefect_api: Api) -> None:
    flow_run = prefect_api.new_flow_run()
    facts = {"prefect.resource.name": "red-fox"}
    with RunWatch(flow_run, Calls(), resource=facts, heartbeat_s=0.1):
        found = eventually(
            lambda: heartbeats(prefect_api, flow_run), lambda all: len(all) > 1, VISIBLE_S
        )
    assert len(found) > 1
    assert found[0]["resource"]["prefect.resource.name"] == "red-fox"


def test_prefects_own_heartbeat_is_off_within_the_block_only(prefect_api: Api) -> None:
    seen = []

    @flow
    def night() -> None:
        seen.append(get_current_settings().flows.heartbeat_frequency)

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 60}):
        with without_prefect_heartbeat():
            night()
        night()
    assert seen == [None, 60]


@pytest.mark.parametrize(("chosen", "expected"), [(None, 30.0), (45, 45.0)])
def test_the_users_frequency_is_kept(chosen: int | None, expected: float) -> None:
    settings = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: chosen} if chosen else {}
    with temporary_settings(settings), without_prefect_heartbeat(), without_prefect_heartbeat():
        assert RunWatch(uuid4(), Calls())._heartbeat_s == expected
