"""`mlpipe plan`: what a run would do, and why."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from prefect_mlpipe.cli.answering import WOULD_RUN, Answer, Common, WrongUse, command
from prefect_mlpipe.cli.asked import Entrypoint, Options, Parameters, pipeline_at
from prefect_mlpipe.cli.shapes import plan_shape
from prefect_mlpipe.plans import Plan


@command
def plan(
    entrypoint: Entrypoint,
    *,
    parameters: Parameters | None = None,
    options: Options | None = None,
    verify: Annotated[
        bool, Parameter(help="Look whether the stored values are there and whole.")
    ] = False,
    explain: Annotated[
        list[str] | None,
        Parameter(help="A step of which old and new are shown side by side."),
    ] = None,
    exit_code: Annotated[bool, Parameter(help="Exit with 3 if something would run.")] = False,
    common: Common | None = None,
) -> Answer:
    """Say what a run would do, and why. Executes nothing."""
    given = (parameters or Parameters()).values()
    pipeline = pipeline_at(entrypoint, (options or Options()).said())
    made = pipeline.plan(verify=verify, **pipeline.bind((), given))
    explanations = {step: _explained(made, step) for step in explain or ()}
    would_run = not made.complete or any(step.action != "reuse" for step in made)
    return Answer(
        {"plan": plan_shape(made), "explanations": explanations},
        "\n\n".join(explanations.values()) if explanations else str(made),
        WOULD_RUN if exit_code and would_run else 0,
    )


def _explained(plan: Plan, step: str) -> str:
    try:
        return plan.explain(step)
    except KeyError as error:
        raise WrongUse(str(error.args[0])) from None
