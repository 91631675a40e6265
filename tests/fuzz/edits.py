"""Random edits that may change what a project returns.

Knows syntax, not meaning: an edit may as well change nothing that is ever read, or break the
project. Who runs them finds that out. Edits of one statement are in `tests.fuzz.expressions` and
`definitions`, those of a module as a whole here.
"""

from __future__ import annotations

import ast
from random import Random
from typing import NamedTuple

from tests.fuzz import definitions, expressions
from tests.fuzz.places import Place, defined
from tests.fuzz.projects import Project

_CHANGES = (*expressions.CHANGES, *definitions.CHANGES)
_REACHED = 0.9  # share of edits of what the pipeline reaches
_WIRES = 0.06  # share of edits of what steps are given


class Edit(NamedTuple):
    """What was done to a project.

    Attributes:
        kind: of edit, for the counts.
        where: module and line of what was edited.
        project: as it is afterwards.
        neutral: whether nothing may run again: `True`, `False`, or `None` where it is left open.
        whole: whether a module that was edited is taken whole, so that everything in it counts.
    """

    kind: str
    where: str
    project: Project
    neutral: bool | None = False
    whole: bool = False


def functions_swapped(random: Random, statements: list[str]) -> bool:
    """Two functions of a module exchange their names."""
    plain = [at for at, each in enumerate(statements) if each.startswith("def f")]
    if len(plain) < 2:
        return False
    one, other = random.sample(plain, 2)
    names = [statements[at][4:].partition("(")[0] for at in (one, other)]
    for at, new in ((one, names[1]), (other, names[0])):
        statements[at] = f"def {new}({statements[at].partition('(')[2]}"
    return True


def defined_again(random: Random, statements: list[str]) -> bool:
    """Define a name of a module once more, below: the last one counts."""
    at = random.randrange(len(statements))
    words = statements[at].replace("(", " ").split()
    if words[0] == "def" and words[1][0] in "fdkpq":
        text = f"def {words[1]}(*given, **named):\n    return mix(given, {random.randint(2, 99)})"
    elif len(words) > 1 and words[1] == "=":
        text = f"{words[0]} = {random.randint(2, 99)}"
    else:
        return False
    statements.insert(random.randint(at + 1, len(statements)), text)
    return True


def order_of_statements(random: Random, statements: list[str]) -> bool:
    at = random.randrange(len(statements) - 1)
    statements[at], statements[at + 1] = statements[at + 1], statements[at]
    return True


def removed(random: Random, statements: list[str]) -> bool:
    del statements[random.randrange(len(statements))]
    return True


WHOLES = (functions_swapped, defined_again, order_of_statements, removed)


def _of_module(random: Random, project: Project) -> Edit | None:
    module = random.choice([*project.modules][1:])
    one = random.choice((*WHOLES, None))
    if one is None:
        return monkeypatched(random, project, module)
    statements = list(project.modules[module])
    done = len(statements) > 1 and one(random, statements)
    return _edit(one.__name__, project, module, statements) if done else None


def monkeypatched(random: Random, project: Project, module: str) -> Edit | None:
    """Let the main module put a function of its own into another module."""
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


def _edit(name: str, project: Project, module: str, statements: list[str]) -> Edit:
    edited = project.with_module(module, tuple(statements))
    return Edit(name.replace("_", " "), module, edited)


def change(random: Random, project: Project) -> Edit | None:
    """Change one statement, or a module as a whole; `None` if that came to nothing.

    Half of the time the kind of edit is chosen first, then a statement that it fits, else the other
    way round: so neither a rare kind nor a statement with much else in its module is left out.
    """
    if random.random() < 0.1:
        return _of_module(random, project)
    wires = random.random() < _WIRES
    kinds = list(expressions.WIRING if wires else _CHANGES)
    random.shuffle(kinds)
    words = project.reached() if random.random() < _REACHED else None
    places = [
        (module, at)
        for module, at in _places(random, project, wires)
        if words is None or project.is_reached(project.modules[module][at], words)
    ]
    if random.random() < 0.5:
        kinds = kinds[:1]
    else:
        places = places[:1]
    for module, at in places:
        place = Place(random, project, module, at, ast.parse(project.modules[module][at]))
        for one in kinds:
            if one(place):
                return _of_statement(one.__name__, place)
    return None


def _places(random: Random, project: Project, wires: bool) -> list[tuple[str, int]]:
    """Where statements stand, in any order: the one that wires the steps, or all others."""
    found = [
        (module, at)
        for module in [*project.modules][1:]
        for at, statement in enumerate(project.modules[module])
        if statement.startswith("def main(") == wires
    ]
    random.shuffle(found)
    return found


def _of_statement(name: str, place: Place) -> Edit | None:
    try:
        text = ast.unparse(ast.fix_missing_locations(place.tree))
    except (ValueError, TypeError):  # no source means that: a number as the text of an f-string
        return None
    statements = list(place.project.modules[place.module])
    statements[place.at] = text
    edit = _edit(name, place.project, place.module, statements)
    return edit._replace(where=f"{place.module}[{place.at}]")
