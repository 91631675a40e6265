"""Many values at once: each is made by a step and given to a step, then made in another way.

A group of cases is one project. For each case one step makes the value and another looks at it (the
value as an output), and a third is given it by the pipeline's body (the value as an input). What
the lookers see is compared with what they see without any cache, case by case.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.core import seen as seen_module
from tests.reuse.lab import Lab, Outcome, Zygote

WAYS = ("output", "input")
SEEN = Path(seen_module.__file__)
LOOK = """
import importlib

def look(value):  # by a name in a string: its code is not to be read for each of a hundred steps
    return importlib.import_module("seen").seen(value)
"""


@dataclass(frozen=True)
class Case:
    """A value, and the same or another one made in another way.

    Attributes:
        name: what the values are.
        before, after: expressions, in the words of the group's setup.
        want: `rerun` or `reuse` of who is given `after` in the place of `before`.
        ways: `output`, `input` or both.
    """

    name: str
    before: str
    after: str
    want: str
    ways: tuple[str, ...]


Groups = Mapping[str, tuple[str, Sequence[Case]]]


def same(name: str, before: str, after: str, *ways: str) -> Case:
    """Equal values that were made in different ways."""
    return Case(name, before, after, "reuse", ways or WAYS)


def other(name: str, before: str, after: str, *ways: str) -> Case:
    """Values that a step can tell apart."""
    return Case(name, before, after, "rerun", ways or WAYS)


@dataclass(frozen=True)
class Seen:
    """What came of a run of a group: text and whether the looker ran, by case and way."""

    texts: dict[tuple[str, str], str]
    ran: frozenset[tuple[str, str]]
    makers: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Rounds:
    """The runs of a group, each in a fresh process: see `run_group`."""

    right: Seen
    first: Seen
    again: Seen
    reread: Seen
    changed_right: Seen
    changed: Seen


def project(setup: str, cases: Sequence[Case], *, after: bool, round: int) -> dict[str, str]:
    """The modules of a group's project."""
    things = [setup]
    lines = ["from things import *", "from look import look", f"ROUND = {round}"]
    body = []
    for at, case in enumerate(cases):
        expression = case.after if after else case.before
        things += [f"def thing_{at}():\n    return {expression}\n"]
        for way in case.ways:
            lines += [
                f"@step(name='{way}_{at}')\ndef {way}_{at}(value):\n"
                f"    ran('{way} {at}'.replace(' ', '_'))\n    return [ROUND, look(value)]\n"
            ]
        if "output" in case.ways:
            lines += [f"@step\ndef make_{at}():\n    ran('make_{at}')\n    return thing_{at}()\n"]
            body += [f"    found['output_{at}'] = output_{at}(make_{at}())"]
        if "input" in case.ways:
            body += [f"    found['input_{at}'] = input_{at}(thing_{at}())"]
    lines += ["@pipeline\ndef main():\n    found = {}", *body, "    return found\n"]
    return {
        "look.py": LOOK,
        "seen.py": SEEN.read_text(),
        "things.py": "\n".join(things),
        "main.py": "\n".join(lines),
    }


def run_group(lab: Lab, setup: str, cases: Sequence[Case]) -> Rounds:
    """Run a group, again, with lookers that changed alone, and with the other values."""

    def asked(*, after: bool = False, round: int = 1, how: str = "local") -> Seen:
        lab.write(project(setup, cases, after=after, round=round))
        return _seen(lab.run(how=how), cases)

    return Rounds(
        right=asked(how="oracle"),
        first=asked(),
        again=asked(),
        reread=asked(round=2),
        changed_right=asked(after=True, how="oracle"),
        changed=asked(after=True),
    )


def asked(groups: Groups) -> list[tuple[str, Case, str]]:
    """Every case of every group, each way that it is asked."""
    return [
        (group, case, way)
        for group, (_, cases) in groups.items()
        for case in cases
        for way in case.ways
    ]


def each_case_of(groups: Groups) -> Callable[..., None]:
    """Make the test of all cases, which a module is to bind to a name of its own."""

    ran: dict[str, Rounds] = {}  # made when the first case of a group is asked

    @pytest.mark.parametrize(("group", "case", "way"), asked(groups), ids=name_of)
    def test(
        tmp_path_factory: pytest.TempPathFactory, zygote: Zygote, group: str, case: Case, way: str
    ) -> None:
        if group not in ran:
            ran[group] = run_group(Lab(tmp_path_factory.mktemp(group), zygote), *groups[group])
        judge(ran[group], case, way)

    return test


def name_of(part: object) -> str:
    """Of a part of what is asked, for the id of a test."""
    return part.name if isinstance(part, Case) else str(part)


def _seen(outcome: Outcome, cases: Sequence[Case]) -> Seen:
    assert outcome.error is None, outcome.error + outcome.traceback
    assert outcome.value is not None
    found = ast.literal_eval(outcome.value.removeprefix("builtins.dict "))
    keys = {f"{way}_{at}": (case.name, way) for at, case in enumerate(cases) for way in case.ways}
    return Seen(
        {keys[name]: text for name, (_, text) in found.items()},
        frozenset(keys[name] for name in outcome.ran if name in keys),
        frozenset(name for name in outcome.ran if name.startswith("make_")),
    )


def judge(rounds: Rounds, case: Case, way: str) -> None:
    """Compare what one looker saw in all runs with what is right."""
    key = (case.name, way)
    assert rounds.first.texts[key] == rounds.right.texts[key]
    assert key in rounds.first.ran
    assert rounds.again.texts[key] == rounds.right.texts[key]
    assert key not in rounds.again.ran, "nothing has changed"
    assert rounds.reread.texts[key] == rounds.first.texts[key], "the stored value is another one"
    assert key in rounds.reread.ran
    assert not rounds.reread.makers
    visible = rounds.changed_right.texts[key] != rounds.right.texts[key]
    assert visible == (case.want == "rerun"), "the case itself is wrong"
    assert rounds.changed.texts[key] == rounds.changed_right.texts[key]
    assert (key in rounds.changed.ran) == (case.want == "rerun")
