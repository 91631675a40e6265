"""Outputs that have code in them: who reads one sees what a plain run shows, docstrings too."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.reuse.lab import Lab, Outcome

MAIN = """
import functools, inspect
import helpers
{above}
@step
def make() -> object:
    ran("make")
    {body}

@step
def hold(f) -> list:
    ran("hold")
    return [f]

@step
def ask(f) -> str:
    ran("ask")
    return str({asked})

@pipeline
def main() -> object:
    return {wires}
"""
PLAIN = 'def f(x: int):\n    """one"""\n    return x + 1'
CLASS = 'class C:\n    """one"""\n    def m(self, x: int):\n        """three"""\n        return x'
WRAPS = """\
import functools

def wrapped(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)
    return wrapper

"""
OUTER = 'def outer():\n    def inner():\n        """one"""\n    return inner'
INNER = 'def inner(x: int):\n    """one"""\n    return x + 1\nreturn inner'
DOCSTRING = ('"""one"""', '"""two"""')
SWAPPED = """\
def a(x):
    return x + 1

def b(x):
    return x * 2

chosen = a
"""
CLOSURES = """\
import functools

def by(n):
    def decorate(function):
        @functools.wraps(function)
        def inner(x):
            return function(x) * n
        return inner
    return decorate

@by(2)
def a(x):
    return x

@by(3)
def b(x):
    return x

