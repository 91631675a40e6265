"""A slice of the fuzz: `python -m tests.fuzz` does all of it, and plants all faults.

In a process of its own: it forks, and patches what it breaks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import faults

ROOT = Path(__file__).parents[2]
EDITS = 600
QUICKLY_FOUND = ("constants", "defaults", "values of globals", "other modules", "contents watched")


def fuzz(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_no_edit_leads_to_a_wrong_reuse_or_a_needless_rerun() -> None:
    counts = fuzz("--edits", str(EDITS), "--seed", "7")
    assert counts["edits"] >= EDITS
    assert (counts["wrong"], counts["needless"], counts["failures"]) == ([], [], [])
    assert counts["share"] >= 0.4
    assert counts["fresh"] >= 0.08 * EDITS
    assert counts["in_place"] >= 0.05 * EDITS
    assert counts["neutral"] >= 0.05 * EDITS


def test_edits_find_faults_that_are_planted_in_the_reader_of_code() -> None:
    found = fuzz("--plant", ",".join(QUICKLY_FOUND), "--edits", "800", "--seed", "7")
    assert {name: each["found"] for name, each in found.items()} == dict.fromkeys(
        QUICKLY_FOUND, True
    )


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_each_fault_can_still_be_planted(fault: faults.Fault) -> None:
    function, source = faults.faulty(fault)
    compile(source, fault.name, "exec", dont_inherit=True)
    assert not function.__code__.co_freevars, "its code could not be replaced"
