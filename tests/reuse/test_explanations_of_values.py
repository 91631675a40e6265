"""`explain()` shows what differs in the values that a step got: tables, files, parameters."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab
from tests.reuse.rows import work


def tables(body: str) -> dict[str, str]:
    """A project in which `work` gets what `load` makes."""
    return {
        "main.py": f"""
import numpy as np
import pandas as pd

@step
def load() -> object:
{body}

@step
def work(table: object) -> int:
    ran("work")
    return 1

@pipeline
def main() -> int:
    return work(load())
"""
    }


FRAME = "pd.DataFrame({'a': [1, 2, 3], 'b': [0.5, 1.5, 2.5]})"
VALUES = [
    ("more rows", FRAME, f"pd.concat([{FRAME}] * 2, ignore_index=True)", "rows: 3 → 6"),
    ("a dtype", FRAME, f"{FRAME}.astype({{'a': 'int32'}})", "column 'a': int64 → int32"),
    ("a column more", FRAME, f"{FRAME}.assign(c='x')", "column 'c' added (str)"),
    ("a column less", FRAME, f"{FRAME}[['a']]", "column 'b' removed (was float64)"),
    (
        "a column renamed",
        FRAME,
        f"{FRAME}.rename(columns={{'b': 'c'}})",
        "column 'b' renamed to 'c'",
    ),
    (
        "columns in another order",
        FRAME,
        f"{FRAME}[['b', 'a']]",
        "columns in another order: 'a', 'b' → 'b', 'a'",
    ),
    ("an index", FRAME, f"{FRAME}.set_index(pd.Index([4, 5, 6]))", "index: 0 to 3 in steps of 1"),
    (
        "one cell",
        FRAME,
        f"{FRAME}.assign(a=[1, 9, 3])",
        "column 'a': 1 of 3 differ, the first at 1: 2 → 9",
    ),
    ("the shape of an array", "np.ones((20, 3))", "np.ones((20, 4))", "shape: (20, 3) → (20, 4)"),
    ("the dtype of an array", "np.ones(20)", "np.ones(20, 'f4')", "dtype: float64 → float32"),
    (
        "an element of an array",
        "np.ones((20, 3))",
        "np.vstack([np.ones((19, 3)), np.zeros((1, 3))])",
        "elements: 3 of 60 differ, the first at (19, 0): 1.0 → 0.0",
    ),
    ("the type", "[1, 2]", "(1, 2)", "list of 2 → tuple of 2"),
    ("the length of a list", "[1, 2]", "[1, 2, 3]", "length: 2 → 3"),
    ("an element deep in a dict", "{'a': [1, {'b': 2}]}", "{'a': [1, {'b': 3}]}", "['a'][1]['b']"),
    ("a number", "1", "2", "input table (from load): 1 → 2"),
]


@pytest.mark.parametrize(("name", "old", "new", "line"), VALUES, ids=[each[0] for each in VALUES])
def test_a_change_of_what_a_step_above_made_is_shown(
    lab: Lab, name: str, old: str, new: str, line: str
) -> None:
    lab.write(tables(f"    return {old}"))
    assert lab.run().error is None
    lab.write(tables(f"    return {new}"))
    outcome = lab.run(plan=True)
    assert outcome.reasons("work") == ["input 'table' changed (from load)"]
    text = outcome.steps["work"]["explain"]
    assert line in text, text
    assert "(from load)" in text.splitlines()[4], text
    assert "if it makes the same value again" in outcome.plan_explained["work"]


SHAPES = """
from typing import NamedTuple
from prefect_mlpipe import output_folder

class Split(NamedTuple):
    train: list[int]
    test: list[int]

@step
def split(n: int) -> Split:
    return Split([n] * n, [7])

@step
def score(x: int, n: int) -> int:
    return n if x in (3, 5) else x

@step
def write(n: int) -> File:
    path = output_folder() / "out.csv"
    path.write_text("x" * n)
    return File(path)

@step
def work(whole: Split, scores: list[int], nested: list[object], file: File) -> int:
    ran("work")
    return 1

@pipeline
def main(n: int = 3) -> int:
    whole = split(n)
    scores = score.map([1, 2, 3, 4, 5], n=unmapped(n))
    return work(whole, scores, [whole.train, whole.test], write(n))
"""


def test_outputs_of_every_shape_are_compared_piece_by_piece(lab: Lab) -> None:
    lab.write({"main.py": SHAPES})
    first = lab.run()
    assert first.error is None, first.traceback
    outcome = lab.run("n=40")
    assert outcome.error is None, outcome.traceback
    lines = [line.strip() for line in outcome.steps["work"]["explain"].splitlines()]
    for line in (
        "input whole (from split): 1 of 2 values differ",
        "input whole.train: list",
        "length: 3 → 40",
        "and 32 more added",
        "input scores (from score): 2 of 5 values differ",
        "input scores[2]: 3 → 40",
        "input scores[4]: 3 → 40",
        "input nested (from split.train, split.test): 1 of 2 values differ",
        "input nested, split.train: list",
        "size: 3 bytes → 40 bytes",
    ):
        assert line in lines, "\n".join(lines)
    assert not any(".test:" in line for line in lines)


LOADED = """
    @step
    def work(x: object, csv: File) -> int:
        ran("work")
        return 1

    @pipeline
    def main(x: object = None, csv: File = File("a.csv")) -> int:
        return work(x, csv)
