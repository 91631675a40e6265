from __future__ import annotations

from pathlib import Path

import pytest

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.storing import segments
from tests.core.stores import a_record, reopened

RECORDS = [a_record(f"{number:064x}", number) for number in range(20)]
BY_KEY = {record.key: record for record in RECORDS}


def kept(store: Store) -> str:
    for record in RECORDS:
        store.records.write(record)
    name = store.segments.write(RECORDS)
    assert name is not None
    return name


def test_the_records_of_a_run_are_read_together(remote: Store) -> None:
    name = kept(remote)
    assert reopened(remote).segments.read(name) == BY_KEY


def test_the_same_records_make_the_same_segment(remote: Store) -> None:
    name = kept(remote)
    assert remote.segments.write(reversed([*RECORDS, *RECORDS])) == name
    assert len(list(remote._backend.list(segments.FOLDER))) == 1


def test_few_records_are_not_worth_a_segment(remote: Store) -> None:
    assert remote.segments.write(RECORDS[: segments.WORTH - 1]) is None


def test_a_record_that_was_replaced_is_not_taken_from_a_segment(remote: Store) -> None:
    name = kept(remote)
    newer = a_record(RECORDS[3].key, 100)
    reopened(remote).records.write(newer, replace=True)
    found = remote.segments.read(name)
    assert found == {key: record for key, record in BY_KEY.items() if key != newer.key}
    assert remote.records.read(newer.key) == newer


def test_it_is_said_that_a_key_moves_before_it_does(
    remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = kept(remote)
    newer = a_record(RECORDS[3].key, 100)

    def killed(name: str, data: bytes) -> None:
        if name.startswith("records/"):
            raise KeyboardInterrupt
        type(remote._backend).replace(remote._backend, name, data)

    monkeypatch.setattr(remote._backend, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        remote.records.write(newer, replace=True)
    assert newer.key not in remote.segments.read(name)


def test_what_is_not_whole_or_not_signed_is_left_out(remote: Store) -> None:
    name = kept(remote)
    path = segments.segment_name(name)
    lines = (remote._backend.read(path) or b"").split(b"\n")
    lines[3] = lines[3].replace(b"12.5", b"13.5")
    lines[4] = b"{}"
    lines[5] = lines[5][:100]
    remote._backend.replace(path, b"\n".join(lines))
    gone = {record.key for record in RECORDS[3:6]}
    assert remote.segments.read(name).keys() == BY_KEY.keys() - gone
    signing = Store(remote.url, cache_folder="/nowhere", signing_key="a key of the team's")
    assert signing.segments.read(name) == {}


def test_a_segment_that_is_gone_knows_nothing(remote: Store) -> None:
    assert remote.segments.read("0" * 64) == {}


def test_a_local_store_writes_no_moves(local: Store, tmp_path: Path) -> None:
    local.records.write(RECORDS[0])
    local.records.write(a_record(RECORDS[0].key, 1), replace=True)
    assert not (tmp_path / "store" / "moved").exists()
