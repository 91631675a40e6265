"""Digests and keys are those of the golden files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.core.golden.keys import DIGESTS, KEYS, MINOR, found_digests, found_keys

WAY_OUT = (
    "Stores that users have would be computed anew: this needs a heading in the changelog. Then"
    " write the files again, by each Python from 3.11 on: `python -m tests.core.golden`."
)


def changed(file: Path, found: dict[str, str]) -> str:
    """Say what differs from a golden file, and what that means; empty where nothing does."""
    known = json.loads(file.read_text())
    names = sorted(
        name for name in known.keys() | found.keys() if known.get(name) != found.get(name)
    )
    return f"{file.name} differs in {', '.join(names)}. {WAY_OUT}" if names else ""


def test_digests_of_values_are_those_of_the_golden_file() -> None:
    assert not changed(DIGESTS, found_digests())


def test_digests_of_code_and_keys_are_those_of_the_golden_file_of_this_python() -> None:
    if not KEYS.exists():
        pytest.skip(f"no golden keys of Python {MINOR} yet: `python -m tests.core.golden`")
    if sys.flags.optimize:
        pytest.skip("optimised code has keys of its own")
    assert not changed(KEYS, found_keys())


def test_a_difference_names_what_differs_and_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "digests.json"
    file.write_text(json.dumps({"one": "a", "two": "b", "gone": "c"}))
    said = changed(file, {"one": "a", "two": "x", "new": "d"})
    assert said.startswith("digests.json differs in gone, new, two. ")
    assert "needs a heading in the changelog" in said
    assert "python -m tests.core.golden" in said
