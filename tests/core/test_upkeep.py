from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from prefect_mlpipe.core.files import File
from prefect_mlpipe.core.formats import registry
from prefect_mlpipe.core.leases.heart import heart
from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.upkeep import pruning
from prefect_mlpipe.core.upkeep.pruning import Pruned
from prefect_mlpipe.errors import StoreUnavailable, ValueMissing
from tests.core.stores import a_record, flip, forced, path_of

DAY = 86400.0


@pytest.fixture(autouse=True)
def no_pause_between_the_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "SETTLE_S", 0.0)


def value(store: Store, number: int) -> StoredValue:
    return store.put(np.full(10_000, number))


def recorded(store: Store, number: int, **fields: StoredValue) -> Record:
    record = a_record(f"{number:064x}", number)._replace(
        fields=fields or {"": value(store, number)}
    )
    return store.records.write(record)


def ran(
    store: Store, run: str, days_ago: float, *records: Record, pipeline: str = "digits"
) -> None:
    started = time.time() - days_ago * DAY
    nodes = [
        {"key": r.key, "fields": {n: v.to_json() for n, v in r.fields.items()}} for r in records
    ]
    document = {"id": run, "started": started, "nodes": nodes}
    store.runs.write(pipeline, run, document, started=started)


def aged(store: Store, days: float) -> None:
    """Let everything in a local store be some days older than it is."""
    for path in [Path(store.url), *Path(store.url).rglob("*")]:
        facts = path.lstat()
        os.utime(path, (facts.st_atime - days * DAY, facts.st_mtime - days * DAY))


def there(store: Store, *records: Record) -> list[bool]:
    """Which of the records are there with their values."""
    return [
        store.records.read(record.key) is not None and all(map(store.has, record.fields.values()))
        for record in records
    ]


# --- what goes and what stays --------------------------------------------------------------------


def test_without_rules_only_what_nothing_refers_to_goes(local: Store) -> None:
    kept = recorded(local, 1)
    lost = value(local, 2)
    aged(local, 1)
    done = local.prune()
    assert there(local, kept) == [True]
    assert not local.has(lost)
    assert (done.counts, done.size_bytes) == ({"values": 1}, lost.size)
    assert local.prune().counts == {}


def test_the_newest_runs_of_each_pipeline_stay_with_all_they_used(local: Store) -> None:
    a, b, c, d = (recorded(local, number) for number in range(4))
    ran(local, "old", 30, a, d)
    ran(local, "middle", 20, b)
    ran(local, "new", 10, c, d)
    ran(local, "only", 40, b, pipeline="other")
    aged(local, 50)
    done = local.prune(keep_last=1)
    assert there(local, a, b, c, d) == [False, True, True, True]
    assert [local.runs.ids("digits"), local.runs.ids("other")] == [["new"], ["only"]]
    assert done.counts == {"records": 1, "runs": 2, "values": 1}


def test_what_was_used_since_stays(local: Store) -> None:
    a, b, c = (recorded(local, number) for number in range(3))
    ran(local, "old", 30, a, b)
    ran(local, "new", 5, b)
    aged(local, 50)
    local.prune(older_than=timedelta(days=10))
    assert there(local, a, b, c) == [False, True, False], "c is of no run, and old"
    assert local.runs.ids("digits") == ["new"]


def test_both_conditions_must_hold(local: Store) -> None:
    a, b, c = (recorded(local, number) for number in range(3))
    for name, days, record in [("a", 30, a), ("b", 5, b), ("c", 1, c)]:
        ran(local, name, days, record)
    aged(local, 50)
    local.prune(keep_last=1, older_than=timedelta(days=10))
    assert there(local, a, b, c) == [False, True, True]


def test_what_a_killed_run_left_can_be_resumed_for_a_week(local: Store) -> None:
    left = recorded(local, 1)
    ran(local, "new", 1, recorded(local, 2))
    aged(local, 5)
    local.prune(keep_last=1)
    assert there(local, left) == [True]
    aged(local, 5)
    local.prune(keep_last=1)
    assert there(local, left) == [False]


