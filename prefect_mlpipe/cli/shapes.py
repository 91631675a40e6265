"""The JSON of every command: `docs/cli.md` describes it, and its form is kept.

Pure. Names are added; none is taken away or comes to mean something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from prefect_mlpipe.core.manifest import Reason
from prefect_mlpipe.core.upkeep.pruning import Pruned
from prefect_mlpipe.core.upkeep.usage import Usage
from prefect_mlpipe.core.upkeep.verifying import Verified
from prefect_mlpipe.plans import Plan
from prefect_mlpipe.runs import Run
from prefect_mlpipe.step_results import StepResult

Shape = dict[str, Any]


def plan_shape(plan: Plan) -> Shape:
    """What a run would do."""
    return {
        "pipeline": plan.pipeline,
        "complete": plan.complete,
        "stopped_at": plan.stopped_at,
        "expected_seconds": plan.expected_seconds,
        "counts": _counts((step.action for step in plan), ("reuse", "run", "run?")),
        "steps": [
            {
                "name": step.name,
                "action": step.action,
                "reasons": _reasons(step.reasons),
                "compute": step.compute,
                "expected_seconds": step.expected_seconds,
                "items": _items(plan.items.get(step.name)),
            }
            for step in plan
        ],
        "warnings": list(plan.warnings),
    }


def _items(counted: tuple[int, int] | None) -> Shape | None:
    return None if counted is None else {"run": counted[0], "all": counted[1]}


def run_shape(run: Run) -> Shape:
    """A run that is over, without its steps."""
    return {
        "id": run.id,
        "name": run.name,
        "pipeline": run.pipeline,
        "state": run.state,
        "cause": run.cause,
        "error": run.error,
        "version": run.version,
        "replays": run.replays,
        "started": run.started.isoformat(),
        "duration_seconds": run.duration,
        "saved_seconds": run.saved_seconds,
        "saved_bytes": run.saved_bytes,
        "cost": run.cost,
        "saved_cost": run.saved_cost,
        "counts": _counts((step.state for step in steps_of(run)), STATES),
    }


def whole_run_shape(run: Run) -> Shape:
    """A run that is over, with parameters and steps."""
    return {
        **run_shape(run),
        "pinned": run.pinned,
        "parameters": run.params,
        "metrics": run.metrics,
        "warnings": run.warnings,
        "steps": [step_shape(step) for step in steps_of(run)],
    }


def step_shape(step: StepResult) -> Shape:
    """What a step did; of a mapped one, how many of its items did what."""
    items = [item.state for item in step.items]
    return {
        "name": step.name,
        "state": step.state,
        "key": step.key,
        "reasons": _reasons(step.reasons),
        "reused_from": step.reused_from,
        "duration_seconds": step.duration,
        "metrics": step.metrics,
        "cause": step.cause,
        "error": step.error,
        "items": _counts(items, STATES) if items else None,
    }


STATES = ("ran", "reused", "failed", "skipped", "cancelled")


def steps_of(run: Run) -> list[StepResult]:
    """Return the steps of a run, without the items of mapped ones."""
    steps = list(run)
    items = {item.name for step in steps for item in step.items}
    return [step for step in steps if step.name not in items]


def usage_shape(usage: Usage) -> Shape:
    """What a store takes."""
    kinds = {kind: room._asdict() for kind, room in usage.kinds.items()}
    return {"store": usage.url, "size_bytes": usage.size_bytes, "kinds": kinds}


def verified_shape(store: str, verified: Verified) -> Shape:
    """Whether a store is whole."""
    return {
        "store": store,
        "sound": bool(verified),
        "documents": verified.documents,
        "values": verified.values,
        "size_bytes": verified.size_bytes,
        "repaired": verified.repaired,
        "problems": [problem._asdict() for problem in verified.problems],
    }


def pruned_shape(pruned: Pruned) -> Shape:
    """What went, or would go."""
    return {
        "store": pruned.url,
        "dry_run": pruned.dry_run,
        "counts": dict(pruned.counts),
        "size_bytes": pruned.size_bytes,
        "kept_bytes": pruned.kept_bytes,
        "over_bytes": pruned.over_bytes,
    }


def _reasons(reasons: Sequence[Reason]) -> list[Shape]:
    return [{**reason._asdict(), "text": str(reason)} for reason in reasons]


def _counts(found: Any, names: Sequence[str]) -> dict[str, int]:
    counted = Counter(found)
    return {name: counted[name] for name in names}
