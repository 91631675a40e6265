from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from prefect_mlpipe.core.places.stat_index import StatIndex
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.places import place_of
from prefect_mlpipe.deploy.watcher import Watcher
from prefect_mlpipe.deploy.watches import Watch
from prefect_mlpipe.errors import PrefectUnavailable
from tests.s3 import S3

HOUR_NS = 3600 * 10**9


class Prefect:
    """Acts upon each event once, by its id, as a Prefect server does. It may be out of order."""

    def __init__(self) -> None:
        self.told: dict[str, dict[str, Any]] = {}
        self.refuses = False
        self.forgets_to_answer = False

    def __call__(self, watch: Watch, events: Sequence[Mapping[str, Any]]) -> None:
        if self.refuses:
            raise PrefectUnavailable("The Prefect API does not answer.")
        self.told.update((event["id"], event["payload"]) for event in events)
        if self.forgets_to_answer:
            raise PrefectUnavailable("The Prefect API did not answer in time.")

    def take(self) -> list[dict[str, Any]]:
        """What was told since the last time."""
        payloads, self.told = list(self.told.values()), {}
        return payloads


class World:
    """A folder, a store, a Prefect, a clock, and a watcher that can be killed and started."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.folder = root / "raw"
        self.folder.mkdir(parents=True, exist_ok=True)
        index = StatIndex(clock_ns=lambda: time.time_ns() + HOUR_NS)
        self.store = Store(root / "store", cache_folder=str(root / "cache"), stat_index=index)
        self.prefect = Prefect()
        self.now = 0.0
        words = {"name": "test", "uri": self.folder, "settle": 0, **options}
        self.watch = Watch.model_validate(words)
        self.start()

    def start(self) -> None:
        """A watcher that knows only what the store knows."""
        place = place_of(self.watch, self.store.stat_index)
        self.watcher = Watcher(self.watch, place, self.store, self.prefect, lambda: self.now)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def look(self) -> list[dict[str, str]]:
        """Look, and give what was told: name → kind, one for each event."""
        self.watcher.look()
        return [self.names(payload) for payload in self.prefect.take()]

    def names(self, payload: Mapping[str, Any]) -> dict[str, str]:
        return {
            os.path.relpath(one["path"], self.folder): one["kind"] for one in payload["changes"]
        }


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes worlds, and closes them."""
    worlds: list[World] = []

    def make_one(root: Path = tmp_path, **options: Any) -> World:
        worlds.append(World(root, **options))
        return worlds[-1]

    yield make_one
    for world in worlds:
        world.store.stat_index.close()


@pytest.fixture
def world(make: Make) -> World:
    return make()


def test_what_lay_there_at_the_first_look_is_no_change(world: World) -> None:
    world.write("a.csv", "A")
    assert world.look() == []
    assert world.look() == []


def test_a_folder_that_is_made_later_was_empty_before(make: Make) -> None:
    world = make()
    world.folder.rmdir()
    assert world.look() == []
    world.write("a.csv", "A")
    assert world.look() == [{"a.csv": "added"}]


def test_a_folder_that_goes_away_and_comes_back_with_the_same_files_is_no_change(
    make: Make, tmp_path: Path
) -> None:
    world = make(on_delete=True)
    world.write("a.csv", "A")
    world.look()
    world.folder.rename(tmp_path / "unmounted")
    assert world.look() == []
    (tmp_path / "unmounted").rename(world.folder)
    assert world.look() == []


def test_a_file_dropped_while_nobody_watched_is_told_once_and_not_again_at_the_next_start(
    world: World,
) -> None:
    world.look()
    world.write("deep/a.csv", "A")
    world.start()
    assert world.look() == [{"deep/a.csv": "added"}]
    world.start()
    assert world.look() == []


def test_touching_or_writing_the_same_bytes_tells_nothing_also_over_a_restart(world: World) -> None:
    world.write("a.csv", "A")
    world.look()
    os.utime(world.folder / "a.csv")
    assert world.look() == []
    world.start()
    world.write("a.csv", "A")
    assert world.look() == []


def test_ten_files_in_a_burst_are_one_event_when_it_has_settled(make: Make) -> None:
    world = make(settle=2)
    world.look()
    for number in range(10):
        world.write(f"{number}.csv", str(number))
        world.now += 1
        assert world.look() == []
    world.now += 2
    [told] = world.look()
    assert told == {f"{number}.csv": "added" for number in range(10)}