def test_pinned_runs_and_published_values_stay(local: Store) -> None:
    a, b, c = (recorded(local, number) for number in range(3))
    ran(local, "a", 30, a)
    ran(local, "b", 20, b)
    ran(local, "c", 10, c)
    local.runs.pin("digits", "a")
    local.published.write("model", "1", {"name": "model", "value": b.fields[""].to_json()})
    aged(local, 50)
    local.prune(keep_last=0)
    assert there(local, a, c) == [True, False]
    assert local.has(b.fields[""])
    assert local.runs.ids("digits") == ["a"]
    local.runs.pin("digits", "a", pinned=False)
    local.prune(keep_last=0)
    assert there(local, a) == [False]


def test_a_value_that_a_kept_run_returned_stays_when_its_record_was_replaced(local: Store) -> None:
    first = recorded(local, 1)
    ran(local, "one", 1, first)
    local.records.write(first._replace(fields={"": value(local, 7)}), replace=True)
    aged(local, 20)
    local.prune(keep_last=1)
    assert local.has(first.fields[""])


def test_what_was_not_used_for_longest_goes_until_the_rest_has_room(local: Store) -> None:
    records = [recorded(local, number) for number in range(4)]
    size = records[0].fields[""].size
    for number, record in enumerate(records):
        ran(local, f"run{number}", 10 - number, record)
    ran(local, "again", 1, records[0])
    aged(local, 50)
    done = local.prune(max_bytes=2 * size)
    assert there(local, *records) == [True, False, False, True]
    assert (done.kept_bytes, done.over_bytes) == (2 * size, 0)
    assert len(local.runs.ids("digits")) == 5, "what is known of runs stays"


def test_room_may_be_said_in_words_and_what_must_stay_exceeds_it(local: Store) -> None:
    record = recorded(local, 1)
    ran(local, "one", 1, record)
    aged(local, 50)
    done = local.prune(keep_last=1, max_bytes="10 kB")
    assert there(local, record) == [True]
    assert done.over_bytes == record.fields[""].size - 10_000
    assert "more than allowed" in str(done)


def test_a_value_of_two_records_stays_for_the_other(local: Store) -> None:
    shared = value(local, 1)
    old, new = recorded(local, 1, a=shared, b=value(local, 2)), recorded(local, 2, a=shared)
    ran(local, "old", 30, old)
    ran(local, "new", 1, new)
    aged(local, 50)
    local.prune(keep_last=1)
    assert there(local, old, new) == [False, True]
    assert not local.has(old.fields["b"])


def test_files_and_folders_go_whole(local: Store, tree: Path) -> None:
    stored = [local.put(File(tree / "a[1].csv"))]
    aged(local, 1)
    done = local.prune()
    assert done.counts == {"values": len(stored)}
    assert [path for path in (Path(local.url) / "values").rglob("*") if path.is_file()] == []


def test_code_goes_when_no_record_has_it_and_no_other_code_shows_its_parts(local: Store) -> None:
    local.codes.write("a" * 64, {"parts": {}, "elsewhere": {"f": "b" * 64}})
    local.codes.write("b" * 64, {"parts": {}, "elsewhere": {}})
    local.codes.write("e" * 64, {"parts": {}, "elsewhere": {}})
    local.records.write(a_record()._replace(manifest={"code": "a" * 64}))
    aged(local, 1)
    local.prune()
    assert [local.codes.read(c * 64) is not None for c in "abe"] == [True, True, False]


def test_what_killed_writers_left_goes(local: Store) -> None:
    local.put(1)
    values = Path(local.url) / "values" / "3f"
    (values / ".tmp-folder").mkdir(parents=True)
    (values / ".tmp-folder" / "a.csv").write_text("1")
    (values / ".tmp-file").write_text("1")
    assert local.prune().counts == {}, "it may still be written"
    aged(local, 1)
    assert local.prune().counts == {"unfinished": 2}
    assert list(values.iterdir()) == []