chosen = a
"""


class Case(NamedTuple):
    """A project, an edit of it, and what runs again; `why` is said of `make`."""

    ran: list[str]
    body: str
    asked: str = "f.__doc__"
    helpers: str = ""
    edit: tuple[str, str] = DOCSTRING
    wires: str = "ask(make())"
    above: str = ""
    why: str = ""

    def write(self, lab: Lab) -> None:
        """Write the project as it was."""
        indented = self.body.replace("\n", "\n    ")
        lab.write(
            {
                "main.py": MAIN.format(
                    body=indented, asked=self.asked, wires=self.wires, above=self.above
                ),
                "helpers.py": self.helpers,
            }
        )

    def edited(self) -> Case:
        """The project with the edit in it."""
        old, new = self.edit
        parts = (self.body, self.helpers, self.above)
        assert any(old in part for part in parts)
        body, helpers, above = (part.replace(old, new) for part in parts)
        return self._replace(body=body, helpers=helpers, above=above)


INSIDE = "code changed: {} of main.make.<locals>.inner"
# Stored by itself, with the docstring that it had: whoever makes it must run again.
BY_ITSELF = {
    "docstring": Case(["ask", "make"], INNER, why=INSIDE.format("docstring")),
    "docstring by inspect": Case(
        ["ask", "make"], INNER, "inspect.getdoc(f)", why=INSIDE.format("docstring")
    ),
    "name": Case(
        ["ask", "make"], INNER, "f.__name__", edit=("inner", "other"), why=INSIDE.format("name")
    ),
    "qualified name": Case(
        ["ask", "make"], INNER, "f.__qualname__", edit=("inner", "other"), why=INSIDE.format("name")
    ),
    "annotation": Case(
        ["ask", "make"],
        INNER,
        "f.__annotations__",
        edit=("x: int", "x: str"),
        why=INSIDE.format("annotations"),
    ),
    "signature": Case(
        ["ask", "make"],
        INNER,
        "inspect.signature(f)",
        edit=("x: int", "x: str"),
        why=INSIDE.format("annotations"),
    ),
    "in a dict": Case(
        ["ask", "make"],
        INNER.replace("return inner", 'return {"a": inner}'),
        'f["a"].__doc__',
        why=INSIDE.format("docstring"),
    ),
    "in a partial": Case(
        ["ask", "make"],
        INNER.replace("return inner", "return functools.partial(inner, 1)"),
        "f.func.__doc__",
        why=INSIDE.format("docstring"),
    ),
    "made elsewhere": Case(
        ["ask", "make"],
        "return helpers.outer()",
        helpers=OUTER,
        why="code changed: docstring of helpers.outer.<locals>.inner",
    ),
    "class": Case(
        ["ask", "make"],
        'class K:\n    """one"""\nreturn K()',
        "type(f).__doc__",
        why="code changed: docstring of main.make.<locals>.K",
    ),
    "what it makes": Case(
        ["ask", "make"],
        "return helpers.outer()",
        "f().__doc__",
        OUTER.replace("inner():", "between():\n     def inner():").replace("inner\n", "x\n")[:-5]
        + "between",
        why="code changed: docstring of helpers.outer.<locals>.between",
    ),
    "passed on": Case(
        ["ask", "hold", "make"],
        INNER,
        "f[0].__doc__",
        wires="ask(hold(make()))",
        why=INSIDE.format("docstring"),
    ),
    "beside a value": Case(
        ["ask", "make"],
        INNER,
        "f[0].__doc__",
        wires="ask([make(), 1])",
        why=INSIDE.format("docstring"),
    ),
    "read by the caller": Case(
        ["make"], INNER, wires="resolve(make()).__doc__", why=INSIDE.format("docstring")
    ),
    "given by wraps": Case(
        ["ask", "make"],
        "def inner(x):\n    return helpers.f(x)\nreturn functools.wraps(helpers.f)(inner)",
        helpers=PLAIN,
        why="code changed: docstring of what it reaches",
    ),
    "given by a decorator": Case(
        ["ask", "make"],
        "return helpers.wrapped(helpers.f)",
        helpers=WRAPS + PLAIN,
        why="code changed: docstring of what it reaches",
    ),
    "given by an argument": Case(
        ["use"],
        "return 1",
        helpers=WRAPS + PLAIN,
        above='@step\ndef use(f):\n    ran("use")\n    return helpers.wrapped(f)\n',
        wires="(make(), resolve(use(helpers.f)).__doc__)",
    ),
}


def after_edit(lab: Lab, case: Case) -> Outcome:
    """Run a case, edit it, and run it again: values are right, and what is known is reused."""
    case.write(lab)
    assert lab.run().value == lab.oracle()
    case.edited().write(lab)
    outcome = lab.run(plan=True)
    assert outcome.error is None, outcome.traceback
    assert outcome.value == lab.oracle()
    assert outcome.ran == case.ran, outcome.steps
    said = {name: reasons for name, (action, reasons) in outcome.plan.items() if action == "run"}
    assert said == {name: outcome.reasons(name) for name in said}
    again = lab.run(plan=True)
    assert (again.value, again.ran) == (outcome.value, [])
    assert {action for action, _ in again.plan.values()} == {"reuse"}
    return outcome


@pytest.mark.parametrize("case", BY_ITSELF.values(), ids=BY_ITSELF)
def test_code_that_is_stored_by_itself_is_made_again_where_more_of_it_shows(
    lab: Lab, case: Case
) -> None:
    outcome = after_edit(lab, case)
    if case.why:
        assert outcome.reasons("make") == [case.why]


BY_NAME = {
    "function": Case(["ask"], "return helpers.f", helpers=PLAIN),
    "annotation": Case(
        ["ask"],
        "return helpers.f",
        "inspect.signature(f)",
        PLAIN,
        ("x: int", "x: str"),
    ),
    "partial": Case(["ask"], "return functools.partial(helpers.f, 1)", "f.func.__doc__", PLAIN),
    "in a list": Case(["ask"], "return [helpers.f]", "f[0].__doc__", PLAIN),
    "decorated": Case(["ask"], "return helpers.f", helpers=WRAPS + "@wrapped\n" + PLAIN),
    "class": Case(["ask"], "return helpers.C", helpers=CLASS),
    "object": Case(["ask"], "return helpers.C()", "type(f).__doc__", CLASS),
    "method": Case(
        ["ask"], "return helpers.C()", "f.m.__doc__", CLASS, ('"""three"""', '"""two"""')
    ),
    "dataclass": Case(
        ["ask"],
        "return helpers.C(1)",
        "type(f).__doc__",
        'import dataclasses\n\n@dataclasses.dataclass\nclass C:\n    """one"""\n    x: int',
    ),
    "qualified name of a class": Case(
        ["ask"],
        "return helpers.C.D()",
        "type(f).__qualname__",
        "class C:\n    class D:\n        pass\n",
        (
            "class C:\n    class D:\n        pass\n",
            "class B:\n    class D:\n        pass\n\nclass C:\n    D = B.D\n",
        ),
    ),
    "what it makes": Case(["ask"], "return helpers.outer", "f().__doc__", OUTER),
    "called by one that is stored by itself": Case(
        ["ask"], "def inner():\n    return helpers.outer()\nreturn inner", "f().__doc__", OUTER
    ),
    "passed on": Case(
        ["ask"], "return helpers.f", "f[0].__doc__", PLAIN, wires="ask(hold(make()))"
    ),
    "read by the caller": Case(
        [], "return helpers.f", helpers=PLAIN, wires="resolve(make()).__doc__"
    ),
}


@pytest.mark.parametrize("case", BY_NAME.values(), ids=BY_NAME)
def test_of_code_that_is_stored_by_name_only_those_who_ask_run_again(lab: Lab, case: Case) -> None:
    outcome = after_edit(lab, case)
    if case.ran == ["ask"]:
        source = "hold" if "hold" in case.wires else "make"
        assert outcome.reasons("ask") == [f"input 'f' changed (from {source})"]


NEEDLESS = {
    "docstring of a helper that is called": Case(
        [], "helpers.f(1)\nreturn lambda x: x", "f(3)", PLAIN
    ),
    "docstring of the step": Case([], '"""one"""\nreturn lambda x: x', "f(3)"),
    "docstring of the class of an object": Case([], "return helpers.C()", "f.m(3)", CLASS),
    "docstring of a function given to map": Case(
        [], "return list(map(helpers.f, [1]))", "f", PLAIN
    ),
    "docstring of a key": Case([], "return sorted([2, 1], key=helpers.f)", "f", PLAIN),
    "docstring of a nested key": Case(
        [], INNER.replace("return inner", "return sorted([2, 1], key=inner)"), "f"
    ),
    "docstring where the name is asked": Case([], "return helpers.f", "f.__name__", PLAIN),
    "comment": Case([], INNER, edit=("return x + 1", "return x + 1  # as always")),
}


@pytest.mark.parametrize("case", NEEDLESS.values(), ids=NEEDLESS)
def test_what_nobody_sees_of_code_in_an_output_reruns_nothing(lab: Lab, case: Case) -> None:
    after_edit(lab, case)


MAPPED = '@step\ndef one(n) -> object:\n    ran("one")\n    {}\n'


@pytest.mark.parametrize(
    ("body", "wires", "asked", "ran"),
    [
        (INNER, "ask.map(one.map([1, 2]))", "f.__doc__", ["ask", "one", "one"]),
        (INNER, "ask(one.map([1, 2]))", "f[1].__doc__", ["ask", "one", "one"]),
        ("return helpers.f", "ask.map(one.map([1, 2]))", "f.__doc__", ["ask"]),
        ("return helpers.f", "ask(one.map([1, 2]))", "f[1].__doc__", ["ask"]),
    ],
)
def test_items_of_a_mapped_step_have_code_in_them_too(
    lab: Lab, body: str, wires: str, asked: str, ran: list[str]
) -> None:
    above = MAPPED.format(body.replace("\n", "\n    "))
    after_edit(lab, Case(ran, "return 1", asked, PLAIN, wires=wires, above=above))


NESTED = """
@step
def part() -> object:
    ran("part")
    def inner():
        "one"
    return inner

