"""Runs as tables for people, as wide as the terminal is.

Knows rows of plain facts and rich. Knows nothing of stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from prefect_mlpipe.cli.shapes import STATES, run_shape, steps_of
from prefect_mlpipe.core.manifest import sentences
from prefect_mlpipe.core.telling.describing import seconds_text, size_text
from prefect_mlpipe.reporting.summary import cost_text, metrics_text
from prefect_mlpipe.runs import Run
from prefect_mlpipe.step_results import StepResult

_SHOWN_REASONS = 3
_NAMES = 12  # the width of the names of facts


def table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """Return an empty table in the house's style.

    Args:
        columns: their names.
        right: those that are numbers.
        whole: those whose cells are never folded.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        kept = name in right or name in whole
        made.add_column(name, overflow="fold", no_wrap=kept, justify=justify)
    return made


def runs_table(runs: Sequence[Run]) -> RenderableType:
    """One row for each run."""
    if not runs:
        return "No runs."
    columns = ("run", "pipeline", "state", "started (UTC)", "took", "steps")
    made = table(*columns, right=("took",), whole=("run", "state", "started (UTC)"))
    for run in runs:
        started = f"{run.started:%Y-%m-%d %H:%M}"
        made.add_row(
            run.name, run.pipeline, run.state, started, seconds_text(run.duration), _counted(run)
        )
    return made


def run_page(run: Run) -> RenderableType:
    """A run, its parameters and its steps."""
    facts = {
        "id": run.id,
        "started": f"{run.started:%Y-%m-%d %H:%M:%S} UTC, took {seconds_text(run.duration)}",
        "parameters": ", ".join(f"{name}={value!r}" for name, value in run.params.items()),
        "saved": saved(run),
        "cost": cost_text(run.cost, run.saved_cost),
        "pinned": "yes" if run.pinned else "",
        "version": run.version,
        "replays": run.replays,
        "error": (run.cause or "").replace("\n", f"\n{' ' * (2 + _NAMES)}"),
    }
    head = [f"run {run.name} of {run.pipeline}: {run.state}"]
    head += [f"  {name:<{_NAMES}}{value}" for name, value in facts.items() if value]
    head += [f"  ! {warning}" for warning in run.warnings]
    steps = steps_of(run)
    return Group("\n".join([*head, ""]), _steps_table(steps)) if steps else "\n".join(head)


def saved(run: Run) -> str:
    """What reuse saved, as in '12 min 5 s and 1.5 GiB'."""
    parts = [seconds_text(run.saved_seconds)] if run.saved_seconds else []
    return " and ".join([*parts, *([size_text(run.saved_bytes)] if run.saved_bytes else [])])


def _steps_table(steps: Sequence[StepResult]) -> Table:
    metrics = [_metrics(step) for step in steps]
    shown = ["metrics"] if any(metrics) else []
    made = table("step", "what", "why", "took", *shown, right=("took",))
    for step, logged in zip(steps, metrics, strict=True):
        took = seconds_text(step.duration) if step.state == "ran" else ""
        made.add_row(step.name, step.state, _why(step), took, *([logged] if shown else []))
    return made


def _why(step: StepResult) -> str:
    if step.state == "failed" and step.cause:
        return step.cause
    why = "\n".join(sentences(step.reasons, _SHOWN_REASONS))
    return f"from run {step.reused_from}" if step.reused_from and not why else why


def _metrics(step: StepResult) -> str:
    return metrics_text(each.metrics for each in (step.items or [step]))


def _counted(run: Run) -> str:
    counts: dict[str, Any] = run_shape(run)["counts"]
    return ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts[state])
