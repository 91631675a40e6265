"""Progress and summary of a run for the person at the terminal.

Knows a terminal, and who else writes to it: `print`, and whatever handlers `logging` has. Knows
nothing of Prefect.

On a terminal there is one live line below everything that is logged and printed. All else that
goes to the terminal meanwhile passes through `_Above`, which prints whole lines above the live one
and shows a line that is being rewritten (a progress bar in a step) beneath it. The redirection that
comes with rich prints such a bar anew at every change. Where output is not a terminal (CI, a
notebook, a pipe), there is at most one plain line in `PLAIN_EVERY_S`, and none for a short run.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from prefect_mlpipe.core.telling.describing import seconds_text, shorten, size_text
from prefect_mlpipe.reporting.map_progress import MapCount
from prefect_mlpipe.reporting.summary import (
    StepRow,
    by_weight,
    counts_text,
    saved_text,
)

LIVE_AFTER_S = 0.5  # a run shorter than this shows nothing
PLAIN_EVERY_S = 10.0
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
MAX_WHY = 100
MAPS = 3  # mapped steps that are shown while they go on
LINES = 12  # of a summary; Prefect's page has them all


def say(text: str) -> None:
    """Print on stderr, where Prefect's log lines go."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """What goes on, until the block ends.

    Safe to update from any thread, and cheap: the picture is drawn four times a second at most.

    Args:
        title: name of the pipeline.
        enabled: False shows nothing at all.
        plain_every_s: seconds between lines where output is not a terminal.
    """

    def __init__(
        self, title: str, *, enabled: bool = True, plain_every_s: float = PLAIN_EVERY_S
    ) -> None:
        self._title = title
        self._enabled = enabled
        self._plain_every_s = plain_every_s
        self._began = self._said = time.monotonic()
        self._total = self._reused = self._ran = self._failed = 0
        self._running: tuple[str, ...] = ()
        self._maps: tuple[MapCount, ...] = ()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._streams: list[_Above] = []
        self._stack = ExitStack()

    def update(
        self,
        total: int,
        reused: int,
        ran: int,
        failed: int,
        running: Sequence[str] = (),
        maps: Sequence[MapCount] = (),
    ) -> None:
        """Counts so far, the names of the steps that run now, and how far mapped ones are."""
        self._total, self._reused, self._ran, self._failed = total, reused, ran, failed
        self._running = tuple(running)
        self._maps = tuple(maps)
        if self._enabled and self._timer is None:
            self._say_now_and_then()

    def __enter__(self) -> Self:
        self._began = self._said = time.monotonic()
        if self._enabled and _is_terminal(sys.stderr):
            self._timer = threading.Timer(LIVE_AFTER_S, self._go_live)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._enabled = False
            self._stack.close()

    def text(self, *, bars: bool = False) -> Text:
        """The line, as it stands now.

        Args:
            bars: whether mapped steps have lines of their own.
        """
        done = self._reused + self._ran + self._failed
        line = Text.assemble((self._title, "bold"), f"  {done:,}/{self._total:,}")
        for count, what, style in (
            (self._reused, "reused", "green"),
            (self._ran, "ran", "cyan"),
            (self._failed, "failed", "bold red"),
        ):
            if count:
                line.append(f"  {count:,} {what}", style)
        if self._running:
            more = f" and {len(self._running) - 3:,} more" if len(self._running) > 3 else ""
            line.append(f"  now {', '.join(self._running[:3])}{more}", "dim")
        if not bars:
            for each in self._maps[:MAPS]:
                line.append(f"  {each.name} {each.text()}", "dim")
        line.append(f"  {seconds_text(time.monotonic() - self._began)}", "dim")
        return line

    def _say_now_and_then(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._said < self._plain_every_s:
                return
            self._said = now
        say(self.text().plain)

    def _go_live(self) -> None:
        with self._lock:
            if not self._enabled:  # the run was shorter
                return
            console = Console(file=sys.stderr, force_jupyter=False)
            live = Live(
                get_renderable=self._picture,
                console=console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._stack.callback(self._finish)  # undone in reverse: after the live line is gone
            self._stack.enter_context(live)
            for name in ("stdout", "stderr"):
                self._lead_above(name, console)

    def _lead_above(self, name: str, console: Console) -> None:
        """Whatever is written to `sys.stdout` or `sys.stderr`, print it above the live line."""
        stream: TextIO = getattr(sys, name)
        if not _is_terminal(stream):
            return
        above = _Above(stream, console)
        replaced = cast(TextIO, above)
        self._streams.append(above)
        setattr(sys, name, replaced)
        self._stack.callback(setattr, sys, name, stream)
        for handler in _handlers():
            inner = getattr(handler, "console", None)
            if isinstance(inner, Console) and inner.file is stream:
                inner.file = replaced
                self._stack.callback(setattr, inner, "file", stream)
            elif isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                handler.setStream(replaced)
                self._stack.callback(handler.setStream, stream)

    def _finish(self) -> None:
        for above in self._streams:
            above.finish()

    def _picture(self) -> RenderableType:
        frame = FRAMES[int(time.monotonic() * 8) % len(FRAMES)]
        line = Text.assemble((f"{frame} ", "green"), self.text(bars=True))
        bars = [
            Text.assemble(f"  {count.name} ", (count.bar(), "cyan"), (f" {count.text()}", "dim"))
            for count in self._maps[:MAPS]
        ]
        for each in (line, *bars):
            each.no_wrap, each.overflow = True, "ellipsis"
        unfinished = [Text.from_ansi(above.unfinished) for above in self._streams]
        return Group(line, *bars, *filter(None, unfinished))


class _Above:
    """A stream that puts whole lines above the live one and keeps the unfinished rest.

    Lines are printed by rich, which erases the live line before and draws it again after.
    """

    def __init__(self, stream: TextIO, console: Console) -> None:
        self._stream = stream
        self._console = console
        self._lock = threading.RLock()
        self.unfinished = ""

    def write(self, text: str) -> int:
        with self._lock:
            *lines, rest = (self.unfinished + text).split("\n")
            self.unfinished = rest.rpartition("\r")[2] or rest[-1:].strip()
            for line in lines:
                final = line.rstrip("\r").rpartition("\r")[2]
                self._console.print(Text.from_ansi(final), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        """Give back what has no end of line yet; the live line is gone by now."""
        self._stream.write(self.unfinished)
        self._stream.flush()
        self.unfinished = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def summary_text(name: str, rows: Sequence[StepRow], seconds: float, cost: str = "") -> str:
    """A few lines for the terminal: what ran and why, what was reused, what that saved."""
    head = f"{name}: {counts_text(rows) or 'no steps'} in {seconds_text(seconds)}"
    lines = ["; ".join(filter(None, [head, saved_text(rows), cost]))]
    told = [row for row in by_weight(rows) if row.what != "reused"]
    shown = told[:LINES]
    width = max((len(row.step) for row in shown), default=0)
    lines += [f"  {row.what:<9} {row.step:<{width}}  {_account(row)}".rstrip() for row in shown]
    if more := told[LINES:]:
        lines.append(f"  … and {counts_text(more)}")
    if reused := [row.step for row in rows if row.what == "reused"]:
        rest = f" and {len(reused) - 6:,} more" if len(reused) > 6 else ""
        lines.append(f"  {'reused':<9} {', '.join(reused[:6])}{rest}")
    return "\n".join(lines)


def _account(row: StepRow) -> str:
    why = shorten(" ".join(row.why.split()), MAX_WHY)
    facts = [
        seconds_text(row.seconds) if row.seconds else "",
        size_text(row.size_bytes) if row.size_bytes else "",
        row.metrics,
    ]
    return "  ".join(filter(None, [why, *facts]))


def _is_terminal(stream: TextIO) -> bool:
    # not rich's own guess, which `FORCE_COLOR` turns into yes in many a CI
    utf = "utf" in (stream.encoding or "").lower()
    return stream.isatty() and utf and os.environ.get("TERM") != "dumb"


def _handlers() -> list[logging.Handler]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    found = [h for logger in loggers if isinstance(logger, logging.Logger) for h in logger.handlers]
    return list(dict.fromkeys(found))
