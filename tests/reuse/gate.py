"""Several processes that need one step at the same time, put in order.

Events are put in order by files: a step says that it has begun, and goes on when it is let go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.runs import Run, Runs
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
# To who has this, time flies once there is a file `expired`.
FAST = """
def _plant():
    import os, time, types
    from prefect_mlpipe.core.leases import leases
    fast = lambda: time.monotonic() * (10_000 if os.path.exists("expired") else 1)
    leases.time = types.SimpleNamespace(monotonic=fast)

_plant()
"""
# As if the holder were on another machine: whether its process lives cannot be seen.
BLIND = "import prefect_mlpipe.core.leases.processes as _p; _p.has_ended = lambda process: False"
TOGETHER = "import gate, os; gate.say(f'here-{os.getpid()}'); gate.until('all')"

SLOW = """
from gate import say, until

@step
def slow(x: int) -> int:
    ran("slow")
    say("begun")
    until("go")
    return x + 1

@step
def other(x: int) -> int:
    ran("other")
    return x + 10

@pipeline
def main(who: str, x: int = 1, others: bool = False) -> int:
    found = slow(x)
    if others:
        resolve(other(other(x)))
    return found
"""


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


def run_of(lab: Lab, who: str) -> Run:
    """The run of one process; the last one may be another's."""
    (found,) = Runs(Store(lab.store), "main").filter(who=who)
    return found


def leases(lab: Lab) -> list[str]:
    """What is left of leases and of who held them."""
    folder = Path(lab.store) / "leases"
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != "succession")


def records(lab: Lab) -> list[Path]:
    return [path for path in (Path(lab.store) / "records").rglob("*") if path.is_file()]


def waits(process: Process, step: str = "slow") -> None:
    """Wait until a process says that it waits for another."""
    eventually(lambda: f"{step}: waits for run " in process.printed())


def holder_and_waiter(
    gate: Gate,
    start: Callable[..., Process],
    *setup: str,
    waiter_has: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> tuple[Process, Process]:
    """Start a process that holds the lease of `slow`, and one that waits for it."""
    holder = start(*setup, who="holder", environ=environ)
    gate.seen("begun")
    waiter = start(*setup, *waiter_has, who="waiter")
    waits(waiter)
    return holder, waiter
