"""A plan as people see it: a table on the terminal or in a notebook, and the story behind a row.

Knows what was decided about each step. Knows nothing of how that is decided.

A plan of hundreds of steps still reads at a glance: neighbours with the same fate share a row.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from prefect_mlpipe.core.manifest import Reason, sentences
from prefect_mlpipe.core.telling.describing import seconds_text

_FOLDED_FROM: Final = 30  # steps: a shorter plan has a row for each
_SHOWN_REASONS: Final = 3
_NARROW, _WIDE = 80, 120
_MAYBE = "run? = a step above runs; if it makes the same value again, this one is reused"


class StepPlan(NamedTuple):
    """What would happen to one step.

    Attributes:
        name: of the node.
        action: `reuse`, `run`, or `run?`: a step above runs, and early cut-off may spare this one.
        reasons: why it would run; empty for `reuse`.
        compute: where it would run.
        expected_seconds: how long it took when it last ran; `None` if it never did.
    """

    name: str
    action: str
    reasons: tuple[Reason, ...]
    compute: str
    expected_seconds: float | None


class _Row(NamedTuple):
    step: str
    action: str
    why: tuple[str, ...]
    compute: str
    expected: str


class Plan(Sequence[StepPlan]):
    """What a run would do; iterable, prints as a table.

    Attributes:
        steps: one for each node, in call order.
        complete: whether the whole body could be traced; else more comes after a barrier.
        stopped_at: the step whose value the body asked for and that would have to run first.
        warnings: what steps read without declaring it, as far as it can be seen.
        items: name of a mapped step → how many of its items would run, and of how many.
    """

    def __init__(
        self,
        pipeline: str,
        steps: list[StepPlan],
        stopped_at: str | None,
        warnings: Sequence[str] = (),
        items: Mapping[str, tuple[int, int]] | None = None,
        explain: Callable[[str], list[str]] = lambda name: [],
    ) -> None:
        self.pipeline = pipeline
        self.steps = steps
        self.stopped_at = stopped_at
        self.warnings = tuple(warnings)
        self.complete = stopped_at is None
        self.items = dict(items or {})
        self._explain = explain

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: Any) -> Any:
        return self.steps[index]

    def __iter__(self) -> Iterator[StepPlan]:
        return iter(self.steps)

    @property
    def expected_seconds(self) -> float:
        """Seconds that the steps to run took when they last ran, one after the other."""
        return sum(step.expected_seconds or 0 for step in self.steps if step.action != "reuse")

    def explain(self, step: str) -> str:
        """Return why a step would run, with old and new, as `run["train"].explain()` does after it.

        Raises:
            KeyError: the plan has no such step.
        """
        found = next((one for one in self.steps if one.name == step), None)
        if found is None:
            names = ", ".join(one.name for one in self.steps[:20])
            raise KeyError(f"the plan of '{self.pipeline}' has no step '{step}'; it has {names}")
        if found.action == "reuse":
            return f"{step}: reuse; nothing that counts has changed"
        return "\n".join([f"{step}: {found.action}", *self._explain(step)])

    # -- as text ----------------------------------------------------------------------------------

    def __str__(self) -> str:
        rows, names = self._rows(), self._columns()
        width = min(max(shutil.get_terminal_size((_WIDE, 24)).columns, _NARROW), _WIDE)
        head = box.SIMPLE_HEAD
        table = Table(box=head, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for name in names:
            right = "right" if name == "expected" else "left"
            most = width // 4 if name == "step" else None
            table.add_column(name, overflow="fold", justify=right, max_width=most)  # type: ignore[arg-type]
        for row in rows:
            cells = {**row._asdict(), "why": "\n".join(row.why)}
            table.add_row(*(cells[name] for name in names))
        text = io.StringIO()
        Console(file=text, width=width, color_system=None, markup=False, emoji=False).print(table)
        table_lines = [line.rstrip() for line in text.getvalue().splitlines()]
        lines = [*table_lines, "", self._total()] if rows else [self._total()]
        return "\n".join([*lines, *self._notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        names = self._columns()
        body = ""
        for row in self._rows():
            cells = {name: escape(str(cell)) for name, cell in row._asdict().items()}
            cells["why"] = "<br>".join(map(escape, row.why))
            body += _html_row("td", [cells[name] for name in names])
        notes = "<br>".join(map(escape, [self._total(), *self._notes()]))
        head = _html_row("th", names)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table><p>{notes}</p>"

    def _columns(self) -> list[str]:
        """Return which columns say something."""
        only = all(step.compute == "default" for step in self.steps)
        return [name for name in _Row._fields if not (only and name == "compute")]

    def _rows(self) -> list[_Row]:
        rows = [self._row([step]) for step in self.steps]
        if len(self.steps) > _FOLDED_FROM:
            grouped = groupby(zip(self.steps, rows, strict=True), lambda pair: pair[1][1:4])
            together = ([step for step, _ in pairs] for _, pairs in grouped)
            rows = [self._row(steps) for steps in together]
        if self.stopped_at:
            rows.append(_Row("…", "", (f"more after '{self.stopped_at}' has run",), "", ""))
        return rows

    def _row(self, steps: Sequence[StepPlan]) -> _Row:
        """Return the row of a step, or of several that differ in their names only."""
        first = steps[0]
        name = first.name
        if len(steps) > 1:
            name = f"{name} … {steps[-1].name} ({len(steps):,} steps)"
        why = sentences(first.reasons, _SHOWN_REASONS)
        running, total = self.items.get(first.name, (0, 0))
        if total and first.action != "reuse":
            why[:1] = [": ".join([f"{running:,} of {total:,} items", *why[:1]])]
        return _Row(name, first.action, tuple(why), first.compute, _expected(steps))

    def _total(self) -> str:
        counts = {
            action: sum(step.action == action for step in self.steps)
            for action in ("reuse", "run", "run?")
        }
        said = ", ".join(f"{count:,} {action}" for action, count in counts.items() if count)
        running = [step for step in self.steps if step.action != "reuse"]
        new = sum(step.expected_seconds is None for step in running)
        parts = [f"{self.pipeline}: {said or 'no steps'}"]
        if new < len(running):
            order = ", one after the other" if len(running) > 1 else ""
            parts.append(f"{seconds_text(self.expected_seconds)} expected{order}")
        if new:
            parts.append(f"{new:,} never timed")
        return "; ".join(parts)

    def _notes(self) -> list[str]:
        maybe = [_MAYBE] if any(step.action == "run?" for step in self.steps) else []
        return [*maybe, *(f"! {each}" for each in self.warnings)]


def _html_row(tag: str, cells: Iterable[str]) -> str:
    shown = (f'<{tag} style="text-align: left">{cell}</{tag}>' for cell in cells)
    return f"<tr>{''.join(shown)}</tr>"


def _expected(steps: Sequence[StepPlan]) -> str:
    if steps[0].action == "reuse":
        return ""
    known = [step.expected_seconds for step in steps if step.expected_seconds is not None]
    return seconds_text(sum(known)) if known else "?"
