"""Rows of our own: how steps are wired, and what that does to reuse."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab

SPLIT = """
from typing import NamedTuple

class Parts(NamedTuple):
    train: list
    test: list

@step
def split(size: int) -> Parts:
    ran("split")
    return Parts(list(range({train})), list(range({test})))

@step
def fit(rows: list) -> int:
    ran("fit")
    return sum(rows)

@step
def score(model: int, rows: list) -> str:
    ran("score")
    return f"{{model}} {{rows}}"

@step
def both(parts: Parts) -> int:
    ran("both")
    return len(parts.train) + len(parts.test)

@pipeline
def main(size: int = 5) -> list:
    parts = split(size)
    model = fit(parts.train)
    return [score(model, parts.test), both(parts)]
"""


def test_early_cut_off_is_per_field(lab: Lab) -> None:
    lab.write(SPLIT.format(train="size", test="2"))
    assert lab.run().value == lab.oracle()
    lab.write(SPLIT.format(train="size", test="3"))
    outcome = lab.run(plan=True)
    assert outcome.value == lab.oracle()
    assert outcome.ran == ["both", "score", "split"], "fit takes the field that is as it was"
    assert outcome.plan["fit"] == ("run?", ["input 'rows' may change (from split.train)"])
    assert outcome.reasons("split") == ["code changed: main.split"]
    assert outcome.reasons("score") == ["input 'rows' changed (from split.test)"]
    assert outcome.reasons("both") == ["input 'parts' changed (from split)"]


def test_two_nodes_of_one_key_run_once_even_by_another_name(lab: Lab) -> None:
    lab.write(
        """
        @step
        def clean(x: int, k: int = 1) -> int:
            ran("clean")
            return x + k

        @step(cache=False)
        def draw(x: int) -> int:
            ran("draw")
            return x

        @pipeline
        def main() -> list:
            again = clean.with_options(name="again", retries=2)
            cleaned = [clean(1), clean(1, 1), clean(x=1, k=1), again(1)]
            return [*cleaned, clean(2), draw(1), draw(1)]
        """
    )
    outcome = lab.run()
    assert outcome.value == lab.oracle()
    assert outcome.ran == ["clean", "clean", "draw", "draw"]
    assert len({outcome.steps[name]["key"] for name in ("clean", "clean#2", "again")}) == 1
    assert lab.run().ran == ["draw", "draw"]


MAPPED = """
@step
def load(names: list) -> list:
    ran("load")
    return names

@step
def clean(name: str, size: int = 2) -> str:
    ran(f"clean-{name}")
    return name * size

@step
def report(texts: list) -> str:
    ran("report")
    return ", ".join(texts)

@pipeline
def main(names: list = ["owl", "kea", "auk"], size: int = 2) -> str:
    return report(clean.map(load(names), size=size))
"""


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("['owl', 'kea', 'tit']", ["clean-tit", "load", "report"]),
        ("['owl', 'kea', 'auk', 'tit']", ["clean-tit", "load", "report"]),
        ("['owl']", ["load", "report"]),
        ("['auk', 'kea', 'owl']", ["load", "report"]),
        ("['owl', 'owl']", ["load", "report"]),
        ("['tit', 'tit']", ["clean-tit", "load", "report"]),
        ("[]", ["load", "report"]),
    ],
    ids=["one changed", "one more", "fewer", "another order", "twice", "new twice", "none"],
)
def test_each_item_of_a_map_has_its_own_key(lab: Lab, names: str, expected: list[str]) -> None:
    lab.write(MAPPED)
    assert lab.run().ran == ["clean-auk", "clean-kea", "clean-owl", "load", "report"]
    outcome = lab.run(f"names={names}", plan=True)
    assert outcome.value == lab.oracle(f"names={names}")
    assert outcome.ran == expected
    assert outcome.plan["load"] == ("run", ["parameter 'names' changed"])
    assert lab.run().ran == []


def test_what_is_the_same_for_every_item_counts_for_each(lab: Lab) -> None:
    lab.write(MAPPED)
    lab.run()
    outcome = lab.run("size=3", plan=True)
    assert outcome.value == lab.oracle("size=3")
    assert outcome.ran == ["clean-auk", "clean-kea", "clean-owl", "report"]
    assert outcome.plan["clean"] == ("run", ["parameter 'size' changed: 2 → 3"])
    assert outcome.reasons("clean") == outcome.plan["clean"][1]


STEERED = """
@step
def measure(x: int) -> float:
    ran("measure")
    return x {formula}

@step
def refine(x: int) -> str:
    ran("refine")
    return f"refined {{x}}"

@step
def accept(x: int) -> str:
    ran("accept")
    return f"accepted {{x}}"

@pipeline
def main(x: int = 1) -> str:
    if resolve(measure(x)) > 0.5:
        return accept(x)
    return refine(x)
"""


def test_a_value_that_steers_the_graph_steers_what_is_reused(lab: Lab) -> None:
    lab.write(STEERED.format(formula="* 0.6"))
    first = lab.run()
    assert (first.value, first.ran) == (lab.oracle(), ["accept", "measure"])
    lab.write(STEERED.format(formula="* 0.4"))
    outcome = lab.run(plan=True)
    assert set(outcome.plan) == {"measure"}, "more after it has run"
    assert (outcome.value, outcome.ran) == (lab.oracle(), ["measure", "refine"])
    lab.write(STEERED.format(formula="* 0.3"))
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (lab.oracle(), ["measure"]), "refine took the same"
    lab.write(STEERED.format(formula="* 0.6"))
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.ran) == (first.value, [])
    assert outcome.plan == {"measure": ("reuse", []), "accept": ("reuse", [])}


WIRED = """
@step
def setup(x: int) -> int:
    ran("setup")
    return x

