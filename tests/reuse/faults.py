"""What breaks under a store: disks that are full or read-only, rights that are lost.

Real ones: small file systems are mounted, so this needs root. Where that cannot be had the test is
skipped and says why; with `MLPIPE_TESTS_REQUIRE_FAULTS=1` it fails.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = os.sysconf("SC_PAGE_SIZE")

# Statements for a child: root is bound by the permissions of files from here on, as any owner is.
NO_PRIVILEGES = """
def _drop():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(head, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")

_drop()
del _drop
"""


def missing(what: str) -> None:
    """Skip a test for want of something, or fail where nothing may be wanting."""
    if os.environ.get("MLPIPE_TESTS_REQUIRE_FAULTS") == "1":
        pytest.fail(what)
    pytest.skip(what)


class Disk:
    """A small file system in memory.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, pages: int = 0) -> None:
        """Leave room for so many pages and no more."""
        self.free()
        facts = os.statvfs(self.folder)
        assert facts.f_bsize == PAGE
        with open(self._ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, (facts.f_bavail - pages) * PAGE)

    def free(self) -> None:
        """Have room again."""
        self._ballast.unlink(missing_ok=True)

    def read_only(self) -> None:
        """Refuse every write from now on."""
        _mount("-o", "remount,ro", str(self.folder))

    def writable(self) -> None:
        """Take writes again."""
        _mount("-o", "remount,rw", str(self.folder))


@contextmanager
def mounted(folder: Path, size: str = "16m") -> Iterator[Disk]:
    """Mount a small file system on a folder as long as the block lasts."""
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={size}", "mlpipe-tests", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        missing(f"no file system can be mounted here, which takes root on Linux: {error}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, stderr=subprocess.PIPE)
