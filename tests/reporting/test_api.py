from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLOUD_API_URL,
    temporary_settings,
)

from prefect_mlpipe.errors import PrefectUnavailable
from prefect_mlpipe.reporting import api as subject
from prefect_mlpipe.reporting.api import ensure_api, server_environment
from tests.reporting.fake_api import FakeApi
from tests.server import Server, free_port


@pytest.fixture(autouse=True)
def _nothing_seen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_answered", {})


def test_a_server_that_runs_is_enough(api: Server) -> None:
    ensure_api()


def test_an_api_that_answered_is_not_asked_again_at_once() -> None:
    with FakeApi(lambda *_: (200, True)).running() as api:
        ensure_api()
        ensure_api()
    assert [path for _, path, _ in api.asked] == ["/admin/version"]


def test_an_api_that_is_busy_answers() -> None:
    with FakeApi(lambda *_: (503, None)).running():
        ensure_api()


@pytest.mark.parametrize(("auth", "said"), [(None, "not set"), ("admin:wrong", "set")])
def test_credentials_that_are_missing_or_wrong_are_told_by_the_name_of_their_setting(
    auth: str | None, said: str
) -> None:
    with (
        FakeApi(lambda *_: (401, None)).running(),
        temporary_settings({PREFECT_API_AUTH_STRING: auth}),
        pytest.raises(PrefectUnavailable, match="credentials") as caught,
    ):
        ensure_api()
    assert caught.value.facts["PREFECT_API_AUTH_STRING"] == said
    assert "PREFECT_SERVER_API_AUTH_STRING" in caught.value.advice
    assert "wrong" not in str(caught.value)


def test_an_api_that_does_not_answer_is_named_with_ways_out() -> None:
    port = free_port()
    url = f"http://me:secret@127.0.0.1:{port}/api"
    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(PrefectUnavailable) as caught,
    ):
        ensure_api()
    text = str(caught.value)
    assert f"http://127.0.0.1:{port}/api" in text
    assert "secret" not in text
    for way_out in ("prefect server start", "unset PREFECT_API_URL", ".local()"):
        assert way_out in text
    assert caught.value.__cause__ is not None


def test_a_url_without_its_end_is_told_from_one_that_is_down(api: Server) -> None:
    with (
        temporary_settings({PREFECT_API_URL: api.url}),
        pytest.raises(PrefectUnavailable, match="not the Prefect API") as caught,
    ):
        ensure_api()
    assert "ends in /api" in str(caught.value)


def test_of_prefect_cloud_any_answer_will_do() -> None:
    api = FakeApi(lambda *_: (404, None))
    with api.running(), temporary_settings({PREFECT_CLOUD_API_URL: api.url}):
        ensure_api()


def test_no_api_and_no_temporary_server_is_said_before_anything_is_tried() -> None:
    with pytest.raises(PrefectUnavailable, match="No Prefect API is configured"):
        ensure_api()


TEMPORARY = """
import httpx
from prefect.client.orchestration import get_client
from prefect_mlpipe.reporting.api import SERVER_SETTINGS, ensure_api
ensure_api()
ensure_api()
with get_client(sync_client=True) as client:
    settings = client.request("GET", "/admin/settings").json()
for name, value in SERVER_SETTINGS.items():
    found = settings
    for part in name.split("."):
        found = found[part]
    print(name, found == value or name.endswith("batch_size") and found == 77)
"""


def test_a_temporary_server_is_announced_once_and_tuned_but_for_what_the_user_set(
    tmp_path: Path, prefect_server: Server
) -> None:
    shutil.copy(prefect_server.home / "prefect.db", tmp_path)  # spares the migrations
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "77",
    }
    ran = subprocess.run(
        [sys.executable, "-c", TEMPORARY],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("Waiting for a temporary Prefect server") == 1
    assert ran.stderr.count("server is up after") == 1
    assert ran.stdout.count("True") == 6, ran.stdout


def test_the_advised_settings_have_names_in_the_environment() -> None:
    names = server_environment()
    assert names["PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE"] == "200"
    assert names["PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE"] == "200"