@step
def ask(f) -> str:
    ran("ask")
    return f.__doc__

@pipeline
def prepared() -> object:
    return part()

@pipeline
def main() -> str:
    return ask(prepared())
"""


def test_a_nested_pipeline_gives_code_too(lab: Lab) -> None:
    lab.write(NESTED)
    assert lab.run().value == "builtins.str 'one'"
    lab.write(NESTED.replace("one", "two"))
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == ("builtins.str 'two'", ["ask", "part"])
    said = "code changed: docstring of main.part.<locals>.inner"
    assert outcome.reasons("prepared/part") == [said]


@pytest.mark.parametrize("helpers", [SWAPPED, CLOSURES])
@pytest.mark.parametrize("wires", ["ask(make())", "resolve(make())(5)"])
def test_a_stored_name_that_means_another_function_now_is_not_believed(
    lab: Lab, helpers: str, wires: str
) -> None:
    swapped = helpers.replace("a(x)", "c(x)").replace("b(x)", "a(x)").replace("c(x)", "b(x)")
    swapped = swapped.replace("chosen = a", "chosen = b")
    case = Case(["make"], "return helpers.chosen", "f(5)", helpers, (helpers, swapped), wires)
    assert after_edit(lab, case).reasons("make") == ["code changed: helpers.a"]


def test_a_stored_name_that_is_gone_is_made_again(lab: Lab) -> None:
    edit = ("def a(x):\n    return 1\n\nchosen = a", "def b(x):\n    return 1\n\nchosen = b")
    case = Case(["make"], "return helpers.chosen", "", edit[0], edit, "resolve(make())(5)")
    assert after_edit(lab, case).reasons("make") == ["code changed: helpers.a"]


TWINS = """
@step
def one() -> object:
    ran("one")
    def inner():
        "one"
    return inner