"""


def test_a_change_of_what_was_passed_in_is_shown(lab: Lab) -> None:
    lab.write({"main.py": LOADED, "a.csv": "1\n"})
    assert lab.run("x=[64, 32]").error is None
    lab.write({"a.csv": "12345\n"})
    outcome = lab.run("x=[64, 64]", plan=True)
    assert outcome.reasons("work") == ["parameter 'csv' changed", "parameter 'x' changed"]
    for text in (outcome.plan_explained["work"], outcome.steps["work"]["explain"]):
        lines = [line.strip() for line in text.splitlines()]
        assert "size: 2 bytes → 6 bytes" in lines, text
        assert "[1]: 32 → 64" in lines, text
    outcome = lab.run("x=(64, 64)")
    assert "input x: list of 2 → tuple of 2" in outcome.steps["work"]["explain"]
    outcome = lab.run("x=1")
    assert "input x: tuple of 2 → 1" in outcome.steps["work"]["explain"]


PASSED = """
    import helpers

    @step(reads=[EnvVar("WORDS"), File("vocab.txt"), helpers.late])
    def work(how: object) -> int:
        ran("work")
        return how(1)

    @pipeline
    def main() -> int:
        return work(helpers.HOW)
"""
HELPERS = (
    "def deep(x): return x + 1\ndef how(x): return deep(x)\ndef late(x): return x + 1\nHOW = how"
)


def test_the_code_of_what_is_passed_or_declared_is_shown(lab: Lab) -> None:
    lab.write({"main.py": PASSED, "helpers.py": HELPERS, "vocab.txt": "a"})
    assert lab.run(environ={"WORDS": "1"}).error is None
    lab.write({"helpers.py": HELPERS.replace("1", "2"), "vocab.txt": "ab"})
    outcome = lab.run(plan=True, environ={"WORDS": "2"})
    assert outcome.error is None, outcome.traceback
    assert outcome.reasons("work") == [
        "parameter 'how' changed: code of helpers.deep",
        "reads changed: WORDS",
        "reads changed: late (code of helpers.late)",
        "reads changed: vocab.txt",
    ]
    for text in (outcome.plan_explained["work"], outcome.steps["work"]["explain"]):
        lines = [line.strip() for line in text.splitlines()]
        assert "input how, code helpers.deep" in lines, text
        assert "+def deep(x): return x + 2" in lines, text
        assert "reads late, code helpers.late" in lines, text
        assert "+def late(x): return x + 2" in lines, text
        assert "reads WORDS: '1' → '2'" in lines, text
        assert "size: 1 bytes → 2 bytes" in lines, text


def test_a_variable_that_is_called_like_a_secret_is_not_shown(lab: Lab) -> None:
    main = work("x")["main.py"].replace("@step", "@step(reads=[EnvVar('DB_PASSWORD')])")
    lab.write({"main.py": main})
    assert lab.run(environ={"DB_PASSWORD": "hunter2"}).error is None
    outcome = lab.run(environ={"DB_PASSWORD": "hunter3"})
    assert outcome.reasons("work") == ["reads changed: DB_PASSWORD"]
    assert "hunter" not in outcome.steps["work"]["explain"]
    assert "reads DB_PASSWORD" in outcome.steps["work"]["explain"]


def test_a_parameter_that_is_called_like_a_secret_is_not_shown(lab: Lab) -> None:
    main = work("len(token)")["main.py"].replace("x: int = 1", "token: str = 'a'")
    lab.write({"main.py": main.replace("x: int", "token: str").replace("work(x)", "work(token)")})
    assert lab.run("token='hunter2'").error is None
    outcome = lab.run("token='hunter22'", plan=True)
    assert outcome.value == "builtins.int 8"
    assert outcome.reasons("work") == ["parameter 'token' changed"]
    for text in (outcome.plan_explained["work"], outcome.steps["work"]["explain"]):
        assert "hunter" not in text


def test_a_value_that_was_pruned_is_said_to_be_unknown(lab: Lab) -> None:
    array = "    return np.ones(20_000)"
    lab.write(tables(array))
    lab.run()
    for path in (lab.place / "store" / "values").rglob("*"):
        if path.is_file():
            path.unlink()
    lab.write(tables(array.replace("ones", "zeros").replace("20_000", "30_000")))
    text = lab.run().steps["work"]["explain"]
    assert "size: 156.4 KiB → 234.5 KiB" in text
