"""What a pipeline returned, by name; and a page of it in Prefect, for whoever asks by plain HTTP.

Knows returned values, by reference. Knows nothing of triggers.

Whoever calls a pipeline from Python gets what it returns. A run of a deployment has no caller, and
the state of its flow run holds nothing that other systems could read; so it leaves a table: plain
short values as they are, of all others where they lie in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.context import FlowRunContext

from prefect_mlpipe.conduct import Returned
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.calls import Whole, load
from prefect_mlpipe.keeping import RunInfo
from prefect_mlpipe.parameters import as_plain
from prefect_mlpipe.reporting.artifacts import artifact_key, create_outputs

RESULT = "result"


def parts(returned: Any) -> dict[str, Any]:
    """The returned values by name: fields or keys, places of a tuple, and the whole as `result`."""
    return {RESULT: returned, **_fields(returned)}


def show_outputs(run: RunInfo, returned: Returned) -> None:
    """Leave a page of what a run of a deployment returned. Call it inside the flow run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return
    named = _fields(returned.references) or {RESULT: returned.references}
    rows = [_row(name, part, returned.store) for name, part in named.items()]
    create_outputs(rows, f"Outputs of run {run.name}", key=artifact_key(run.pipeline, "outputs"))


def _fields(returned: Any) -> dict[str, Any]:
    if type(returned) is Whole:
        return dict(zip(returned.fields.names, returned.values, strict=True))
    if type(returned) is dict:
        return {name: value for name, value in returned.items() if isinstance(name, str)}
    if isinstance(returned, tuple) and type(returned) is not StoredValue:
        names = getattr(returned, "_fields", None) or map(str, range(len(returned)))
        return dict(zip(names, returned, strict=True))
    return {}


def _row(name: str, part: Any, store: Store) -> Mapping[str, Any]:
    stored = type(part) is StoredValue
    return {
        "name": name,
        "value": as_plain(load(part, store)) if _is_at_hand(part) else None,
        "type": part.type if stored else type(part).__qualname__,
        "bytes": part.size if stored else None,
        "url": store.url_of(part) if stored else None,
    }


def _is_at_hand(part: Any) -> bool:
    """Whether it can be had without reading values that may be large."""
    if type(part) is StoredValue:
        return part.inline is not None
    if type(part) is Whole:
        return all(map(_is_at_hand, part.values))
    if type(part) is dict:
        return all(map(_is_at_hand, part.values()))
    return not isinstance(part, list | tuple) or all(map(_is_at_hand, part))
