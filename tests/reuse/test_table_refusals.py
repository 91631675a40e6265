"""Rows 43 and 44 of the table: what has no content is an error that shows the ways out.

Each way out that a message names is then gone, and must lead there.
"""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab

PROJECT = """
import sqlite3
import threading

def numbers():
    ran("numbers")
    yield from (0, 1, 2, 3)

def opened():
    return sqlite3.connect(":memory:", check_same_thread=False)

{decorator}
def work(x: object = None, k: int = 1) -> object:
    ran("work")
    return {expression}

@pipeline
def main(x: object = None, k: int = 1) -> object:
    return work({argument}, k=k)
"""
WAYS_OUT = (
    "Pass plain data, or leave it out of the key with @step(ignore=['x']),\n"
    "or turn caching off for this step with @step(cache=False)."
)
# The argument, what the step does with it; the type, the path to it, and why it has no content.
INPUTS = {
    "43a a lock": ("threading.Lock()", "x.locked()", "_thread.lock", "x", "a lock"),
    "43a a lock deep inside": (
        "{'pool': [threading.Lock()]}",
        "x['pool'][0].locked()",
        "_thread.lock",
        "x['pool'][0]",
        "a lock",
    ),
    "43b a generator": ("numbers()", "'gi' in dir(x)", "generator", "x", "an iterator"),
    "43b an iterator of a list": ("[iter([1])]", "list(x[0])", "list_iterator", "x[0]", "an iter"),
    "43c an open connection": (
        "opened()",
        "x.execute('select 7').fetchone()",
        "sqlite3.Connection",
        "x",
        "cannot pickle",
    ),
    "43d a generator that the step sums": ("numbers()", "sum(x)", "generator", "x", "an iterator"),
}


def project(argument: str, expression: str, decorator: str = "@step") -> str:
    return PROJECT.format(argument=argument, expression=expression, decorator=decorator)


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_without_content_is_refused_and_not_touched(lab: Lab, name: str) -> None:
    argument, expression, kind, path, why = INPUTS[name]
    lab.write(project(argument, expression))
    outcome = lab.run()
    assert outcome.ran == [], "neither the step nor the generator may have run"
    assert outcome.error is not None
    sentence, *facts = outcome.error.split("\n")
    assert sentence == (
        "UnstableInput: Step 'work' cannot be cached: one input has no content we can digest."
    )
    shown = dict(fact.split(maxsplit=1) for fact in facts[:4])
    assert shown == {"argument": "x", "at": path, "type": kind, "because": shown["because"]}
    assert why in shown["because"]
    assert outcome.error.endswith(WAYS_OUT)
    planned = lab.run(how="plan", plan=True)
    assert (planned.error, planned.ran) == (outcome.error, []), "the plan says the same"


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_ignored_leads_out(lab: Lab, name: str) -> None:
    argument, expression, *_ = INPUTS[name]
    lab.write(project(argument, expression, "@step(ignore=['x'])"))
    first = lab.run()
    assert first.value == lab.oracle(), first.traceback
    assert "work" in first.ran
    again = lab.run(plan=True)
    assert (again.value, again.ran) == (first.value, [])
    other = lab.run("k=2")
    assert other.reasons() == ["parameter 'k' changed: 1 → 2"], "the other parameters count"


@pytest.mark.parametrize("name", INPUTS)
def test_no_caching_leads_out(lab: Lab, name: str) -> None:
    argument, expression, *_ = INPUTS[name]
    lab.write(project(argument, expression, "@step(cache=False)"))
    right = lab.oracle()
    for _ in range(2):
        outcome = lab.run(plan=True)
        assert outcome.value == right, outcome.traceback
        assert "work" in outcome.ran
        assert outcome.reasons() == outcome.plan["work"][1] == ["cache off"]


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("43b a generator", "list(numbers())"),
        ("43d a generator that the step sums", "[0, 1, 2, 3]"),
    ],
    ids=["43b a list of it", "43d a list of it"],
)
def test_plain_data_leads_out(lab: Lab, name: str, way_out: str) -> None:
    lab.write(project(way_out, INPUTS[name][1]))
    first = lab.run()
    assert first.value == lab.oracle(), first.traceback
    assert "work" not in lab.run().ran


GIVEN = {
    "43a a lock as a parameter of the pipeline": ("threading.Lock()", WAYS_OUT),
    "43b a generator as a parameter of the pipeline": (
        "numbers()",
        "Pass a list: an iterator can be read only once, and by one reader.",
    ),
    "43c a connection as a parameter of the pipeline": ("opened()", WAYS_OUT),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_parameter_of_the_pipeline_without_content_is_refused(lab: Lab, name: str) -> None:
    value, ways_out = GIVEN[name]
    lab.write(project("x", "str(type(x))"))
    outcome = lab.run(f"x={value}")
    assert outcome.ran == []
    assert outcome.error is not None
    sentence, *_ = outcome.error.split("\n")
    assert sentence in (
        "UnstableInput: Step 'work' cannot be cached: one input has no content we can digest.",
        "InvalidPipeline: Pipeline 'main' was given an iterator as parameter 'x'.",
    )
    assert outcome.error.endswith(ways_out)


OUTPUTS = {
    "44a a lock": ("threading.Lock()", "_thread.lock", "value", "a lock"),
    "44a a lock deep inside": ("{'a': [threading.Lock()]}", "_thread.lock", "value['a'][0]", "a l"),
    "44a a connection": ("opened()", "sqlite3.Connection", "value", "cannot pickle"),
    "44b a generator": ("numbers()", "generator", "value", "an iterator"),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("decorator", ["@step", "@step(cache=False)"], ids=["cached", "uncached"])
def test_an_output_without_content_is_refused(lab: Lab, name: str, decorator: str) -> None:
    expression, kind, path, why = OUTPUTS[name]
    lab.write(project("1", expression, decorator))
    for _ in range(2):  # a step that failed has left nothing to reuse
        outcome = lab.run()
        assert outcome.ran == ["work"], "a generator is not consumed"
        assert outcome.error is not None
        sentence, *facts = outcome.error.split("\n")
        assert sentence == (
            "UnstorableOutput: Step 'work' returned something that cannot be stored."
        )
        shown = dict(fact.rsplit("  ", 1) for fact in facts[:4])
        shown = {name.strip(): fact.strip() for name, fact in shown.items()}
        assert shown["at"] == path
        assert (shown["output"], shown["type"]) == ("return value", kind)
        assert why in shown["because"]
        advice = " ".join(outcome.error.split())
        assert "Return plain data" in advice
        assert "of an iterator, list(it)" in advice
        assert advice.endswith(
            "Make a lock or a connection, and get a secret, in the step that uses it."
        )


WAYS = {
    "44a a lock that is made where it is used": "threading.Lock().locked()",
    "44b a list of the generator": "list(numbers())",
}


@pytest.mark.parametrize("name", WAYS)
def test_what_the_refusal_of_an_output_advises_leads_out(lab: Lab, name: str) -> None:
    lab.write(project("1", WAYS[name]))
    first = lab.run()
    assert first.value == lab.oracle(), first.traceback
    assert "work" in first.ran
    again = lab.run()
    assert (again.value, again.ran) == (first.value, [])
