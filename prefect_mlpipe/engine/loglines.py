"""One line a step, in one grammar, wherever it is printed.

`clean: reused (from run brave-otter, 1.2 GB)`, `train: ran (input 'features' changed) 412 MB 38.4
s`. Never a value, only names and digests.
"""

from __future__ import annotations

from prefect_mlpipe.core.manifest import sentences
from prefect_mlpipe.core.telling.describing import seconds_text, size_text
from prefect_mlpipe.engine.steprun import StepRun


def line(run: StepRun) -> str:
    """Return the line of a step that has come to its end."""
    record = run.record
    if run.items is not None:
        states = [item.state for item in run.items]
        counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        return f"{run.name}: {run.state} ({counts or 'no items'})"
    if run.state == "reused" and record is not None:
        origin = f"same key as '{run.same_as}'" if run.same_as else origin_text(run)
        origin += ", which was waited for" if run.reasons else ""
        return f"{run.name}: reused ({origin}, {size_text(record.size)})"
    why = "; ".join(sentences(run.reasons, 3))
    if run.state == "ran" and record is not None:
        took = seconds_text(record.duration_s)
        return f"{run.name}: ran ({why}) {size_text(record.size)} {took}"
    if run.state == "skipped" and run.blocked_by is not None:
        return f"{run.name}: skipped ('{run.blocked_by.name}' has failed)"
    error = f": {type(run.error).__name__}" if run.error is not None else ""
    return f"{run.name}: {run.state}{error}"


def damage(run: StepRun) -> str | None:
    """Return what to warn of if a step runs because of what was found in the store."""
    for reason in run.reasons:
        if "sign" in reason.name and reason.kind == "value damaged":
            return (
                "There are records in the store without a signature of this signing key: what they "
                "stand for runs again. If you trust all that is in the store, sign it once with "
                "open_store().sign()."
            )
        what = "record" if reason.name else "stored value"
        match reason.kind:
            case "value damaged":
                found, who = "is damaged", "what else writes into the store"
            case "value missing" if not reason.name:
                found, who = "is gone", "what deletes files in the store"
            case _:
                continue
        return (
            f"The {what} of step '{run.name}' {found}: the step runs again. If this repeats, "
            f"look for {who}."
        )
    return None


def origin_text(run: StepRun) -> str:
    """Return where a reused record comes from."""
    name = run.record.provenance.get("run") if run.record is not None else None
    return f"from run {name}" if name else "from an earlier run"
