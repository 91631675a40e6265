"""A real PostgreSQL on loopback, of Debian's package or wherever `initdb` is found."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

START_S = 60.0


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL, for Prefect, of an empty database; a skip where there is no PostgreSQL (a failure
    if `MLPIPE_TESTS_REQUIRE_POSTGRES=1`)."""
    from tests.server import free_port

    programs, owner = _programs(), _owner()
    folder = Path(tempfile.mkdtemp(prefix="mlpipe-postgres-"))  # its parents are open to all
    port = free_port()
    try:
        if owner:
            shutil.chown(folder, owner["user"], owner["group"])
        data = folder / "data"
        _run([programs / "initdb", "-D", data, "-U", "prefect", "-A", "trust", "--no-sync"], owner)
        where = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-c", "fsync=off"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, *where],
                stdout=log,
                stderr=log,
                cwd=folder,
                **owner,
            )
        try:
            _wait(programs, port, process)
            server = ["-h", "127.0.0.1", "-p", str(port), "-U", "prefect"]
            _run([programs / "createdb", *server, "prefect"], owner)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
        finally:
            process.terminate()
            process.wait(START_S)
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    debians = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    elsewhere = shutil.which("initdb")
    if debians or elsewhere:
        return (debians[-1] if debians else Path(str(elsewhere)).resolve()).parent
    if os.environ.get("MLPIPE_TESTS_REQUIRE_POSTGRES") == "1":
        pytest.fail("MLPIPE_TESTS_REQUIRE_POSTGRES=1, and there is no PostgreSQL here")
    pytest.skip("needs PostgreSQL: apt-get install postgresql")


def _owner() -> dict[str, Any]:
    """Whom it runs as: it refuses root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in known else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _run(command: list[Any], owner: dict[str, Any]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", **owner)
    assert done.returncode == 0, done.stdout + done.stderr


def _wait(programs: Path, port: int, process: subprocess.Popen[bytes]) -> None:
    ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect"]
    deadline = time.monotonic() + START_S
    while subprocess.run(ready, stdout=subprocess.DEVNULL).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"PostgreSQL did not start (exit status {process.poll()})")
        time.sleep(0.2)
