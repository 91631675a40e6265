"""Fixtures: one real Prefect server for the test session."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

START_S = 180.0
STOP_S = 15.0
BUSY_S = 60.0
AUTH = "admin:for the tests"


@dataclass(frozen=True)
class Server:
    """A running `prefect server start`."""

    url: str
    home: Path
    log: Path

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The session's server."""
    with running_server(tmp_path_factory.mktemp("prefect-server")) as server:
        yield server


@contextmanager
def running_server(home: Path, port: int | None = None) -> Iterator[Server]:
    """A server with a database of its own on a free port, with the recorder settings we advise."""
    port = port or free_port()
    server = Server(f"http://127.0.0.1:{port}", home, home / "server.log")
    where = ["--host", "127.0.0.1", "--port", str(port)]
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", *where],
            env=_server_environment(server),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_healthy(server, process)
        yield server
        _drain_prefect()
    finally:
        _stop(process)


@contextmanager
def guarded_server(home: Path) -> Iterator[Server]:
    """A server that asks for a password; this process and those that it starts know it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PREFECT_SERVER_API_AUTH_STRING", AUTH)
        patched.setenv("PREFECT_API_AUTH_STRING", AUTH)
        with running_server(home) as server, _as_api(server, patched, AUTH):
            yield server


@pytest.fixture
def api(prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The session's server as Prefect's API, in this process and in those that it starts."""
    with _as_api(prefect_server, monkeypatch):
        yield prefect_server


@contextmanager
def _as_api(server: Server, patched: pytest.MonkeyPatch, auth: str | None = None) -> Iterator[None]:
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    patched.setenv("PREFECT_API_URL", server.api_url)
    settings = {
        PREFECT_API_URL: server.api_url,
        PREFECT_API_AUTH_STRING: auth,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # a plain flow lasts a second less
    }
    with temporary_settings(settings):
        yield


def ask(
    server: Server, method: str, path: str, body: Any = None, password: str | None = None
) -> httpx.Response:
    """One plain request to the API, and again while it is too busy, as Prefect's client does."""
    auth = httpx.BasicAuth(*password.split(":")) if password else None
    deadline = time.monotonic() + BUSY_S
    while True:
        answer = httpx.request(method, server.api_url + path, json=body, auth=auth, timeout=60)
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _server_environment(server: Server) -> dict[str, str]:
    from prefect_mlpipe.reporting.api import server_environment

    return {
        **os.environ,
        **server_environment(),
        "PREFECT_HOME": str(server.home),
        # without it the UI looks for the API on port 4200
        "PREFECT_UI_API_URL": server.api_url,
    }


def _wait_until_healthy(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{server.api_url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    tail = server.log.read_text(errors="replace")[-4000:]
    pytest.fail(f"The Prefect server did not start (exit status {process.poll()}):\n{tail}")


def _drain_prefect() -> None:
    """Let Prefect's background threads send what they have while there is a server."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=STOP_S)
    EventsWorker.drain_all(timeout=STOP_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
