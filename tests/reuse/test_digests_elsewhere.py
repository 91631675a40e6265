"""Digests and keys are the same in every process."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.formats.base import flattened
from prefect_mlpipe.core.formats.pickles import Pickle
from tests.core.golden.keys import found_keys
from tests.core.seen import seen
from tests.core.strategies import values

ROOT = Path(__file__).parents[2]
PICKLE = Pickle()

GOLDEN = """
import json, sys
from tests.core.golden.values import golden_values, with_own_types
from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.code import CodeReader
values = {**golden_values(), **with_own_types()}
found = {name: digest(value) for name, value in values.items()}
print(json.dumps([found, CodeReader().read(golden_values).digest]))
"""


def test_every_process_finds_the_same_digests_whatever_its_hash_seed() -> None:
    found = set()
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", GOLDEN],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


def test_a_process_of_its_own_finds_the_same_keys() -> None:
    script = (
        "import json; from tests.core.golden.keys import found_keys as f; print(json.dumps(f()))"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == found_keys()


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
