"""How checks ask the Prefect API: with an end, and never by starting a temporary server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import get_current_settings

from prefect_mlpipe.reporting.api import verification, without_user

PAGE: Final = 200
MOST: Final = 1000  # deployments or automations that are looked at
ANSWER_S: Final = 15.0


def api_url() -> str | None:
    """Return the URL of the API, `None` if Prefect would start a temporary server."""
    url = get_current_settings().api.url
    return str(url).rstrip("/") if url else None


def is_cloud() -> bool:
    """Tell whether the API is that of Prefect Cloud, which looks after itself."""
    return (api_url() or "").startswith(get_current_settings().cloud.api_url)


@contextmanager
def asking() -> Iterator[SyncPrefectClient]:
    """Give a client of Prefect's, which has the credentials."""
    assert api_url() is not None, "without a URL this would start a server"
    with get_client(httpx_settings={"timeout": ANSWER_S}, sync_client=True) as client:
        yield client


def as_stranger(url: str) -> httpx.Response:
    """Ask without credentials."""
    bare = without_user(url)
    verify = verification(bare, get_current_settings())
    return httpx.get(bare, timeout=ANSWER_S, verify=verify, follow_redirects=True)


def server_settings() -> dict[str, Any] | None:
    """Return the settings of the server as it tells them, `None` if it is one that does not."""
    with asking() as client:
        try:
            answer = client.request("GET", "/admin/settings")
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (403, 404):  # Prefect Cloud
                return None
            raise
    found: dict[str, Any] = answer.json()["server"]
    return found


def paged(read: Any, **filters: Any) -> Iterator[Any]:
    """Give what the API has, page by page."""
    for offset in range(0, MOST, PAGE):
        page = read(limit=PAGE, offset=offset, **filters)
        yield from page
        if len(page) < PAGE:
            return
