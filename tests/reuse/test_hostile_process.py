"""Cases that a hostile reader adds: what changes between two calls of a pipeline in one process."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab
from tests.reuse.rows import work

AGAIN = """
from tests.reuse.child import show

def again():
    exec(CHANGE, globals())
    body = main.fn
    while hasattr(body, "__wrapped__"):
        body = body.__wrapped__
    pipe = main.with_options(store=STORE)
    value = show(pipe.local())
    (step,) = pipe.runs.last()
    return [value, step.state, [*map(str, step.reasons)], show(body())]
"""
ABOVE = """
import abc, functools, json, weakref
import numpy as np
import helpers

ITEMS = [1, 2]
OTHER = [1]
NESTED = {"a": {"b": [1, 2]}}
ARRAY = np.arange(3)
FIRST = [1]
SECOND = FIRST
KINDS = weakref.WeakValueDictionary()

class Thing:
    by = 2
    tags = ["a"]
    __slots__ = ("size", "__dict__")
    def __init__(self):
        self.size, self.inner = 3, {"deep": [1]}
    @functools.cached_property
    def table(self):
        return [1, 2]

THING = Thing()

class Base(abc.ABC):
    pass

class Round:
    pass

def counter():
    count, seen = 0, []
    def more(step=0):
        nonlocal count
        count += step
        return count, seen
    return more

more = counter()

def clean(x, tags=[]):
    return x + clean.by, tags
clean.by = 1

@functools.lru_cache
def known(x):
    return x + 1

@functools.singledispatch
def kind(x):
    return "any"
"""

SEEN = {
    "a list grows": ("sum(ITEMS)", "ITEMS.append(4)", "main.ITEMS"),
    "a value deep in a dict changes": (
        "NESTED['a']['b']",
        "NESTED['a']['b'][0] = 9",
        "main.NESTED",
    ),
    "an element of an array is set": ("int(ARRAY.sum())", "ARRAY[0] = 9", "main.ARRAY"),
    "an attribute of an instance is set": ("THING.size", "THING.size = 9", "main.THING"),
    "a list in an instance grows": (
        "THING.inner['deep']",
        "THING.inner['deep'].append(2)",
        "main.THING",
    ),
    "an attribute of a class is set": ("THING.by", "Thing.by = 9", "main.Thing"),
    "a list in a class grows": ("THING.tags", "Thing.tags.append('b')", "main.Thing"),
    "a list in a closure grows": (
        "more()[1]",
        "more()[1].append(1)",
        "main.counter.<locals>.more",
    ),
    "a number that a closure counts goes on": (
        "more()[0]",
        "more(5)",
        "main.counter.<locals>.more",
    ),
    "a default argument grows": (
        "clean(x)[1]",
        "clean.__defaults__[0].append(1)",
        "main.clean",
    ),
    "an attribute of a function is set": ("clean(x)[0]", "clean.by = 9", "main.clean"),
    "a function is defined anew": (
        "known(x)",
        "def known(x):\n    return x + 9",
        "main.known",
    ),
    "a function loses its cache": ("known(x) + 1", "known = known.__wrapped__", "main.known"),
    "a function learns a type": (
        "kind(x)",
        "kind.register(int, lambda x: 'int')",
        "main.kind",
    ),
    "a constant of another module is set": ("helpers.K", "helpers.K = 9", "helpers.K"),
    "a builtin is replaced": (
        "ascii(x)",
        "import builtins\ndef shown(x):\n    return '!'\nbuiltins.ascii = shown",
        "main.shown",
    ),
    "a library's function is replaced": (
        "json.dumps([x])",
        "def shown(x):\n    return '!'\njson.dumps = shown",
        "main.shown",
    ),
    "a class passes for another": (
        "isinstance(Round(), Base)",
        "Base.register(Round)",
        "main.Base",
    ),
    "a register of weak references gets a class": (
        "sorted(KINDS)",
        "KINDS['Thing'] = Thing",
        "main.KINDS",
    ),
    "one object becomes two": (
        "FIRST.append(x) or SECOND",
        "FIRST = [1]\nSECOND = [1]",
        "main.FIRST",
    ),
}
NOT_SEEN = {
    "a list that is not read grows": ("sum(ITEMS)", "OTHER.append(4)"),
    "a list is replaced by an equal one": ("sum(ITEMS)", "ITEMS = [*ITEMS]"),
    "a cached property is computed": ("THING.size", "THING.table"),
    "a cache fills": ("known(x)", "known(5)"),
    "an attribute of a class that is not reached is set": ("sum(ITEMS)", "Thing.by = 9"),
    "a module gets a name that is not read": ("helpers.K", "helpers.L = 9"),
}


def _twice(lab: Lab, expression: str, change: str) -> tuple[str, list[object]]:
    """Run a pipeline, change something in the same process, and run it again.

    Returns the first value, and of the second run the value, state, reasons, and what is right.
    """
    lab.write({**work(expression, ABOVE), "helpers.py": "K = 1"})
    setup = f"STORE = {lab.store!r}\nCHANGE = {change!r}\n{AGAIN}"
    outcome = lab.run(setup=setup, after="again()")
    assert outcome.error is None, outcome.traceback
    assert outcome.value is not None
    assert outcome.extra is not None, outcome.printed
    return outcome.value, outcome.extra


@pytest.mark.parametrize("case", SEEN)
def test_the_next_call_sees_that(lab: Lab, case: str) -> None:
    expression, change, what = SEEN[case]
    first, (value, state, reasons, right) = _twice(lab, expression, change)
    assert (value, state) == (right, "ran")
    assert f"code changed: {what}" in reasons, reasons  # type: ignore[operator]
    if case not in ("a function loses its cache", "one object becomes two"):
        assert value != first


@pytest.mark.parametrize("case", NOT_SEEN)
def test_the_next_call_does_not_care_that(lab: Lab, case: str) -> None:
    first, (value, state, reasons, right) = _twice(lab, *NOT_SEEN[case])
    assert (value, state, reasons) == (right, "reused", [])
    assert value == first
