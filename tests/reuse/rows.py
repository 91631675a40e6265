"""How rows of the table are written down, and which rows there are.

Most rows are one step that calls something: `work` makes such a project, `rerun` and `reuse` make a
row of it by saying what is written instead of what.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.reuse.child import show
from tests.reuse.lab import Lab, Row

# A module of the project that makes any value a text, its type included: `from show import show`.
SHOW = f"from typing import Any\n\n\n{inspect.getsource(show)}"

_ASKED = (
    "00 01 01b 01c 02 03a-d 04a-c 05a-c 06 07a-e 08 09a-d 10a-z 11 12a-f 13a-c 14 15a-d 16 17 "
    "18a-n 19 20a-h 21 21b 21c 22 23 23b 24a-e 25a-b 26 26b 27 28 40a-d 41 42 43a-d 44a-b"
)


def numbers() -> list[str]:
    """The numbers of all rows of the table, `03a-d` written out."""
    found = []
    for number in _ASKED.split():
        first, dash, last = number.partition("-")
        letters = range(ord(first[-1]), ord(last) + 1) if dash else ()
        found += [first[:-1] + chr(letter) for letter in letters] or [first]
    return found


def work(expression: str, above: str = "", **modules: str) -> dict[str, str]:
    """A project whose one step gives an expression of `x`; below other statements, if any.

    Args:
        expression: what the step returns.
        above: statements of the main module.
        modules: name → source of further modules; `a__b` is the module `b` of the package `a`.
    """
    main = f"""
{above}

@step
def work(x: int) -> object:
    ran("work")
    return {expression}

@pipeline
def main(x: int = 1) -> object:
    return work(x)
"""
    files = {f"{name.replace('__', '/')}.py": source for name, source in modules.items()}
    return {"main.py": main, **files}


def edited(files: Mapping[str, str], file: str, old: str, new: str) -> dict[str, str]:
    """The file of a project with something else written in it; all of it, where `old` stands."""
    assert old in files[file], f"{old!r} does not stand in {file}"
    return {file: files[file].replace(old, new)}


def rerun(
    name: str,
    files: Mapping[str, str],
    old: str,
    new: str,
    why: str | tuple[str, ...],
    *,
    file: str = "main.py",
    **rest: Any,
) -> Row:
    """A row in which an edit makes the step run again."""
    return Row(name, files, edited(files, file, old, new), "rerun", why, **rest)


def reuse(
    name: str, files: Mapping[str, str], old: str, new: str, *, file: str = "main.py", **rest: Any
) -> Row:
    """A row in which an edit must not make anything run again."""
    return Row(name, files, edited(files, file, old, new), "reuse", **rest)


def price(row: Row) -> Row:
    """A row in which what changed is no input: it is reused, though a plain run would see it."""
    return replace(row, want="price")


def check_price(lab: Lab, row: Row) -> None:
    """Check a row of what is documented not to count: the old value is given, without a run."""
    lab.write(row.before)
    before = dict(row.environ or {})
    first = lab.run(row.arguments, environ=before)
    assert first.error is None, first.traceback
    assert first.value == lab.oracle(row.arguments, environ=before)
    assert first.ran
    after = dict(row.environ_after or before)
    lab.write(row.after)
    assert lab.oracle(row.arguments, environ=after) != first.value, "the change must be seen"
    outcome = lab.run(row.arguments, plan=True, environ=after)
    assert outcome.error is None, outcome.traceback
    assert (outcome.value, outcome.ran) == (first.value, []), outcome.steps
    assert {action for action, _ in outcome.plan.values()} == {"reuse"}
