"""The reason names what changed inside a function or an object that a step is given.

The plan and the run say the same words; so does a later process that reads the run from the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import edited


@dataclass(frozen=True)
class Given:
    """An argument, a change of what it is made of, and what the reason names.

    Attributes:
        name: the case, as a sentence says it.
        source: of the module `given`, which says what `X` is.
        edits: what is written instead of what.
        named: what of the parameter has changed.
        seen: what the step returns of it.
        same_value: the step runs again though it returns the same.
    """

    name: str
    source: str
    edits: Mapping[str, str]
    named: str
    seen: str = "x(2)"
    same_value: bool = False


CLEAN = "def clean(v, k=0): return v + k\n"
MODEL = """
class Model:
    rate = 1
    def __init__(self, k): self.k = k
    def fit(self): return self.k * 3
    def of(self, v): return v - self.k - self.rate
    def __call__(self, v): return v + self.k
"""
CONFIG = """
from dataclasses import dataclass
@dataclass
class Config:
    depth: int
    rate: int = 5
    def area(self): return self.depth * 2
"""
PYDANTIC = """
from pydantic import BaseModel, field_validator
class Config(BaseModel):
    depth: int
    @field_validator("depth")
    @classmethod
    def positive(cls, depth): return max(depth, 1)
    def area(self): return self.depth * 2
"""
MANY = "".join(f"def f{n}(v): return v + 10\n" for n in range(5))

CASES = [
    Given(
        "a helper of the function",
        "def deep(v): return v + 1\ndef X(v): return deep(v)",
        {"v + 1": "v + 2"},
        "code of given.deep",
    ),
    Given(
        "what a lambda closes over",
        "def by(k): return lambda v: v + k\nX = by(3)",
        {"by(3)": "by(4)"},
        "code of given.by.<locals>.<lambda>",
    ),
    Given("a default", f"{CLEAN}X = clean", {"k=0": "k=1"}, "code of given.clean"),
    Given(
        "another function",
        "def one(v): return v\ndef other(v): return -v\nX = one",
        {"X = one": "X = other"},
        "given.one → given.other",
    ),
    Given(
        "a function in place of a number",
        "def one(v=0): return v\nX = 7",
        {"X = 7": "X = one"},
        "7 → given.one",
        seen="x if type(x) is int else x()",
    ),
    Given(
        "the function of a partial and what it binds",
        f"import functools\n{CLEAN}X = functools.partial(clean, k=3)",
        {"v + k": "v - k", "k=3": "k=4"},
        "code of given.clean; k of given.clean: 3 → 4",
    ),
    Given(
        "an argument that a partial binds by its place",
        f"import functools\n{CLEAN}X = functools.partial(clean, 5)",
        {"clean, 5": "clean, 6"},
        "argument 0 of given.clean: 5 → 6",
        seen="x()",
    ),
    Given("what an object holds", f"{MODEL}X = Model(1)", {"Model(1)": "Model(2)"}, ".k: 1 → 2"),
    Given(
        "what the object of a bound method holds",
        f"{MODEL}X = Model(1).of",
        {"Model(1)": "Model(2)"},
        ".__self__.k: 1 → 2",
    ),
    Given(
        "an attribute of a class",
        f"{MODEL}X = Model(1)",
        {"rate = 1": "rate = 2"},
        "code of given.Model",
        seen="x.of(1)",
    ),
    Given(
        "a method of a base class",
        f"{MODEL}class Net(Model): pass\nX = Net(1)",
        {"self.k * 3": "self.k * 4"},
        "code of given.Model.fit",
        seen="x.fit()",
    ),
    Given(
        "a function in a list",
        f"{CLEAN}X = [abs, clean]",
        {"v + k": "v - 1"},
        "code of given.clean",
        seen="x[1](2)",
    ),
    Given(
        "another function in a list",
        "def one(v): return v\ndef other(v): return -v\nX = [one]",
        {"[one]": "[other]"},
        "[0]: given.one → given.other",
        seen="x[0](2)",
    ),
    Given(
        "an object in a dict of a list",
        f"{MODEL}X = [{{'m': Model(1)}}]",
        {"self.k * 3": "self.k * 4"},
        "code of given.Model.fit",
        seen="x[0]['m'].fit()",
    ),
    Given(
        "the method of a dataclass",
        f"{CONFIG}X = Config(3)",
        {"depth * 2": "depth * 4"},
        "code of given.Config.area",
        seen="x.area()",
    ),
    Given(
        "a field of a dataclass",
        f"{CONFIG}X = Config(3)",
        {"Config(3)": "Config(4)"},
        ".depth: 3 → 4",
        seen="x.area()",
    ),
    Given(
        "a default of a dataclass, which is part of its class",
        f"{CONFIG}X = Config(3, 5)",
        {"rate: int = 5": "rate: int = 6"},
        "code of given.Config",
        seen="type(x)(1).rate",
    ),
    Given(
        "the method of a pydantic model",
        f"{PYDANTIC}X = Config(depth=3)",
        {"depth * 2": "depth * 4"},
        "code of given.Config.area",
        seen="x.area()",
    ),
    Given(
        "a validator of a pydantic model",
        f"{PYDANTIC}X = Config(depth=3)",
        {"max(depth, 1)": "max(depth, 2)"},
        "code of given.Config.positive",
        seen="type(x)(depth=0).depth",
    ),
    Given(
        "several functions at once",
        f"{MANY}X = [f0, f1, f2, f3, f4]",
        {"v + 10": "v + 20"},
        "code of given.f0, given.f1, given.f2 and 2 more",
        seen="[f(1) for f in x]",
    ),
    Given(
        "a field of two objects, and one of their methods",
        f"{MODEL}X = [Model(1), Model(1)]",
        {"Model(1)": "Model(2)", "self.k * 3": "self.k * 4"},
        "code of given.Model.fit; [0].k: 1 → 2; [1].k: 1 → 2",
        seen="[m.fit() for m in x]",
    ),
    Given(
        "a secret in an object is not shown",
        "class Login:\n    def __init__(self, k): self.password = k\n    def go(self): return 1\n"
        "X = Login('a')",
        {"'a'": "'b'", "return 1": "return 2"},
        "code of given.Login.go",
        seen="x.go()",
    ),
]


def project(case: Given) -> dict[str, str]:
    main = f"""
