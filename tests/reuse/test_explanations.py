"""`explain()` shows old and new of code that changed, before the run and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.reuse.lab import Files, Lab, Outcome
from tests.reuse.rows import work


@dataclass(frozen=True)
class Change:
    """A project, a change of it, and what must be said of it.

    Attributes:
        name: the case, as a sentence says it.
        before: files of the project.
        after: what of them is different afterwards.
        reasons: of the step, all of them.
        lines: stand in the explanation, apart from spaces around them.
        absent: texts that must not stand anywhere in it.
    """

    name: str
    before: Mapping[str, str]
    after: Files
    reasons: tuple[str, ...]
    lines: tuple[str, ...]
    absent: tuple[str, ...] = ()
    arguments: str = ""


def change(
    name: str,
    before: Mapping[str, str],
    after: Files,
    reasons: str | tuple[str, ...],
    *lines: str,
    absent: tuple[str, ...] = (),
    arguments: str = "",
) -> Change:
    sentences = (reasons,) if isinstance(reasons, str) else reasons
    return Change(name, before, after, sentences, lines, absent, arguments)


def helper(before: str, after: str, *lines: str, name: str, absent: tuple[str, ...] = ()) -> Change:
    """A change of the one function that the step calls."""
    files = work("clean(x)", "from helpers import clean", helpers=before)
    return change(
        name, files, {"helpers.py": after}, "code changed: helpers.clean", *lines, absent=absent
    )


NET = """
class Net:
    depth = 2

    def __init__(self, x):
        self.x = x

    def fit(self):
        return self.x * self.depth
"""

FACTORY = """
def by(rate):
    def wrap(f):
        def inner(x):
            return f(x) * rate
        return inner
    return wrap

@by(2)
def scaled(x):
    return x
