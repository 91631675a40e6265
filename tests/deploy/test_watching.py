from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect.events.schemas.automations import Automation, EventTrigger
from prefect.flows import load_flow_from_entrypoint

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy import watching
from prefect_mlpipe.deploy.waking import Waker
from prefect_mlpipe.deploy.watches import Watch
from prefect_mlpipe.deploy.watching import WatchThread, look_once, watch_all
from prefect_mlpipe.errors import PrefectUnavailable

WITHIN_S = 20


class Told:
    """Stands for the API: what it is told, and how often it fails before."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.failures = 0
        self.seen = threading.Event()

    def __call__(self, watch: Watch, events: Sequence[Mapping[str, Any]]) -> None:
        if self.failures:
            self.failures -= 1
            raise PrefectUnavailable("The Prefect API does not answer.")
        self.paths += [one["path"] for event in events for one in event["payload"]["changes"]]
        self.seen.set()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(watching, "announce", told)
    monkeypatch.setattr(watching, "KNOWN_S", 0.0)
    return told


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", cache_folder=str(tmp_path / "cache"))
    yield store
    store.stat_index.close()


@pytest.fixture
def start(store: Store) -> Iterator[Callable[..., WatchThread]]:
    """Starts threads that watch, and stops them."""
    threads: list[WatchThread] = []

    def start_one(watch: Watch, deployment_id: uuid.UUID | None = None) -> WatchThread:
        threads.append(WatchThread(watch, store, deployment_id))
        threads[-1].start()
        return threads[-1]

    yield start_one
    for thread in threads:
        thread.stop()
        thread.join(WITHIN_S)


def watch_of(folder: Path, **options: Any) -> Watch:
    return Watch(name="test", **{"uri": str(folder), "every": 0.05, "settle": 0.01, **options})


def begun(store: Store, name: str = "test") -> None:
    """Return once the first look is over."""
    for _ in range(WITHIN_S * 100):
        if store.watches.read(name) is not None:
            return
        threading.Event().wait(0.01)
    pytest.fail("nobody looked")


def test_a_thread_tells_what_changes(
    tmp_path: Path, store: Store, told: Told, start: Callable[..., WatchThread]
) -> None:
    start(watch_of(tmp_path / "raw"))
    begun(store)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.csv").write_text("A")
    assert told.seen.wait(WITHIN_S)
    assert told.paths == [str(tmp_path / "raw" / "a.csv")]


def test_a_thread_outlives_an_api_that_does_not_answer_and_says_so_once(
    tmp_path: Path,
    store: Store,
    told: Told,
    start: Callable[..., WatchThread],
    caplog: pytest.LogCaptureFixture,
) -> None:
    told.failures = 3
    (tmp_path / "raw").mkdir()
    start(watch_of(tmp_path / "raw"))
    with caplog.at_level(logging.WARNING):
        begun(store)
        (tmp_path / "raw" / "a.csv").write_text("A")
        assert told.seen.wait(WITHIN_S)
    assert told.paths == [str(tmp_path / "raw" / "a.csv")]
    said = [record.getMessage() for record in caplog.records if "does not answer" in record.message]
    assert len(said) == 1


def test_a_thread_ends_if_workers_run_the_deployment(
    tmp_path: Path,
    store: Store,
    start: Callable[..., WatchThread],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "_is_served", lambda _: False)
    thread = start(watch_of(tmp_path), uuid.uuid4())
    thread.join(WITHIN_S)
    assert store.watches.read("test") is None


def test_one_watcher_for_all_takes_up_what_is_asked_for(
    tmp_path: Path,
    store: Store,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[list[Watch]] = [[], [watch_of(tmp_path / "raw")]]
    monkeypatch.setattr(watching, "REFRESH_S", 0.05)
    monkeypatch.setattr(watching, "requested", lambda: asked.pop(0) if len(asked) > 1 else asked[0])
    stop = threading.Event()
    thread = threading.Thread(target=watch_all, args=(store, stop))
    thread.start()
    try:
        begun(store)
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw" / "a.csv").write_text("A")
        assert told.seen.wait(WITHIN_S)
    finally:
        stop.set()
        thread.join(WITHIN_S)
    assert [text for text in caplog.messages if text.startswith("Watching")] == [
        "Watching 0 places; no deployment of a work pool waits for data",
        f"Watching 1 place: {tmp_path / 'raw'}",
    ]


def test_a_place_that_cannot_be_looked_at_does_not_keep_the_others_from_it(
    tmp_path: Path, store: Store, told: Told
) -> None:
    wrong = Watch(name="wrong", uri="nosuch://place")
    with pytest.raises(ExceptionGroup) as error:
        look_once([wrong, watch_of(tmp_path)], store)
    assert "nosuch://place" in str(error.value.exceptions[0].__notes__)
    assert store.watches.read("test") is not None


def test_labels_in_an_automation_that_make_no_sense_are_said_and_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trigger = EventTrigger(
        expect={"prefect-mlpipe.data.changed"}, match={"prefect-mlpipe.uri": "raw", "x": "y"}
    )
    automation = Automation(id=uuid.uuid4(), name="odd", trigger=trigger, actions=[])
    with caplog.at_level(logging.WARNING):
        assert list(watching._asked(automation)) == []
    assert "'odd'" in caplog.text


def test_the_flow_that_looks_can_be_deployed_by_its_name() -> None:
    name = "prefect_mlpipe.deploy.watching.watch_data"
    assert load_flow_from_entrypoint(name).name == "watch-data"


def test_a_waker_sleeps_until_it_is_stopped(tmp_path: Path) -> None:
    stop = threading.Event()
    waker = Waker(watch_of(tmp_path, uri="memory://raw"), stop)
    waker.prepare()
    threading.Timer(0.05, stop.set).start()
    waker.sleep(WITHIN_S)
    assert stop.is_set()


def test_a_local_change_wakes_at_once_where_watchfiles_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    stop = threading.Event()
    waker = Waker(watch_of(tmp_path / "raw"), stop)
    waker.prepare()
    waker.sleep(0)  # not there yet
    (tmp_path / "raw" / "deep").mkdir(parents=True)
    waker.sleep(0)
    threading.Timer(0.1, (tmp_path / "raw" / "deep" / "a.csv").write_text, ["A"]).start()
    waker.sleep(3600)  # the limit of the test is shorter
    stop.set()
    waker.sleep(3600)
