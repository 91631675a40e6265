"""`CompletionTrigger`: a run when another pipeline has made something else.

Knows how Prefect makes an automation of a trigger. Knows nothing of how outputs are compared: see
`deploy.completing`.

Like `DataChangeTrigger` it *is* one of Prefect's deployment triggers. For a pipeline it waits for
an event that the pipeline's own runs send when they return something else than before; of a plain
flow Prefect knows only that it has completed.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Self
from uuid import UUID

import orjson
from blake3 import blake3
from prefect import Flow
from prefect.events import DeploymentEventTrigger, ResourceSpecification
from pydantic import Field, PrivateAttr

from prefect_mlpipe.core.annotations import declared_fields, resolve_annotations
from prefect_mlpipe.core.graph import type_name
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.completions import EVENT, Completion
from prefect_mlpipe.deploy.outputs import RESULT
from prefect_mlpipe.errors import InvalidPipeline
from prefect_mlpipe.parameters import ANY, json_types

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
    _types: dict[str, Any] = PrivateAttr(default_factory=dict)  # of what is returned, as declared
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
            self._types = _returned(prep)
            self._store_url = prep.open_store().url  # type: ignore[union-attr]
        if self._compares:
            self.expect = {EVENT}
        else:
            self.expect = {COMPLETED}
            self.match = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
            self.match_related = ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": upstream}
            )

    def __str__(self) -> str:
        takes = f", takes={self.takes}" if self.takes else ""
        return f"CompletionTrigger({self.upstream}{takes})"

    def for_pipeline(self, pipeline: Flow[..., Any], store: Store) -> Self:
        """Return the trigger if a pipeline can take what it would pass.

        Args:
            pipeline: that it starts.
            store: of the pipeline.

        Raises:
            InvalidPipeline: there is no such parameter, it is of another type, or the store is
                another one.
        """
        passed = {ours: theirs for theirs, ours in self.takes.items() if ours is not None}
        for ours, theirs in passed.items():
            if ours not in pipeline.parameters.properties:
                names = ", ".join(pipeline.parameters.properties)
                raise InvalidPipeline(
                    f"Pipeline '{pipeline.name}' has no parameter '{ours}' that could take "
                    f"'{theirs}' of '{self.upstream}'.",
                    {"trigger": str(self)},
                    f"Name one of its parameters: {names or 'it has none'}.",
                )
            made = self._types.get(theirs, Any)
            wanted = json_types(pipeline.parameters.properties[ours])
            if not _may_be(made, wanted):
                raise InvalidPipeline(
                    f"Parameter '{ours}' of pipeline '{pipeline.name}' cannot take '{theirs}' of "
                    f"'{self.upstream}'.",
                    {
                        f"'{theirs}' is": type_name(made),
                        f"'{ours}' is": " or ".join(sorted(wanted)),
                    },
                    "Change one of the types, or take something else.",
                )
        if passed and self._store_url not in (None, store.url):
            raise InvalidPipeline(
                f"Pipeline '{pipeline.name}' cannot take values of '{self.upstream}': they lie in "
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


def _returned(prep: Any) -> dict[str, Any]:
    """Return name → declared type of what a pipeline returns."""
    declared = resolve_annotations(prep.fn).get("return", Any)
    fields = declared_fields(declared)
    parts = {} if fields is None else dict(zip(fields.names, fields.types, strict=True))
    return {RESULT: declared, **parts}


_JSON_TYPES: dict[Any, set[str]] = {
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    str: {"string"},
    type(None): {"null"},
    dict: {"object"},
    **{each: {"array"} for each in (list, tuple, set, frozenset)},
}


def _may_be(made: Any, wanted: set[str]) -> bool:
    """Return whether a value of a type can be one of these types of JSON, as far as is known."""
    if typing.get_origin(made) in (typing.Union, types.UnionType):
        return any(_may_be(each, wanted) for each in typing.get_args(made))
    known = _JSON_TYPES.get(typing.get_origin(made) or made, {ANY})
    return ANY in known | wanted or not known.isdisjoint(wanted)


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
