"""Digests of any values against an equality that knows nothing of digests: `tests.core.seen`."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.formats.base import flattened
from prefect_mlpipe.core.formats.registry import PICKLE
from prefect_mlpipe.core.storing.own_copies import own_copy
from tests.core.seen import seen
from tests.core.strategies import values

QUICK = settings(max_examples=60, deadline=None)
ROOT = Path(__file__).parents[2]


@QUICK
@given(values, values)
def test_two_values_have_one_digest_exactly_when_a_step_cannot_tell_them_apart(
    one: Any, other: Any
) -> None:
    assert (digest(one) == digest(other)) == (seen(one) == seen(other))


@QUICK
@given(values)
def test_a_copy_is_the_value_and_changing_the_one_is_not_seen_in_the_other(value: Any) -> None:
    text, identity = seen(value), digest(value)
    copied = own_copy(value)
    assert seen(copied) == text
    assert digest(copied) == identity
    if isinstance(copied, list):
        copied.append(1)
    assert seen(value) == text


@QUICK
@given(values)
def test_a_deep_copy_that_looks_the_same_has_the_same_digest(value: Any) -> None:
    copied = copy.deepcopy(value)
    assert (digest(copied) == digest(value)) == (seen(copied) == seen(value))


ELSEWHERE = """
import pickle, sys
from prefect_mlpipe.core.digest import digest
for data in pickle.load(open(sys.argv[1], "rb")):
    print(digest(pickle.loads(data)))
"""


def test_another_process_with_another_hash_seed_finds_the_same_digests(tmp_path: Path) -> None:
    stored: list[bytes] = []
    expected: list[str] = []

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(values)
    def draw(value: Any) -> None:
        data = b"".join(flattened(PICKLE.dump(value)))
        if seen(pickle.loads(data)) == seen(value):  # some need a format of their own
            stored.append(data)
            expected.append(digest(value))

    draw()
    assert len(stored) > 60
    (tmp_path / "values").write_bytes(pickle.dumps(stored))
    found = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "values")],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert found == expected
