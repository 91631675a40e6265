"""A store is probed, and is afterwards as it was before."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefect_mlpipe.core.places.backends import LocalBackend
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.upkeep import probing
from prefect_mlpipe.errors import StoreUnavailable
from tests.core.stores import reopened
from tests.s3 import S3


def files(store: Store) -> set[Path]:
    return {path for path in Path(store.url).rglob("*") if path.is_file()}


def test_where_there_is_none_it_says_so_and_makes_none(local: Store) -> None:
    assert not local.probe().there
    assert not Path(local.url).exists()


def test_one_that_is_there_is_left_as_it_was(local: Store) -> None:
    local.runs.write("digits", "one", {"id": "one"}, started=1.0)
    before = files(local)
    found = reopened(local).probe()
    assert found.there
    assert found.honours_create
    assert (found.clock_ahead_s, found.looked_at, found.refused) == (0.0, 1, 0)
    assert files(local) == before


def test_a_damaged_run_is_not_believed(local: Store) -> None:
    local.runs.write("digits", "one", {"id": "one"}, started=1.0)
    [run] = Path(local.url).rglob("*-one.json")
    run.chmod(0o644)
    run.write_bytes(run.read_bytes()[:-4])
    assert reopened(local).probe().refused == 1


@pytest.mark.parametrize(("hours", "ahead"), [(1, -3600), (-1, 3600)])
def test_a_clock_that_differs_from_ours_is_seen(
    local: Store, monkeypatch: pytest.MonkeyPatch, hours: int, ahead: int
) -> None:
    local.prepare()
    ours = SimpleNamespace(time=lambda: time.time() + hours * 3600, perf_counter=time.perf_counter)
    monkeypatch.setattr(probing, "time", ours)
    assert local.probe().clock_ahead_s == pytest.approx(ahead, abs=5)


def test_one_that_gives_back_something_else_is_refused_and_left_clean(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.prepare()
    before = files(local)
    read = LocalBackend.read
    monkeypatch.setattr(
        LocalBackend, "read", lambda self, name: (read(self, name) or b"")[:-1] or None
    )
    with pytest.raises(StoreUnavailable, match="does not keep what it is given"):
        local.probe()
    assert files(local) == before


def test_a_remote_one_says_whether_it_honours_create_once(s3: S3, tmp_path: Path) -> None:
    store = Store(f"{s3.make_bucket()}/store", cache_folder=str(tmp_path), **s3.options)
    assert not store.probe().there
    store = reopened(store)
    store.prepare()
    found = store.probe()
    assert (found.there, found.honours_create) == (True, s3.honours_create)
    assert found.clock_ahead_s == 0.0


def test_the_pipelines_that_have_runs_are_known_by_their_whole_names(local: Store) -> None:
    assert local.runs.pipelines() == []
    names = ["digits", "a b/c", "long " * 60]
    for name in names:
        local.runs.write(name, "one", {"id": "one", "pipeline": name}, started=1.0)
    assert local.runs.pipelines() == sorted(names)
