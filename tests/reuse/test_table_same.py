"""Rows 14, 16, 20-24 and 26-28 of the table: what does not count, and what is documented not to."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab, Outcome, Row, Zygote, check
from tests.reuse.rows import check_price, edited, price, reuse, work

DOCUMENTED = {
    "main.py": '''
@step
def work(x: int) -> object:
    """Add to x."""
    ran("work")
    # as agreed
    total = x + 1
    return {"total": total}

@pipeline
def main(x: int = 1) -> object:
    return work(x)
'''
}
HELPED = work("helpers.clean(x)", "import helpers", helpers="def clean(x): return x + 1")
ENVIRONMENT = work("os.environ['ZONE'] + str(x)", "import os")
CHANCE = work("x + numpy.random.rand()", "import numpy\nnumpy.random.seed(1)")

NOT_COUNTED = [
    reuse("20a a comment in the step", DOCUMENTED, "# as agreed", "# as agreed in May"),
    reuse("20b a docstring", DOCUMENTED, "Add to x.", "Add one to x."),
    reuse("20c a blank line and spaces", DOCUMENTED, "x + 1\n", "x  +  1\n\n"),
    reuse("20d other quotes", DOCUMENTED, '{"total": total}', "{'total': total}"),
    reuse("20d brackets and a line of its own", DOCUMENTED, "x + 1", "(\n        x + 1\n    )"),
    reuse(
        "20e a local variable renamed",
        DOCUMENTED,
        'total = x + 1\n    return {"total": total}',
        'found = x + 1\n    return {"total": found}',
    ),
    reuse("20f a comment above the step", DOCUMENTED, "@step\n", "# the first\n@step  # of all\n"),
    reuse(
        "20g a comment in a helper",
        HELPED,
        "return x + 1",
        "return x + 1  # as agreed",
        file="helpers.py",
    ),
    reuse("20h a docstring where there was none", work("x + 1"), "ran(", "'''Add.'''\n    ran("),
    reuse(
        "21 an unrelated function beside it",
        work("x + 1", "def other(x): return x"),
        "return x\n",
        "return -x\n",
    ),
    reuse("21b an unrelated global beside it", work("x + 1", "K = 1"), "K = 1", "K = 2"),
    reuse(
        "21c an unrelated function in an imported module",
        HELPED | {"helpers.py": "def other(x): return x\n" + HELPED["helpers.py"]},
        "return x\n",
        "return -x\n",
        file="helpers.py",
    ),
    reuse("22 line numbers", DOCUMENTED, "@step\n", "\n\n\nimport json\n\n\n@step\n"),
    Row(
        "26 the step moved to another module",
        work("x + 1"),
        {
            "steps.py": """
from log import ran
from prefect_mlpipe import step

@step
def work(x: int) -> object:
    ran("work")
    return x + 1
""",
            "main.py": """
from steps import work

@pipeline
def main(x: int = 1) -> object:
    return work(x)
""",
        },
        "reuse",
    ),
    reuse("26b the step renamed", work("x + 1"), " work(x", " labour(x"),
]


@pytest.mark.parametrize("row", NOT_COUNTED, ids=lambda row: row.name)
def test_what_changes_nothing_reruns_nothing(lab: Lab, row: Row) -> None:
    check(lab, row)


ENVIRON = {"environ": {"ZONE": "A"}, "environ_after": {"ZONE": "B"}}
UNSEEN = [
    price(Row("14 a variable that nothing declares", ENVIRONMENT, {}, "reuse", **ENVIRON)),
    price(reuse("16 a seed set outside the step", CHANCE, "seed(1)", "seed(2)")),
]


@pytest.mark.parametrize("row", UNSEEN, ids=lambda row: row.name)
def test_what_is_not_declared_is_not_seen(lab: Lab, row: Row) -> None:
    check_price(lab, row)


def test_14_a_declared_variable_is_seen(lab: Lab) -> None:
    lab.write(edited(ENVIRONMENT, "main.py", "@step", '@step(reads=[EnvVar("ZONE")])'))
    for zone, expected in (("A", ["work"]), ("A", []), ("B", ["work"]), ("A", []), ("", ["work"])):
        outcome = lab.run(environ={"ZONE": zone}, plan=True)
        assert outcome.value == lab.oracle(environ={"ZONE": zone})
        assert outcome.ran == expected
        if expected and zone != "A":
            assert outcome.reasons() == outcome.plan["work"][1] == ["reads changed: ZONE"]


CUT = """
import pandas

@step
def load() -> object:
    ran("load")
    return {made}

@step
def train(table: object) -> object:
    ran("train")
    return len(table)

@step
def report(found: object) -> str:
    ran("report")
    return f"{{found}} rows"

@pipeline
def main() -> object:
    return report(train(load()))
