"""Machine-learning pipelines for Prefect: decorated functions that run only when they have to."""

from __future__ import annotations

import typing as _typing

from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.current import Current, current, log_metrics, output_folder
from prefect_mlpipe.engine.keying import EnvVar
from prefect_mlpipe.errors import MlpipeError
from prefect_mlpipe.pipeline_options import RunOptions
from prefect_mlpipe.pipelines import Pipeline, pipeline
from prefect_mlpipe.plans import Plan, StepPlan
from prefect_mlpipe.publishing import publish, published
from prefect_mlpipe.step_options import Resources
from prefect_mlpipe.steps import Step, step, unmapped
from prefect_mlpipe.stores import open_store
from prefect_mlpipe.tracing import resolve

if _typing.TYPE_CHECKING:
    from prefect_mlpipe.deploy.completion_trigger import CompletionTrigger
    from prefect_mlpipe.deploy.triggers import DataChangeTrigger

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
    # Prefect's deployments take longer to import than all of the rest.
    if name == "DataChangeTrigger":
        from prefect_mlpipe.deploy.triggers import DataChangeTrigger

        return DataChangeTrigger
    if name == "CompletionTrigger":
        from prefect_mlpipe.deploy.completion_trigger import CompletionTrigger

        return CompletionTrigger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
