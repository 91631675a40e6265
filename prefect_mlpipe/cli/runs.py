"""`mlpipe runs`: the runs that are over, from what they left in the store."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from prefect_mlpipe.all_runs import AllRuns
from prefect_mlpipe.cli.answering import Answer, Common, WrongUse, command
from prefect_mlpipe.cli.asked import opened, pipeline_at
from prefect_mlpipe.cli.shapes import run_shape, step_shape, whole_run_shape
from prefect_mlpipe.cli.tables import run_page, runs_table

runs_app = App(name="runs", help="Look at the runs that are over.", help_flags=["--help"])

WhichRun = Annotated[str, Parameter(help="Id or name of a run; `last` is the newest one.")]
OfPipeline = Annotated[
    str | None,
    Parameter(help="Name of a pipeline, or path.py:pipeline to look where that one runs."),
]
InStore = Annotated[
    str | None, Parameter(help="A folder or URL; default: the pipeline's, or the settings'.")
]


def _runs(pipeline: str | None, store: str | None) -> AllRuns:
    if pipeline is None or ":" not in pipeline:
        return AllRuns(opened(store), pipeline)
    found = pipeline_at(pipeline, {"store": store} if store else {})
    return AllRuns(found.open_store(), found.name)


@runs_app.command(name="ls")
@command
def list_runs(
    pipeline: OfPipeline = None,
    *,
    state: Annotated[
        Literal["completed", "failed", "cancelled", "crashed"] | None,
        Parameter(help="Only runs that ended so."),
    ] = None,
    limit: Annotated[int, Parameter(help="How many, the newest first.")] = 15,
    store: InStore = None,
    common: Common | None = None,
) -> Answer:
    """List runs, the newest first."""
    runs = _runs(pipeline, store)
    found = runs.list(limit, state)
    if not found and pipeline and ":" not in pipeline:
        runs.require()
    return Answer({"runs": [run_shape(run) for run in found]}, runs_table(found))


@runs_app.command
@command
def inspect(
    run: WhichRun,
    *,
    pipeline: OfPipeline = None,
    store: InStore = None,
    common: Common | None = None,
) -> Answer:
    """Show a run: parameters, steps, and why each of them ran."""
    found = _runs(pipeline, store).get(run)
    return Answer({"run": whole_run_shape(found)}, run_page(found))


@runs_app.command
@command
def explain(
    run: WhichRun,
    step: Annotated[str, Parameter(help="Name of a step, or `score[3]` of an item.")],
    *,
    pipeline: OfPipeline = None,
    store: InStore = None,
    common: Common | None = None,
) -> Answer:
    """Show why a step ran or was reused, old and new side by side; its error if it failed."""
    found = _runs(pipeline, store).get(run)
    try:
        result = found[step]
    except KeyError:
        names = ", ".join(each.name for each in found)
        raise WrongUse(f"Run '{found.name}' has no step '{step}'; it has {names}.") from None
    text = result.explain()
    return Answer({"run": run_shape(found), "step": step_shape(result), "explanation": text}, text)
