"""Whether what a deployment says fits its pipeline.

The API refuses runs that lack a parameter or have a wrong one. Of a run that a trigger asks for,
nobody but the log of the server would hear, so what can be known before is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prefect import Flow
from prefect.utilities.schema_tools.validation import validate

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.completion_trigger import CompletionTrigger
from prefect_mlpipe.deploy.triggers import DataChangeTrigger
from prefect_mlpipe.errors import InvalidPipeline
from prefect_mlpipe.parameters import closed

_ATOMS = (type(None), bool, int, float, str)


def fitted(
    pipeline: Flow[..., Any], store: Callable[[], Store], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return options of a deployment with the triggers of ours bound to its pipeline.

    Raises:
        InvalidPipeline: a parameter is unknown or of a wrong type, or a trigger can start no run.
    """
    fixed = options.get("parameters") or {}
    _refuse_wrong(pipeline, fixed, "The deployment gives")
    triggers = [
        one.for_pipeline(pipeline, store())
        if isinstance(one, DataChangeTrigger | CompletionTrigger)
        else one
        for one in options.get("triggers") or ()
    ]
    for one in triggers:
        said = getattr(one, "parameters", None) or {}
        _refuse_wrong(pipeline, said, f"{_shown(one)} gives")
        _refuse_missing(pipeline, {**fixed, **said}, _shown(one))
    return {**options, "triggers": triggers} if triggers else dict(options)


def _refuse_wrong(pipeline: Flow[..., Any], given: Mapping[str, Any], who: str) -> None:
    schema = closed(pipeline.parameters.model_dump())
    fields = {
        name: field if _is_constant(given.get(name)) else {}
        for name, field in schema["properties"].items()
    }
    known = {**schema, "properties": fields}
    for problem in validate(dict(given), known, ignore_required=True):
        at = ".".join(map(str, problem.absolute_path))
        raise InvalidPipeline(
            f"{who} pipeline '{pipeline.name}' parameters that it does not take.",
            {**({"parameter": at} if at else {}), "problem": problem.message},
            f"It takes: {', '.join(fields) or 'none'}. Nothing was deployed.",
        )


def _is_constant(value: Any) -> bool:
    """Return whether a value is JSON as it stands, without anything that Prefect fills in."""
    if isinstance(value, str):
        return type(value) is str and "{{" not in value
    if type(value) is list:
        return all(map(_is_constant, value))
    if type(value) is dict:
        return not any(map(_is_special, value)) and all(map(_is_constant, value.values()))
    return type(value) in _ATOMS


def _is_special(name: Any) -> bool:
    return not isinstance(name, str) or name == "__prefect_kind" or name.startswith("$")


def _refuse_missing(pipeline: Flow[..., Any], given: Mapping[str, Any], trigger: str) -> None:
    missing = [name for name in pipeline.parameters.required if name not in given]
    if missing:
        raise InvalidPipeline(
            f"{trigger} can start no run of pipeline '{pipeline.name}': nothing gives it "
            f"'{missing[0]}'.",
            {"required": ", ".join(pipeline.parameters.required), "missing": ", ".join(missing)},
            "Give it a default, or a value with parameters={...} of the trigger or the deployment.",
        )


def _shown(trigger: Any) -> str:
    return str(trigger) if hasattr(trigger, "for_pipeline") else f"Trigger '{trigger.name or ''}'"
