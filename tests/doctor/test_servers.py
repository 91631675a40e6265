"""What is wrong with a server, and with what is deployed there, is found."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
)
from prefect.client.schemas.objects import WorkerStatus
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger, emit_event
from prefect.schedules import Cron
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Scheduled

from prefect_mlpipe import DataChangeTrigger
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.listing import KNOWN_S
from prefect_mlpipe.deploy.watching import look_once, requested, stop_watching
from prefect_mlpipe.doctor import deployments, examining
from prefect_mlpipe.doctor.automations import triggers
from prefect_mlpipe.doctor.deployments import (
    data_watchers,
    late_runs,
    schedules,
    serving,
    work_pools,
)
from prefect_mlpipe.doctor.findings import Check, Finding, Look
from prefect_mlpipe.doctor.server import (
    authentication,
    event_recorder,
    prefect_api,
    server_version,
    ui,
)
from tests.cli.conftest import Mlpipe, folder, mlpipe
from tests.deploy.serving import eventually
from tests.server import Server, free_port

__all__ = ["folder", "mlpipe"]


def found(check: Check, state: str) -> Finding:
    finding = check(Look())
    assert finding.state == state, finding
    assert bool(finding.mend) == (state in ("warning", "problem"))
    return finding


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_MLPIPE_STORE", str(tmp_path / "store"))


# -- a server that is started as we advise ------------------------------------------------------


@pytest.mark.parametrize("check", [prefect_api, server_version, ui, event_recorder, authentication])
def test_a_server_that_is_started_as_we_advise_is_well(api: Server, check: Check) -> None:
    found(check, "ok")


def test_the_command_tells_all_and_ends_with_1_where_there_is_a_problem(
    api: Server, mlpipe: Mlpipe
) -> None:
    said = mlpipe("doctor", "--json")
    report = said.json
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert states["prefect_api"] == states["server_version"] == "ok"
    assert said.code == (1 if report["state"] == "problem" else 0)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        said = mlpipe("doctor", "--json")
        page = mlpipe("doctor").out
    checks = {check["name"]: check for check in said.json["checks"]}
    assert (said.code, said.json["state"]) == (1, "problem")
    assert checks["prefect_api"]["state"] == "problem"
    assert "prefect server start" in checks["prefect_api"]["mend"]
    assert checks["schedules"]["state"] == "skipped"
    assert set(checks["store"]) == {"name", "about", "state", "facts", "mend"}
    assert "→ Start the server" in page


def test_without_a_url_it_is_said_and_no_server_is_started(mlpipe: Mlpipe) -> None:
    with temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}):
        said = mlpipe("doctor", "--json")
    states = {check["name"]: check["state"] for check in said.json["checks"]}
    assert (states["prefect_api"], states["schedules"]) == ("warning", "skipped")
    assert found(prefect_api, "problem").facts


def test_what_answers_but_is_no_api_is_a_problem(api: Server) -> None:
    with temporary_settings({PREFECT_API_URL: f"{api.url}/nothing"}):
        report = examining.examine()
    [examined] = [each for each in report.checks if each.name == "prefect_api"]
    assert "not the Prefect API" in examined.finding.facts["found"]


# -- servers that are not -----------------------------------------------------------------------


class _Odd(BaseHTTPRequestHandler):
    """A server of another release, which says so and asks for a password."""

    answers = {  # noqa: RUF012
        "/api/health": (200, b"true"),
        "/api/admin/version": (200, b'"3.2.1"'),
        "/ui-settings": (200, b'{"api_url": "http://127.0.0.1:4200/api"}'),
    }

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path, (404, b"{}"))
        if self.path == "/api/admin/version" and "Authorization" not in self.headers:
            status, body = 401, b"{}"
        self._answer(status, body)

    def do_POST(self) -> None:
        right = self.headers.get("Authorization", "").startswith("Basic")
        self._answer(200 if right else 401, b"0" if right else b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[str]:
    """The URL of its API."""
    server = HTTPServer(("127.0.0.1", 0), _Odd)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_of_another_release_at_another_place_is_told(odd: str) -> None:
    with temporary_settings({PREFECT_API_URL: odd, PREFECT_API_AUTH_STRING: "admin:secret-word"}):
        found(prefect_api, "ok")
        assert "Upgrade the server" in found(server_version, "warning").mend
        assert f"PREFECT_UI_API_URL={odd}" in found(ui, "problem").mend
        assert found(authentication, "ok").facts["asks for credentials"] == "yes"
        assert found(event_recorder, "skipped").facts
        report = examining.examine()
    assert "secret-word" not in str(report)


@pytest.mark.parametrize("check", [server_version, authentication, ui])
def test_prefect_cloud_is_left_to_itself(check: Check) -> None:
    cloud = f"{get_current_settings().cloud.api_url}/accounts/a/workspaces/b"
    with temporary_settings({PREFECT_API_URL: cloud}):
        assert "Prefect Cloud" in found(check, "skipped").facts["because"]


def test_credentials_that_are_not_accepted_are_a_problem(odd: str) -> None:
    with temporary_settings({PREFECT_API_URL: odd}):
        finding = examining.asked(prefect_api, Look())
    assert finding.state == "problem"
    assert "PREFECT_API_AUTH_STRING" in finding.mend


def test_an_open_server_that_others_can_reach_is_a_warning(api: Server) -> None:
    elsewhere = api.api_url.replace("127.0.0.1", "0.0.0.0")  # this machine, by another name
    with temporary_settings({PREFECT_API_URL: elsewhere}):
        assert "PREFECT_SERVER_API_AUTH_STRING" in found(authentication, "warning").mend


# -- deployments --------------------------------------------------------------------------------


@flow
def nightly(paths: list[str] | None = None) -> None:
    """Never run here."""


@pytest.fixture
def gone() -> Iterator[list[UUID]]:
    """Deployments that are deleted when the test has ended."""
    made: list[UUID] = []
    yield made
    stop_watching(within_s=20)
    with get_client(sync_client=True) as client:
        for deployment_id in made:
            client.delete_deployment(deployment_id)


def deployed(gone: list[UUID], name: str, **options: object) -> UUID:
    deployment = nightly.to_deployment(name, **options)  # type: ignore[arg-type]
    assert isinstance(deployment, RunnerDeployment)
    made = deployment.apply()
    assert isinstance(made, UUID)
    gone.append(made)
    return made


def test_a_schedule_that_never_fires_is_a_problem(
    api: Server, gone: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployments, "SCHEDULED_AFTER", timedelta(0))
    monkeypatch.setattr(deployments, "_has_schedule", lambda each: each.id in gone)
    deployment = deployed(gone, "never")  # as one whose runs nobody schedules
    finding = found(schedules, "problem")
    assert finding.facts["without a next run"] == "nightly/never"
    assert "sqlalchemy<2.1" in finding.mend
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(deployment, state=Scheduled())
    found(schedules, "ok")


def test_what_nobody_serves_is_a_problem(api: Server, gone: list[UUID]) -> None:
    deployed(gone, "paused", schedule=Cron("0 3 * * *"), paused=True)
    deployed(gone, "by-hand")
    before = serving(Look()).facts.get("nobody serves", "")
    assert "nightly/" not in before
    deployed(gone, "alone", schedule=Cron("0 3 * * *"))
    assert "nightly/alone" in found(serving, "problem").facts["nobody serves"]


def test_a_work_pool_without_a_worker_is_a_problem_and_with_one_it_is_not(
    api: Server, gone: list[UUID]
) -> None:
    with get_client(sync_client=True) as client:
        client.request("POST", "/work_pools/", json={"name": "doctors", "type": "process"})
        deployed(gone, "pooled", work_pool_name="doctors", schedule=Cron("0 3 * * *"))
        finding = work_pools(Look())
        assert finding.facts["doctors"] == "0 workers"
        assert "prefect worker start --pool doctors" in finding.mend
        client.send_worker_heartbeat("doctors", "one")
        assert work_pools(Look()).facts["doctors"] == "1 workers"
        [worker] = client.read_workers_for_work_pool("doctors")
        assert worker.status == WorkerStatus.ONLINE
        client.request("PATCH", "/work_pools/doctors", json={"is_paused": True})
        assert work_pools(Look()).facts["doctors"] == "paused"
        client.request("DELETE", "/work_pools/doctors")


def test_late_runs_are_told_with_their_deployment(api: Server, gone: list[UUID]) -> None:
    deployment = deployed(gone, "waiting")
    state = Scheduled(name="Late")
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(deployment, state=state)
        of_it = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        assert client.read_flow_runs(deployment_filter=of_it)
        assert late_runs(Look()).facts["nightly/waiting"].startswith("1 late, by ")
        assert "worker of its work pool" in late_runs(Look()).mend
        client.delete_flow_run(run.id)
    assert "nightly/waiting" not in late_runs(Look()).facts


def test_data_that_nobody_watches_is_a_problem(
    api: Server, gone: list[UUID], tmp_path: Path
) -> None:
    raw, kept = tmp_path / "raw", Store(tmp_path / "store", cache_folder=str(tmp_path / "cache"))
    raw.mkdir()
    trigger = DataChangeTrigger(raw, parameter="paths").for_pipeline(nightly, kept)
    with get_client(sync_client=True) as client:
        client.request("POST", "/work_pools/", json={"name": "watchless", "type": "process"})
    deployed(gone, "new-data", work_pool_name="watchless", triggers=[trigger])
    finding = found(data_watchers, "problem")
    assert str(raw) in finding.facts["never looked at"]
    assert "mlpipe watch" in finding.mend
    look_once([watch for watch in requested() if watch.uri == str(raw)], kept)
    assert str(raw) not in data_watchers(Look()).facts.get("never looked at", "")
    kept.stat_index.close()


def test_a_trigger_that_starts_nothing_is_a_warning_with_the_reason(
    api: Server, gone: list[UUID]
) -> None:
    expect = {f"asked for {gone!r} {id(gone)}"}
    trigger = DeploymentEventTrigger(expect=expect, parameters={"depth": 3}, name="asks in vain")
    deployed(gone, "in-vain", triggers=[trigger], enforce_parameter_schema=True)
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    with get_client(sync_client=True) as client:
        path = f"/deployments/{gone[0]}"
        client.request("PATCH", path, json={"parameter_openapi_schema": closed})
    time.sleep(KNOWN_S)
    emit_event(expect.copy().pop(), {"prefect.resource.id": "tests.doctor"})
    finding = eventually(lambda: triggers(Look()), lambda seen: "asks in vain" in seen.facts)
    assert "depth" in finding.facts["asks in vain"], finding
    assert finding.state == "warning"


def test_an_automation_that_has_outlived_its_deployment_is_a_warning_and_is_not_watched_for(
    api: Server, tmp_path: Path
) -> None:
    raw, kept = tmp_path / "left", Store(tmp_path / "store", cache_folder=str(tmp_path / "cache"))
    raw.mkdir()
    with get_client(sync_client=True) as client:
        client.request("POST", "/work_pools/", json={"name": "deleted", "type": "process"})
    trigger = DataChangeTrigger(raw, parameter="paths", name="left behind")
    bound = trigger.for_pipeline(nightly, kept)
    made: list[UUID] = []
    deployed(made, "deleted", work_pool_name="deleted", triggers=[bound])
    assert str(raw) in [watch.uri for watch in requested()]
    with get_client(sync_client=True) as client:
        client.delete_deployment(made[0])
    assert str(raw) not in [watch.uri for watch in requested()]
    finding = found(triggers, "warning")
    assert "left behind" in finding.facts["for deleted deployments"]
    with get_client(sync_client=True) as client:
        for automation in client.read_automations_by_name("left behind"):
            client.delete_automation(automation.id)
    assert "left behind" not in triggers(Look()).facts.get("for deleted deployments", "")
