"""The context of a flow run, sent once to each worker instead of with every task run.

Knows Prefect's contexts and settings. Knows nothing of dask or of steps. `prefect.context`'s own
serialisation carries all settings, the user's flow and its parameters, and rebuilds them for each
task run: 18 ms of CPU on the client and 51 ms on the worker.

Workers report to the API that the flow run reports to, a temporary server included; none of them
ever starts one of its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import pickle
from typing import Any, cast

import cloudpickle
import orjson
from prefect import Flow
from prefect.context import FlowRunContext, SyncClientContext, TagsContext, hydrated_context
from prefect.settings import get_current_settings, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import SecretStr

from prefect_mlpipe.compute.tasks import TaskRuns
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.current import keep_logs

# What of the driver's settings counts on a worker, besides the URL of the API.
_SETTINGS = (
    "api.auth_string",
    "api.key",
    "api.ssl_cert_file",
    "api.tls_insecure_skip_verify",
    "client.custom_headers",
    "logging.level",
    "logging.log_prints",
    "logging.to_api.enabled",
)
_PARAMETER_BYTES = 16 * 1024


def pack_context(context: FlowRunContext, store: Store | None) -> bytes:
    """Return the context of a flow run, and the store of its pipeline if it has one, as bytes."""
    known = context.serialize()
    assert context.flow is not None
    flow: Flow[..., None] = Flow(
        _no_flow,
        name=context.flow.name,
        task_runner=cast("TaskRunner[Any]", ThreadPoolTaskRunner(max_workers=1)),
        persist_result=False,
        log_prints=context.log_prints,
    )
    tags = TagsContext.get()
    fields = {
        "flow_run_context": {**known, "flow": flow, "parameters": _small(known.get("parameters"))},
        "tags_context": tags.serialize(),
    }
    return bytes(cloudpickle.dumps((fields, _settings(context), store), protocol=5))


def _no_flow() -> None:
    """Stand for the flow on workers, where nobody calls it."""


def _small(parameters: dict[str, Any] | None) -> dict[str, Any]:
    """Return parameters if they are small and plain, for `prefect.runtime` to show."""
    try:
        encoded = orjson.dumps(parameters or {})
    except TypeError:
        return {}
    plain: dict[str, Any] = orjson.loads(encoded)
    return plain if len(encoded) <= _PARAMETER_BYTES else {}


def _settings(context: FlowRunContext) -> dict[str, Any]:
    found: dict[str, Any] = {
        # a "/" at its end would be doubled
        "api.url": str(context.client.api_url).rstrip("/"),
        "client.server_version_check_enabled": False,
        "server.ephemeral.enabled": False,
    }
    for name in _SETTINGS:
        value: Any = get_current_settings()
        for part in name.split("."):
            value = getattr(value, part)
        if value is not None:
            found[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
    return found


class WorkerContext:
    """The context of a flow run on a worker.

    Args:
        data: what `pack_context` gave.
    """

    def __init__(self, data: bytes) -> None:
        self._store: Store | None
        fields, settings, self._store = pickle.loads(data)
        self._base = contextvars.Context()
        self._stack = contextlib.ExitStack()
        self._base.run(self._enter, fields, settings)
        self.task_runs: TaskRuns = self._base.run(self._task_runs)

    @property
    def store(self) -> Store:
        """The store of the pipeline; tasks of an ordinary flow have none."""
        assert self._store is not None
        return self._store

    def sync(self) -> None:
        """Bring what was written to the disk."""
        if self._store is not None:
            self._store.sync()

    def _enter(self, fields: dict[str, Any], settings: dict[str, Any]) -> None:
        self._stack.enter_context(temporary_settings(settings))
        self._stack.enter_context(hydrated_context(fields))
        self._stack.enter_context(SyncClientContext.get_or_create())
        keep_logs()

    def _task_runs(self) -> TaskRuns:
        context = FlowRunContext.get()
        assert context is not None
        return TaskRuns(context)

    def copy(self) -> contextvars.Context:
        """Return a context of its own for one task run; that costs nothing."""
        return self._base.copy()

    def close(self) -> None:
        """Leave the context."""
        self._base.run(self._stack.close)
