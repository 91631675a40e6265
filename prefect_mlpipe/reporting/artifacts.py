"""A page in Prefect that says what a run did.

Knows Prefect's artifacts. Knows nothing of how the page is worded (`reporting.summary`).
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import httpx
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
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("A summary belongs to a flow run, and none goes on here.")
    page = ArtifactCreate(
        key=key,
        type="markdown",
        description=plain(description) or None,
        data=markdown(rows, plain(title), cost),
        flow_run_id=context.flow_run.id,
    )
    try:
        # not `create_markdown_artifact`: inside a running event loop that returns a coroutine
        with get_client(sync_client=True) as client:
            return client.create_artifact(page).id
    except httpx.HTTPError as error:
        get_run_logger().warning("The summary could not be shown in Prefect: %s", error)
        return None
