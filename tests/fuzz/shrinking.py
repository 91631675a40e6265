"""Make a pair of projects small that shows a wrong reuse: leave out what it does not take."""

from __future__ import annotations

import difflib
import shutil
import tempfile
from collections.abc import Sequence

from tests.fuzz import running
from tests.fuzz.projects import Project


def shrunk(history: Sequence[Project], after: Project) -> str | None:
    """The smallest pair found, as text; `None` if no pair alone shows it.

    Args:
        history: earlier states of the project, any of which may have left the wrong record.
        after: the project whose run reused it.
    """
    before = next((each for each in reversed(history) if _is_wrong(each, after)), None)
    if before is None:
        return None
    pair = before, after
    while True:
        smaller = _smaller(*pair)
        if smaller is None:
            return shown(*pair)
        pair = smaller


def _smaller(before: Project, after: Project) -> tuple[Project, Project] | None:
    for module in reversed([*after.modules][1:]):
        for statement in reversed(after.modules[module]):
            pair = _without(before, module, statement), _without(after, module, statement)
            if statement in before.modules[module] and _is_wrong(*pair):
                return pair
    return None


def _without(project: Project, module: str, statement: str) -> Project:
    kept = tuple(each for each in project.modules[module] if each != statement)
    return project.with_module(module, kept)


def _is_wrong(before: Project, after: Project) -> bool:
    store = tempfile.mkdtemp(prefix="mlpipe-fuzz-")
    try:
        running.load(before)
        running.oracle()
        running.product(store)
        running.load(after)
        return running.oracle() != running.product(store).value
    except Exception:  # it takes what was left out
        return False
    finally:
        shutil.rmtree(store)


def shown(before: Project, after: Project) -> str:
    one, other = (
        [line for line in each.text().splitlines() if line.strip()] for each in (before, after)
    )
    return "\n".join(difflib.unified_diff(one, other, "before", "after", lineterm="", n=999))
