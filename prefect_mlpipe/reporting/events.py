"""A task run as one event of the kind that Prefect's own engine sends.

Knows the form of the events that the server turns into task runs. Knows nothing of how they get
there: pure, but for the chance in new ids.

One event carries a task run from nothing to its final state; Prefect's engine sends three. The
form is not documented: it is what the server's recorder reads, in every version from 3.4.25 to
3.9.1.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType

STATE_TYPES: Mapping[str, StateType] = {
    "Pending": StateType.PENDING,
    "NotReady": StateType.PENDING,  # Prefect's own word for: something upstream failed
    "Running": StateType.RUNNING,
    "Completed": StateType.COMPLETED,
    "Cached": StateType.COMPLETED,
    "Skipped": StateType.COMPLETED,
    "Failed": StateType.FAILED,
    "TimedOut": StateType.FAILED,
    "Crashed": StateType.CRASHED,
    "Cancelled": StateType.CANCELLED,
}
_STATE_NUMBERS = {name: number for number, name in enumerate(STATE_TYPES)}
_NOT_STARTED = frozenset({"Pending", "NotReady"})
_NOT_ENDED = frozenset({"Pending", "Running"})  # the graph draws them on and on, to this moment
FINAL_TYPES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

MAX_EDGES = 200  # parents drawn for one task run: the API repeats them for each child
MAX_TEXT = 4000  # characters of a message


@dataclass(frozen=True, slots=True)
class TaskRunReport:
    """One task run, told whole.

    Attributes:
        id: a new id (`task_run_ids`) or that of a run that is on record.
        name: what is shown.
        task_key: names the function; with `dynamic_key` unique in the flow run.
        dynamic_key: tells the calls of one function apart.
        state: a key of `STATE_TYPES`.
        message: shown with the state.
        parents: task runs that an edge is drawn from; at most `MAX_EDGES` are.
        start: when it began.
        end: when it got into this state; later than that of an earlier report of the same run.
        tags: shown with the task run.
    """

    id: UUID
    name: str
    task_key: str
    dynamic_key: str
    state: str
    message: str
    parents: tuple[UUID, ...]
    start: datetime
    end: datetime
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """A task run of Prefect's engine that nobody will bring to an end."""

    id: UUID
    state: str
    message: str
    since: float = field(default_factory=time.monotonic)


def task_run_ids(count: int) -> list[UUID]:
    """New ids that sort by time (uuid7), drawn with one system call."""
    chance = secrets.token_bytes(10 * count)
    head = (time.time_ns() // 1_000_000) << 80
    tails = (int.from_bytes(chance[i : i + 10]) for i in range(0, 10 * count, 10))
    # 4 bits of version and 2 of variant have fixed places in the 80 random ones
    fixed = (0x7 << 76) | (0b10 << 62)
    free = ~((0xF << 76) | (0b11 << 62))
    return [UUID(int=head | fixed | (tail & free)) for tail in tails]


def plain(text: str) -> str:
    """`text` without what JSON and databases refuse: lone surrogates, NUL, endless length."""
    text = text[:MAX_TEXT]
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _event_id(task_run_id: UUID, state: str, at: datetime) -> UUID:
    """The same report gets the same id however often it is posted, so it is recorded once."""
    micros = int(at.timestamp() * 1_000_000)
    return UUID(int=task_run_id.int ^ ((micros << 4 | _STATE_NUMBERS[state]) & ((1 << 62) - 1)))


def task_run_event(report: TaskRunReport, flow_run_id: UUID) -> dict[str, Any]:
    """The event that puts `report` on record.

    Without `expected_start_time` the node is left out of the graph. All parents go under one input:
    the API repeats a parent once for each input of that parent.
    """
    parents = [{"input_type": "task_run", "id": parent} for parent in report.parents[:MAX_EDGES]]
    started = report.state not in _NOT_STARTED
    ended = report.state not in _NOT_ENDED
    task_run = {
        "name": plain(report.name),
        "task_key": report.task_key,
        "dynamic_key": report.dynamic_key,
        "run_count": int(started),
        "flow_run_run_count": 1,
        "task_inputs": {"inputs": parents} if parents else {},
        "expected_start_time": report.start,
        "start_time": report.start if started else None,
        "end_time": report.end if ended else None,
        "total_run_time": max(0.0, (report.end - report.start).total_seconds()) if ended else 0.0,
        "tags": list(report.tags),
    }
    return _event(report.id, flow_run_id, report.state, report.message, report.end, task_run)


def _event(
    run_id: UUID,
    flow_run_id: UUID,
    state: str,
    message: str,
    at: datetime,
    task_run: Mapping[str, Any],
) -> dict[str, Any]:
    kind = STATE_TYPES[state].value
    message = plain(message)
    return {
        "id": _event_id(run_id, state, at),
        "occurred": at,
        "event": f"prefect.task-run.{state}",
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{run_id}",
            "prefect.resource.name": task_run["name"],
            "prefect.run-count": str(task_run["run_count"]),
            "prefect.state-message": message,
            "prefect.state-name": state,
            "prefect.state-timestamp": at.isoformat(),
            "prefect.state-type": kind,
            "prefect.orchestration": "client",
        },
        "related": [
            {
                "prefect.resource.id": f"prefect.flow-run.{flow_run_id}",
                "prefect.resource.role": "flow-run",
            }
        ],
        "payload": {
            "intended": {"from": None, "to": kind},
            "initial_state": None,
            "validated_state": {
                "type": kind,
                "name": state,
                "message": message,
                "state_details": {},
                "data": None,
            },
            "task_run": task_run,
        },
    }


def closing_event(closing: Closing, known: Mapping[str, Any], flow_run_id: UUID) -> dict[str, Any]:
    """An event that ends the task run that the API describes as `known`."""
    last = known["state"]["timestamp"] if known.get("state") else known["created"]
    now = datetime.now(UTC)
    at = max(now, datetime.fromisoformat(last) + timedelta(milliseconds=1))
    kept = ("name", "task_key", "dynamic_key", "run_count", "flow_run_run_count", "task_inputs")
    task_run = {name: known[name] for name in (*kept, "expected_start_time", "start_time", "tags")}
    if known["start_time"]:
        ran = at - datetime.fromisoformat(known["start_time"])
        task_run["total_run_time"] = max(0.0, ran.total_seconds())
    task_run["end_time"] = at
    return _event(closing.id, flow_run_id, closing.state, closing.message, at, task_run)
