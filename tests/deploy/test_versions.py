"""A deployed version runs the code that it was made of, whatever becomes of the working copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.deploy.working_copy import WorkingCopy
from tests.server import Server


@pytest.mark.timeout(300)
def test_the_working_copy_is_edited_and_deleted_and_each_run_has_the_code_it_was_made_for(
    api: Server, tmp_path: Path
) -> None:
    copy = WorkingCopy(tmp_path, "edited")
    first = copy.deploy(helpers="FACTOR = 2")
    waiting = copy.start(x=10)
    second = copy.deploy(helpers="FACTOR = 3")
    later = copy.start(x=10)
    shutil.rmtree(copy.folder)
    copy.work()

    assert first != second
    assert [(copy.runs.get(run).version, copy.runs.get(run).output) for run in (waiting, later)] == [
        (first, 20),
        (second, 30),
    ]
