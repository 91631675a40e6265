from __future__ import annotations

import contextlib
import logging
import os
import pty
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from prefect_mlpipe.reporting.summary import StepRow
from prefect_mlpipe.reporting.terminal import Progress, summary_text
from tests.server import Server


class Screen:
    """What a terminal shows in the end, for the few codes that are used here."""

    def __init__(self, output: str) -> None:
        self.lines = [""]
        self.row = self.column = 0
        for part in re.findall(r"\x1b\[[?0-9;]*[a-zA-Z]|[\r\n]|[^\x1b\r\n]+", output):
            self._take(part)

    def _take(self, part: str) -> None:
        if part == "\n":
            self.row += 1
            self.lines += [""] * (self.row - len(self.lines) + 1)
        elif part == "\r":
            self.column = 0
        elif part.startswith("\x1b["):
            if part.endswith("A"):
                self.row -= int(part[2:-1] or 1)
            elif part.endswith("K"):
                self.lines[self.row] = ""
        else:
            line = self.lines[self.row].ljust(self.column)
            end = self.column + len(part)
            self.lines[self.row] = line[: self.column] + part + line[end:]
            self.column = end


class Terminal:
    """A pseudo-terminal that this process writes to, and what has come out of it."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.stream = os.fdopen(theirs, "w", encoding="utf-8", buffering=1)
        self._read = b""
        self._reader = threading.Thread(target=self._drain)
        self._reader.start()

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while chunk := os.read(self._ours, 65536):
                self._read += chunk
        os.close(self._ours)

    def output(self) -> str:
        """All that was written; the terminal is closed."""
        self.stream.close()
        self._reader.join()
        return self._read.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("prefect_mlpipe.reporting.terminal.LIVE_AFTER_S", 0.0)
    yield terminal
    terminal.output()


@pytest.fixture
def log(terminal: Terminal) -> Iterator[logging.Logger]:
    logger = logging.getLogger("mlpipe-tests.terminal")
    handler = logging.StreamHandler(terminal.stream)
    handler.setFormatter(logging.Formatter("log %(message)s"))
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield logger
    logger.removeHandler(handler)


@contextlib.contextmanager
def on(terminal: Terminal) -> Iterator[None]:
    """Standard output and errors go to the terminal. Not a fixture: pytest takes them back."""
    with contextlib.redirect_stdout(terminal.stream), contextlib.redirect_stderr(terminal.stream):
        yield


@contextlib.contextmanager
def live(title: str) -> Iterator[Progress]:
    with Progress(title) as progress:
        deadline = time.monotonic() + 10
        while not hasattr(sys.stderr, "unfinished"):
            assert time.monotonic() < deadline, "no live line"
            time.sleep(0.01)
        yield progress


def written(output: str) -> list[str]:
    """The lines that remain on the screen."""
    return [line.rstrip() for line in Screen(output).lines if line.strip()]


def test_a_live_line_leaves_no_trace_among_what_is_logged_and_printed(
    terminal: Terminal, log: logging.Logger
) -> None:
    with on(terminal), live("digits") as progress:
        progress.update(3, 1, 0, 0, ["train"])
        for i in range(3):
            log.info("step %d", i)
            print("printed", i)
            print("to stderr", i, file=sys.stderr)
            time.sleep(0.3)  # the line is drawn four times a second
    log.info("end")
    output = terminal.output()
    said = [f"{what} {i}" for i in range(3) for what in ("log step", "printed", "to stderr")]
    assert written(output) == [*said, "log end"]
    assert re.search(r"digits.*1/3.*1 reused.*now train", output)


def test_a_progress_bar_in_a_step_is_seen_moving_and_is_left_once(terminal: Terminal) -> None:
    with on(terminal), live("digits"):
        for i in range(20):
            sys.stderr.write(f"\rbar {i + 1}/20")
            sys.stderr.flush()
            time.sleep(0.05)
        sys.stderr.write("\n")
    output = terminal.output()
    assert written(output) == ["bar 20/20"]
    assert len(set(re.findall(r"bar \d+/20", output))) > 2


def test_what_has_no_end_of_line_is_not_lost_when_the_live_line_goes(terminal: Terminal) -> None:
    with on(terminal), live("digits"):
        print("half a line", end="")
    terminal.stream.write(", and the rest")
    assert written(terminal.output()) == ["half a line, and the rest"]


def test_colours_and_windows_line_ends_pass(terminal: Terminal) -> None:
    with on(terminal), live("digits"):
        sys.stdout.write("\x1b[31mred\x1b[0m\r\n")
    assert "\x1b[31mred\x1b[0m" in terminal.output()


def test_a_short_run_shows_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_mlpipe.reporting.terminal.LIVE_AFTER_S", 60.0)
    with on(terminal), Progress("digits") as progress:
        progress.update(1, 1, 0, 0)
    assert terminal.output() == ""


def test_the_streams_are_what_they_were_when_the_block_ends(
    terminal: Terminal, log: logging.Logger
) -> None:
    with on(terminal):
        with live("digits"):
            assert sys.stdout is not terminal.stream
        assert (sys.stdout, sys.stderr) == (terminal.stream, terminal.stream)
    (handler,) = log.handlers
    assert isinstance(handler, logging.StreamHandler)
    assert handler.stream is terminal.stream


FLOW = """
import sys, time
from prefect import flow, get_run_logger
from prefect_mlpipe.reporting import terminal
terminal.LIVE_AFTER_S = 0.0

