"""`mlpipe run`: run a pipeline here, as a Prefect flow run or without Prefect."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from prefect.client.schemas.objects import State
from rich.console import Group

from prefect_mlpipe.cli.answering import FAILED, Answer, Common, command
from prefect_mlpipe.cli.asked import Entrypoint, Options, Parameters, pipeline_at
from prefect_mlpipe.cli.shapes import whole_run_shape
from prefect_mlpipe.cli.tables import run_page
from prefect_mlpipe.errors import RunNotFound
from prefect_mlpipe.localruns import run_locally
from prefect_mlpipe.pipelines import Pipeline
from prefect_mlpipe.runs import Run, plain


@command
def run(
    entrypoint: Entrypoint,
    *,
    parameters: Parameters | None = None,
    options: Options | None = None,
    failures: Annotated[
        Literal["finish", "stop", "cancel"] | None,
        Parameter(help="What happens to the rest when a step fails; default: the pipeline's."),
    ] = None,
    local: Annotated[bool, Parameter(help="On threads of this process, without Prefect.")] = False,
    common: Common | None = None,
) -> Answer:
    """Run a pipeline and wait for its end.

    Its parameters are checked before anything runs. Exit code 1 if it failed.
    """
    given = (parameters or Parameters()).values()
    said = (options or Options()).said()
    pipeline = pipeline_at(entrypoint, {**said, **({"failures": failures} if failures else {})})
    arguments = pipeline.bind((), given)
    done, error = (_run_here if local else _run_as_flow)(pipeline, arguments)
    document = {"run": whole_run_shape(done), "returned": None}
    if error is not None or done.state != "completed":
        return Answer(document, run_page(done), FAILED, error)
    document["returned"] = plain(done.output)
    return Answer(document, Group(run_page(done), f"\nreturned {document['returned']!r}"))


def _run_here(
    pipeline: Pipeline[..., Any], arguments: dict[str, Any]
) -> tuple[Run, BaseException | None]:
    run_id = secrets.token_hex(16)
    try:
        run_locally(pipeline, arguments, run_id)
    except Exception as error:
        return _found(pipeline, run_id, error), error
    return pipeline.runs.get(run_id), None


def _run_as_flow(
    pipeline: Pipeline[..., Any], arguments: dict[str, Any]
) -> tuple[Run, BaseException | None]:
    state: State[Any] = pipeline(**arguments, return_state=True)
    error = None
    if not state.is_completed():
        raised = state.result(raise_on_failure=False)
        error = raised if isinstance(raised, BaseException) else None
    run_id = str(state.state_details.flow_run_id)
    return _found(pipeline, run_id, error), error


def _found(pipeline: Pipeline[..., Any], run_id: str, error: BaseException | None) -> Run:
    """Return the run; if it did not get so far as to leave one, raise what kept it from it."""
    try:
        return pipeline.runs.get(run_id)
    except RunNotFound:
        if error is not None:
            raise error from None
        raise
