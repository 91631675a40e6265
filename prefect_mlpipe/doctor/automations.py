"""Checks of automations: whether what they are to start can be started.

A trigger that starts nothing is silent: Prefect says so in the log of the server and in its events.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from prefect_mlpipe.doctor.asking import asking, paged
from prefect_mlpipe.doctor.findings import Finding, Look, Notes

FAILED: Final = "prefect.automation.action.failed"
LATELY: Final = timedelta(days=7)
LOOKED_AT: Final = 50  # events
SHOWN: Final = 5
REASON: Final = 300  # characters


def triggers(look: Look) -> Finding:
    """Whether automations start what they are to start."""
    notes = Notes()
    with asking() as client:
        automations = [*paged(client.read_automations)]
        orphans = [each.name for each in automations if each.enabled and _is_orphan(client, each)]
        failures = [*_failures(client)]
    notes.fact("automations", len(automations))
    if orphans:
        notes.fact("for deleted deployments", ", ".join(sorted(orphans)[:SHOWN]))
        notes.warn(f"prefect automation delete '{min(orphans)}'")
    known = {str(each.id) for each in automations}
    left = [(name, why) for id, name, why in failures if id in known and name not in orphans]
    for name, why in dict(left).items():
        notes.fact(name, why)
    if left:
        notes.warn(
            "These have started nothing when they should have, lately: give their deployments the "
            "parameters that they need, by a default or with parameters= of the trigger."
        )
    return notes.finding()


def _is_orphan(client: SyncPrefectClient, automation: Any) -> bool:
    ids = [getattr(action, "deployment_id", None) for action in automation.actions]
    return any(id is not None and not _is_there(client, id) for id in ids)


def _is_there(client: SyncPrefectClient, deployment_id: UUID) -> bool:
    try:
        client.read_deployment(deployment_id)
    except ObjectNotFound:
        return False
    return True


def _failures(client: SyncPrefectClient) -> Iterator[tuple[str, str, str]]:
    """Give id and name of automations whose actions have failed, and why; the oldest first."""
    wanted = {
        "event": {"name": [FAILED]},
        "occurred": {"since": (datetime.now(UTC) - LATELY).isoformat()},
        "order": "DESC",
    }
    asked = {"filter": wanted, "limit": LOOKED_AT}
    for event in reversed(client.request("POST", "/events/filter", json=asked).json()["events"]):
        resource = event["resource"]
        id = resource["prefect.resource.id"].rpartition(".")[2]
        yield (
            id,
            resource["prefect.resource.name"],
            str(event["payload"].get("reason", ""))[:REASON],
        )
