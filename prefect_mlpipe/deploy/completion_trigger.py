"""`CompletionTrigger`: a run when another pipeline has made something else.

Knows how Prefect makes an automation of a trigger. Knows nothing of how outputs are compared: see
`deploy.completing`.

Like `DataChangeTrigger` it *is* one of Prefect's deployment triggers. For a pipeline it waits for
an event that the pipeline's own runs send when they return something else than before; of a plain
flow Prefect knows only that it has completed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self
from uuid import UUID

import orjson
from blake3 import blake3
from prefect import Flow
from prefect.events import DeploymentEventTrigger, ResourceSpecification
from pydantic import Field, PrivateAttr

from prefect_mlpipe.core.annotations import declared_fields
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.completions import EVENT, Completion
from prefect_mlpipe.deploy.outputs import RESULT
from prefect_mlpipe.errors import InvalidPipeline

COMPLETED = "prefect.flow-run.Completed"


class CompletionTrigger(DeploymentEventTrigger):
    """Start a run when another pipeline has completed and returned something else than before.

    CompletionTrigger(prep)                                # whatever it returns has changed
    CompletionTrigger(prep, takes={"table": "features"})   # its `table` has, and is our `features`
    CompletionTrigger("prep", takes={"table": "features"}) # the same, of a pipeline elsewhere
    CompletionTrigger(report)                              # each time that a plain flow completed

    The value goes as a reference to the store, so both pipelines need the same one; a short plain
    value goes as it is. Changed means: its digest is not the one that the run took which this
    trigger started last. What a run returned when nothing waited yet is taken from the next one.

    A plain flow always counts as changed, and so does what is given by its name alone: whether
    that is a pipeline cannot be known. `local()` and runs of some `targets` start nothing.

    Args:
        prep: a pipeline, a flow, or its name.
        takes: names of returned values → our parameters; `None` where a value counts and is not
            passed. A dict, a `TypedDict` or a `NamedTuple` has its keys or fields, a tuple `"0"`,
            `"1"`, ...; `"result"` is all that is returned.
        only_if_changed: whether equal values start nothing.
        name: of the automation.
        enabled: whether the automation starts anything.
        parameters: further parameters of the run.
        trigger_options: others of Prefect's: `description`, `job_variables`, `schedule_after`.

    Raises:
        InvalidPipeline: something is to be taken of what returns nothing of that name.
    """

    upstream: str
    takes: dict[str, str | None] = Field(default_factory=dict)
    only_if_changed: bool = True

    _compares: bool = PrivateAttr(default=False)
    _store_url: str | None = PrivateAttr(default=None)

    def __init__(
        self,
        prep: Flow[..., Any] | str,
        *,
        takes: Mapping[str, str | None] | None = None,
        only_if_changed: bool = True,
        name: str | None = None,
        enabled: bool = True,
        parameters: Mapping[str, object] | None = None,
        **trigger_options: Any,
    ) -> None:
        upstream = prep if isinstance(prep, str) else prep.name
        takes = dict(takes or {})
        _refuse_unknown(prep, upstream, takes)
        passed = {ours: _template(theirs) for theirs, ours in takes.items() if ours is not None}
        given: dict[str, Any] = {
            "upstream": upstream,
            "takes": takes,
            "only_if_changed": only_if_changed,
            "name": name,
            "enabled": enabled,
            "parameters": {**passed, **(parameters or {})} or None,
        }
        description = {"description": f"Runs when {upstream} has completed"}
        super().__init__(**{**description, **trigger_options, **given})
        self._compares = bool(takes) or (only_if_changed and _is_pipeline(prep))
        if _is_pipeline(prep):
            self._store_url = prep.open_store().url  # type: ignore[union-attr]
        if self._compares:
            self.expect = {EVENT}
        else:
            self.expect = {COMPLETED}
            self.match = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
            self.match_related = ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": upstream}
            )

    def for_pipeline(self, pipeline: str, store: Store, schema: Mapping[str, Any]) -> Self:
        """Return the trigger if a pipeline can take what it would pass.

        Args:
            pipeline: its name.
            store: of the pipeline.
            schema: JSON schema of each of its parameters.

        Raises:
            InvalidPipeline: there is no such parameter, or the store is another one.
        """
        passed = {ours: theirs for theirs, ours in self.takes.items() if ours is not None}
        for ours in passed.keys() - schema.keys():
            raise InvalidPipeline(
                f"Pipeline '{pipeline}' has no parameter '{ours}' that could take "
                f"'{passed[ours]}' of '{self.upstream}'.",
                {"trigger": f"CompletionTrigger({self.upstream}, takes={self.takes})"},
                f"Name one of its parameters: {', '.join(schema) or 'it has none'}.",
            )
        if passed and self._store_url not in (None, store.url):
            raise InvalidPipeline(
                f"Pipeline '{pipeline}' cannot take values of '{self.upstream}': they lie in "
                "another store.",
                {"store": store.url, f"of '{self.upstream}'": self._store_url},
                "Give both the same store.",
            )
        return self

    def completion(self, deployment_id: UUID) -> Completion:
        """What is waited for, for a deployment. Its name changes with what is taken."""
        what = orjson.dumps([self.upstream, sorted(self.takes)])
        name = f"{deployment_id}.{blake3(what).hexdigest()[:12]}"
        return Completion(
            name=name,
            pipeline=self.upstream,
            takes=tuple(sorted(self.takes)),
            only_if_changed=self.only_if_changed,
        )

    def set_deployment_id(self, deployment_id: UUID) -> None:
        """Wait for the events of this deployment alone. Prefect calls it when it has made one."""
        super().set_deployment_id(deployment_id)
        if self._compares:
            labels = self.completion(deployment_id).labels()
            self.match = ResourceSpecification.model_validate(labels)


def taken_parameters(triggers: Iterable[object]) -> set[str]:
    """The parameters that triggers pass values of other pipelines to."""
    ours = (one for one in triggers if isinstance(one, CompletionTrigger))
    return {name for one in ours for name in one.takes.values() if name is not None}


def _template(name: str) -> object:
    """The value of an event; as JSON, with its type."""
    template = f"{{{{ event.payload.taken[{orjson.dumps(name).decode()}] | tojson }}}}"
    return {
        "__prefect_kind": "json",
        "value": {"__prefect_kind": "jinja", "template": template},
    }


def _is_pipeline(prep: object) -> bool:
    return hasattr(prep, "__mlpipe_function__")


def _refuse_unknown(prep: Flow[..., Any] | str, name: str, takes: Mapping[str, object]) -> None:
    if not takes or isinstance(prep, str):
        return
    facts = {"trigger": f"CompletionTrigger({name}, takes={dict(takes)})"}
    if not _is_pipeline(prep):
        raise InvalidPipeline(
            f"Nothing can be taken of flow '{name}': what a plain flow returns is in no store.",
            facts,
            "Make it a pipeline, or leave out takes= to run each time that it has completed.",
        )
    fields = declared_fields(prep.fn.__annotations__.get("return"))
    unknown = set(takes) - {RESULT, *fields.names} if fields is not None else set()
    if fields is not None and unknown:
        raise InvalidPipeline(
            f"Pipeline '{name}' returns no '{min(unknown)}'.",
            facts,
            f"Name what it returns: {', '.join(fields.names)}, or '{RESULT}' for all of it.",
        )