@step
def other() -> object:
    ran("other")
    def inner():
        "other"
    return inner

@pipeline
def main() -> object:
    return [resolve(one()).__doc__, resolve(other()).__doc__]
"""


def test_two_steps_of_one_code_do_not_take_each_others_docstrings(lab: Lab) -> None:
    lab.write(TWINS)
    first = lab.run()
    assert (first.value, first.ran) == (lab.oracle(), ["one", "other"])
    again = lab.run(plan=True)
    assert (again.value, again.ran) == (first.value, [])
    assert {action for action, _ in again.plan.values()} == {"reuse"}


def test_an_output_with_the_former_docstring_is_still_there(lab: Lab) -> None:
    case = BY_ITSELF["docstring"]
    outcome = after_edit(lab, case)
    case.write(lab)
    back = lab.run()
    assert back.ran == []
    assert back.value != outcome.value


def test_a_class_that_counts_its_objects_is_reused(lab: Lab) -> None:
    helpers = """
    class Model:
        made = 0
        kept = []

        def __init__(self):
            type(self).made += 1
            self.kept.append(self.made)

    def counted(x):
        counted.calls = getattr(counted, "calls", 0) + 1
        return x

    def counter():
        count = 0
        def more():
            nonlocal count
            count += 1
            return count
        return more

    more = counter()
    """
    body = "helpers.counted(1)\n    helpers.more()\n    return [helpers.Model(), helpers.counted]"
    lab.write(
        {
            "main.py": MAIN.format(body=body, asked="f", wires="ask(1)", above="").replace(
                "ask(1)", "resolve(make())[1](7)"
            ),
            "helpers.py": helpers,
        }
    )
    first = lab.run()
    assert (first.value, first.ran) == ("builtins.int 7", ["make"])
    again = lab.run()
    assert (again.value, again.ran) == (first.value, [])


def test_the_explanation_says_what_shows(lab: Lab) -> None:
    outcome = after_edit(lab, BY_ITSELF["docstring"])
    assert INSIDE.format("docstring") in outcome.steps["make"]["explain"]
    assert INSIDE.format("docstring") in outcome.plan_explained["make"]