"""
CUTS = [
    ("23 an equal list", "[1] + [2]", "[1, 2]"),
    ("23b an equal table", "pandas.DataFrame({'a': [1, 2]})", "pandas.DataFrame({'a': [1] + [2]})"),
]


@pytest.mark.parametrize(("name", "made", "otherwise"), CUTS, ids=[cut[0] for cut in CUTS])
def test_the_same_value_from_other_code_cuts_off_what_is_below(
    lab: Lab, name: str, made: str, otherwise: str
) -> None:
    before, after = CUT.format(made=made), CUT.format(made=otherwise)
    outcome = check(lab, Row(name, before, after, "reuse", ran=("load",)))
    assert outcome.plan["load"] == ("run", ["code changed: main.load"])
    assert outcome.plan["train"] == ("run?", ["input 'table' may change (from load)"])
    assert outcome.plan["report"] == ("run?", ["input 'found' may change (from train)"])
    assert outcome.reasons() == ["code changed: main.load"]


SETS = """
NAMES = {"owl", "kea", "auk", "tit"}

@step
def given(x: set) -> int:
    ran("given")
    return len(x)

@step
def literal(x: str) -> bool:
    ran("literal")
    return x in {"owl", "kea", "auk", "tit"}

@step
def nested(x: dict) -> int:
    ran("nested")
    return len(x["names"])

@step
def reached(x: str) -> bool:
    ran("reached")
    return x in NAMES

@step
def made() -> set:
    ran("made")
    return set(NAMES)

@step
def below(x: set) -> int:
    ran("below")
    return len(x)

@pipeline
def main() -> list:
    names = {"owl", "kea", "auk", "tit"}
    return [given(names), literal("owl"), nested({"names": names}), reached("owl"), below(made())]
"""
SEEDED = {
    "24a a set": "given",
    "24c a frozenset literal in the body": "literal",
    "24d a set in a dict": "nested",
    "24e a global set": "reached",
    "24a a set as an output": "below",
}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> list[Outcome]:
    """The same project under two hash seeds."""
    lab = Lab(tmp_path_factory.mktemp("seeded"), zygote)
    lab.write(SETS)
    seeds = [{"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    return [lab.run(environ=seed, fresh=True, after="list(NAMES)") for seed in seeds]


@pytest.mark.parametrize("name", SEEDED)
def test_another_hash_seed_reruns_nothing(seeded: list[Outcome], name: str) -> None:
    first, second = seeded
    assert first.extra != second.extra, "the seeds must order the set differently"
    assert first.value == second.value
    assert (first.error, second.error) == (None, None)
    assert SEEDED[name] in first.ran
    assert SEEDED[name] not in second.ran


def test_24b_a_set_built_in_another_order_is_the_same(lab: Lab) -> None:
    lab.write(
        """
        def built(order):
            numbers = set()
            for number in order:
                numbers.add(number)
            return numbers

        @step
        def given(x: set) -> int:
            ran("given")
            return len(x)

        @pipeline
        def main(order: list) -> int:
            return given(built(order))
        """
    )
    one, other = "order=[0, 8, 16]", "order=[16, 8, 0]"  # they collide, so their order stays
    first = lab.run(one, after="list(map(list, map(built, ([0, 8, 16], [16, 8, 0]))))")
    assert first.extra[0] != first.extra[1]
    assert first.ran == ["given"]
    outcome = lab.run(other)
    assert (outcome.value, outcome.ran, outcome.error) == (lab.oracle(other), [], None)


def test_27_the_same_work_asked_by_another_pipeline(lab: Lab) -> None:
    project = work("helpers.clean(x)", "import helpers", helpers="def clean(x): return x + 1")
    other = """
        from prefect_mlpipe import pipeline
        from main import work

        @pipeline
        def other(y: int = 1) -> object:
            return [work(y), work.with_options(name="again", retries=2)(y)]
    """
    lab.write({**project, "elsewhere.py": other})
    assert lab.run().ran == ["work"]
    outcome = lab.run(module="elsewhere", pipeline="other", plan=True)
    assert outcome.ran == []
    assert outcome.value == lab.oracle(module="elsewhere", pipeline="other")
    assert {action for action, _ in outcome.plan.values()} == {"reuse"}


def test_28_the_project_at_another_path(lab: Lab) -> None:
    project = work(
        "(helpers.clean(x), HERE.name)",
        "from pathlib import Path\nimport helpers\nHERE = Path(__file__).parent / 'data'",
        helpers="def clean(x): return x + 1",
    )
    lab.write(project)
    first = lab.run()
    assert first.ran == ["work"]
    lab.move("elsewhere")
    outcome = lab.run(plan=True, cwd=lab.place)
    assert (outcome.value, outcome.ran, outcome.error) == (first.value, [], None)
    assert outcome.plan["work"] == ("reuse", [])
    lab.write(edited(project, "helpers.py", "+ 1", "+ 2"))
    outcome = lab.run(plan=True)
    assert outcome.reasons() == outcome.plan["work"][1] == ["code changed: helpers.clean"]