@flow(name="night")
def night():
    with terminal.Progress("digits"):
        while not hasattr(sys.stdout, "unfinished"):
            time.sleep(0.01)
        for i in range(3):
            get_run_logger().info("step %d", i)
            time.sleep(0.3)

night()
"""


def test_it_lives_with_the_log_of_a_flow(terminal: Terminal, api: Server) -> None:
    subprocess.run(
        [sys.executable, "-c", FLOW],
        stdout=terminal.stream,
        stderr=terminal.stream,
        check=True,
        timeout=120,
    )
    output = terminal.output()
    lines = written(output)
    assert [line[-6:] for line in lines if " - step " in line] == ["step 0", "step 1", "step 2"]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d+ \| INFO", line) for line in lines), lines
    assert "digits" in output


def test_off_a_terminal_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("digits") as progress:
        progress.update(3, 1, 0, 0, ["train"])
    assert capsys.readouterr() == ("", "")


def test_off_a_terminal_a_long_run_says_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("digits", plain_every_s=0.0) as progress:
        progress.update(1200, 3, 2, 1, ["a", "b", "c", "d", "e"])
    said = capsys.readouterr().err
    assert said.startswith("digits  6/1,200  3 reused  2 ran  1 failed  now a, b, c and 2 more")
    assert "\x1b" not in said


def test_colours_forced_on_a_pipe_do_not_make_it_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress("digits") as progress:
        assert progress._timer is None
    assert capsys.readouterr() == ("", "")


def test_progress_can_be_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("digits", enabled=False, plain_every_s=0.0) as progress:
        progress.update(3, 1, 0, 0)
    assert capsys.readouterr() == ("", "")


def test_a_summary_tells_failures_and_runs_with_reasons_and_names_what_was_reused() -> None:
    rows = [
        StepRow("load", "reused", saved_seconds=750, size_bytes=1 << 30),
        StepRow("split", "reused", saved_seconds=2, size_bytes=512),
        StepRow("train", "ran", "parameter 'depth' changed: 8 → 10", 3.14, 5 << 20),
        StepRow("publish", "failed", "ValueError: no\nway", 0.05),
    ]
    assert summary_text("digits", rows, 4.2) == textwrap.dedent(
        """\
        digits: 2 reused, 1 ran, 1 failed in 4.2 s; saved 12 min 32 s and 1.0 GiB
          failed    publish  ValueError: no way  0.05 s
          ran       train    parameter 'depth' changed: 8 → 10  3.1 s  5.0 MiB
          reused    load, split"""
    )


def test_a_summary_stays_short_whatever_the_number_of_steps() -> None:
    rows = [StepRow(f"step#{i}", "ran", "first run") for i in range(1000)]
    rows += [StepRow(f"old#{i}", "reused") for i in range(1000)]
    text = summary_text("digits", rows, 61)
    assert len(text.splitlines()) < 20
    assert "… and 988 ran" in text
    assert "and 994 more" in text


def test_a_summary_of_nothing_is_a_line() -> None:
    assert summary_text("digits", [], 0.0) == "digits: no steps in 0 s"