def test_segments_and_moves_go_with_the_runs_that_need_them(remote: Store) -> None:
    records = [recorded(remote, number) for number in range(10)]
    name = remote.segments.write(records)
    ran(remote, "one", 1, *records)
    document = remote.runs.read("digits", "one") or {}
    remote.runs.write("digits", "one", {**document, "segment": name}, started=document["started"])
    remote.prune()
    assert len(remote.segments.read(str(name))) == 10
    _aged_in_memory(days=20)
    assert remote.prune(keep_last=0).counts == {"records": 11, "runs": 1, "values": 10}
    assert remote.segments.read(str(name)) == {}


def _aged_in_memory(days: float) -> None:
    import fsspec

    for file in fsspec.filesystem("memory").store.values():
        file.created -= timedelta(days=days)
        file.modified -= timedelta(days=days)


# --- beside running runs -------------------------------------------------------------------------


# --- records that lie together -------------------------------------------------------------------


def packed(store: Store, numbers: range) -> list[Record]:
    records = [
        a_record(f"{number:x}".zfill(16) * 4, number)._replace(fields={"": value(store, number)})
        for number in numbers
    ]
    return store.records.write_many(records)


def packs_in(store: Store) -> list[int]:
    return [len(list(store._backend.list(folder))) for folder in ("packs", "pack-keys")]


def test_of_records_in_a_pack_those_go_that_no_kept_run_used(local: Store) -> None:
    records = packed(local, range(1, 13))
    ran(local, "old", 30, *records)
    ran(local, "new", 10, *records[:9])
    aged(local, 50)
    done = local.prune(keep_last=1)
    assert there(local, *records) == [True] * 9 + [False] * 3
    assert done.counts == {"records": 3, "runs": 1, "values": 3}
    assert packs_in(local) == [1, 1]
    again = Store(local.url, cache_folder=local._cache_folder)
    assert there(again, *records) == [True] * 9 + [False] * 3
    assert again.verify()


def test_a_pack_of_which_nothing_stays_goes_whole(local: Store) -> None:
    records = packed(local, range(1, 13))
    ran(local, "old", 30, *records)
    ran(local, "new", 10)
    aged(local, 50)
    local.prune(keep_last=1)
    assert there(local, *records) == [False] * 12
    assert packs_in(local) == [0, 0]


def test_what_was_replaced_leaves_its_pack_with_its_value(local: Store) -> None:
    records = packed(local, range(1, 13))
    newer = records[0]._replace(fields={"": value(local, 99)})
    local.records.write(newer, replace=True)
    aged(local, 1)
    local.prune()
    assert there(local, newer, *records[1:]) == [True] * 12
    assert not local.has(records[0].fields[""])
    again = Store(local.url, cache_folder=local._cache_folder)
    assert again.records.read_many([newer.key]) == {newer.key: newer}


def test_what_a_run_in_progress_uses_of_a_pack_stays(local: Store) -> None:
    records = packed(local, range(1, 13))
    aged(local, 50)
    active = local.active("now")
    active.uses(records[3].key)
    active.renew()
    local.prune(keep_last=0)
    assert there(local, *records) == [number == 3 for number in range(12)]
    active.close()


def test_what_is_young_stays_whatever_the_rules(local: Store) -> None:
    record, lost = recorded(local, 1), value(local, 2)
    done = local.prune(keep_last=0, older_than=timedelta(0), max_bytes=0)
    assert there(local, record) == [True]
    assert local.has(lost)
    assert done.counts == {}


def test_a_value_that_was_made_again_is_not_taken_for_left_behind(local: Store) -> None:
    first = value(local, 1)
    aged(local, 1)
    again = value(local, 1)  # not written again; its record is still to come
    assert again == first
    assert local.prune().counts == {}
    assert local.has(first)
    aged(local, 1)
    assert local.prune().counts == {"values": 1}
    assert [path for path in (Path(local.url) / "values").rglob("*") if path.is_file()] == []


