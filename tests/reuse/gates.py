"""Puts what several processes do in order, by files.

A step says that it has begun, and goes on when it is let go.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.reuse.lab import Lab, Process

PATIENCE_S = 120.0

GATE = """
import os
import time

def say(name):
    open(name, "w").close()

def until(name):
    while not os.path.exists(name):
        time.sleep(0.005)
"""

# What waits says so in its log. Nobody expires by himself unless a test says so.
LOUD = "import logging; logging.basicConfig(level=logging.INFO, force=True)"
NEVER = "import prefect_mlpipe.core.leases.leases as _l; _l.EXPIRES_S = 3600.0"
# As if the holder were on another machine: whether its process lives cannot be seen.
BLIND = "import prefect_mlpipe.core.leases.processes as _p; _p.has_ended = lambda process: False"
TOGETHER = "import gate, os; gate.say(f'here-{os.getpid()}'); gate.until('all')"


class Gate:
    """The files by which processes are held and let go."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        lab.write({"gate.py": GATE})

    def open(self, name: str) -> None:
        (self._lab.folder / name).touch()

    def seen(self, name: str) -> None:
        eventually((self._lab.folder / name).exists)

    def all_of(self, processes: list[Process]) -> None:
        """Let processes go that have `TOGETHER`, as soon as all are there."""
        for process in processes:
            self.seen(f"here-{process.pid}")
        self.open("all")


def eventually(look: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)
