"""The automations of a Prefect server, as it lists them.

Knows Prefect's API. Knows nothing of what an automation is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx
from prefect.client.orchestration import get_client

PAGE = 200  # the most that the API gives at once
KNOWN_S = 6.0  # until all processes of a server know a new automation: they look every 5 s


class Listed(NamedTuple):
    """One automation.

    Attributes:
        content: as the API gives it.
        unknown_s: how long some process of the server may still not know it.
    """

    content: Mapping[str, Any]
    unknown_s: float

    def expects(self, event: str) -> bool:
        """Whether it waits for an event of this name."""
        return bool(self.content["enabled"]) and event in self.content["trigger"].get("expect", ())


def listed() -> Iterator[Listed]:
    """All automations."""
    with get_client(sync_client=True) as client:
        offset = 0
        while True:
            asked = {"limit": PAGE, "offset": offset}
            answer = client.request("POST", "/automations/filter", json=asked)
            page, now = answer.json(), _server_time(answer)
            for content in page:
                age = (now - datetime.fromisoformat(content["updated"])).total_seconds()
                yield Listed(content, max(0.0, KNOWN_S - max(0.0, age)))
            if len(page) < PAGE:
                return
            offset += PAGE


def _server_time(answer: httpx.Response) -> datetime:
    """The moment by the server's own clock, if it tells."""
    date = answer.headers.get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
