"""The options of `@pipeline`: ours, those of one run, and those that are handed on to Prefect.

One frozen object holds ours, so that a copy cannot forget one. Knows nothing of bodies or calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from prefect.flows import Flow
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefect_mlpipe.compute.targets import Target
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import InvalidPipeline
from prefect_mlpipe.settings import Failures

if TYPE_CHECKING:
    from prefect_mlpipe.compute.task_runner import RoutingTaskRunner

_REFUSED = {
    "task_runner": "say where steps run with compute={'default': Threads(max_workers=4)}, "
    "or give a RoutingTaskRunner of prefect_mlpipe.compute",
    "persist_result": "outputs are always in the store",
    "result_storage": "say where the store is with store='...'",
    "result_serializer": "the format follows from the type",
    "cache_result_in_memory": "outputs go through the store",
    "validate_parameters": "parameters are always validated",
}
OURS = ("store", "compute", "refresh", "targets", "failures", "keep_inputs")


# Declared as a parameter of a pipeline, `run: RunOptions = RunOptions()`, it is in the form of the
# Prefect UI, with this docstring: it is read by who starts a run.
class RunOptions(BaseModel):
    """What this run does differently: what it runs anew, what it leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refresh: bool | list[str] = Field(
        [], description="Steps or groups that run although they could be reused; true for all."
    )
    targets: list[str] = Field(
        [], description="Steps or groups that are wanted, with what they need; empty for all."
    )
    failures: Failures | None = Field(
        None,
        description="What happens to the rest when a step fails: finish what can be finished, "
        "stop with what has begun, or cancel that too. Empty: as the pipeline says.",
    )


class PipelineOptions(BaseModel):
    """The options of a pipeline that are ours; one object, so that copies cannot forget one."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    store: str | Store | None = None
    compute: dict[str, Target] = {}
    refresh: bool | tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    failures: Failures | None = None
    keep_inputs: bool = False


def with_runner(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a pipeline with the computes of a `RoutingTaskRunner` among its own.

    It stays the flow's task runner too: Prefect tasks that the body submits go where it says.
    """
    runner = options.get("task_runner")
    if not _is_ours(runner):
        return options
    return {**options, "compute": {**runner.options.compute, **options.get("compute", {})}}


def _is_ours(runner: Any) -> TypeGuard[RoutingTaskRunner]:
    if runner is None:
        return False
    # Imported here: few pipelines have one.
    from prefect_mlpipe.compute.task_runner import RoutingTaskRunner

    return isinstance(runner, RoutingTaskRunner)


def run_options(arguments: Mapping[str, Any]) -> RunOptions:
    """Return the `RunOptions` among the parameters, or none asked for."""
    found = (value for value in arguments.values() if isinstance(value, RunOptions))
    return next(found, RunOptions())


_TAKES = {
    "store": "Give a path, a URL or a Store.",
    "compute": "Give name → target: {'gpu': Threads()}; targets are in prefect_mlpipe.compute.",
    "refresh": "Give True or names of steps.",
    "targets": "Give names of steps.",
    "failures": "Give 'finish', 'stop' or 'cancel'.",
    "keep_inputs": "Give True or False.",
}


def merged(pipeline: str, options: PipelineOptions, changes: Mapping[str, Any]) -> PipelineOptions:
    """Return options with some of them changed; targets are added to those that are there.

    Raises:
        InvalidPipeline: a value is not one that the option takes.
    """
    values = {**{name: getattr(options, name) for name in OURS}, **changes}
    if "compute" in changes:
        values["compute"] = {**options.compute, **changes["compute"]}
    for name in ("refresh", "targets"):
        if isinstance(values[name], str):
            values[name] = (values[name],)
    try:
        return PipelineOptions(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = str(wrong["loc"][0])
        raise InvalidPipeline(
            f"Pipeline '{pipeline}' cannot take the option {option}={changes.get(option)!r}.",
            {"problem": wrong["msg"]},
            _TAKES[option],
        ) from None


def refuse_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse what is no option of Prefect's flows, or fights the engine.

    Raises:
        InvalidPipeline: there is one, with the word of ours that does what was meant.
    """
    known = set(inspect.signature(Flow.__init__).parameters) - {"self", "fn"}
    for option in options:
        if option == "task_runner" and _is_ours(options[option]):
            continue
        if option in _REFUSED:
            raise InvalidPipeline(
                f"Pipeline '{name}' has the option '{option}', which fights the engine.",
                {"option": f"{option}={options[option]!r}"},
                f"Leave it out: {_REFUSED[option]}.",
            )
        if option not in known:
            raise InvalidPipeline(
                f"Pipeline '{name}' has an unknown option '{option}'.",
                {"options": " ".join(OURS)},
                "Use one of these, or an option of Prefect's flows.",
            )
