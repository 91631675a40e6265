"""`mlpipe doctor`: what keeps pipelines from running here, and how to mend it."""

from __future__ import annotations

import textwrap
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console, RenderableType
from rich.text import Text

from prefect_mlpipe.cli.answering import FAILED, Answer, Common, command
from prefect_mlpipe.cli.shapes import Shape
from prefect_mlpipe.doctor import Examined, Report, examine
from prefect_mlpipe.doctor.examining import TIMEOUT_S
from prefect_mlpipe.doctor.findings import Look

_STYLES = {"ok": "green", "skipped": "dim", "warning": "yellow", "problem": "bold red"}
_NARROW = 60


@command
def doctor(
    *,
    store: Annotated[
        str | None, Parameter(help="A folder or URL; default: that of the settings.")
    ] = None,
    timeout: Annotated[float, Parameter(help="Seconds that one check may take.")] = TIMEOUT_S,
    common: Common | None = None,
) -> Answer:
    """Look for what keeps pipelines from running here, and say how to mend it. Changes nothing.

    Exit code 1 if there is a problem; warnings are none.
    """
    report = examine(Look(store), timeout)
    return Answer(_shape(report), _page(report), 0 if report else FAILED)


def _shape(report: Report) -> Shape:
    checks = [
        {
            "name": check.name,
            "about": check.about,
            "state": check.finding.state,
            "facts": dict(check.finding.facts),
            "mend": check.finding.mend,
        }
        for check in report.checks
    ]
    return {"state": report.state, "checks": checks}


def _page(report: Report) -> RenderableType:
    width = max(_NARROW, Console().width)
    told = [_told(check, width) for check in report.checks]
    states = [check.finding.state for check in report.checks]
    counts = f"problems: {states.count('problem')}, warnings: {states.count('warning')}"
    return Text("\n").join([*told, Text(f"\n{counts}")])


def _told(check: Examined, width: int) -> Text:
    """What is well stands in a line; the rest has a line for each fact, and how to mend it."""
    state, facts = check.finding.state, check.finding.facts
    said = [f"{name}: {value}" for name, value in facts.items()]
    lines = [", ".join(said)] if state in ("ok", "skipped") else said
    mends = check.finding.mend.splitlines()
    lines += [mend if mend.startswith(" ") else f"→ {mend}" for mend in mends]
    name = check.name.replace("_", " ")
    text = Text(f"{state:<9}", _STYLES[state]).append(f"{name:<16}", "default")
    indent = " " * len(text)
    folded = [each for line in lines for each in _folded(line, width - len(indent))]
    return text.append(f"\n{indent}".join(folded), "default")


def _folded(line: str, width: int) -> list[str]:
    """Fold a line between words: what is to be copied stays in one piece."""
    if line.startswith(" "):
        return [line]
    indent = "  " if line.startswith("→") else ""
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