import given

@step
def work(x: object) -> object:
    ran("work")
    return {case.seen}

@pipeline
def main() -> object:
    return work(given.X)
"""
    return {"main.py": main, "given.py": case.source}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reason_names_what_changed_inside_an_argument(lab: Lab, case: Given) -> None:
    before = project(case)
    source = case.source
    for old, new in case.edits.items():
        assert old in source
        source = source.replace(old, new)
    why = f"parameter 'x' changed: {case.named}"
    row = Row(case.name, before, {"given.py": source}, "rerun", why)
    outcome = check(lab, row)
    assert f"  {why}" in outcome.steps["work"]["explain"].splitlines()
    assert f"  {why}" in outcome.plan_explained["work"].splitlines()


def test_another_process_reads_the_same_reason_from_the_store(lab: Lab) -> None:
    before = project(CASES[0])
    lab.write(before)
    lab.run()
    lab.write(edited(before, "given.py", "v + 1", "v + 2"))
    assert lab.run().ran == ["work"]
    runs = f"main.with_options(store={lab.store!r}).runs.list()"
    outcome = lab.run(after=f"[{runs}[1]['work'].explain(), *{runs}[1]['work'].reasons[0]]")
    assert outcome.ran == []
    text, *reason = outcome.extra
    assert reason == ["parameter changed", "x", "", "code of given.deep"]
    assert "  parameter 'x' changed: code of given.deep" in text.splitlines()
    assert "+def deep(v): return v + 2" in text
    assert "Changed since then" not in text


MIXED = """
import helpers

@step
def make(n: int) -> int:
    ran("make")
    return n

@step
def work(parts: list) -> int:
    ran("work")
    return parts[1](parts[0])

@pipeline
def main(n: int = 1) -> int:
    return work([make(n), helpers.clean])
"""


def test_code_that_stands_beside_an_output_is_told_from_the_output(lab: Lab) -> None:
    files = {"main.py": MIXED, "helpers.py": "def clean(v): return v + 1"}
    lab.write(files)
    lab.run()
    lab.write(edited(files, "helpers.py", "v + 1", "v + 2"))
    outcome = lab.run(plan=True)
    assert outcome.ran == ["work"]
    said = ["parameter 'parts' changed: code of helpers.clean"]
    assert outcome.plan["work"] == ("run", said)
    assert outcome.reasons() == said
    assert "+def clean(v): return v + 2" in outcome.steps["work"]["explain"]
    outcome = lab.run("n=5")
    assert outcome.reasons("work") == ["input 'parts' changed (from make)"]


MAPPED = """
import helpers

@step
def score(x: int, by: object) -> int:
    ran("score")
    return by(x)

@pipeline
def main() -> list:
    return score.map([1, 2, 3], by=unmapped(helpers.clean))
"""


def test_a_function_that_all_items_of_a_mapped_step_are_given_is_named_once(lab: Lab) -> None:
    files = {"main.py": MAPPED, "helpers.py": "def clean(v): return v + 1"}
    lab.write(files)
    lab.run()
    lab.write(edited(files, "helpers.py", "v + 1", "v + 2"))
    outcome = lab.run(plan=True)
    said = ["parameter 'by' changed: code of helpers.clean"]
    assert outcome.plan["score"] == ("run", said)
    assert outcome.reasons("score") == outcome.reasons("score[2]") == said
    assert outcome.value == "builtins.list[builtins.int 3, builtins.int 4, builtins.int 5]"


SHOWN = """
import given

@step
def work(f) -> str:
    ran("work")
    return {asked}

@pipeline
def main() -> str:
    return work(given.f)
"""

ASKED = {
    "docstring": ("f.__doc__ or ''", 'def f(x):\n    """one"""\n    return x', "one", "two"),
    "name": ("f.__name__", "def old(x):\n    return x\nf = old", "old", "new"),
    "annotations": ("str(f.__annotations__)", "def f(x: int):\n    return x", "int", "str"),
}


@pytest.mark.parametrize(("asked", "source", "before", "after"), ASKED.values(), ids=ASKED)
def test_what_a_step_asks_of_a_function_that_it_is_given_counts(
    lab: Lab, asked: str, source: str, before: str, after: str
) -> None:
    lab.write({"main.py": SHOWN.format(asked=asked), "given.py": source})
    assert lab.run().value == lab.oracle()
    assert lab.run().ran == []
    lab.write({"given.py": source.replace(before, after)})
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (lab.oracle(), ["work"])
