"""The command line as a process, and what holds for all commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Mlpipe
from tests.server import Server

COMMANDS = [
    [],
    ["run"],
    ["plan"],
    ["runs", "ls"],
    ["runs", "inspect"],
    ["runs", "explain"],
    ["store", "usage"],
    ["store", "verify"],
    ["store", "prune"],
    ["watch"],
    ["doctor"],
]


def process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prefect_mlpipe", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_as_a_process_stdout_has_the_document_and_the_rest_is_on_stderr(folder: Path) -> None:
    done = process("run", "sums.py:adding", "--local", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["returned"] == 6
    assert "noise of a step" in done.stderr


def test_as_a_process_it_ends_with_its_exit_code(folder: Path) -> None:
    done = process("run", "sums.py:adding", "--local", "-p", "bad=1", PREFECT_MLPIPE_TRACEBACK="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_run_that_is_interrupted_ends_with_130(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import pathlib, time\n"
        "from prefect_mlpipe import pipeline, step\n"
        "@step\n"
        "def wait(here: str) -> int:\n"
        "    pathlib.Path(here).touch()\n"
        "    time.sleep(60)\n"
        "    return 1\n"
        "@pipeline\n"
        "def slow(here: str) -> int:\n"
        "    return wait(here)\n"
    )
    began = folder / "began"
    words = ["run", "slow.py:slow", "--local", "-p", f"here={began}"]
    code = (  # a process in the background may have been told to ignore it
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from prefect_mlpipe.cli.app import main; main()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True
    )
    while not began.exists() and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert (running.returncode, told.splitlines()[-1]) == (130, "Interrupted.")


def test_help_imports_neither_prefect_nor_numpy() -> None:
    code = (
        "import sys; from prefect_mlpipe.cli.app import answer; answer(['--help'])\n"
        "print(*({'prefect', 'numpy', 'dask'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "doctor" in done.stdout
    assert done.stderr.split() == []


def test_a_reader_that_has_read_enough_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m prefect_mlpipe plan sums.py:adding --json | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_that_names_the_exit_codes(mlpipe: Mlpipe, words: list[str]) -> None:
    said = mlpipe(*words, "--help")
    assert said.code == 0
    assert "Exit codes:" in said.out
    if words:
        assert "--json" in said.out
        assert "--traceback" in said.out


def test_the_version_is_said(mlpipe: Mlpipe) -> None:
    from importlib.metadata import version

    assert mlpipe("--version").out.strip() == version("prefect-mlpipe")


def test_the_page_names_every_command_and_every_name_in_a_document(mlpipe: Mlpipe) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for words in filter(None, COMMANDS):
        assert f"mlpipe {' '.join(words)}" in page
    documents = [
        mlpipe("run", "sums.py:adding", "--local", "--json").json,
        mlpipe("plan", "sums.py:adding", "--json").json,
        mlpipe("runs", "ls", "--json").json,
        mlpipe("runs", "explain", "last", "load", "--json").json,
        mlpipe("store", "usage", "--json").json,
        mlpipe("store", "verify", "--json").json,
        mlpipe("store", "prune", "--json").json,
        mlpipe("run", "none.py:x", "--json").json,
    ]
    told = {name for document in documents for name in names_in(document)}
    assert {name for name in told if f"`{name}`" not in page} == set()


FREE = {"parameters", "metrics", "facts", "explanations", "kinds", "counts", "items"}


def names_in(document: object) -> set[str]:
    """The names in a document, but for those that a user or a store gives."""
    if isinstance(document, list):
        return {name for each in document for name in names_in(each)}
    if not isinstance(document, dict):
        return set()
    below = {name for key, each in document.items() if key not in FREE for name in names_in(each)}
    return below | set(document)


def test_a_watch_that_looks_once_says_at_how_many_places(mlpipe: Mlpipe, api: Server) -> None:
    said = mlpipe("watch", "--once", "--json")
    assert said.code == 0
    assert said.json["places"] >= 0
