"""Random edits that may change what a project returns.

Knows syntax, not meaning: an edit may as well change nothing that is ever read, or break the
project. Who runs them finds that out. Edits of one statement are in `tests.fuzz.expressions` and
`definitions`, those of a module as a whole here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from tests.fuzz import definitions, expressions
from tests.fuzz.places import Place, defined
from tests.fuzz.projects import Project

_CHANGES = (*expressions.CHANGES, *definitions.CHANGES)
_REACHED = 0.9  # share of edits of what the pipeline reaches


class Edit(NamedTuple):
    """What was done to a project.

    Attributes:
        kind: of edit, for the counts.
        where: module and line of what was edited.
        project: as it is afterwards.
        neutral: whether nothing may run again: `True`, `False`, or `None` where it is left open.
    """

    kind: str
    where: str
    project: Project
    neutral: bool | None = False


def functions_swapped(random: Random, project: Project) -> Edit | None:
    """Two functions of a module exchange their names."""
    module = random.choice([*project.modules][1:])
    statements = list(project.modules[module])
    plain = [at for at, each in enumerate(statements) if each.startswith("def f")]
    if len(plain) < 2:
        return None
    one, other = random.sample(plain, 2)
    names = [statements[at][4:].partition("(")[0] for at in (one, other)]
    for at, new in ((one, names[1]), (other, names[0])):
        statements[at] = f"def {new}({statements[at].partition('(')[2]}"
    return _edit("functions swapped", project, module, statements)


def defined_again(random: Random, project: Project) -> Edit | None:
    """Define a name of a module once more, below: the last one counts."""
    module = random.choice([*project.modules][1:])
    statements = list(project.modules[module])
    at = random.randrange(len(statements))
    words = statements[at].replace("(", " ").split()
    if words[0] == "def" and words[1][0] in "fdkpq":
        text = f"def {words[1]}(*given, **named):\n    return mix(given, {random.randint(2, 99)})"
    elif len(words) > 1 and words[1] == "=":
        text = f"{words[0]} = {random.randint(2, 99)}"
    else:
        return None
    statements.insert(random.randint(at + 1, len(statements)), text)
    return _edit("defined again", project, module, statements)


def order_of_statements(random: Random, project: Project) -> Edit | None:
    module = random.choice([*project.modules][1:])
    statements = list(project.modules[module])
    if len(statements) < 2:
        return None
    at = random.randrange(len(statements) - 1)
    statements[at], statements[at + 1] = statements[at + 1], statements[at]
    return _edit("order of statements", project, module, statements)


def removed(random: Random, project: Project) -> Edit | None:
    module = random.choice([*project.modules][1:])
    statements = list(project.modules[module])
    if len(statements) < 2:
        return None
    del statements[random.randrange(len(statements))]
    return _edit("removed", project, module, statements)


def monkeypatched(random: Random, project: Project) -> Edit | None:
    """Let the main module put a function of its own into another module."""
    module = random.choice([*project.modules][1:])
    known = [each for each in defined(project, module) if each[0] == "f"]
    if module == "main" or not known:
        return None
    statements = list(project.modules["main"])
    text = (
        f"import {module}\n{module}.{random.choice(known)} = "
        f"lambda x: mix(x, {random.randint(2, 99)})"
    )
    statements.insert(random.randrange(1, len(statements)), text)
    return _edit("monkeypatched", project, "main", statements)


WHOLES = (functions_swapped, defined_again, order_of_statements, removed, monkeypatched)


def _edit(kind: str, project: Project, module: str, statements: list[str]) -> Edit:
    return Edit(kind, module, project.with_module(module, tuple(statements)))


def change(random: Random, project: Project) -> Edit | None:
    """Change one statement, or a module as a whole; `None` if that came to nothing."""
    if random.random() < 0.1:
        return random.choice(WHOLES)(random, project)
    one = random.choice(_CHANGES)
    module = random.choice([*project.modules][1:])
    statements = project.modules[module]
    words = project.reached() if random.random() < _REACHED else None
    for at in _shuffled(random, len(statements)):
        if words is not None and not project.is_reached(statements[at], words):
            continue
        tree = ast.parse(statements[at])
        fits = one in expressions.WIRING or not statements[at].startswith("def main(")
        if fits and one(Place(random, project, module, at, tree)):
            break
    else:
        return None
    try:
        text = ast.unparse(ast.fix_missing_locations(tree))
    except (ValueError, TypeError):  # no source means that: a number as the text of an f-string
        return None
    new = (*statements[:at], text, *statements[at + 1 :])
    return Edit(one.__name__.replace("_", " "), f"{module}[{at}]", project.with_module(module, new))


def _shuffled(random: Random, count: int) -> Iterator[int]:
    order = list(range(count))
    random.shuffle(order)
    yield from order[:12]
