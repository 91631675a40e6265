"""Which process this is, and whether another one that was met has certainly ended.

Knows nothing of what processes do. Certain is only what can be seen from here: a process of the
same kernel and the same space of process ids. A name of a host proves nothing (containers and
cloned machines share names), so the boot id and the id space of the kernel are compared. Where they
cannot be read, no process is ever said to have ended.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple


class Process(NamedTuple):
    """A process, as others can recognise it.

    Attributes:
        host: name of the machine, for people.
        pid: process id.
        began: when it began, in the kernel's own count; tells it from a later one of the same id.
            Empty where it cannot be read.
        space: boot id and id space of the kernel; empty where they cannot be read.
    """

    host: str
    pid: int
    began: str
    space: str


_here: Process | None = None


def here() -> Process:
    """Return this process; asked again after a fork, the new one."""
    global _here
    pid = os.getpid()
    if _here is None or _here.pid != pid:
        _here = Process(socket.gethostname(), pid, (_facts(pid) or ("", ""))[1], _space())
    return _here


def has_ended(process: Process) -> bool:
    """Tell whether a process has certainly ended; one of another machine never has."""
    if not process.space or process.space != here().space:
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is another user's
        pass
    facts = _facts(process.pid)
    if facts is None:  # hidden from us, as `hidepid` does
        return False
    state, began = facts
    return state in "ZX" or (process.began != "" and began != process.began)


def _facts(pid: int) -> tuple[str, str] | None:
    """State and start of a process, as the kernel tells them."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            told = file.read()
    except OSError:
        return None
    fields = told.rpartition(b")")[2].split()  # its name may have blanks and brackets in it
    return fields[0].decode(), fields[19].decode()


def _space() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
