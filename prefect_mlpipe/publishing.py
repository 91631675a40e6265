"""`publish`: give a value a name that outlives the run, and read it back by that name.

A version of a published value is its digest: publishing the same value twice makes one version,
so the step can run in every run. Knows the store; nothing of who reads.
"""

from __future__ import annotations

import re
import time
from typing import Any

from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.current import current
from prefect_mlpipe.errors import InvalidStep, RunNotFound
from prefect_mlpipe.steps import step
from prefect_mlpipe.stores import open_store

_NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)*")


@step(cache=False)
def publish(value: Any, *, name: str, alias: str | None = None) -> None:
    """Keep a value in the store under a name.

    It runs in every run: it works outside of what is reused. The same value under the same name
    is one version. Where Prefect supports assets, the run page shows a materialization of it.

    Args:
        value: what is published; anything that a step can return.
        name: letters, digits, `.`, `_`, `-`, and `/` between parts; no part begins with `.`.
        alias: a second name that moves to this version: `champion`. `latest` always does.

    Raises:
        InvalidStep: the name cannot be used.
    """
    for text in (name, alias):
        if text is not None and not _NAME.fullmatch(text):
            raise InvalidStep(
                f"A value cannot be published as '{text}'.",
                {"name": name, "alias": alias},
                "Use letters, digits, '_', '-', '.' (not first) and '/' between parts.",
            )
    here = current()
    store = here.store or open_store()
    stored = store.put(value)
    version = stored.digest[:16]
    document = {
        "name": name,
        "version": version,
        "value": stored.to_json(),
        "run_id": here.run_id,
        "run": here.run,
        "pipeline": here.pipeline,
        "published": time.time(),
    }
    store.published.write(name, version, document, alias)
    _materialize(name, version, alias)


def published(name: str, version: str = "latest", *, store: str | Store | None = None) -> Any:
    """Return a published value.

    Args:
        name: as given to `publish`.
        version: a version or an alias.
        store: default the settings'.

    Raises:
        RunNotFound: nothing was published so.
    """
    place = open_store(store)
    document = place.published.read(name, version)
    if document is None:
        raise RunNotFound(
            f"Nothing was published as '{name}', version '{version}'.",
            {"store": place.url},
            "Look in the store that the pipeline ran with, or run it.",
        )
    return place.get(StoredValue.from_json(document["value"]))


def _materialize(name: str, version: str, alias: str | None) -> None:
    """Tell Prefect of a new version of an asset; outside a task run there is nobody to tell."""
    from prefect.assets import Asset
    from prefect.context import TaskRunContext
    from prefect.events import emit_event

    context = TaskRunContext.get()
    if context is None:
        return
    asset = Asset(key=f"mlpipe://{re.sub(r'[^A-Za-z0-9/_.-]', '-', name)}")
    emit_event(
        "prefect.asset.materialization.succeeded",
        resource={"prefect.resource.id": asset.key, "prefect.resource.name": name},
        related=[
            {
                "prefect.resource.id": f"prefect.task-run.{context.task_run.id}",
                "prefect.resource.role": "task-run",
            }
        ],
        payload={"metadata": {"version": version, "alias": alias}},
    )
