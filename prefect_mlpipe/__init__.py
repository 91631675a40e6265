"""Machine-learning pipelines for Prefect: decorated functions that run only when they have to."""

from __future__ import annotations

import importlib as _importlib
import typing as _typing

from prefect_mlpipe.current import Current, current, log_metrics, output_folder
from prefect_mlpipe.errors import MlpipeError

if _typing.TYPE_CHECKING:
    from prefect_mlpipe.core.files import File, Folder
    from prefect_mlpipe.deploy.completion_trigger import CompletionTrigger
    from prefect_mlpipe.deploy.triggers import DataChangeTrigger
    from prefect_mlpipe.engine.step_code import EnvVar
    from prefect_mlpipe.pipeline_options import RunOptions
    from prefect_mlpipe.pipelines import Pipeline, pipeline
    from prefect_mlpipe.plans import Plan, StepPlan
    from prefect_mlpipe.publishing import publish, published
    from prefect_mlpipe.step_options import Resources
    from prefect_mlpipe.steps import Step, step, unmapped
    from prefect_mlpipe.stores import open_store
    from prefect_mlpipe.tracing import resolve

# Public name → its module, which is imported when it is asked for: `mlpipe --help`, which needs
# none, answers at once. What is called like its module (`current`) cannot wait: the module would
# stand in its place.
_LATER = {
    "CompletionTrigger": "deploy.completion_trigger",
    "DataChangeTrigger": "deploy.triggers",
    "EnvVar": "engine.step_code",
    "File": "core.files",
    "Folder": "core.files",
    "Pipeline": "pipelines",
    "Plan": "plans",
    "Resources": "step_options",
    "RunOptions": "pipeline_options",
    "Step": "steps",
    "StepPlan": "plans",
    "open_store": "stores",
    "pipeline": "pipelines",
    "publish": "publishing",
    "published": "publishing",
    "resolve": "tracing",
    "step": "steps",
    "unmapped": "steps",
}

__all__ = [
    "CompletionTrigger",
    "Current",
    "DataChangeTrigger",
    "EnvVar",
    "File",
    "Folder",
    "MlpipeError",
    "Pipeline",
    "Plan",
    "Resources",
    "RunOptions",
    "Step",
    "StepPlan",
    "current",
    "log_metrics",
    "open_store",
    "output_folder",
    "pipeline",
    "publish",
    "published",
    "resolve",
    "step",
    "unmapped",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _importlib.import_module(f"{__name__}.{_LATER[name]}")
    found = globals()[name] = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
