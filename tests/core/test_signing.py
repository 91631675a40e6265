from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_mlpipe.core.store import Store
from tests.core.stores import a_record

KEY = "a key of the team's"
RECORD = a_record()


class Bomb:
    """Whoever unpickles one leaves a trace."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["MLPIPE_TESTS_TRACE"],)


def opened(folder: Path, key: str | None = KEY) -> Store:
    return Store(folder / "store", cache_folder=str(folder / "cache"), signing_key=key)


def of_kinds(store: Store) -> dict[str, Callable[[], object]]:
    """What was written of each kind, and how it is read."""
    return {
        "a record": lambda: store.records.read(RECORD.key),
        "a run manifest": lambda: store.runs.read("digits", "one"),
        "the last run": lambda: store.runs.last("digits"),
        "an alias": lambda: store.published.read("digits", "champion"),
        "a published value": lambda: store.published.read("digits", "1"),
        "the latest manifest": lambda: store.latest.read("f"),
        "kept code": lambda: store.codes.read("c" * 64),
        "a watch": lambda: store.watches.read("raw"),
    }


def fill(store: Store) -> None:
    store.records.write(RECORD)
    store.runs.write("digits", "one", {"id": "one"}, started=1.0)
    store.published.write("digits", "1", {"n": 1}, alias="champion")
    store.latest.write("f", {"key": RECORD.key})
    store.codes.write("c" * 64, {"parts": {}})
    store.watches.write("raw", {"seen": 1})


KINDS = sorted(of_kinds(Store("/nowhere")))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_is_read(tmp_path: Path, kind: str) -> None:
    fill(opened(tmp_path))
    assert of_kinds(opened(tmp_path))[kind]() is not None
    assert of_kinds(opened(tmp_path, key=None))[kind]() is not None, "without a key too"


@pytest.mark.parametrize("key", [None, "a key of others'"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_others_wrote_is_refused(tmp_path: Path, kind: str, key: str | None) -> None:
    fill(opened(tmp_path, key))
    assert of_kinds(opened(tmp_path))[kind]() is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_altered_is_refused(tmp_path: Path, kind: str) -> None:
    fill(opened(tmp_path))
    for path in [each for each in (tmp_path / "store").rglob("*") if each.is_file()]:
        data = path.read_bytes()
        if b'"content"' in data:
            path.write_bytes(data[:-2] + b" " + data[-2:])
    assert of_kinds(opened(tmp_path))[kind]() is None


def test_a_record_under_another_key_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.records.write(RECORD)
    other = "cd" + RECORD.key[2:]
    target = tmp_path / "store" / "records" / "cd" / other
    target.parent.mkdir()
    source = tmp_path / "store" / "records" / RECORD.key[:2] / RECORD.key
    target.write_bytes(source.read_bytes().replace(RECORD.key.encode(), other.encode()))
    assert store.records.read(other) is None
    assert Store(tmp_path / "store").records.read(other) is None


@pytest.mark.parametrize("kind", ["a run manifest", "an alias"])
def test_a_document_in_another_place_is_refused(tmp_path: Path, kind: str) -> None:
    store = opened(tmp_path)
    fill(store)
    for path in [*(tmp_path / "store").rglob("*.json")]:
        twin = Path(str(path).replace("/digits/", "/other/"))
        twin.parent.mkdir(parents=True, exist_ok=True)
        twin.write_bytes(path.read_bytes())
    assert store.runs.read("other", "one") is None
    assert store.published.read("other", "champion") is None


def test_nothing_is_unpickled_that_an_unsigned_record_refers_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "exploded"
    monkeypatch.setenv("MLPIPE_TESTS_TRACE", str(trace))
    pickle = _planted(opened(tmp_path, key=None))
    assert opened(tmp_path).records.read(pickle) is None
    assert not trace.exists()
    believed = opened(tmp_path, key=None).records.read(pickle)
    assert believed is not None
    opened(tmp_path, key=None).get(believed.fields[""])
    assert trace.exists(), "the bomb is one: without a key the store is trusted"


def _planted(store: Store) -> str:
    """A record whose value runs code when it is loaded, written by someone without the key."""
    import pickle

    from prefect_mlpipe.core.digest import Buffers
    from prefect_mlpipe.core.storing.stored_values import checksum_of

    data = pickle.dumps(Bomb())
    stored = store.put(object.__new__(_Model))._replace(
        inline=data, size=len(data), checksum=checksum_of([data], Buffers())
    )
    record = RECORD._replace(fields={"": stored})
    store.records.write(record)
    return record.key


class _Model:
    pass


def test_unsigned_records_are_said_once_and_not_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = opened(tmp_path, key=None)
    keys = [f"{number:064x}" for number in range(5)]
    for key in keys:
        plain.records.write(a_record(key))
    store = opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert store.records.read_many(keys) == {}
    (said,) = caplog.messages
    assert "not signed" in said
    assert "open_store().sign()" in said
    assert store.records.refused(keys[0]) == "not signed"


def test_a_store_that_is_trusted_is_signed_as_it_is(tmp_path: Path) -> None:
    plain = opened(tmp_path, key=None)
    fill(plain)
    torn = tmp_path / "store" / "records" / "00" / ("00" * 32)
    torn.parent.mkdir(exist_ok=True)
    torn.write_bytes(b'{"checksum":"torn')
    store = opened(tmp_path)
    assert store.sign() == 9
    assert all(read() is not None for read in of_kinds(opened(tmp_path)).values())
    assert opened(tmp_path).sign() == 0
    with pytest.raises(ValueError, match="no signing key"):
        plain.sign()


def test_a_signing_key_travels_with_the_store_and_is_not_shown(tmp_path: Path) -> None:
    import pickle

    store = opened(tmp_path)
    fill(store)
    again = pickle.loads(pickle.dumps(store))
    assert again.records.read(RECORD.key) == RECORD
    assert KEY not in repr(again) + str(vars(again._documents.seal))
