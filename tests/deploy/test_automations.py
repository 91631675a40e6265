"""Against a real server: killed runs end as Crashed, and failures are told of."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import UUID

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.states import Cancelled

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.deploy.automations import crash_silent_runs, notify_on_failure
from prefect_mlpipe.reporting.watch import RunWatch
from tests.flow_runs.conftest import Script, Seen, script, seen, store
from tests.reporting.conftest import Api, eventually, prefect_api
from tests.server import Server

__all__ = ["prefect_api", "script", "seen", "store"]

KNOWN_S = 1.0  # the server of the tests is one process, which knows a new automation at once
WITHIN = timedelta(seconds=10)  # the server takes no less
SILENT_S = WITHIN.total_seconds() + 5 + 20  # it looks every 5 s, and may be busy


@pytest.fixture
def name(api: Server) -> Iterator[str]:
    """Names the flows and the automations of a test; the automations go with it."""
    name = f"unattended-{uuid.uuid4()}"
    yield name
    with get_client(sync_client=True) as client:
        for automation in client.read_automations_by_name(name):
            client.delete_automation(automation.id)


def state(api: Api, run: object) -> str:
    return str(api.get(f"/flow_runs/{run}")["state_name"])


SCRIPT = """
import time
from prefect_mlpipe import pipeline, step

@step
def first(x: int) -> int:
    return x + 1

@step
def second(x: int, seconds: float) -> int:
    time.sleep({seconds})
    return x + 1

@pipeline(name="{name}")
def two(x: int = 1, seconds: float = 0.0) -> int:
    return second(first(x), seconds)

if __name__ == "__main__":
    two()
"""


@pytest.mark.timeout(600)
def test_a_killed_run_crashes_and_its_rerun_does_what_was_missing_while_others_stay(
    name: str, prefect_api: Api, seen: Seen, script: Callable[..., Script]
) -> None:
    crash_silent_runs(WITHIN, [name], name)
    time.sleep(KNOWN_S)
    alive = prefect_api.new_flow_run(name)
    ended = prefect_api.new_flow_run(name)
    with RunWatch(alive, lambda: None, heartbeat_s=1):
        with RunWatch(ended, lambda: None, heartbeat_s=1):
            time.sleep(2)
        prefect_api.client.set_flow_run_state(ended, Cancelled(), force=True)

        killed = script(SCRIPT.format(name=name, seconds=600))
        seen.wait_for(lambda: len(seen.flow_runs(name)) == 3)
        [run] = [r for r in seen.flow_runs(name) if UUID(r["id"]) not in (alive, ended)]
        seen.wait_for(lambda: heartbeats(prefect_api, run["id"]))
        seen.wait_for(lambda: prefect_api.task_runs(run["id"]).get("first"))
        killed.signal(signal.SIGKILL)
        killed.end()
        assert eventually(lambda: state(prefect_api, run["id"]), "Crashed".__eq__, SILENT_S)
        assert state(prefect_api, run["id"]) == "Crashed"
        assert "no sign of life" in prefect_api.get(f"/flow_runs/{run['id']}")["state"]["message"]
        assert state(prefect_api, alive) == "Running"
        assert state(prefect_api, ended) == "Cancelled"

    again = script(SCRIPT.format(name=name, seconds=0))
    assert again.end() == 0, again.text
    assert seen.states(name, 2) == {"first": "Cached", "second": "Completed"}
    assert state(prefect_api, ended) == "Cancelled"


def heartbeats(api: Api, run: str) -> int:
    """How many signs of life of a run are on record."""
    asked = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
    }
    return int(api.post("/events/filter", {"filter": asked})["total"])


def test_it_is_the_same_automation_however_often_it_is_asked_for(
    name: str, prefect_api: Api
) -> None:
    made = crash_silent_runs(WITHIN, [name], name)
    before = prefect_api.get(f"/automations/{made}")
    assert crash_silent_runs(WITHIN, [name], name) == made
    assert prefect_api.get(f"/automations/{made}")["updated"] == before["updated"]
    assert crash_silent_runs(2 * WITHIN, [name], name) == made
    assert prefect_api.get(f"/automations/{made}")["trigger"]["within"] == 20


@pytest.fixture
def inbox() -> Iterator[tuple[str, list[Any]]]:
    """The URL of a web server on loopback, and the JSON that was posted there."""
    received: list[Any] = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Inbox) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", received
        server.shutdown()
        thread.join()


@pytest.mark.timeout(600)
def test_a_failure_is_told_of_by_webhook_and_by_notification(
    name: str, api: Server, inbox: tuple[str, list[Any]], store: str
) -> None:
    @step
    def divide(by: int) -> float:
        return 1 / by

    @pipeline(name=name, store=store)
    def halve(by: int) -> float:
        return divide(by)

    url, received = inbox
    hook = Webhook(url=url)  # type: ignore[arg-type]
    text = CustomWebhookNotificationBlock(
        name="test", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    with pytest.raises(ValueError, match="is not saved"):
        notify_on_failure(hook, [name], name)
    hook.save(f"hook-{name}")
    text.save(f"text-{name}")
    notify_on_failure(f"webhook/hook-{name}", [name], name)
    notify_on_failure(text, [name], f"{name} text")
    time.sleep(KNOWN_S)
    halve(1)
    with pytest.raises(ZeroDivisionError):
        halve(0)
    eventually(lambda: received, lambda received: len(received) > 1, 30)
    [posted] = [one for one in received if "flow" in one]
    [sent] = [one for one in received if "subject" in one]
    assert posted["flow"] == name
    assert posted["state"] == "Failed"
    assert "ZeroDivisionError" in posted["message"]
    assert posted["id"] in posted["url"]
    assert "has ended as Failed" in sent["subject"]
    assert "ZeroDivisionError" in sent["body"]
