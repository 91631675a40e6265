"""A pipeline whose middle step meets a fault; workers import this module by name.

Each execution writes a line into a file, and what the step meets is said by a word. A file `spared`
in the folder lets it pass: so the same call, with the same keys, goes well the next time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prefect_mlpipe import pipeline, step

LONG_S = 120.0


class ExitError(BaseException):
    """What is no `Exception`, as some libraries raise it to end a program."""


def note(folder: str, name: str) -> None:
    """Write down that a step has begun, and in which process."""
    with open(Path(folder, "ran.txt"), "a") as log:
        log.write(f"{name} {os.getpid()}\n")


def _first_time(folder: str) -> bool:
    try:
        os.close(os.open(Path(folder, "met"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _kill(folder: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _use_memory(folder: str) -> None:
    taken = []
    while True:
        taken.append(b"x" * 20_000_000)
        time.sleep(0.02)


def _hold_the_lock(folder: str) -> None:
    """Compute in C for a while without letting another thread of this process run."""
    until = time.monotonic() + 12
    while time.monotonic() < until:
        sum(range(400_000_000))


def _raise(folder: str) -> None:
    raise ExitError("enough")


def meet(how: str, folder: str) -> None:
    """Meet a fault, unless it is over."""
    if not Path(folder, "spared").exists():
        _FAULTS[how](folder)


def _wait(folder: str) -> None:
    until = time.monotonic() + LONG_S
    while not Path(folder, "spared").exists() and time.monotonic() < until:
        time.sleep(0.05)


def _kill_once(folder: str) -> None:
    if _first_time(folder):
        _kill(folder)


def _get_stuck(folder: str) -> None:
    """Wait in C code and let no other thread of this process run."""
    ctypes.PyDLL(None).sleep(int(LONG_S))


_FAULTS: dict[str, Callable[[str], object]] = {
    "wait": _wait,
    "killed once": _kill_once,
    "killed": _kill,
    "memory": _use_memory,
    "os._exit": lambda folder: os._exit(3),
    "sys.exit": lambda folder: sys.exit(),
    "ExitError": _raise,
    "segfault": lambda folder: ctypes.string_at(0),
    "lock": _hold_the_lock,
    "stuck": _get_stuck,
}


@step
def first(folder: str) -> int:
    note(folder, "first")
    return 1


@step
def doomed(number: int, folder: str, how: str) -> int:
    note(folder, "doomed")
    meet(how, folder)
    return number + 1


@step
def last(number: int, folder: str) -> int:
    note(folder, "last")
    return number * 10


@pipeline
def fated(folder: str, how: str) -> int:
    return last(doomed(first(folder), folder, how), folder)


@step(retries=1, cache=False)
def doomed_with_effects(number: int, folder: str, how: str) -> int:
    note(folder, "doomed")
    meet(how, folder)
    return number + 1


@pipeline
def fated_with_effects(folder: str, how: str) -> int:
    return doomed_with_effects(first(folder), folder, how)


@step
def item(number: int, folder: str, how: str) -> int:
    note(folder, f"item{number}")
    if number == 3:
        meet(how, folder)
    return 2 * number


@pipeline
def fated_items(folder: str, how: str) -> list[int]:
    return item.map([0, 1, 2, 3, 4, 5], folder, how)