def test_a_watcher_says_when_to_look_again_while_something_settles(
    make: Make,
) -> None:
    world = make(settle=2)
    assert world.watcher.look() is None
    world.write("a.csv", "A")
    assert world.watcher.look() == pytest.approx(2)
    world.now += 1.5
    assert world.watcher.look() == pytest.approx(0.5)
    world.now += 0.5
    assert world.watcher.look() is None


def test_a_burst_that_is_undone_before_it_settled_tells_nothing(make: Make) -> None:
    world = make(settle=2, on_delete=True)
    world.write("a.csv", "A")
    world.look()
    world.write("a.csv", "B")
    world.write("b.csv", "B")
    world.look()
    world.write("a.csv", "A")
    (world.folder / "b.csv").unlink()
    world.look()
    world.now += 2
    assert world.look() == []


def test_an_event_for_each_file_has_the_path_of_that_file(make: Make) -> None:
    world = make(per="file")
    world.look()
    world.write("a.csv", "A")
    world.write("b.csv", "B")
    world.watcher.look()
    paths = [payload["path"] for payload in world.prefect.take()]
    assert paths == [str(world.folder / "a.csv"), str(world.folder / "b.csv")]


def test_an_event_for_a_burst_has_the_path_of_the_place(world: World) -> None:
    world.look()
    world.write("a.csv", "A")
    world.watcher.look()
    [payload] = world.prefect.take()
    assert payload["path"] == payload["uri"] == str(world.folder)


def test_deleting_and_renaming_are_told_if_asked(make: Make, tmp_path: Path) -> None:
    for on_delete in (False, True):
        world = make(tmp_path / str(on_delete), on_delete=on_delete)
        world.write("a.csv", "A")
        world.write("b.csv", "B")
        world.look()
        (world.folder / "a.csv").unlink()
        assert world.look() == ([{"a.csv": "deleted"}] if on_delete else [])
        (world.folder / "b.csv").rename(world.folder / "c.csv")
        deleted = {"b.csv": "deleted"} if on_delete else {}
        assert world.look() == [{"c.csv": "added", **deleted}]


def test_a_single_file_is_watched_also_when_it_is_deleted(make: Make, tmp_path: Path) -> None:
    world = make(uri=tmp_path / "raw" / "a.csv", on_delete=True)
    world.write("a.csv", "A")
    world.look()
    world.write("a.csv", "B")
    assert world.look() == [{"a.csv": "modified"}]
    (world.folder / "a.csv").unlink()
    assert world.look() == [{"a.csv": "deleted"}]


def test_what_prefect_did_not_take_is_told_at_the_next_look_or_start(world: World) -> None:
    world.look()
    world.write("a.csv", "A")
    world.prefect.refuses = True
    for _ in range(2):
        with pytest.raises(PrefectUnavailable):
            world.look()
    world.start()
    world.prefect.refuses = False
    assert world.look() == [{"a.csv": "added"}]


def test_what_prefect_did_not_take_is_told_also_if_it_has_changed_again_by_then(
    world: World,
) -> None:
    world.look()
    for name in ("a.csv", "b.csv"):
        world.write(name, "A")
    world.prefect.refuses = True
    with pytest.raises(PrefectUnavailable):
        world.look()
    world.prefect.refuses = False
    world.start()
    world.write("a.csv", "B")
    (world.folder / "b.csv").unlink()
    assert world.look() == [{"a.csv": "added", "b.csv": "added"}, {"a.csv": "modified"}]


def test_what_prefect_took_without_saying_so_is_told_again_as_the_same_event(world: World) -> None:
    world.look()
    world.write("a.csv", "A")
    world.prefect.forgets_to_answer = True
    with pytest.raises(PrefectUnavailable):
        world.look()
    world.prefect.forgets_to_answer = False
    world.start()
    world.watcher.look()
    assert len(world.prefect.told) == 1


def test_two_watchers_of_one_place_tell_each_change_once(world: World) -> None:
    world.look()
    first = world.watcher
    world.start()
    for text in ("A", "B", "C"):
        world.write("a.csv", text)
        first.look()
        assert len(world.prefect.take()) == 1
        for _ in range(2):
            world.watcher.look()
        assert world.prefect.take() == []