"""

CODE = [
    helper(
        "def clean(x):\n    # as agreed\n    return x + 1\n",
        "def clean(x):\n    # as agreed\n    return x + 2\n",
        "--- helpers.clean, before",
        "+++ helpers.clean, now",
        "# as agreed",
        "-    return x + 1",
        "+    return x + 2",
        name="a helper",
    ),
    helper(
        "def clean(x, k=1):\n    return x + k\n",
        "def clean(x, k=2):\n    return x + k\n",
        "default k: 1 → 2",
        "-def clean(x, k=1):",
        "+def clean(x, k=2):",
        name="a default",
    ),
    helper(
        "K = 1\ndef clean(x, *, k=K):\n    return x + k\n",
        "K = 2\ndef clean(x, *, k=K):\n    return x + k\n",
        "default k: 1 → 2",
        name="a default by name, of which the source says nothing",
        absent=("+++", "not available"),
    ),
    change(
        "a lambda",
        work("clean(x)", "from helpers import clean", helpers="clean = lambda x: x + 1\n"),
        {"helpers.py": "clean = lambda x: x + 2\n"},
        "code changed: helpers.<lambda>",
        "-clean = lambda x: x + 1",
        "+clean = lambda x: x + 2",
    ),
    change(
        "one of several lambdas",
        work(
            "sum(f(x) for f in helpers.STEPS)",
            "import helpers",
            helpers="STEPS = [\n    lambda x: x,\n    lambda x: x + 1,\n]\n",
        ),
        {"helpers.py": "STEPS = [\n    lambda x: x,\n    lambda x: x + 2,\n]\n"},
        "code changed: helpers.<lambda>",
        "lambda x: x,",
        "-lambda x: x + 1,",
        "+lambda x: x + 2,",
    ),
    change(
        "the body of the step",
        work("x + 1"),
        {"main.py": work("x + 2")["main.py"]},
        "code changed: main.work",
        "-    return x + 1",
        "+    return x + 2",
    ),
    change(
        "a global value",
        work("x + conf.RATE", "import conf", conf="RATE = 0.1"),
        {"conf.py": "RATE = 0.2"},
        "code changed: conf.RATE",
        "conf.RATE: 0.1 → 0.2",
    ),
    change(
        "a value inside a global dict, whose secrets are not shown",
        work(
            "x + conf.OPTIONS['net']['lr'] + len(conf.OPTIONS['password'])",
            "import conf",
            conf="OPTIONS = {'net': {'lr': 1}, 'password': 'hunter2'}",
        ),
        {"conf.py": "OPTIONS = {'net': {'lr': 2}, 'password': 'hunter22'}"},
        "code changed: conf.OPTIONS",
        "['net']['lr']: 1 → 2",
        absent=("hunter",),
    ),
    change(
        "a global that is called like a secret",
        work("x + len(conf.API_KEY)", "import conf", conf="API_KEY = 'abc'"),
        {"conf.py": "API_KEY = 'defg'"},
        "code changed: conf.API_KEY",
        "conf.API_KEY: content differs",
        absent=("abc", "defg"),
    ),
    change(
        "a global array",
        work(
            "x + conf.W.sum()",
            "import conf",
            conf="import numpy as np\nW = np.ones((2, 3))",
        ),
        {"conf.py": "import numpy as np\nW = np.ones((2, 4), dtype='float32')"},
        "code changed: conf.W",
        "conf.W",
        "dtype: float64 → float32",
        "shape: (2, 3) → (2, 4)",
    ),
    change(
        "a text of several lines",
        work("x + len(conf.QUERY)", "import conf", conf='QUERY = """\nselect a\nfrom t\n"""'),
        {"conf.py": 'QUERY = """\nselect b, c\nfrom t\n"""'},
        "code changed: conf.QUERY",
        "-select a",
        "+select b, c",
    ),
    change(
        "a method of a class",
        work("models.Net(x).fit()", "import models", models=NET),
        {"models.py": NET.replace("self.x * self", "self.x + self")},
        "code changed: models.Net.fit",
        "-    return self.x * self.depth",
        "+    return self.x + self.depth",
        absent=("__init__",),
    ),
    change(
        "an attribute of a class",
        work("models.Net(x).fit()", "import models", models=NET),
        {"models.py": NET.replace("depth = 2", "depth = 3")},
        "code changed: models.Net",
        "attribute depth: 2 → 3",
        "-    depth = 2",
        "+    depth = 3",
    ),
    change(
        "the class of a global instance",
        work("x + models.NET.fit()", "import models", models=f"{NET}\nNET = Net(3)\n"),
        {"models.py": f"{NET.replace('self.x * self', 'self.x + self')}\nNET = Net(3)\n"},
        "code changed: models.Net.fit",
        "+    return self.x + self.depth",
    ),
    change(
        "the state of a global instance",
        work("x + models.NET.fit()", "import models", models=f"{NET}\nNET = Net(3)\n"),
        {"models.py": f"{NET}\nNET = Net(4)\n"},
        "code changed: models.NET",
        ".x: 3 → 4",
    ),
    change(
        "what a decorator was given",
        work("scaled(x)", "from helpers import scaled", helpers=FACTORY),
        {"helpers.py": FACTORY.replace("by(2)", "by(3)")},
        "code changed: helpers.by.<locals>.wrap.<locals>.inner",
        "closure rate: 2 → 3",
        absent=("not available",),
    ),
    change(
        "what a decorator does",
        work("scaled(x)", "from helpers import scaled", helpers=FACTORY),
        {"helpers.py": FACTORY.replace("f(x) * rate", "f(x) + rate")},
        "code changed: helpers.by.<locals>.wrap.<locals>.inner",
        "-    return f(x) * rate",
        "+    return f(x) + rate",
    ),
    change(
        "a function in a dict",
        work(
            "helpers.STEPS['a'](x)",
            "import helpers",
            helpers="def one(x):\n    return x + 1\nSTEPS = {'a': one}\n",
        ),
        {"helpers.py": "def one(x):\n    return x + 2\nSTEPS = {'a': one}\n"},
        "code changed: helpers.one",
        "-    return x + 1",
        "+    return x + 2",
    ),
    change(
        "two functions that changed places in a dict",
        work(
            "helpers.STEPS['a'](x)",
            "import helpers",
            helpers="def one(x): return 1\ndef two(x): return 2\nSTEPS = {'a': one, 'b': two}\n",
        ),
        {
            "helpers.py": "def one(x): return 1\ndef two(x): return 2\n"
            "STEPS = {'a': two, 'b': one}\n"
        },
        "code changed: helpers.STEPS",
        "['a']: helpers.one → helpers.two",
    ),
    change(
        "a helper imported from elsewhere",
        work(
            "clean(x)",
            "from helpers import clean",
            helpers="def clean(x):\n    return x + 1\n",
            others="def clean(x):\n    return x + 2\n",
        ),
        {"main.py": work("clean(x)", "from others import clean")["main.py"]},
        "code changed: others.clean",
        "--- helpers.clean, before",
        "+++ others.clean, now",
        "-    return x + 1",
        "+    return x + 2",
    ),
    change(
        "another helper under the same name",
        work(
            "clean(x)",
            "from helpers import one as clean",
            helpers="def one(x):\n    return x + 1\ndef two(x):\n    return x + 2\n",
        ),
        {"main.py": work("clean(x)", "from helpers import two as clean")["main.py"]},
        ("code changed: helpers.one", "code changed: helpers.two"),
        "helpers.one: no longer reached",
        "helpers.two: newly reached",
        "+     return x + 2",
    ),
    change(
        "several things at once",
        work(
            "clean(x) + conf.RATE",
            "import conf\nfrom helpers import clean",
            helpers="def clean(x): return x + 1",
            conf="RATE = 1",
        ),
        {"helpers.py": "def clean(x): return x + 2", "conf.py": "RATE = 2"},
        (
            "code changed: conf.RATE",
            "code changed: helpers.clean",
            "parameter 'x' changed: 1 → 2",
        ),
        "conf.RATE: 1 → 2",
        "+def clean(x): return x + 2",
        arguments="x=2",
    ),
    change(
        "code made by exec has no source, and none is shown",
        work("made(x)", "exec('def made(x): return x + 1', globals())"),
        {"main.py": work("made(x)", "exec('def made(x): return x + 2', globals())")["main.py"]},
        "code changed: main.made",
        "the old and the new source is not available",
        absent=("+++",),
    ),
]


@pytest.mark.parametrize("case", CODE, ids=lambda case: case.name)
def test_a_change_of_code_is_shown_before_and_after_the_run(lab: Lab, case: Change) -> None:
    lab.write(case.before)
    first = lab.run()
    assert first.error is None, first.traceback
    lab.write(case.after)
    said(lab.run(case.arguments, plan=True), "work", case)


def said(outcome: Outcome, step: str, case: Change) -> None:
    """The plan and the run have said all that they must of a step, in the same words."""
    assert outcome.error is None, outcome.traceback
    assert outcome.plan[step] == ("run", list(case.reasons))
    assert outcome.reasons(step) == list(case.reasons)
    for text in (outcome.plan_explained[step], outcome.steps[step]["explain"]):
        stripped = [line.strip() for line in text.splitlines()]
        for line in case.lines:
            assert " ".join(line.split()) in [" ".join(each.split()) for each in stripped], text
        for absent in case.absent:
            assert absent not in text, text
    # What the run says is what the plan has said, but for the headline.
    assert (
        outcome.plan_explained[step].splitlines()[1:]
        == (outcome.steps[step]["explain"].splitlines()[1:])
    )


# What is not known is not made up


EDITED = {
    "the body": ("x + 1", "x + 1000"),
    "a default": ("k=1", "k=1000"),
}


@pytest.mark.parametrize("what", EDITED)
def test_a_file_edited_after_the_import_gives_no_wrong_source(lab: Lab, what: str) -> None:
    source = "def clean(x, k=1):\n    return x + 1 + k\n"
    lab.write(work("clean(x)", "from helpers import clean", helpers=source))
    edited = source.replace(*EDITED[what])
    edit = f"open('helpers.py', 'w').write({edited!r})"
    first = lab.run(setup=edit)
    assert first.error is None, first.traceback
    lab.write({"helpers.py": source.replace("x + 1", "x + 2")})
    outcome = lab.run()
    text = outcome.steps["work"]["explain"]
    assert outcome.reasons("work") == ["code changed: helpers.clean"]
    assert "the old source is not available" in text
    assert "1000" not in text


def test_lines_that_moved_after_the_import_do_no_harm(lab: Lab) -> None:
    source = "def other(x): return 0\ndef clean(x):\n    return x + 1\n"
    lab.write(work("clean(x)", "from helpers import clean", helpers=source))
    moved = f"# a line\n\n\n{source.replace('return 0', 'return 1')}"
    first = lab.run(setup=f"open('helpers.py', 'w').write({moved!r})")
    assert first.error is None, first.traceback
    lab.write({"helpers.py": source.replace("x + 1", "x + 2")})
    text = lab.run().steps["work"]["explain"]
    assert "-    return x + 1" in text
    assert "+    return x + 2" in text
    assert "other" not in text


def test_a_class_edited_after_the_import_gives_no_wrong_source(lab: Lab) -> None:
    for number, edit in enumerate(
        (
            NET.replace("depth = 2", "depth = 1000"),
            NET.replace("self.x * ", "1000 * "),
            f"{NET}\n    def more1000(self):\n        return 1\n",
        )
    ):
        name = f"models{number}"
        net = {"depth": NET.replace("depth = 2", "depth = 3")}["depth"]
        lab.write(work(f"{name}.Net(x).fit()", f"import {name}", **{name: NET}))
        first = lab.run(setup=f"open('{name}.py', 'w').write({edit!r})")
        assert first.error is None, first.traceback
        lab.write({f"{name}.py": net})
        text = lab.run().steps["work"]["explain"]
        assert "attribute depth: 2 → 3" in text, text
        assert "the old source is not available" in text, text
        assert "1000" not in text, text


def test_the_old_source_is_there_though_the_project_is_gone(lab: Lab) -> None:
    lab.write(work("clean(x)", "from helpers import clean", helpers="def clean(x): return x + 1"))
    lab.run()
    lab.write({"helpers.py": "def clean(x): return x + 2"})
    lab.run()
    lab.write({"helpers.py": "raise SystemExit('gone')", "main.py": "raise SystemExit('gone')"})
    lab.write({"other.py": work("x")["main.py"].replace("def main", "def other")})
    lab.write({"other.py": f"from prefect_mlpipe import pipeline, step\n{OTHER}"})
    outcome = lab.run(
        module="other",
        pipeline="other",
        after="Runs(Store(STORE), 'main').last()['work'].explain()",
        setup=f"STORE = {lab.store!r}",
    )
    assert outcome.error is None, outcome.traceback
    assert "-def clean(x): return x + 1" in outcome.extra
    assert "+def clean(x): return x + 2" in outcome.extra


OTHER = """
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.runs import Runs

