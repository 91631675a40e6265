"""Records that lie together: the first of a key stands, whoever moves a key is believed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.storing import packs
from tests.core.stores import a_record, reopened


def record(number: int, salt: str = "", **metrics: float) -> Record:
    """One of many records of a mapped step, each with a manifest that differs a little."""
    chance = random.Random(f"{salt}{number}")
    manifest = {
        "function": "m.f",
        "code": "c" * 64,
        "inputs": {"x": f"{number:064x}", "y": "e" * 64},
        "reads": {},
        "version": None,
        "environment": {"python": "3.11"},
        "shown": {"x": str(number)} if number % 3 else {},
        "sources": {},
    }
    plain = a_record(f"{chance.getrandbits(256):064x}", number, **metrics)
    return plain._replace(manifest=manifest, provenance={"run": "owl", "step": f"f[{number}]"})


RECORDS = [record(number) for number in range(100)]
KEYS = [each.key for each in RECORDS]
BY_KEY = {each.key: each for each in RECORDS}


def names(store: Store, folder: str = packs.FOLDER) -> list[str]:
    return sorted(entry.name for entry in store._backend.list(folder))


def test_records_written_together_are_one_object_and_read_as_they_were(store: Store) -> None:
    assert store.records.write_many(RECORDS) == RECORDS
    assert len(names(store)) == 1
    assert names(store, "records") == []
    other = reopened(store)
    assert other.records.read_many(KEYS) == BY_KEY
    assert other.records.read(KEYS[7]) == RECORDS[7]
    assert other.records.read("0" * 64) is None


def test_few_records_are_written_one_by_one(store: Store) -> None:
    store.records.write_many(RECORDS[: packs.WORTH - 1])
    assert names(store) == []
    assert reopened(store).records.read(KEYS[0]) == RECORDS[0]


def test_the_first_record_of_a_key_stands_wherever_it_lies(store: Store) -> None:
    alone, second = RECORDS[0]._replace(digest="a" * 64), reopened(store)
    store.records.write(alone)
    standing = second.records.write_many(RECORDS)
    assert standing == [alone, *RECORDS[1:]]
    late = RECORDS[5]._replace(digest="b" * 64)
    assert reopened(store).records.write(late) == RECORDS[5]
    assert second.records.write_many([late, *RECORDS[6:20]])[0] == RECORDS[5]


def test_a_replaced_record_takes_precedence_over_packs(store: Store) -> None:
    reader = reopened(store)
    store.records.write_many(RECORDS)
    assert reader.records.read_many(KEYS[:20])[KEYS[3]] == RECORDS[3]
    newer = RECORDS[3]._replace(digest="a" * 64)
    reopened(store).records.write(newer, replace=True)
    for each in (store, reopened(store)):
        assert each.records.read_many(KEYS, fresh=True)[KEYS[3]] == newer
        assert each.records.read(KEYS[3]) == newer


def test_what_another_process_packs_is_seen(store: Store) -> None:
    assert store.records.read_many(KEYS) == {}
    reopened(store).records.write_many(RECORDS)
    assert store.records.read_many(KEYS, fresh=True) == BY_KEY


def test_small_packs_are_put_together_and_readers_go_on(store: Store) -> None:
    reader = reopened(store)
    for start in range(0, 100, 10):
        store.records.write_many(RECORDS[start : start + 10])
    assert reader.records.read(KEYS[0]) == RECORDS[0]
    store.records.tidy()
    assert len(names(store)) == len(names(store, packs.KEYS)) == 1
    assert store.records.read_many(KEYS) == BY_KEY
    assert reader.records.read_many(KEYS, fresh=True) == BY_KEY
    assert reopened(store).records.read_many(KEYS) == BY_KEY


def test_of_two_packs_with_one_key_the_older_counts_also_when_put_together(local: Store) -> None:
    first, second = reopened(local), reopened(local)
    for number in range(packs._TIER):
        salt = [record(k, f"{number}-") for k in range(10)]
        local.records.write_many(salt)
    first.packs.write(RECORDS[:10])
    second.packs.write([each._replace(digest="a" * 64) for each in RECORDS[:10]])
    assert reopened(local).records.read(KEYS[0]) == RECORDS[0]
    local.records.tidy()
    assert reopened(local).records.read(KEYS[0]) == RECORDS[0]


def test_a_damaged_pack_is_not_believed_and_says_so(local: Store) -> None:
    local.records.write_many(RECORDS)
    (name,) = names(local)
    data = local._backend.read(name) or b""
    local._backend.replace(name, data.replace(b"12.5", b"13.5", 1))
    other = reopened(local)
    assert other.records.read_many(KEYS) == {}
    assert other.records.refused(KEYS[0]) == "damaged"
    assert [each.name for each in other.verify().problems] == [name]
    other.verify(repair=True)
    assert names(local) == names(local, packs.KEYS) == []


def test_a_pack_that_was_removed_by_hand_is_as_none(store: Store) -> None:
    store.records.write_many(RECORDS)
    for name in names(store):
        store._backend.delete(name)
    other = reopened(store)
    assert other.records.read_many(KEYS) == {}
    assert other.records.read(KEYS[0]) is None
    assert other.records.write_many(RECORDS) == RECORDS
    assert reopened(store).records.read_many(KEYS) == BY_KEY


@pytest.mark.parametrize("keys", [b"", b"x" * 7, b"\xff" * 800, b"\0" * 800])
def test_wrong_keys_of_a_pack_find_nothing_or_what_is_right(local: Store, keys: bytes) -> None:
    local.records.write_many(RECORDS)
    (name,) = names(local, packs.KEYS)
    local._backend.replace(name, keys)
    other = reopened(local)
    found = other.records.read_many(KEYS)
    assert all(found[key] == BY_KEY[key] for key in found)
    assert other.records.read(KEYS[1]) in (None, RECORDS[1])


def test_a_signing_key_is_asked_of_packs(tmp_path: Path) -> None:
    folder = str(tmp_path / "store")
    plain = Store(folder, cache_folder=str(tmp_path / "cache"))
    plain.records.write_many(RECORDS)
    signing = plain.signing("a key of the team's")
    assert signing.records.read_many(KEYS) == {}
    assert "signed" in str(signing.records.refused(KEYS[0]))
    assert signing.sign() > 0
    assert plain.signing("a key of the team's").records.read_many(KEYS) == BY_KEY


@given(
    st.dictionaries(
        st.sampled_from("abcdef"), st.text("0123456789abcdef", min_size=64, max_size=64)
    ),
    st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=4),
    st.data(),
)
def test_the_key_with_other_inputs_is_that_of_the_whole_manifest(
    inputs: dict[str, str], names: list[str], data: st.DataObject
) -> None:
    manifest = Manifest("f", "c" * 64, inputs, {"r": "d" * 64}, "1", {"numpy": "2"}, {}, {})
    hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
    digests = [data.draw(hexes) for _ in names]
    whole = manifest._replace(inputs={**inputs, **dict(zip(names, digests, strict=True))})
    assert manifest.keys(names)(digests) == whole.key()
