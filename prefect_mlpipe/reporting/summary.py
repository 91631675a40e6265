"""What a run did, as a table and in words.

Knows rows of plain facts. Knows nothing of Prefect, the terminal, or where the rows come from: the
page in Prefect and the lines on the terminal are two readers of the same rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect_mlpipe.core.telling.describing import seconds_text, shorten, size_text

# what happened, in the order in which it matters to a reader
OUTCOMES = ("failed", "cancelled", "skipped", "ran", "reused")

MAX_ROWS = 200
MAX_CELL = 300
MAX_METRIC = 40
_COLUMNS = ("step", "what", "why", "time", "size", "saved")
_MARKUP = re.compile(r"([\\`*_\[\]|~#!])")


@dataclass(frozen=True, slots=True)
class StepRow:
    """What happened to one step.

    Attributes:
        step: name of the node.
        what: one of `OUTCOMES`.
        why: the reason it ran, failed or was skipped; where a reused one came from.
        seconds: how long it ran now.
        size_bytes: of what it returned.
        saved_seconds: how long it ran when it was executed, for one that was reused.
        metrics: by `metrics_text`.
    """

    step: str
    what: str
    why: str = ""
    seconds: float = 0.0
    size_bytes: int = 0
    saved_seconds: float = 0.0
    metrics: str = ""


def by_weight(rows: Iterable[StepRow]) -> list[StepRow]:
    """What failed first, what was reused last; else as they came."""
    return sorted(rows, key=lambda row: OUTCOMES.index(row.what))


def counts_text(rows: Iterable[StepRow]) -> str:
    """As in '12 reused, 3 ran, 1 failed'."""
    counts = Counter(row.what for row in rows)
    return ", ".join(f"{counts[what]:,} {what}" for what in reversed(OUTCOMES) if counts[what])


def saved_text(rows: Iterable[StepRow]) -> str:
    """As in 'saved 12 min 5 s and 1.5 GiB'; empty where nothing was reused."""
    reused = [row for row in rows if row.what == "reused"]
    seconds = sum(row.saved_seconds for row in reused)
    size = sum(row.size_bytes for row in reused)
    parts = [seconds_text(seconds)] * bool(seconds) + [size_text(size)] * bool(size)
    return f"saved {' and '.join(parts)}" if parts else ""


def cost_text(cost: float | None, saved: float | None) -> str:
    """As in 'cost 1.25, saved 0.40'; empty where no compute has a price."""
    if cost is None and saved is None:
        return ""
    return f"cost {_amount(cost or 0.0)}, saved {_amount(saved or 0.0)}"


def _amount(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 0.995 else f"{cost:.2g}"


def metrics_text(each: Iterable[Mapping[str, Any]]) -> str:
    """As in 'accuracy=0.97, loss=0.1'; of several items the range: 'accuracy=0.91…0.97'.

    Args:
        each: the metrics of a step, or those of each of its items.
    """
    found: dict[str, list[Any]] = {}
    for metrics in each:
        for name, value in metrics.items():
            found.setdefault(name, []).append(value)
    return ", ".join(f"{name}={_range(values)}" for name, values in found.items())


def _range(values: list[Any]) -> str:
    if all(type(value) in (int, float) for value in values):
        least, most = min(values), max(values)
        return _metric(least) if least == most else f"{_metric(least)}…{_metric(most)}"
    several = f" and {len(values) - 1:,} more" if len(values) > 1 else ""
    return _metric(values[0]) + several


def _metric(value: Any) -> str:
    return f"{value:.4g}" if type(value) is float else shorten(str(value), MAX_METRIC)


def markdown(rows: Sequence[StepRow], title: str, cost: str = "") -> str:
    """The rows as a page in Markdown, at most `MAX_ROWS` of them, the rest counted."""
    ordered = by_weight(rows)
    shown, more = ordered[:MAX_ROWS], ordered[MAX_ROWS:]
    facts = ", ".join(filter(None, [counts_text(rows), saved_text(rows), cost]))
    lines = [f"## {escaped(title)}", "", escaped(facts) or "No steps.", ""]
    if shown:
        lines += _table(shown)
    if more:
        lines += ["", f"… and {len(more):,} more: {counts_text(more)}."]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[StepRow]) -> list[str]:
    columns, line = list(_COLUMNS), "|---|---|---|--:|--:|--:|"
    cells = [_cells(row) for row in rows]
    if any(row.metrics for row in rows):
        columns.append("metrics")
        line += "---|"
        cells = [[*each, escaped(row.metrics)] for each, row in zip(cells, rows, strict=True)]
    return [f"| {' | '.join(columns)} |", line, *(f"| {' | '.join(each)} |" for each in cells)]


def _cells(row: StepRow) -> list[str]:
    return [
        escaped(row.step),
        row.what,
        escaped(row.why),
        escaped(seconds_text(row.seconds)) if row.seconds else "",
        size_text(row.size_bytes) if row.size_bytes else "",
        escaped(seconds_text(row.saved_seconds)) if row.saved_seconds else "",
    ]


def escaped(text: str) -> str:
    """`text` so that Markdown shows it as it is, on one line."""
    if len(text) > MAX_CELL:
        text = f"{text[: MAX_CELL - 1]}…"
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", text)
