"""Fixtures: two real S3 servers, and a count of the requests that this process sends to them.

`rclone serve s3` keeps its objects in a folder and ignores create-once; moto keeps them in memory
and honours it. Both start when a test first asks, once in a session, on loopback. Knows nothing of
Prefect.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.server import free_port

START_S = 60.0
STOP_S = 15.0
KEY, SECRET = "test-key", "test-secret"

_numbers = itertools.count()


@dataclass(frozen=True)
class S3:
    """A running server.

    Attributes:
        name: `rclone` or `moto`.
        endpoint: its address.
        honours_create: whether of several that create a name only the first one succeeds.
    """

    name: str
    endpoint: str
    honours_create: bool

    @property
    def options(self) -> dict[str, Any]:
        """What fsspec, and so a store, has to be given."""
        return {"endpoint_url": self.endpoint, "key": KEY, "secret": SECRET}

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables, for what is given a URL only."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let all that is given a URL only come here, until the test has ended."""
        import s3fs  # type: ignore[import-untyped]

        for name, value in self.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # these read the environment when they were made

    @property
    def files(self) -> Any:
        """Plain s3fs."""
        import s3fs  # type: ignore[import-untyped]

        when = "when_required"
        checks = {"request_checksum_calculation": when, "response_checksum_validation": when}
        return s3fs.S3FileSystem(**self.options, config_kwargs=checks, use_listings_cache=False)

    def make_bucket(self) -> str:
        """A new one, as `s3://mlpipe-7`."""
        name = f"mlpipe-{os.getpid()}-{next(_numbers)}"
        self.files.call_s3("create_bucket", Bucket=name)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The session's `rclone serve s3`."""
    with running_rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The session's moto."""
    with running_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(params=["rclone", "moto"])
def s3(request: pytest.FixtureRequest) -> S3:
    """Both, one after the other."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, S3)
    return found


@pytest.fixture
def bucket(s3: S3) -> str:
    """The URL of a new bucket."""
    return s3.make_bucket()


@contextmanager
def running_rclone(folder: Path) -> Iterator[S3]:
    """`rclone serve s3` on a free port, with its objects in a folder."""
    port = free_port()
    program = shutil.which("rclone", path=os.path.dirname(sys.executable)) or "rclone"
    where = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    settings = {name: value for name, value in os.environ.items() if name[:7] != "RCLONE_"}
    log_path = folder / "server.log"
    (folder / "objects").mkdir()
    command = [program, "serve", "s3", str(folder / "objects"), *where]
    environment = {**settings, "RCLONE_CONFIG": os.devnull}
    with _running(command, environment, log_path, b"Starting s3 server"):
        yield S3("rclone", f"http://127.0.0.1:{port}", honours_create=False)


@contextmanager
def running_moto(folder: Path) -> Iterator[S3]:
    """moto's server on a free port. In this process its threads would draw from the chance that
    property tests draw from."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, {**os.environ}, folder / "server.log", b"Running on http://"):
        yield S3("moto", f"http://127.0.0.1:{port}", honours_create=True)


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], log_path: Path, started: bytes
) -> Iterator[None]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_started(process, log_path, started)
        yield
    finally:
        process.kill()  # by its own way rclone waits a minute for connections to close
        process.wait(STOP_S)


def _wait_until_started(process: subprocess.Popen[bytes], log: Path, started: bytes) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if started in log.read_bytes():
            return
        time.sleep(0.02)
    pytest.fail(f"it did not start ({process.poll()}):\n{log.read_text(errors='replace')}")


@contextmanager
def counted_requests() -> Iterator[list[str]]:
    """Every request that this process sends in the block: `GET /bucket/key?query`.

    with counted_requests() as requests:
        store.records.read(key)
    assert len(requests) == 1

    Retries count; what other processes send does not.
    """
    from aiobotocore.httpsession import AIOHTTPSession

    requests: list[str] = []
    original = AIOHTTPSession.send

    async def send(self: Any, request: Any) -> Any:
        url = urlsplit(request.url)
        query = f"?{url.query}" if url.query else ""
        requests.append(f"{request.method} {unquote(url.path)}{query}")
        return await original(self, request)

    AIOHTTPSession.send = send
    try:
        yield requests
    finally:
        AIOHTTPSession.send = original
