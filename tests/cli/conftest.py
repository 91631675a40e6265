"""A pipeline in a file, and the command line in this process: a new one takes seconds to start."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from prefect_mlpipe.cli.app import answer

SOURCE = """
    from prefect import flow
    from prefect_mlpipe import log_metrics, pipeline, step
    from prefect_mlpipe.errors import MissingFile

    OFFSET = 0

    @step
    def load(n: int) -> list[int]:
        print("noise of a step")
        return list(range(n))

    @step
    def double(x: int) -> int:
        return 2 * x

    @step
    def measure(x: int) -> int:
        log_metrics(accuracy=0.9 + x / 100)
        return x

    @step
    def judge(xs: list[int], found: bool) -> int:
        log_metrics(verdict="good")
        if not found:
            raise MissingFile("Step 'judge' finds no file.", {"path": "a.csv"}, "Make it.")
        return len(xs)

    @step
    def total(xs: list[int], bad: bool) -> int:
        if bad:
            raise ValueError("no good")
        return sum(xs) + OFFSET

    @pipeline
    def adding(n: int = 3, bad: bool = False) -> int:
        return total(double.map(load(n)), bad)

    @pipeline
    def judging(found: bool = True) -> int:
        return judge(measure.map([1, 2, 3]), found)

    @flow
    def plain() -> None:
        pass
"""


@dataclass(frozen=True)
class Said:
    """What a command has said.

    Attributes:
        code: its exit code.
        out: stdout.
        err: stderr.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout, which is one JSON document and nothing else."""
        return json.loads(self.out)


Mlpipe = Callable[..., Said]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `sums.py` and a store of the settings."""
    (tmp_path / "sums.py").write_text(dedent(SOURCE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_MLPIPE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PREFECT_MLPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr("logging.raiseExceptions", False)  # Prefect's log keeps an earlier stderr
    return tmp_path


@pytest.fixture
def mlpipe(folder: Path, capfd: pytest.CaptureFixture[str]) -> Mlpipe:
    """Runs a command."""

    def run(*words: str) -> Said:
        capfd.readouterr()
        code = answer(words)
        return Said(code, *capfd.readouterr())

    return run
