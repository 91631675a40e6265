"""Checks of the Prefect server: whether it is there, the right one, open to all, fast enough."""

from __future__ import annotations

import ipaddress
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx
import prefect
from prefect.settings import get_current_settings

from prefect_mlpipe.doctor.asking import api_url, as_stranger, asking, is_cloud, server_settings
from prefect_mlpipe.doctor.findings import Finding, Look, Notes
from prefect_mlpipe.reporting.api import (
    SERVER_SETTINGS,
    check_api,
    server_environment,
    without_user,
)

_CLOUD: Final = Finding("skipped", {"because": "Prefect Cloud looks after itself"})
_MEMORY: Final = "prefect.server.utilities.messaging.memory"


def prefect_api(look: Look) -> Finding:
    """Whether the Prefect API answers, and takes our credentials."""
    notes = Notes()
    url = api_url()
    if url is None:
        notes.fact("PREFECT_API_URL", "not set: each process starts a temporary server")
        if not get_current_settings().server.ephemeral.enabled:
            notes.problem("Set PREFECT_API_URL: temporary servers are switched off.")
        notes.warn(
            "For schedules, triggers and deployments start a server (`prefect server start`) and "
            "set PREFECT_API_URL."
        )
        return notes.finding()
    notes.fact("PREFECT_API_URL", without_user(url))
    check_api()
    with asking() as client:
        try:
            client.request("POST", "/flows/count")
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in (401, 403):
                raise
            notes.fact("answer", f"status {error.response.status_code}: credentials not accepted")
            notes.problem(
                "Set PREFECT_API_AUTH_STRING to what the server has as "
                "PREFECT_SERVER_API_AUTH_STRING (PREFECT_API_KEY for Prefect Cloud)."
            )
    return notes.finding()


def server_version(look: Look) -> Finding:
    """Whether server and client are of the same release."""
    if is_cloud():
        return _CLOUD
    notes = Notes()
    with asking() as client:
        server = client.api_version()
    notes.fact("server", server)
    notes.fact("client", prefect.__version__)
    if _release(server) < _release(prefect.__version__):
        notes.warn(f"Upgrade the server: it is older than its client, {prefect.__version__}.")
    elif server != prefect.__version__:
        notes.warn(f"Install prefect=={server} here, or the same release on both sides.")
    return notes.finding()


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def authentication(look: Look) -> Finding:
    """Whether the API can be read and used by anybody."""
    if is_cloud():
        return _CLOUD
    notes = Notes()
    url = api_url() or ""
    status = as_stranger(f"{url}/admin/version").status_code
    is_open = status == 200
    notes.fact("asks for credentials", "no" if is_open else "yes")
    known = server_settings() or {}
    bound = str(known.get("api", {}).get("host", ""))
    hosts = [urlsplit(url).hostname or "", *([bound] if bound else [])]
    abroad = [host for host in hosts if not is_loopback(host)]
    notes.fact("can be reached from", "elsewhere" if abroad else "this machine")
    if is_open and abroad:
        notes.warn(
            "Whoever reaches it can start runs and read everything: start it with "
            "PREFECT_SERVER_API_AUTH_STRING=user:password, and set PREFECT_API_AUTH_STRING for "
            "clients."
        )
    return notes.finding()


def is_loopback(host: str) -> bool:
    """Whether only this machine has this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ui(look: Look) -> Finding:
    """Whether the pages of Prefect's UI find the API."""
    if is_cloud():
        return _CLOUD
    notes = Notes()
    url = urlsplit(api_url() or "")
    root = url._replace(path=url.path.removesuffix("/api")).geturl()
    answer = as_stranger(f"{root}/ui-settings")
    if answer.status_code != 200 or "json" not in answer.headers.get("content-type", ""):
        notes.fact("UI", "not served there")
        return notes.finding()
    told = urlsplit(str(answer.json().get("api_url")))
    notes.fact("UI", without_user(root))
    notes.fact("looks for the API at", without_user(told.geturl()))
    if _place(told) != _place(url):
        notes.problem(
            "The pages show 'Can't connect to Server API': start the server with "
            f"PREFECT_UI_API_URL={without_user(url.geturl())}"
        )
    return notes.finding()


def _place(url: SplitResult) -> tuple[str, int | None, str]:
    host = url.hostname or ""
    same = "this machine" if is_loopback(host) or host == "0.0.0.0" else host
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return same, port, url.path.rstrip("/")


def event_recorder(look: Look) -> Finding:
    """How fast the server records task runs, and where events wait for it."""
    notes = Notes()
    known = server_settings()
    if known is None:
        return Finding("skipped", {"because": "this server does not tell its settings"})
    slow = []
    for name, advised in SERVER_SETTINGS.items():
        value = _setting(known, name)
        if value is not None and not _is_fast(name, value, advised):
            slow.append(name)
            notes.fact(name.removeprefix("server.services."), f"{value:g}, advised {advised}")
    if slow:
        environment = server_environment()
        said = [f"  {name}={environment[name]}" for name in map(_variable, slow)]
        notes.warn(
            "\n".join(
                [
                    "A thousand reused steps take it half a minute, and of thousands of events at "
                    "once it loses some. Start the server with",
                    *said,
                ]
            )
        )
    broker = str(_setting(known, "server.events.messaging_broker"))
    notes.fact("events wait in", "its memory, 10,000 at most" if broker == _MEMORY else broker)
    return notes.finding()


def _is_fast(name: str, value: float, advised: float) -> bool:
    return value <= advised if name.endswith("interval") else value >= advised / 4


def _variable(name: str) -> str:
    return f"PREFECT_{name.upper().replace('.', '_')}"


def _setting(known: dict[str, Any], name: str) -> Any:
    found: Any = known
    for part in name.split(".")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found
