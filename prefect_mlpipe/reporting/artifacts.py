"""Pages in Prefect that say what a run did and what it returned.

Knows Prefect's artifacts. Knows nothing of how the summary is worded (`reporting.summary`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from uuid import UUID

import httpx
import orjson
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

from prefect_mlpipe.reporting.events import plain
from prefect_mlpipe.reporting.summary import StepRow, markdown


def create_summary(
    rows: Sequence[StepRow],
    title: str,
    description: str = "",
    *,
    key: str | None = None,
    cost: str = "",
) -> UUID | None:
    """Attach a table of what happened to each step to the flow run that goes on.

    An API that does not take it costs the page and a warning, never the run.

    Args:
        rows: one for each step; of more than 200 the rest is only counted.
        title: heading of the page.
        description: a line above the page, and what lists of artifacts show.
        key: lower-case letters, digits and dashes; pages of one key are versions of one artifact.
        cost: what the run cost, by `cost_text`.
    """
    data = markdown(rows, plain(title), cost)
    return _create("markdown", data, key, description, "The summary")


def create_outputs(
    rows: Sequence[Mapping[str, object]], description: str = "", *, key: str | None = None
) -> UUID | None:
    """Attach a table of what a pipeline returned to the flow run that goes on.

    Args:
        rows: one for each value, plain JSON.
        description: what lists of artifacts show.
        key: as for `create_summary`.
    """
    data = orjson.dumps(list(rows)).decode()
    return _create("table", data, key, description, "The page of outputs")


def _create(kind: str, data: str, key: str | None, description: str, what: str) -> UUID | None:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError(f"{what} belongs to a flow run, and none goes on here.")
    page = ArtifactCreate(
        key=key,
        type=kind,
        description=plain(description) or None,
        data=data,
        flow_run_id=context.flow_run.id,
    )
    try:
        # not `create_markdown_artifact`: inside a running event loop that returns a coroutine
        with get_client(sync_client=True) as client:
            return client.create_artifact(page).id
    except httpx.HTTPError as error:
        get_run_logger().warning("%s could not be shown in Prefect: %s", what, error)
        return None


def artifact_key(name: str, what: str = "") -> str:
    """The key of a pipeline's page: one artifact with a version for each run."""
    return re.sub(r"[^a-z0-9]+", "-", f"mlpipe-{name} {what}".lower()).strip("-")
