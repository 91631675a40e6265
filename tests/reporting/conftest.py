"""Flow runs to report into, and what the API says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Running

from tests.server import Server

VISIBLE_S = 30.0
T = TypeVar("T")


class Api:
    """The API as a test reads it."""

    def __init__(self, client: SyncPrefectClient, server: Server) -> None:
        self.client = client
        self.server = server

    def new_flow_run(self, name: str = "digits") -> UUID:
        """A flow run that is Running, as if a process somewhere executed it."""

        @flow(name=name)
        def nothing() -> None: ...

        return self.client.create_flow_run(nothing, state=Running()).id

    def get(self, path: Any) -> Any:
        return self.client.request("GET", path).json()

    def post(self, path: Any, body: Any) -> Any:
        return self.client.request("POST", path, json=body).json()

    def task_runs(self, flow_run_id: UUID) -> dict[str, Any]:
        """Task runs of a flow run by name, at most 200, of which the server knows the state.

        It puts a task run on record a moment before its state.
        """
        found = self.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}})
        return {task_run["name"]: task_run for task_run in found if task_run["state"]}

    def count(self, flow_run_id: UUID) -> int:
        filter = {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}}
        return int(self.post("/task_runs/count", filter))

    def edges(self, flow_run_id: UUID) -> set[tuple[str, str]]:
        """The edges that the run page draws, by names."""
        graph = self.get(f"/flow_runs/{flow_run_id}/graph-v2")
        nodes = {node["id"]: node for _, node in graph["nodes"]}
        return {
            (nodes[parent["id"]]["label"], node["label"])
            for node in nodes.values()
            for parent in node["parents"]
        }


@pytest.fixture
def prefect_api(api: Server) -> Iterator[Api]:
    with get_client(sync_client=True) as client:
        yield Api(client, api)


def eventually(look: Callable[[], T], is_right: Callable[[T], object], within_s: float) -> T:
    """What `look` gives as soon as `is_right` holds of it; what it gave last when time is up."""
    deadline = time.monotonic() + within_s
    while not is_right(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen
