"""Rows 10-12 of the table: what changes in a value that a step is given.

Each value is given twice: as a parameter of the pipeline, and as what a step above has made.
"""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import SHOW, edited

FRAME = "pandas.DataFrame({'a': [1, 2], 'b': [3, 4]})"
OBJECTS = """
class A:
    def __init__(self, k): self.k = k
    def __repr__(self): return f"k={self.k}"

class B:
    def __init__(self, k): self.k = k
    def __repr__(self): return f"k={self.k}"

class Slots:
    __slots__ = ("k",)
    def __init__(self, k): self.k = k
    def __repr__(self): return f"k={self.k}"
"""


def given(value: str, above: str = "", seen: str = "show(x)") -> dict[str, str]:
    """A project in which one step takes a parameter, and another what a step above gives."""
    main = f"""
import numpy
import pandas
from show import show
{above}

@step
def make() -> object:
    ran("make")
    return {value}

@step
def below(x: object) -> object:
    ran("below")
    return {seen}

@step
def direct(x: object) -> object:
    ran("direct")
    return {seen}

@pipeline
def main(x: object) -> list:
    return [direct(x), below(make())]
"""
    return {"show.py": SHOW, "main.py": main}


# Name, the value, what it becomes; and how it is shown, if it is.
DIFFERENT = [
    ("10a a cell of a table", FRAME, FRAME.replace("4", "5"), ""),
    ("10b only a dtype, int64 to int32", FRAME, f"{FRAME}.astype({{'b': 'int32'}})", ""),
    ("10c only a dtype, int64 to float64", FRAME, f"{FRAME}.astype({{'b': 'float64'}})", ""),
    ("10d a column is renamed", FRAME, f"{FRAME}.rename(columns={{'b': 'c'}})", ""),
    ("10e the index", FRAME, f"{FRAME}.set_index(pandas.Index([7, 8]))", ""),
    ("10f columns in another order", FRAME, f"{FRAME}[['b', 'a']]", ""),
    ("10g rows in another order, the index with them", FRAME, f"{FRAME}.iloc[::-1]", ""),
    ("10j 1 to True", "1", "True", ": 1 → True"),
    ("10k 1 to 1.0", "1", "1.0", ": 1 → 1.0"),
    ("10l 1 to '1'", "1", "'1'", ": 1 → '1'"),
    ("10m a list to a tuple", "[1, 2]", "(1, 2)", ""),
    ("10n a dict in another order", "{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}", ""),
    ("10o a key of a dict, int to str", "{1: 'v'}", "{'1': 'v'}", ""),
    ("10p 1 to True, deep inside", "{'k': [1]}", "{'k': [True]}", ""),
    ("10q a set to a list", "{1, 2}", "[1, 2]", ""),
    ("10r other brackets", "[[1, 2], 3]", "[1, [2, 3]]", ""),
    ("10s 0.0 to -0.0", "0.0", "-0.0", ": 0.0 → -0.0"),
    ("10t None to 'None'", "None", "'None'", ": None → 'None'"),
    ("10u bytes to str", "b'ab'", "'ab'", ""),
    ("10v only the dtype of an array, same bytes", "numpy.zeros(2, int)", "numpy.zeros(2)", ""),
    ("10w only the shape of an array", "numpy.ones((2, 3))", "numpy.ones((3, 2))", ""),
    ("10y another class, same attributes", "A(1)", "B(1)", ": main.A → main.B"),
    ("10z an object with __slots__", "Slots(1)", "Slots(2)", ": .k: 1 → 2"),
]
EQUAL = [
    (
        "10h an equal table, made another way",
        FRAME,
        "pandas.concat([pandas.DataFrame({'a': [i], 'b': [i + 2]}) for i in (1, 2)],"
        " ignore_index=True)",
    ),
    (
        "10i an equal table of strings, not interned",
        "pandas.DataFrame({'name': ['owl', 'owl', 'kea']})",
        "pandas.concat([pandas.DataFrame({'name': [''.join(list(n))]})"
        " for n in ('owl', 'owl', 'kea')], ignore_index=True)",
    ),
    (
        "10x an equal array in Fortran order",
        "numpy.arange(6.0).reshape(2, 3)",
        "numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3))",
    ),
]


@pytest.mark.parametrize(
    ("name", "value", "other", "shown"), DIFFERENT, ids=[case[0] for case in DIFFERENT]
)
def test_another_value_is_seen(lab: Lab, name: str, value: str, other: str, shown: str) -> None:
    outcome = check(
        lab,
        Row(
            name,
            given(value, OBJECTS),
            given(other, OBJECTS),
            "rerun",
            f"parameter 'x' changed{shown}",
            arguments=f"x={value}",
            arguments_after=f"x={other}",
        ),
    )
    assert outcome.plan["make"] == ("run", ["code changed: main.make"])
    assert outcome.plan["below"] == ("run?", ["input 'x' may change (from make)"])
    assert outcome.reasons("below") == ["input 'x' changed (from make)"]


@pytest.mark.parametrize(("name", "value", "other"), EQUAL, ids=[case[0] for case in EQUAL])
def test_an_equal_value_is_the_same(lab: Lab, name: str, value: str, other: str) -> None:
    outcome = check(
        lab,
        Row(
            name,
            given(value),
            given(other),
            "reuse",
            ran=("make",),
            arguments=f"x={value}",
            arguments_after=f"x={other}",
        ),
    )
    assert outcome.plan["direct"] == ("reuse", [])
    assert outcome.plan["below"][0] == "run?"


def test_11_one_element_in_the_middle_of_100_mb(lab: Lab) -> None:
    first = "numpy.zeros(12_500_000)"
    then = "numpy.concatenate([numpy.zeros(6_000_000), [1.0], numpy.zeros(6_499_999)])"
    outcome = check(
        lab,
        Row(
            "11 one element in the middle of 100 MB",
            given(first, seen="int(x.argmax())"),
            given(then, seen="int(x.argmax())"),
            "rerun",
            "parameter 'x' changed",
            arguments=f"x={first}",
            arguments_after=f"x={then}",
        ),
    )
    assert outcome.plan["make"] == ("run", ["code changed: main.make"])
    assert outcome.reasons("below") == ["input 'x' changed (from make)"]


PARTIAL = "import functools\nimport helpers\nF = functools.partial(helpers.clean, k=3)"
MODEL = "import models\nF = models.Model()"
# Name, what makes the argument F, what of it is written otherwise, and what the reason names.
CALLED = [
    ("12a the body of a lambda", "F = lambda v: v + 1", "v + 1", "v + 2", "code of main.<lambda>"),
    (
        "12b the body of a module's function",
        "from helpers import clean as F",
        "v + 1",
        "v + 2",
        "code of helpers.clean",
    ),
    ("12c the function of a partial", PARTIAL, "v + 1", "v + 2", "code of helpers.clean"),
    ("12d an argument that a partial binds", PARTIAL, "k=3", "k=4", "k of helpers.clean: 3 → 4"),
    ("12e the __call__ of an object", MODEL, "v * 1", "v * 2", "code of models.Model.__call__"),
    (
        "15d a method that the step calls",
        "import models\nF = models.Model().of",
        "v - 1",
        "v - 2",
        "code of models.Model.of",
    ),
]


def called(above: str, seen: str = "x(2)") -> dict[str, str]:
    modules = {
        "helpers.py": "def clean(v, k=0): return v + 1 + k",
        "models.py": """
class Model:
    def __call__(self, v): return v * 1
    def of(self, v): return v - 1
    def fit(self): return 1
""",
    }
    return {**given("F", above, seen), **modules}


@pytest.mark.parametrize(
    ("name", "above", "old", "new", "named"), CALLED, ids=[case[0] for case in CALLED]
)
def test_what_an_argument_does_is_seen(
    lab: Lab, name: str, above: str, old: str, new: str, named: str
) -> None:
    before = called(above)
    after = {file: text.replace(old, new) for file, text in before.items() if file != "show.py"}
    why = f"parameter 'x' changed: {named}"
    outcome = check(lab, Row(name, before, after, "rerun", why, arguments="x=F"))
    assert outcome.reasons("below") == ["input 'x' changed (from make)"]
    assert named.removeprefix("code of ") in outcome.steps["direct"]["explain"]
    code = named.removeprefix("code of ") if named.startswith("code of ") else "main.F"
    assert outcome.plan["make"] == ("run", [f"code changed: {code}"])


def test_15d_a_method_of_an_object_that_is_given(lab: Lab) -> None:
    before = called(MODEL, seen="x.fit()")
    after = edited(before, "models.py", "return 1", "return 2")
    why = "parameter 'x' changed: code of models.Model.fit"
    outcome = check(lab, Row("15d x.fit()", before, after, "rerun", why, arguments="x=F"))
    assert outcome.plan["make"] == ("run", ["code changed: models.Model.fit"])
    assert outcome.reasons("below") == ["input 'x' changed (from make)"]


def test_12f_a_lambda_that_has_moved_is_the_same(lab: Lab) -> None:
    before, after = called("F = lambda v: v + 1"), called("\n\n\nF = lambda v: v + 1")
    check(lab, Row("12f a lambda moved down", before, after, "reuse", arguments="x=F"))