def test_a_value_that_is_needed_while_it_is_being_removed_stays(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = value(local, 1)
    aged(local, 1)
    rename = os.rename

    def at_that_moment(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        assert value(local, 1) == stored
        rename(source, target)

    monkeypatch.setattr(os, "rename", at_that_moment)
    assert local.prune().counts == {}
    assert (local.get(stored) == 1).all()


def test_a_record_that_is_replaced_while_it_is_being_removed_stays(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = recorded(local, 1)
    ran(local, "old", 30, record)
    aged(local, 50)
    newer = record._replace(duration_s=7.0)
    stat = local._backend.stat  # type: ignore[attr-defined]

    def at_that_moment(name: str) -> object:
        if name.startswith("records/"):
            monkeypatch.undo()
            local.records.write(newer, replace=True)
        return stat(name)

    monkeypatch.setattr(local._backend, "stat", at_that_moment)
    local.prune(keep_last=0)
    assert local.records.read(record.key) == newer


def test_what_a_run_in_progress_has_reused_stays_with_its_values(local: Store) -> None:
    a, b = recorded(local, 1), recorded(local, 2)
    ran(local, "old", 30, a, b)
    aged(local, 50)
    active = local.active("a run")
    active.uses(a.key)
    active.renew()
    local.prune(keep_last=0)
    assert there(local, a, b) == [True, False]
    active.close()
    aged(local, 50)
    local.prune(keep_last=0)
    assert there(local, a) == [False]


def test_the_word_of_a_killed_run_does_not_hold_for_ever(local: Store) -> None:
    a = recorded(local, 1)
    ran(local, "old", 30, a)
    active = local.active("killed")
    active.uses(a.key)
    active.renew()
    aged(local, 50)
    assert local.prune(keep_last=0).counts["records"] == 1
    heart.remove(active)


def test_a_run_that_is_over_at_once_says_nothing(local: Store, tmp_path: Path) -> None:
    local.put(1)
    active = local.active("short")
    active.uses("ab" * 32)
    active.close()
    assert not (tmp_path / "store" / "active").exists()


@pytest.mark.parametrize("how", ["published", "returned by a run", "reused", "recorded"])
def test_what_comes_to_be_needed_between_the_two_looks_stays(
    local: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    record = recorded(local, 1)
    lost = value(local, 2)
    ran(local, "old", 30, record)
    aged(local, 50)
    actives = []

    def between(seconds: float) -> None:
        if how == "published":
            local.published.write("model", "1", {"value": record.fields[""].to_json()})
        elif how == "returned by a run":
            ran(local, "new", 0, record)
        elif how == "reused":
            actives.append(local.active("new"))
            actives[0].uses(record.key)
            actives[0].renew()
        else:
            local.records.write(record._replace(duration_s=7.0), replace=True)

    monkeypatch.setattr(pruning.time, "sleep", between)
    local.prune(keep_last=0)
    assert local.has(record.fields[""])
    assert (local.records.read(record.key) is not None) == (how != "published")
    assert not local.has(lost)
    for active in actives:
        active.close()


def test_a_parameter_that_only_prefect_knows_stays_for_a_week(local: Store) -> None:
    stored = value(local, 1)
    local.parameters.write(stored.checksum, {"value": stored.to_json()})
    aged(local, 5)
    local.prune(keep_last=0)
    assert local.has(stored)
    aged(local, 5)
    local.prune()
    assert not local.has(stored)


def test_nothing_is_removed_where_documents_are_not_signed_with_our_key(local: Store) -> None:
    record = recorded(local, 1)
    local.published.write("model", "1", {"value": record.fields[""].to_json()})
    aged(local, 50)
    signing = Store(
        local.url, cache_folder=local._cache_folder, signing_key="a mistyped key of ours"
    )
    for rules in ({}, {"keep_last": 0}):
        with pytest.raises(StoreUnavailable, match="not signed"):
            signing.prune(**rules)  # type: ignore[arg-type]
    found = signing.verify(repair=True)
    assert {problem.found for problem in found.problems} == {"not signed"}
    assert there(local, record) == [True]
    assert local.published.read("model", "1") is not None
    signing.sign()
    assert signing.prune().counts == {}


def test_what_is_not_ours_in_the_store_is_left_alone(local: Store) -> None:
    recorded(local, 1)
    names = ["values/.DS_Store", "values/ab/notes.txt", "records/readme", "lost+found/x", "runs/y"]
    for name in names:
        path = Path(local.url) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("hello")
    aged(local, 50)
    assert local.usage().kinds["values"].number == 1
    local.verify(repair=False)
    local.prune()
    assert all((Path(local.url) / name).exists() for name in names if name != "records/readme")


def test_a_value_of_an_unknown_format_is_told_and_not_removed(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = recorded(local, 1)
    monkeypatch.setattr(registry, "_by_name", {})
    monkeypatch.setattr(registry, "_on_demand", {})
    (problem,) = local.verify(repair=True).problems
    assert "format 'npy'" in problem.found
    monkeypatch.undo()
    assert there(local, record) == [True]


def test_verification_of_a_remote_store_reads_the_store_and_not_the_copy(remote: Store) -> None:
    record = recorded(remote, 1)
    assert remote.verify()
    remote._backend.replace(remote._values.name(record.fields[""]), b"garbage")
    assert [problem.found for problem in remote.verify().problems] == ["damaged"]


def test_runs_of_pipelines_with_brackets_are_seen(store: Store) -> None:
    record = recorded(store, 1)
    ran(store, "one", 1, record, pipeline="train[cpu]*?")
    assert store.runs.last("train[cpu]*?") is not None
    assert store.usage().kinds["runs"].number == 2
    assert store.verify().documents == 3


def test_a_dry_run_says_what_would_go_and_removes_nothing(local: Store) -> None:
    a, b = recorded(local, 1), recorded(local, 2)
    ran(local, "a", 30, a)
    ran(local, "b", 20, b)
    aged(local, 50)
    told = local.prune(keep_last=1, dry_run=True)
    assert there(local, a, b) == [True, True]
    assert str(told).startswith(f"{local.url}: would free ")
    done = local.prune(keep_last=1)
    assert (done.counts, done.size_bytes) == (told.counts, told.size_bytes)
    assert "freed" in str(done)


@pytest.mark.parametrize(
    "rules", [{"keep_last": -1}, {"grace": timedelta(minutes=1)}, {"max_bytes": "much"}]
)
def test_rules_that_make_no_sense_are_refused(local: Store, rules: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"runs|grace|bytes|byte"):
        local.prune(**rules)  # type: ignore[arg-type]


def test_a_store_that_is_not_there_prunes_to_nothing(local: Store) -> None:
    assert local.prune(keep_last=0).counts == Pruned("", False).counts


# --- usage and verify ----------------------------------------------------------------------------


def test_usage_tells_kinds(store: Store) -> None:
    record = recorded(store, 1)
    recorded(store, 2, a=record.fields[""])
    ran(store, "one", 1, record)
    found = store.usage()
    assert found.kinds["values"] == (1, record.fields[""].size)
    assert (found.kinds["records"].number, found.kinds["runs"].number) == (2, 2)
    assert found.size_bytes == sum(room.size_bytes for room in found.kinds.values())
    assert str(found).splitlines()[0] == store.url
    assert "  values               1" in str(found)


def test_a_sound_store_verifies(store: Store) -> None:
    ran(store, "one", 1, recorded(store, 1))
    found = store.verify()
    assert found
    assert (found.values, found.problems) == (1, ())
    assert "all sound" in str(found)


def test_everything_that_is_not_sound_is_told_with_its_steps(local: Store) -> None:
    damaged, missing, torn = (recorded(local, number) for number in range(3))
    forced(flip, path_of(local, damaged.fields[""]))
    path_of(local, missing.fields[""]).unlink()
    path = Path(local.url) / "records" / torn.key[:2] / torn.key
    path.write_bytes(path.read_bytes()[:50])
    store = Store(local.url, cache_folder=local._cache_folder)
    found = store.verify()
    assert not found
    told = {problem.name.rpartition("/")[2][:64]: problem.found for problem in found.problems}
    assert told == {
        damaged.fields[""].checksum: "damaged",
        missing.fields[""].checksum: "missing",
        torn.key: "damaged",
    }
    assert "verify(repair=True)" in str(found)
    assert store.verify(repair=True).repaired
    assert [problem.found for problem in store.verify().problems] == ["missing", "missing"]
    with pytest.raises(ValueMissing):
        store.get(damaged.fields[""])