@step
def nothing() -> int:
    return 1

@pipeline
def other() -> int:
    return nothing()
"""


def test_every_text_is_kept_once_along_the_history_of_a_step(lab: Lab) -> None:
    long = "def long(x):\n" + "".join(f"    x = x + {n}\n" for n in range(200)) + "    return x\n"
    files = work("long(clean(x))", "from helpers import clean, long", helpers="")
    for number in range(6):
        text = f"{long}\ndef clean(x):\n    return x + {number}\n"
        lab.write({**files, "helpers.py": text})
        outcome = lab.run()
        assert outcome.error is None, outcome.traceback
        if number:
            explained = outcome.steps["work"]["explain"]
            assert f"-    return x + {number - 1}" in explained
            assert f"+    return x + {number}" in explained
            assert "x + 199" not in explained
    kept = [
        path.read_text() for path in (lab.place / "store" / "code").rglob("*") if path.is_file()
    ]
    assert len(kept) == 6
    assert sum("x = x + 199" in text for text in kept) == 1
    lab.write({"helpers.py": text.replace("x + 199\n", "x + 1999\n")})
    explained = lab.run().steps["work"]["explain"]
    assert "-    x = x + 199" in explained
    assert "+    x = x + 1999" in explained


# Other reasons, other states


def test_other_reasons_say_what_they_mean(lab: Lab) -> None:
    lab.write(work("x"))
    first = lab.run(plan=True)
    assert "Nothing in this store to compare with" in first.steps["work"]["explain"]
    assert "Nothing in this store to compare with" in first.plan_explained["work"]
    again = lab.run()
    assert again.steps["work"]["explain"].startswith("work: reused from run ")
    assert "; nothing that counts has changed" in again.steps["work"]["explain"]
    refreshed = lab.run(options="refresh=True")
    assert "The run was asked to refresh it" in refreshed.steps["work"]["explain"]
    lab.write(work("x + 0"))
    both = lab.run(options="refresh=True").steps["work"]["explain"]
    assert "Changed since then, too:" in both
    assert "code changed: main.work" in both
    assert "+    return x + 0" in both


def test_a_record_that_is_gone_is_said_to_be(lab: Lab) -> None:
    lab.write(work("x"))
    lab.run()
    for path in (lab.place / "store" / "records").rglob("*"):
        if path.is_file():
            path.unlink()
    outcome = lab.run(plan=True)
    assert outcome.reasons("work") == ["value missing: its record"]
    assert "left a record, and it is not in the store any more" in outcome.steps["work"]["explain"]
    assert "left a record, and it is not in the store any more" in outcome.plan_explained["work"]


def test_a_failed_step_says_what_changed_and_how_it_failed(lab: Lab) -> None:
    lab.write(work("1 / x"))
    assert lab.run().error is None
    lab.write(work("x / 0"))
    text = lab.run().steps["work"]["explain"]
    assert text.startswith("work: failed")
    assert "code changed: main.work" in text
    assert "-    return 1 / x" in text
    assert "+    return x / 0" in text
    assert "ZeroDivisionError" in text


MAPPED = """
    @step
    def score(x: int, k: int) -> int:
        ran("score")
        return x + k

    @pipeline
    def main(xs: list[int] = list(range(10)), k: int = 1) -> list[int]:
        return score.map(xs, k=unmapped(k))
