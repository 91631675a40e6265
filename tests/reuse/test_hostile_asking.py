"""Cases that a hostile reader adds: ways to ask code for its docstring, its name, its annotations.

And what is put into a class after it was made.
"""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import rerun, work

ONE, TWO = '"one"', '"two"'
FUNCTION = 'def f():\n    "one"\n'
CLASS = 'class C:\n    "one"\n'
HINTED = "class C:\n    q: int\n"
MODEL = 'import pydantic\nclass C(pydantic.BaseModel):\n    "one"\n    v: int = 1\n'
FIELD = (
    "import pydantic\nclass C(pydantic.BaseModel):\n"
    '    v: int = pydantic.Field(1, description="one")\n'
)
OUTER = 'def outer():\n    def inner():\n        "one"\n    return inner\n'
ROW = "import collections\nN = collections.namedtuple('N', 'a b', defaults=[3])\n"
ADDED = "import fractions\nfractions.Fraction.more = lambda self: 1\n"

ROWS = [
    rerun("docstring in vars", work("vars(C)['__doc__']", CLASS), ONE, TWO, "code changed: main.C"),
    rerun(
        "docstring in a dict of a class",
        work("C.__dict__.get('__doc__')", CLASS),
        ONE,
        TWO,
        "code changed: main.C",
    ),
    rerun(
        "docstring by attrgetter",
        work("get(f)", f"import operator\nget = operator.attrgetter('__doc__')\n{FUNCTION}"),
        ONE,
        TWO,
        "code changed: main.f",
    ),
    rerun(
        "docstring by a name in a global",
        work("getattr(f, NAMES[0])", f"NAMES = ('__doc__',)\n{FUNCTION}"),
        ONE,
        TWO,
        "code changed: main.f",
    ),
    rerun(
        "docstring by a name in a default",
        work("ask(f)", f"def ask(g, name='__doc__'):\n    return getattr(g, name)\n{FUNCTION}"),
        ONE,
        TWO,
        "code changed: main.f",
    ),
    rerun(
        "docstring of a nested function",
        work("outer().__doc__", OUTER),
        ONE,
        TWO,
        "code changed: main.outer",
    ),
    rerun(
        "name of a nested function",
        work("outer().__name__", OUTER),
        "inner",
        "other",
        "code changed: main.outer",
    ),
    rerun(
        "docstring that a property was given",
        work("C.p.__doc__", "class C:\n    p = property(lambda self: 1, doc='one')"),
        "'one'",
        "'two'",
        "code changed: main.C",
    ),
    rerun(
        "docstring rendered",
        work("pydoc.render_doc(f)", f"import pydoc\n{FUNCTION}"),
        ONE,
        TWO,
        "code changed: main.f",
    ),
    rerun(
        "constants of a function",
        work("f.__code__.co_consts[0]", FUNCTION),
        ONE,
        TWO,
        "code changed: main.f",
    ),
    rerun(
        "locals of a function",
        work("f.__code__.co_varnames", "def f():\n    aa = 1\n    return aa"),
        "aa",
        "bb",
        "code changed: main.f",
    ),
    rerun(
        "annotations in vars",
        work("str(vars(C)['__annotations__'])", HINTED),
        "q: int",
        "q: str",
        "code changed: main.C",
    ),
    rerun(
        "annotations by a function of another name",
        work("str(hints(C))", f"from typing import get_type_hints as hints\n{HINTED}"),
        "q: int",
        "q: str",
        "code changed: main.C",
    ),
    rerun(
        "signature by a function of another name",
        work("str(sig(f))", "from inspect import signature as sig\ndef f(q: int): pass"),
        "q: int",
        "q: str",
        "code changed: main.f",
    ),
    rerun(
        "schema with the docstring of a model",
        work("str(C.model_json_schema())", MODEL),
        ONE,
        TWO,
        "code changed: main.C",
    ),
    rerun(
        "schema with the description of a field",
        work("str(C.model_json_schema())", FIELD),
        ONE,
        TWO,
        "code changed: main.C",
    ),
    rerun(
        "defaults of a named tuple, set later",
        work("N(x).b", f"{ROW}N.__new__.__defaults__ = (5,)"),
        "(5,)",
        "(6,)",
        "code changed: main.N",
    ),
    rerun(
        "a method put into a class of the standard library",
        work("fractions.Fraction(x).more()", "import fractions, other", other=ADDED),
        ": 1",
        ": 2",
        "code changed: other.<lambda>",
        file="other.py",
    ),
    rerun(
        "a method put into a class that is imported from it",
        work("Fraction(x).more()", "from fractions import Fraction\nimport other", other=ADDED),
        ": 1",
        ": 2",
        "code changed: other.<lambda>",
        file="other.py",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_code_asks_of_code_counts_however_it_asks(lab: Lab, row: Row) -> None:
    check(lab, row)


ASKED = """
import helpers

@step
def made() -> object:
    return helpers.f

@step
def asker() -> object:
    return {asker}

@step
def use(f, ask) -> str:
    ran("use")
    return ask(f)

@step
def own(ask) -> str:
    ran("own")
    return ask(helpers.f)

@step
def named(f, name: str) -> str:
    ran("named")
    return getattr(f, name)

@pipeline
def main() -> list:
    return [{calls}]
"""
HELPERS = """
class Asker:
    def __init__(self, of=None):
        self.of = of
    def ask(self, f):
        return f.__doc__

def f():
    "one"

def ask(g):
    return g.__doc__
"""


@pytest.mark.parametrize(
    ("asker", "calls", "ran"),
    [
        ("helpers.ask", "use(helpers.f, helpers.ask)", ["use"]),
        ("helpers.ask", "use(made(), helpers.ask)", ["use"]),
        ("helpers.ask", "use(made(), asker())", ["use"]),
        ("helpers.Asker().ask", "use(made(), asker()), own(asker())", ["own", "use"]),
        ("__import__('operator').attrgetter('__doc__')", "use(made(), asker())", ["use"]),
        ("1", "named(made(), '__doc__')", ["named"]),
    ],
)
def test_what_is_given_to_a_step_may_ask_what_else_is(
    lab: Lab, asker: str, calls: str, ran: list[str]
) -> None:
    main = ASKED.format(asker=asker, calls=calls)
    lab.write({"main.py": main, "helpers.py": HELPERS})
    assert lab.run().value == lab.oracle()
    lab.write({"helpers.py": HELPERS.replace(ONE, TWO)})
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (lab.oracle(), ran)
    assert lab.run().ran == []


DRESSED = """
import functools, helpers

@step
def make() -> object:
    ran("make")
    {body}

@pipeline
def main() -> str:
    return resolve(make()).__doc__
"""


@pytest.mark.parametrize("made", ["helpers.Plain()", "functools.partial(helpers.f)"])
def test_a_docstring_that_an_object_was_given_by_wraps_counts(lab: Lab, made: str) -> None:
    body = f"return functools.update_wrapper({made}, helpers.f)"
    helpers = "class Plain:\n    pass\n\n" + FUNCTION
    lab.write({"main.py": DRESSED.format(body=body), "helpers.py": helpers})
    assert lab.run().value == "builtins.str 'one'"
    lab.write({"helpers.py": helpers.replace(ONE, TWO)})
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.ran) == ("builtins.str 'two'", ["make"])
    said = "code changed: docstring of what it reaches"
    assert outcome.plan["make"] == ("run", [said])
    assert outcome.reasons("make") == [said]
