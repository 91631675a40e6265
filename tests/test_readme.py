"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs the extra [examples]")

from sklearn.datasets import load_iris

from tests.server import Server

README = (Path(__file__).parent.parent / "README.md").read_text()


def marked(name: str) -> str:
    """The block of code below a marker."""
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```\n", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_ten_lines_run_and_print_what_the_comments_say(tmp_path: Path, api: Server) -> None:
    table = load_iris(as_frame=True).frame.rename(columns={"target": "species"})
    table.to_csv(tmp_path / "iris.csv", index=False)
    (tmp_path / "example.py").write_text(marked("test: example"))
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PREFECT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    plan = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "reuse" in plan["load"]
    assert "run" in plan["train"]
    assert "parameter 'depth' changed: 3 → 4" in plan["train"]


@pytest.mark.parametrize("name", ["ci: tests", "ci: example"])
def test_a_command_for_newcomers_is_one_line(name: str) -> None:
    command = marked(name)
    assert command.count("\n") == 1
    assert "-c requirements.lock" in command


def test_the_picture_is_there() -> None:
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parent.parent / picture).stat().st_size > 10_000