"""


def test_of_a_mapped_step_reasons_are_counted_and_the_first_item_is_told(lab: Lab) -> None:
    lab.write({"main.py": MAPPED})
    lab.run()
    outcome = lab.run("xs=[0, 1, 12, 3, 14, 15, 16, 7, 8, 9]", plan=True)
    assert "4 of 10 items: parameter 'x' changed: 2 → 12" in outcome.plan_printed
    assert outcome.plan["score"] == (
        "run",
        [f"parameter 'x' changed: {n} → {n + 10}" for n in (2, 4, 5, 6)],
    )
    assert outcome.reasons("score") == outcome.plan["score"][1]
    text = outcome.steps["score"]["explain"]
    assert text.startswith("score: ran (6 reused, 4 ran)"), text
    assert "parameter 'x' changed: 2 → 12: score[2]" in text
    assert "score[2]: ran in" in text
    lab.write({"main.py": MAPPED.replace("x + k", "x - k")})
    text = lab.run().steps["score"]["explain"]
    assert "code changed: main.score: score[0], score[1], score[2] and 7 more" in text
    assert text.count("+    return x - k") == 1


def test_a_step_compared_with_the_latest_of_its_function_is_explained(lab: Lab) -> None:
    main = work("x + 1")["main.py"]
    lab.write({"main.py": main})
    lab.run()
    lab.write({"main.py": main.replace("x + 1", "x + 2").replace("def main", "def other")})
    text = lab.run(pipeline="other").steps["work"]["explain"]
    assert "-    return x + 1" in text
    assert "+    return x + 2" in text
