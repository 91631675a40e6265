"""The table of cases in which others reuse wrongly: is every row of it here?

The rows themselves are in `test_table_*.py`, by theme; the name of each test begins with the number
of its row, `test_19_...` or `[19 ...]`. Rows 41 and 42 are about processes that are killed or race.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.reuse.lab import ROOT
from tests.reuse.rows import numbers

ELSEWHERE = {"41", "42"}
ROW = re.compile(r"(?:\[|::test_)(\d\d[a-z]?)[ _]")


def test_every_row_is_here_and_no_other() -> None:
    files = sorted(str(file) for file in Path(__file__).parent.glob("test_table_*.py"))
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:randomly", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    asked = numbers()
    assert len(asked) == len(set(asked)) == 121
    assert sorted(set(ROW.findall(listed))) == sorted(set(asked) - ELSEWHERE)
