"""Make sure that Prefect's API answers before a flow is started.

Knows where Prefect looks for its API and how its temporary server is started. Knows nothing of what
is to be run.

Prefect itself gives up on an unreachable API after retries with a traceback of its HTTP client, and
starts its temporary server without a word for half a minute. Asking first costs one small request.
"""

from __future__ import annotations

import base64
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    Settings,
    get_current_settings,
    temporary_settings,
)

from prefect_mlpipe.errors import PrefectUnavailable
from prefect_mlpipe.reporting.terminal import say

# The defaults record one event at a time, 100 a second: see `reporting.task_runs`.
SERVER_SETTINGS: Mapping[str, int] = {
    "server.services.task_run_recorder.batch_size": 200,
    "server.services.task_run_recorder.read_batch_size": 200,
    "server.services.task_run_recorder.flush_interval": 1,
    "server.services.event_persister.batch_size": 200,
    "server.services.event_persister.read_batch_size": 200,
    "server.services.event_persister.flush_interval": 1,
}

CHECKED_FOR_S = 10.0
CONNECT_S = 3.0
ANSWER_S = 15.0  # a busy server answers late
STARTUP_S = 120

_lock = threading.Lock()
_answered: dict[tuple[str, ...], float] = {}  # API URL, credentials → when it last answered


def ensure_api() -> None:
    """Return once the Prefect API can be used, having started a temporary server if none is set.

    Raises:
        PrefectUnavailable: the configured API does not answer or does not take our credentials, or
            no server could be started.
    """
    settings = get_current_settings()
    with _lock:
        if settings.api.url:
            _check(str(settings.api.url).rstrip("/"), settings)
        elif settings.server.ephemeral.enabled:
            _start_temporary_server(settings)
        else:
            raise PrefectUnavailable(
                "No Prefect API is configured, and temporary servers are switched off.",
                {"PREFECT_API_URL": "not set", "PREFECT_SERVER_EPHEMERAL_ENABLED": "false"},
                "Set PREFECT_API_URL, or run the pipeline without Prefect: `.local()`.",
            )


def server_environment() -> dict[str, str]:
    """`SERVER_SETTINGS` as environment variables, for a server that is started by hand."""
    return {
        f"PREFECT_{name.upper().replace('.', '_')}": str(value)
        for name, value in SERVER_SETTINGS.items()
    }


def check_api() -> None:
    """Ask the configured API whether it is there.

    Raises:
        PrefectUnavailable: it does not answer or does not take our credentials, or something else
            answers.
    """
    settings = get_current_settings()
    _check(str(settings.api.url).rstrip("/"), settings)


def _check(url: str, settings: Settings) -> None:
    credentials = _credentials(settings)
    asked = (url, *credentials.values())
    if time.monotonic() - _answered.get(asked, -CHECKED_FOR_S) < CHECKED_FOR_S:
        return
    cloud = url.startswith(settings.cloud.api_url)
    # a server tells its health to anybody, and its version only to whom it knows
    path = "/health" if cloud else "/admin/version"
    try:
        answer = httpx.get(
            f"{url}{path}",
            headers={**settings.client.custom_headers, **credentials},
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            verify=verification(url, settings),
            follow_redirects=True,
        )
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise PrefectUnavailable(
            "The Prefect API does not answer.",
            {"PREFECT_API_URL": without_user(url), "error": f"{type(error).__name__}: {error}"},
            "Start the server (`prefect server start`), or unset PREFECT_API_URL for a temporary "
            "one, or run the pipeline without Prefect: `.local()`.",
        ) from error
    if not cloud:
        _refuse(url, path, answer, settings)
    _answered[asked] = time.monotonic()


def _refuse(url: str, path: str, answer: httpx.Response, settings: Settings) -> None:
    if answer.status_code == 401:
        raise PrefectUnavailable(
            "The Prefect API does not take our credentials.",
            {
                "PREFECT_API_URL": without_user(url),
                "PREFECT_API_AUTH_STRING": "set" if settings.api.auth_string else "not set",
            },
            "Set PREFECT_API_AUTH_STRING to what the server has as PREFECT_SERVER_API_AUTH_STRING.",
        )
    page = "html" in answer.headers.get("content-type", "")
    if page or answer.status_code == 404:
        raise PrefectUnavailable(
            "Something answers at PREFECT_API_URL, but it is not the Prefect API.",
            {"PREFECT_API_URL": without_user(url), path: f"status {answer.status_code}"},
            "The URL of a Prefect server ends in /api, as in http://127.0.0.1:4200/api.",
        )


def _credentials(settings: Settings) -> dict[str, str]:
    """Return the header by which Prefect's client says who it is."""
    if settings.api.auth_string:
        secret = settings.api.auth_string.get_secret_value()
        return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    if settings.api.key:
        return {"Authorization": f"Bearer {settings.api.key.get_secret_value()}"}
    return {}


def verification(url: str, settings: Settings) -> bool | ssl.SSLContext:
    """Return how the certificate of a server is checked, as the settings of Prefect say."""
    if url.startswith("http:") or settings.api.tls_insecure_skip_verify:
        return False
    if settings.api.ssl_cert_file:
        return ssl.create_default_context(cafile=settings.api.ssl_cert_file)
    return True


def without_user(url: str) -> str:
    """A URL without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _start_temporary_server(settings: Settings) -> None:
    if _temporary_server_runs():
        return
    say(
        "Waiting for a temporary Prefect server: 10 to 30 s, the first time longer. "
        "(`prefect server start` and PREFECT_API_URL spare that; `.local()` needs no server.)"
    )
    began = time.monotonic()
    startup_s = max(STARTUP_S, settings.server.ephemeral.startup_timeout_seconds)
    try:
        with temporary_settings(
            updates={PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: startup_s},
            set_defaults=SERVER_SETTINGS,
        ):
            get_client(sync_client=True)  # starts it and waits; it serves the whole process
    except (RuntimeError, OSError, httpx.HTTPError) as error:
        raise PrefectUnavailable(
            "Prefect's temporary server did not start.",
            {"waited": f"{time.monotonic() - began:.0f} s", "error": str(error)[-2000:]},
            "`prefect server start` shows what is wrong; `.local()` needs no server.",
        ) from error
    say(f"The temporary Prefect server is up after {time.monotonic() - began:.0f} s.")


def _temporary_server_runs() -> bool:
    # imported by the first client that starts one; importing it here would cost a second
    module = sys.modules.get("prefect.server.api.server")
    return module is not None and bool(module.SubprocessASGIServer().running)
