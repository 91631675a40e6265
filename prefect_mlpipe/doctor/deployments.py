"""Checks of deployments: whether schedules fire, and whether somebody runs what is asked for.

Knows Prefect's deployments, automations and work pools.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.client.schemas.objects import DeploymentStatus, StateType, WorkerStatus, WorkPoolStatus
from prefect.exceptions import ObjectNotFound

from prefect_mlpipe.core.places.remote_errors import shown
from prefect_mlpipe.core.telling.describing import seconds_text
from prefect_mlpipe.deploy.watching import requested
from prefect_mlpipe.doctor.asking import asking, paged, server_settings
from prefect_mlpipe.doctor.findings import Finding, Look, Notes
from prefect_mlpipe.stores import open_store

SCHEDULED_AFTER: Final = timedelta(minutes=3)  # the scheduler looks every minute
LATE: Final = timedelta(minutes=5)  # a process that serves, or a worker, looks every 10 or 15 s
ASKED: Final = 200  # schedules of which the next run is asked for, each with a request
SHOWN: Final = 5


def schedules(look: Look) -> Finding:
    """Whether the server schedules runs for the deployments that have a schedule."""
    notes = Notes()
    known = server_settings() or {}
    if known.get("services", {}).get("scheduler", {}).get("enabled") is False:
        notes.problem("Start the server with PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED=true.")
    with asking() as client:
        every = paged(client.read_deployments)
        old = [*islice(filter(_should_be_scheduled, every), ASKED)]
        names = _Names(client)
        silent = [names(each) for each in old if not _has_next(client, each.id)]
    notes.fact("deployments with a schedule", len(old))
    if silent:
        notes.fact("without a next run", _some(silent))
    if silent and len(silent) == len(old):
        notes.problem(
            "Unless all these schedules have ended, the server's scheduler fails: look in its log "
            "for 'bulk DML statement'; install 'sqlalchemy<2.1' beside the server and restart it."
        )
    elif silent:
        notes.warn("Their schedules have ended, or can never fire: give them new ones.")
    return notes.finding()


def _should_be_scheduled(deployment: Any) -> bool:
    since = deployment.updated or deployment.created
    old = since is None or datetime.now(UTC) - since > SCHEDULED_AFTER
    return old and _has_schedule(deployment)


def _has_schedule(deployment: Any) -> bool:
    return not deployment.paused and any(each.active for each in deployment.schedules)


def _has_next(client: SyncPrefectClient, deployment_id: UUID) -> bool:
    scheduled = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    of_it = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    return bool(
        client.read_flow_runs(
            deployment_filter=of_it, flow_run_filter=FlowRunFilter(state=scheduled), limit=1
        )
    )


def late_runs(look: Look) -> Finding:
    """Whether runs wait that nobody starts."""
    notes = Notes()
    late = FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"]))
    waiting: dict[str, list[float]] = defaultdict(list)
    with asking() as client:
        names = _Names(client)
        for run in paged(client.read_flow_runs, flow_run_filter=FlowRunFilter(state=late)):
            by = (datetime.now(UTC) - run.expected_start_time).total_seconds()
            waiting[names.of(run.deployment_id)].append(by)
    notes.fact("late runs", sum(map(len, waiting.values())))
    for name, late_by in [*waiting.items()][:SHOWN]:
        notes.fact(name, f"{len(late_by):,} late, by {seconds_text(max(late_by))}")
    if waiting:
        longest = max(max(each) for each in waiting.values())
        mend = (
            "Start who runs them: the process that serves the deployment, or a worker of its work "
            "pool; or wait, if a concurrency limit keeps them."
        )
        (notes.problem if longest > LATE.total_seconds() else notes.warn)(mend)
    return notes.finding()


def serving(look: Look) -> Finding:
    """Whether the processes are there that serve deployments without a work pool."""
    notes = Notes()
    with asking() as client:
        names = _Names(client)
        served = [each for each in _wanted(client) if each.work_pool_name is None]
        gone = [names(each) for each in served if each.status != DeploymentStatus.READY]
    notes.fact("deployments to be served", len(served))
    if gone:
        notes.fact("nobody serves", _some(gone))
        notes.problem(
            "Start the processes that call serve() for them; or pause or delete the deployments."
        )
    return notes.finding()


def work_pools(look: Look) -> Finding:
    """Whether the work pools that are needed have a worker."""
    notes = Notes()
    with asking() as client:
        needed = {each.work_pool_name for each in _wanted(client)} - {None}
        for name in sorted(needed):
            _look_at(notes, client, name)
    notes.fact("work pools that are needed", len(needed))
    return notes.finding()


def _look_at(notes: Notes, client: SyncPrefectClient, name: str) -> None:
    pool = client.read_work_pool(name)
    if pool.is_paused:
        notes.fact(name, "paused")
        notes.warn(f"prefect work-pool resume {name}")
        return
    if pool.is_push_pool or pool.is_managed_pool:
        notes.fact(name, "needs no worker")
        return
    online = WorkerFilter(status=WorkerFilterStatus(any_=[WorkerStatus.ONLINE]))
    workers = client.read_workers_for_work_pool(name, worker_filter=online)
    notes.fact(name, f"{len(workers)} workers")
    if not workers or pool.status == WorkPoolStatus.NOT_READY:
        notes.problem(f"prefect worker start --pool {name}")


def data_watchers(look: Look) -> Finding:
    """Whether somebody watches the data for deployments that workers run."""
    notes = Notes()
    watches = requested()
    never = [
        shown(watch.uri)
        for watch in watches
        if open_store(look.store or watch.store).watches.read(watch.name) is None
    ]
    notes.fact("places to watch", len(watches))
    if never:
        notes.fact("never looked at", _some(never))
        notes.problem(
            "Start `mlpipe watch` beside the workers, or deploy the flow "
            "prefect_mlpipe.deploy.watching.watch_data with a schedule."
        )
    return notes.finding()


# -- deployments by name ----------------------------------------------------------------------


def _wanted(client: SyncPrefectClient) -> Iterator[Any]:
    """Give the deployments that shall run by themselves: by a schedule, or by an automation."""
    triggered = {
        getattr(action, "deployment_id", None)
        for automation in paged(client.read_automations)
        if automation.enabled
        for action in automation.actions
    }
    for deployment in paged(client.read_deployments):
        if _has_schedule(deployment) or (deployment.id in triggered and not deployment.paused):
            yield deployment


class _Names:
    """Gives deployments the names by which Prefect calls them: flow/deployment."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._flows: dict[UUID, str] = {}

    def __call__(self, deployment: Any) -> str:
        flow = deployment.flow_id
        if flow not in self._flows:
            self._flows[flow] = self._client.read_flow(flow).name
        return f"{self._flows[flow]}/{deployment.name}"

    def of(self, deployment_id: UUID | None) -> str:
        """Return the name by the id of the deployment."""
        if deployment_id is None:
            return "no deployment"
        try:
            return self(self._client.read_deployment(deployment_id))
        except ObjectNotFound:
            return "a deleted deployment"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{', '.join(sorted(names)[:SHOWN])}{more}"
