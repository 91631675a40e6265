"""`DataChangeTrigger`: a run when data has changed.

Knows how Prefect makes an automation of a trigger. Knows nothing of how data is watched.

It *is* one of Prefect's deployment triggers, so it can stand wherever those can, with Prefect's
own typing. Prefect gives each trigger the id of its deployment before it makes the automation;
that moment is when this process begins to watch, if it is the one that serves. An overridden
`serve` would have been plainer to read, and would have left `prefect.serve(...)` unwatched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

import orjson
from blake3 import blake3
from prefect import Flow
from prefect.events import DeploymentEventTrigger, ResourceSpecification
from pydantic import Field, PrivateAttr

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.watches import EVENT, Pattern, Per, Seconds, Uri, Watch, as_uri
from prefect_mlpipe.errors import InvalidPipeline
from prefect_mlpipe.parameters import ANY, json_types

_PATH = "{{ event.payload.path }}"
_PATHS = {
    "__prefect_kind": "json",
    "value": {
        "__prefect_kind": "jinja",
        "template": "{{ event.payload.changes | map(attribute='path') | list | tojson }}",
    },
}
_IDENTITY = ("uri", "pattern", "recursive", "per", "on_delete")


class DataChangeTrigger(DeploymentEventTrigger):
    """Start a run when files under a path or URL are added or changed.

    DataChangeTrigger("s3://raw/digits/", every=60)
    DataChangeTrigger("inbox", pattern="*.csv", per="file", parameter="csv")

    What counts is content: touching a file or writing the same bytes again starts nothing, neither
    does moving a file away (unless `on_delete`). A burst of changes starts one run, when it is
    over. A run starts once for each change, also for those made while nobody watched; what lay
    there when the place was watched for the first time is no change.

    Who watches: `serve` and `prefect.serve(a.to_deployment(...), ...)`: a thread of that process.
    Deployments with a work pool: `mlpipe watch`, one process beside the workers,
    or the flow `prefect_mlpipe.deploy.watching.watch_data`, deployed with a schedule. What was seen
    is kept in the pipeline's store, so these need one that all of them reach.

    Args:
        uri: a folder or file; a path or any fsspec URL. It need not exist yet.
        every: seconds between two looks. Where `watchfiles` is installed, changes in a local place
            are noticed at once.
        pattern: only files whose relative name ends like this: `*.csv`, `2026/*.csv`.
        recursive: sub-folders count.
        settle: seconds without any change after which a burst is over. While it does not end,
            what has been quiet for so long is taken after 30 times as many.
        per: one `run` for a burst (over 1 MB of names: several), or one for each `file`.
        parameter: parameter of the pipeline that gets the path: of the file with `per="file"`;
            else all changed paths if it is a list, or `uri`.
        on_delete: a deleted file is a change.
        name: of the automation.
        enabled: whether the automation starts anything.
        parameters: further parameters of the run.
        trigger_options: others of Prefect's: `description`, `job_variables`, `schedule_after`.
    """

    uri: Uri
    every: Seconds = Field(default=60.0, gt=0)
    pattern: Pattern | None = None
    recursive: bool = True
    settle: Seconds = Field(default=2.0, ge=0)
    per: Per = "run"
    parameter: str | None = None
    on_delete: bool = False

    _store: Store | None = PrivateAttr(default=None)

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        every: float | timedelta = 60.0,
        pattern: str | None = None,
        recursive: bool = True,
        settle: float | timedelta = 2.0,
        per: Per = "run",
        parameter: str | None = None,
        on_delete: bool = False,
        name: str | None = None,
        enabled: bool = True,
        parameters: Mapping[str, object] | None = None,
        **trigger_options: Any,
    ) -> None:
        given: dict[str, Any] = {
            "uri": uri,
            "every": every,
            "pattern": pattern,
            "recursive": recursive,
            "settle": settle,
            "per": per,
            "parameter": parameter,
            "on_delete": on_delete,
            "name": name,
            "enabled": enabled,
            "parameters": dict(parameters or {}) or None,
        }
        description = {"description": f"Runs when {uri} has changed"}
        super().__init__(**{**description, **trigger_options, **given, "expect": {EVENT}})
        if parameter is not None:
            self.parameters = {parameter: _PATH, **(self.parameters or {})}

    def __str__(self) -> str:
        parameter = f", parameter={self.parameter!r}" if self.parameter else ""
        return f"DataChangeTrigger({self.uri!r}{parameter})"

    def for_pipeline(self, pipeline: Flow[..., Any], store: Store) -> Self:
        """Return a copy that keeps its state in a store and passes the path as the type asks.

        Args:
            pipeline: that it starts.
            store: of the pipeline.

        Raises:
            InvalidPipeline: there is no such parameter, it cannot take what it would get, or the
                store lies in what is watched.
        """
        self._refuse_store(pipeline.name, store)
        bound = self.model_copy()
        bound._store = store
        given = dict(self.parameters or {})
        if self.parameter is not None and given[self.parameter] == _PATH:
            told = self._told(pipeline.name, pipeline.parameters.properties)
            bound.parameters = {**given, self.parameter: told}
        return bound

    def _told(self, pipeline: str, schema: Mapping[str, Any]) -> object:
        assert self.parameter is not None
        if self.parameter not in schema:
            raise InvalidPipeline(
                f"Pipeline '{pipeline}' has no parameter '{self.parameter}' for the path of changed"
                " data.",
                {"trigger": str(self)},
                f"Name one of its parameters: {', '.join(schema) or 'it has none'}.",
            )
        types = json_types(schema[self.parameter])
        if "array" in types:
            return _PATHS
        if types.isdisjoint({"string", ANY}):
            raise InvalidPipeline(
                f"Parameter '{self.parameter}' of pipeline '{pipeline}' takes no path.",
                {"trigger": str(self), "it takes": " or ".join(sorted(types - {"null"}))},
                "Name a parameter that is a File, a Folder, a str, or a list of them.",
            )
        kinds = _kinds(schema[self.parameter])
        files = any(kind.get("format") == "file-path" for kind in kinds)
        if files and self.per == "run" and self._is_folder:
            raise InvalidPipeline(
                f"Parameter '{self.parameter}' of pipeline '{pipeline}' takes one file, but a run"
                " starts for a burst of many.",
                {"trigger": str(self)},
                "Say per='file' for a run per file, or declare the parameter a Folder, or a list.",
            )
        return _PATH

    def _refuse_store(self, pipeline: str, store: Store) -> None:
        """What a run stores must not be what starts the next one."""
        folder = as_uri(store.url) if store.is_local else store.url.rstrip("/")
        if f"{folder}/".startswith(f"{self.uri.rstrip('/')}/") and self.recursive:
            raise InvalidPipeline(
                f"The store of pipeline '{pipeline}' lies in the folder that is watched for it.",
                {"watched": self.uri, "store": store.url},
                "Watch a folder beside the store, or keep the store elsewhere with `store=`.",
            )

    @property
    def _is_folder(self) -> bool:
        return self.uri.endswith("/") or self.pattern is not None or os.path.isdir(self.uri)

    def watch(self, deployment_id: UUID) -> Watch:
        """What is to be watched for a deployment.

        Its name changes with what is watched, but not with how; other places begin anew.
        """
        words = self.model_dump(include=set(Watch.model_fields))
        what = orjson.dumps({word: words[word] for word in _IDENTITY}, option=orjson.OPT_SORT_KEYS)
        words["name"] = f"{deployment_id}.{blake3(what).hexdigest()[:12]}"
        return Watch(**words, store=self._store.url if self._store else None)

    def set_deployment_id(self, deployment_id: UUID) -> None:
        """Wait for the events of this deployment's own watch, and watch if this process serves it.

        Prefect calls this when it has made the deployment.
        """
        from prefect_mlpipe.deploy.watching import watch_here  # not before something is deployed

        super().set_deployment_id(deployment_id)
        watch = self.watch(deployment_id)
        self.match = ResourceSpecification.model_validate(watch.labels())
        watch_here(watch, self._store, deployment_id)


def _kinds(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for other in schema.get("anyOf", ()):
        yield from _kinds(other)