def test_a_store_that_begins_anew_does_not_repeat_ids(world: World, tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        world.look()
        world.write("a.csv", "A")
        world.watcher.look()
        ids |= world.prefect.told.keys()
        world.prefect.take()
        shutil.rmtree(tmp_path / "store")
        (world.folder / "a.csv").unlink()
        world.store = Store(tmp_path / "store", stat_index=world.store.stat_index)
        world.start()
    assert len(ids) == 2


NAMES = st.sampled_from(["a.csv", "b.csv", "deep/a.csv", "deep/er/b.csv"])
TEXTS = st.sampled_from(["", "A", "B", "longer"])


class WatchedFolder(RuleBasedStateMachine):
    """Whatever is done to a folder, and whenever the watcher or Prefect fails: each difference
    between what was seen and what there is gets told once, and nothing else does."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="watched-"))

    def teardown(self) -> None:
        self.world.store.stat_index.close()
        shutil.rmtree(self.root)

    @initialize(files=st.dictionaries(NAMES, TEXTS), per=st.sampled_from(["run", "file"]))
    def begin(self, files: dict[str, str], per: str) -> None:
        self.world = World(self.root, per=per, on_delete=True)
        for name, text in files.items():
            self.world.write(name, text)
        self.world.look()
        self.seen = self.present()
        self.untold: dict[str, str] = {}

    def present(self) -> dict[str, str]:
        folder = self.world.folder
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_text() for path in paths}

    @rule(name=NAMES, text=TEXTS)
    def write(self, name: str, text: str) -> None:
        self.world.write(name, text)

    @rule(name=NAMES)
    def touch(self, name: str) -> None:
        if (self.world.folder / name).exists():
            os.utime(self.world.folder / name)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.world.folder / name).unlink(missing_ok=True)

    @rule(name=NAMES, other=NAMES)
    def rename(self, name: str, other: str) -> None:
        if (self.world.folder / name).exists():
            (self.world.folder / other).parent.mkdir(parents=True, exist_ok=True)
            (self.world.folder / name).rename(self.world.folder / other)

    @rule()
    def restart(self) -> None:
        self.world.start()

    @rule(refuses=st.booleans())
    def fail(self, refuses: bool) -> None:
        """Prefect does not answer: before it took what was told, or after."""
        prefect = self.world.prefect
        prefect.refuses, prefect.forgets_to_answer = refuses, not refuses
        expected = self.untold or self.changes()
        with pytest.raises(PrefectUnavailable) if expected else contextlib.nullcontext():
            self.world.watcher.look()
        prefect.refuses = prefect.forgets_to_answer = False
        if not self.untold:
            self.untold, self.seen = expected, self.present()

    @rule()
    def look(self) -> None:
        self.world.watcher.look()
        payloads = self.world.prefect.take()
        told = [change for payload in payloads for change in self.world.names(payload).items()]
        expected = [some for some in (self.untold, self.changes()) if some]
        assert sorted(told) == sorted(change for some in expected for change in some.items())
        one_each = self.world.watch.per == "file"
        assert len(payloads) == (len(told) if one_each else len(expected))
        self.untold, self.seen = {}, self.present()

    def changes(self) -> dict[str, str]:
        """The reference: what differs from what the watcher has seen."""
        now = self.present()
        return {
            name: "deleted" if name not in now else "modified" if name in self.seen else "added"
            for name in self.seen.keys() | now.keys()
            if self.seen.get(name) != now.get(name)
        }

    @invariant()
    def nothing_is_left_beside_the_document(self) -> None:
        if hasattr(self, "world"):
            assert len(list((self.root / "store" / "watches").iterdir())) == 1


TestWatchedFolder = WatchedFolder.TestCase
TestWatchedFolder.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_changes_on_s3_are_told_once_and_the_same_bytes_never(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.use(monkeypatch)
    bucket = s3.make_bucket()
    watch = Watch(name="test", uri=f"{bucket}/raw", settle=0, on_delete=True)
    store = Store(f"{bucket}/store", cache_folder=str(tmp_path))
    prefect = Prefect()

    def looked() -> dict[str, str]:
        """What a watcher that starts now tells."""
        watcher = Watcher(watch, place_of(watch, store.stat_index), store, prefect)
        while watcher.look() is not None:
            pass
        changes = [change for payload in prefect.take() for change in payload["changes"]]
        return {one["path"].removeprefix(f"{bucket}/raw/"): one["kind"] for one in changes}

    s3.files.pipe_file(f"{bucket}/raw/a.csv", b"1")
    assert looked() == {}
    s3.files.pipe_file(f"{bucket}/raw/a.csv", b"1")
    assert looked() == {}
    s3.files.pipe_file(f"{bucket}/raw/a.csv", b"2")
    s3.files.pipe_file(f"{bucket}/raw/deep/b.csv", b"1")
    assert looked() == {"a.csv": "modified", "deep/b.csv": "added"}
    s3.files.rm_file(f"{bucket}/raw/a.csv")
    assert looked() == {"a.csv": "deleted"}
    assert looked() == {}
