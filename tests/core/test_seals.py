from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_mlpipe.core.storing.seals import Seal, Unsealed

KEY, OTHER = "a key of the team's", "a key of others'"
SEALS = [Seal(), Seal(KEY)]


@given(st.text(), st.binary())
def test_what_was_sealed_is_opened(name: str, content: bytes) -> None:
    for seal in SEALS:
        assert seal.open(name, seal.close(name, content)) == content


def test_a_sealed_document_is_json_for_anybody() -> None:
    document = json.loads(Seal(KEY).close("runs/a.json", b'{"n":1}'))
    assert document["content"] == {"n": 1}
    assert len(document["checksum"]) == len(document["signature"]) == 64


@given(st.integers(0, 63), st.integers(0, 6))
def test_one_changed_byte_of_content_or_seal_is_seen(of_seal: int, of_content: int) -> None:
    for seal in SEALS:
        sealed = seal.close("name", b'{"n":1}')
        content = sealed.index(b'{"n":1}')
        last_seal = content - len(b'","content":') - 64
        for at in (last_seal + of_seal, content + of_content):
            with pytest.raises(Unsealed):
                seal.open("name", sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])


@pytest.mark.parametrize("size", [0, 1, 12, 80, -1])
def test_a_torn_document_is_seen(size: int) -> None:
    for seal in SEALS:
        with pytest.raises(Unsealed):
            seal.open("name", seal.close("name", b'{"n":1}')[:size])


def test_without_a_key_signed_documents_are_read_by_their_checksum() -> None:
    assert Seal().open("name", Seal(KEY).close("name", b"1")) == b"1"


@pytest.mark.parametrize(
    ("sealed", "why"),
    [
        (Seal().close("name", b"1"), "not signed"),
        (Seal(OTHER).close("name", b"1"), "another key"),
        (Seal(KEY).close("other", b"1"), "another place"),
    ],
)
def test_with_a_key_nothing_else_is_believed(sealed: bytes, why: str) -> None:
    with pytest.raises(Unsealed, match=why) as caught:
        Seal(KEY).open("name", sealed)
    assert caught.value.unsigned


def test_name_and_content_do_not_run_into_each_other() -> None:
    seal = Seal(KEY)
    with pytest.raises(Unsealed):
        seal.open("ab", seal.close("a", b"b1").replace(b'"content":b1', b'"content":1'))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="16 characters"):
        Seal("short")