@step
def clean(x: int) -> int:
    ran("clean")
    return x + 1

{body}
"""
PLAIN = """
@pipeline
def main(x: int = 1) -> list:
    return [setup(x), clean(x)]
"""
BODIES = {
    "waiting for another": """
@pipeline
def main(x: int = 1) -> list:
    first = setup(x)
    return [first, clean.after(first)(x)]
""",
    "within a group": """
@pipeline
def inner(x: int) -> int:
    return clean(x)

@pipeline
def main(x: int = 1) -> list:
    return [setup(x), inner(x)]
""",
    "in another order": """
@pipeline
def main(x: int = 1) -> list:
    cleaned = clean(x)
    return [setup(x), cleaned]
""",
    "below a step that hands on the same": """
@step
def fetch(x: int) -> int:
    return x

@pipeline
def main(x: int = 1) -> list:
    fetched = fetch(x)
    return [setup(fetched), clean(fetched)]
""",
    "by other words": """
@pipeline
def main(start: int = 1) -> list:
    arguments = {"x": start}
    return [step(**arguments) for step in (setup, clean)]
""",
}


@pytest.mark.parametrize("wiring", BODIES)
def test_the_wiring_is_not_in_the_key(lab: Lab, wiring: str) -> None:
    lab.write(WIRED.format(body=PLAIN))
    first = lab.run()
    assert (first.value, first.ran) == (lab.oracle(), ["clean", "setup"])
    lab.write(WIRED.format(body=BODIES[wiring]))
    outcome = lab.run()
    assert (outcome.value, outcome.ran, outcome.error) == (first.value, [], None)


def test_a_parameter_counts_as_what_its_validation_made_of_it(lab: Lab) -> None:
    lab.write(
        """
        @step
        def work(x: float) -> str:
            ran("work")
            return repr(x)

        @pipeline
        def main(x: float) -> str:
            return work(x)
        """
    )
    assert (lab.run("x=1.0").value, lab.run("x=1").ran) == ("builtins.str '1.0'", [])
    assert lab.run("x='1'").ran == []
    outcome = lab.run("x=2", plan=True)
    assert outcome.reasons() == outcome.plan["work"][1] == ["parameter 'x' changed: 1.0 → 2.0"]


def test_what_a_step_does_to_its_argument_nobody_else_sees(lab: Lab) -> None:
    lab.write(
        """
        @step
        def make(x: list) -> list:
            ran("make")
            return x

        @step
        def spoil(x: list) -> list:
            ran("spoil")
            x.append(7)
            return x

        @step
        def count(x: list) -> int:
            ran("count")
            return len(x)

        @pipeline
        def main() -> list:
            given = [1, 2]
            made = make(given)
            spoilt = spoil.after(made)(made)
            again = spoil.with_options(name="again").after(spoilt)(given)
            return [spoilt, again, count.after(spoilt)(made), count.after(again)(given)]
        """
    )
    outcome = lab.run()
    ints = "builtins.list[builtins.int 1, builtins.int 2, builtins.int 7]"
    expected = f"builtins.list[{ints}, {ints}, builtins.int 2, builtins.int 2]"
    assert (outcome.value, outcome.error) == (expected, None)
    again = lab.run()
    assert (again.value, again.ran) == (expected, [])


def test_a_step_that_failed_has_left_nothing_and_the_rest_is_reused(lab: Lab) -> None:
    project = """
        @step
        def make(x: int) -> int:
            ran("make")
            return x

        @step
        def fragile(x: int) -> int:
            ran("fragile")
            {line}
            return x

        @step
        def below(x: int) -> int:
            ran("below")
            return x

        @pipeline
        def main(x: int = 1) -> int:
            return below(fragile(make(x)))
    """
    lab.write(project.format(line="raise ValueError('no')"))
    for expected in (["fragile", "make"], ["fragile"]):
        outcome = lab.run()
        assert (outcome.error, outcome.ran) == ("ValueError: no", expected)
    lab.write(project.format(line="pass"))
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (lab.oracle(), ["below", "fragile"])
    assert outcome.reasons("below") == ["first run"]


def test_a_step_that_returns_nothing_runs_each_time(lab: Lab) -> None:
    lab.write(
        """
        @step
        def make(x: int) -> int:
            ran("make")
            return x

        @step
        def send(x: int) -> None:
            ran("send")

        @pipeline
        def main(x: int = 1) -> None:
            send(make(x))
        """
    )
    assert lab.run().ran == ["make", "send"]
    outcome = lab.run(plan=True)
    assert (outcome.ran, outcome.reasons()) == (["send"], ["cache off"])
    assert outcome.plan == {"make": ("reuse", []), "send": ("run", ["cache off"])}


def test_a_step_called_in_a_step_is_code_of_the_outer_one(lab: Lab) -> None:
    project = """
        @step
        def inner(x: int) -> int:
            ran("inner")
            return x + {k}

        @step
        def outer(x: int) -> int:
            ran("outer")
            return inner(x)

        @pipeline
        def main(x: int = 1) -> int:
            return outer(x)
    """
    lab.write(project.format(k=1))
    assert lab.run().ran == ["inner", "outer"]
    lab.write(project.format(k=2))
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.ran) == (lab.oracle(), ["inner", "outer"])
    assert outcome.reasons() == outcome.plan["outer"][1] == ["code changed: main.inner"]
