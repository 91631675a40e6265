"""Which changes of code are seen, and which do not count."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import cloudpickle
import pytest

from prefect_mlpipe.core.code import Code, CodeReader
from prefect_mlpipe.core.encoding.encode import Undigestible
from tests.core.projects import Files, Project
from tests.core.stores import python


def changed_parts(before: Code, after: Code) -> set[str]:
    labels = before.parts.keys() | after.parts.keys()
    return {label for label in labels if before.parts.get(label) != after.parts.get(label)}


def modules(**sources: str) -> Files:
    return {f"{name.replace('__', '/')}.py": dedent(text) for name, text in sources.items()}


HELPERS = """
K = 3
def clean(x, n=1): return x + n
def other(x): return x
"""

# What changes: the project before, a word in it, what the word becomes, the part that is named.
TWICE = modules(
    steps="""
    import functools
    def twice(f):
        @functools.wraps(f)
        def wrapper(*a): return 2 * f(*a)
        return wrapper
    @twice
    def step(x): return x + 1
    """
)

SEEN = {
    "01 own body": (modules(steps="def step(x): return x + 1"), "x + 1", "x - 1", "steps.step"),
    "01b a constant": (modules(steps="def step(x): return x + 1"), "1", "2", "steps.step"),
    "01b a constant's type": (modules(steps="def step(x): return x + 1"), "1", "1.0", "steps.step"),
    "01b a constant's sign": (
        modules(steps="def step(x): return 0.0"),
        "0.0",
        "-0.0",
        "steps.step",
    ),
    "01c an attribute's name": (
        modules(steps="def step(x): return x.a"),
        "x.a",
        "x.b",
        "steps.step",
    ),
    "02 helper beside it": (
        modules(steps="def h(x): return x + 1\ndef step(x): return h(x)"),
        "x + 1",
        "x + 2",
        "steps.h",
    ),
    "03a helper elsewhere": (
        modules(helpers=HELPERS, steps="import helpers\ndef step(x): return helpers.clean(x)"),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "03b helper of a helper": (
        modules(
            b="def g(x): return x + 1",
            a="import b\ndef f(x): return b.g(x)",
            steps="import a\ndef step(x): return a.f(x)",
        ),
        "x + 1",
        "x + 2",
        "b.g",
    ),
    "03c imported by name": (
        modules(helpers=HELPERS, steps="from helpers import clean\ndef step(x): return clean(x)"),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "03d imported in the body": (
        modules(helpers=HELPERS, steps="def step(x):\n import helpers\n return helpers.clean(x)"),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "03d imported in the body by name": (
        modules(
            helpers=HELPERS, steps="def step(x):\n from helpers import clean as c\n return c(x)"
        ),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "03d imported in the body of a nested function": (
        modules(
            helpers=HELPERS,
            steps="""
            def step(x):
                def inner():
                    from helpers import clean
                    return clean(x)
                return inner()
            """,
        ),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "03d a submodule imported in the body": (
        modules(
            pkg__tools="def clean(x): return x + 1",
            steps="def step(x):\n from pkg import tools\n return tools.clean(x)",
        ),
        "x + 1",
        "x + 2",
        "pkg.tools.clean",
    ),
    "03d a dotted import in the body": (
        modules(
            pkg__tools="def clean(x): return x + 1",
            steps="def step(x):\n import pkg.tools\n return pkg.tools.clean(x)",
        ),
        "x + 1",
        "x + 2",
        "pkg.tools.clean",
    ),
    "03d a dotted import in the body under a name": (
        modules(
            pkg__tools="def clean(x): return x + 1",
            steps="def step(x):\n import pkg.tools as t\n return t.clean(x)",
        ),
        "x + 1",
        "x + 2",
        "pkg.tools.clean",
    ),
    "03d a relative import in the body": (
        modules(
            pkg__tools="def clean(x): return x + 1",
            pkg__inner="def f(x):\n from .tools import clean\n return clean(x)",
            steps="from pkg.inner import f\ndef step(x): return f(x)",
        ),
        "x + 1",
        "x + 2",
        "pkg.tools.clean",
    ),
    "04a global": (modules(steps="K = 3\ndef step(x): return x + K"), "3", "4", "steps.K"),
    "04b global of a helper": (
        modules(steps="K = 3\ndef h(x): return x + K\ndef step(x): return h(x)"),
        "3",
        "4",
        "steps.K",
    ),
    "04c constant of another module": (
        modules(helpers=HELPERS, steps="import helpers\ndef step(x): return helpers.K"),
        "3",
        "4",
        "helpers.K",
    ),
    "05a default": (modules(steps="def step(x, k=3): return x"), "3", "4", "steps.step"),
    "05b default by name": (
        modules(steps="K = 3\ndef step(x, k=K): return x"),
        "3",
        "4",
        "steps.step",
    ),
    "05b keyword default": (modules(steps="def step(x, *, k=3): return x"), "3", "4", "steps.step"),
    "05c default of a helper": (
        modules(helpers=HELPERS, steps="import helpers\ndef step(x): return helpers.clean(x)"),
        "n=1",
        "n=2",
        "helpers.clean",
    ),
    "06 closure": (
        modules(steps="def make(k):\n def step(x): return x + k\n return step\nstep = make(3)"),
        "3",
        "4",
        "steps.make.<locals>.step",
    ),
    "07a method": (
        modules(steps="class M:\n def fit(self): return 1\ndef step(x): return M().fit()"),
        "1",
        "2",
        "steps.M.fit",
    ),
    "07b method of a base": (
        modules(
            steps="""
            class B:
                def fit(self): return 1
            class M(B): ...
            def step(x): return M().fit()
            """
        ),
        "1",
        "2",
        "steps.B.fit",
    ),
    "07c class attribute": (
        modules(steps="class M:\n k = 1\ndef step(x): return M.k"),
        "1",
        "2",
        "steps.M",
    ),
    "07d method of a class elsewhere": (
        modules(
            helpers="class M:\n def fit(self): return 1",
            steps="import helpers\ndef step(x): return helpers.M().fit()",
        ),
        "1",
        "2",
        "helpers.M.fit",
    ),
    "07e method of a global instance": (
        modules(steps="class M:\n def fit(self): return 1\nm = M()\ndef step(x): return m.fit()"),
        "1",
        "2",
        "steps.M.fit",
    ),
    "07f state of a global instance": (
        modules(
            steps="""
            class M:
                def __init__(self, k): self.k = k
            m = M(1)
            def step(x): return m.k
            """
        ),
        "M(1)",
        "M(2)",
        "steps.m",
    ),
    "13a wrapped body": (
        TWICE,
        "x + 1",
        "x + 3",
        "steps.step",
    ),
    "13b decorator": (
        TWICE,
        "2 *",
        "3 *",
        "steps.twice.<locals>.wrapper",
    ),
    "13c decorator without wraps": (
        modules(
            steps="""
            def twice(f):
                def wrapper(*a): return 2 * f(*a)
                return wrapper
            @twice
            def step(x): return x + 1
            """
        ),
        "x + 1",
        "x + 3",
        "steps.step",
    ),
    "15a getattr of a module": (
        modules(helpers=HELPERS, steps="import helpers\ndef step(x): return getattr(helpers, x)"),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "15b dict of functions": (
        modules(
            helpers=HELPERS,
            steps="import helpers\nT = {'a': helpers.clean}\ndef step(x): return T['a'](x)",
        ),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "15c globals()": (
        modules(steps="def h(x): return x + 1\ndef step(x): return globals()['h'](x)"),
        "x + 1",
        "x + 2",
        "steps.h",
    ),
    "18a alias": (
        modules(
            helpers=HELPERS, steps="import helpers\nh = helpers.clean\ndef step(x): return h(x)"
        ),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "18b lru_cache": (
        modules(
            steps="""
            import functools
            @functools.lru_cache
            def h(x): return x + 1
            def step(x): return h(x)
            """
        ),
        "x + 1",
        "x + 2",
        "steps.h",
    ),
    "18c singledispatch": (
        modules(
            steps="""
            import functools
            @functools.singledispatch
            def h(x): return x
            @h.register
            def _(x: int): return x + 1
            def step(x): return h(x)
            """
        ),
        "x + 1",
        "x + 2",
        "steps._",
    ),
    "18d re-export": (
        modules(
            pkg__api="from pkg.inner import f",
            pkg__inner="def f(x): return x + 1",
            steps="from pkg import api\ndef step(x): return api.f(x)",
        ),
        "x + 1",
        "x + 2",
        "pkg.inner.f",
    ),
    "18d re-export by a package": (
        {
            "shop/__init__.py": "from shop.inner import f",
            "shop/inner.py": "def f(x): return x + 1",
            "steps.py": "import shop\ndef step(x): return shop.f(x)",
        },
        "x + 1",
        "x + 2",
        "shop.inner.f",
    ),
    "relative re-export used as an attribute of the package": (
        {
            "store/__init__.py": "from . import inner",
            "store/inner.py": "def f(x): return x + 1",
            "steps.py": "import store\ndef step(x): return store.inner.f(x)",
        },
        "x + 1",
        "x + 2",
        "store.inner.f",
    ),
    "18e module in a local": (
        modules(
            helpers=HELPERS, steps="import helpers\ndef step(x):\n m = helpers\n return m.clean(x)"
        ),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "18f partial": (
        modules(
            helpers=HELPERS,
            steps="""
            import functools, helpers
            h = functools.partial(helpers.clean, n=2)
            def step(x): return h(x)
            """,
        ),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "18g dataclass default": (
        modules(
            steps="""
            import dataclasses
            @dataclasses.dataclass
            class C:
                k: int = 1
            def step(x): return C().k
            """
        ),
        "1",
        "2",
        "steps.C",
    ),
    "18h metaclass": (
        modules(
            steps="""
            class Meta(type):
                def __call__(cls): return 1
            class C(metaclass=Meta): ...
            def step(x): return C()
            """
        ),
        "1",
        "2",
        "steps.Meta.__call__",
    ),
    "18i global array": (
        modules(steps="import numpy as np\nA = np.array([1, 2, 3])\ndef step(x): return A.sum()"),
        "2",
        "4",
        "steps.A",
    ),
    "18j enum member": (
        modules(
            steps="import enum\nclass E(enum.Enum):\n A = 1\n B = 3\ndef step(x): return E.A.value"
        ),
        "1",
        "2",
        "steps.E",
    ),
    "18k star import": (
        modules(helpers=HELPERS, steps="from helpers import *\ndef step(x): return clean(x)"),
        "x + n",
        "x - n",
        "helpers.clean",
    ),
    "18m async helper": (
        modules(steps="async def h(x): return x + 1\nasync def step(x): return await h(x)"),
        "x + 1",
        "x + 2",
        "steps.h",
    ),
    "18n operator": (
        modules(
            steps="""
            class V:
                def __add__(self, other): return 1
            def step(x): return V() + V()
            """
        ),
        "1",
        "2",
        "steps.V.__add__",
    ),
    "default_factory": (
        modules(
            steps="""
            import dataclasses
            def make(): return [1]
            @dataclasses.dataclass
            class C:
                k: list = dataclasses.field(default_factory=make)
            def step(x): return C().k
            """
        ),
        "[1]",
        "[2]",
        "steps.make",
    ),
    "property": (
        modules(
            steps="""
            class C:
                @property
                def k(self): return 1
            def step(x): return C().k
            """
        ),
        "1",
        "2",
        "steps.C.k",
    ),
    "cached_property": (
        modules(
            steps="""
            import functools
            class C:
                @functools.cached_property
                def k(self): return 1
            def step(x): return C().k
            """
        ),
        "1",
        "2",
        "steps.C.k",
    ),
    "static and class methods": (
        modules(
            steps="""
            class C:
                @staticmethod
                def s(): return 1
                @classmethod
                def c(cls): return cls.s()
            def step(x): return C.c()
            """
        ),
        "1",
        "2",
        "steps.C.s",
    ),
    "descriptor": (
        modules(
            steps="""
            class D:
                def __get__(self, instance, owner): return 1
            class C:
                d = D()
            def step(x): return C().d
            """
        ),
        "1",
        "2",
        "steps.D.__get__",
    ),
    "__init_subclass__": (
        modules(
            steps="""
            class B:
                def __init_subclass__(cls): cls.k = 1
            class C(B): ...
            def step(x): return C.k
            """
        ),
        "1",
        "2",
        "steps.C",
    ),
    "module __getattr__": (
        modules(
            helpers="def __getattr__(name): return 1",
            steps="import helpers\ndef step(x): return helpers.anything",
        ),
        "1",
        "2",
        "helpers.anything",
    ),
    "lambda in a dict": (
        modules(steps="T = {'a': lambda x: x + 1}\ndef step(x): return T['a'](x)"),
        "x + 1",
        "x + 2",
        "steps.<lambda>",
    ),
    "operator.itemgetter": (
        modules(steps="import operator\ng = operator.itemgetter(1)\ndef step(x): return g(x)"),
        "(1)",
        "(2)",
        "steps.g",
    ),
    "numpy.vectorize": (
        modules(
            steps="import numpy\n@numpy.vectorize\ndef h(x): return x + 1\ndef step(x): return h(x)"
        ),
        "x + 1",
        "x + 2",
        "steps.h",
    ),
    "functools.reduce of a helper": (
        modules(
            steps="""
            import functools
            def add(a, b): return a + b
            def step(x): return functools.reduce(add, x)
            """
        ),
        "a + b",
        "a - b",
        "steps.add",
    ),
    "bound method": (
        modules(
            steps="""
            class C:
                def __init__(self, k): self.k = k
                def get(self): return self.k
            get = C(1).get
            def step(x): return get()
            """
        ),
        "C(1)",
        "C(2)",
        "steps.get",
    ),
    "callable object": (
        modules(steps="class C:\n def __call__(self, x): return 1\nstep = C()"),
        "1",
        "2",
        "steps.C.__call__",
    ),
    "contextmanager": (
        modules(
            steps="""
            import contextlib
            @contextlib.contextmanager
            def within(): yield 1
            def step(x):
                with within() as k: return k
            """
        ),
        "1",
        "2",
        "steps.within",
    ),
    "exception handler": (
        modules(
            steps="""
            def step(x):
                try: return int(x)
                except ValueError: return None
            """
        ),
        "ValueError",
        "TypeError",
        "steps.step",
    ),
    "what try guards": (
        modules(
            steps="""
            def step(x):
                try:
                    y = f(x)
                    z = g(y)
                except ValueError:
                    z = 0
                return z
            """
        ),
        "    z = g(y)\n    except ValueError:\n        z = 0\n",
        "    z = 0\n    except ValueError:\n        z = 0\n",
        "steps.step",
    ),
    "which variable": (
        modules(steps="def step(a, b):\n c = a\n d = b\n return c - d"),
        "c - d",
        "d - c",
        "steps.step",
    ),
    "which free variable": (
        modules(steps="def step(x):\n a, b = x\n def g(): return a - b\n return g()"),
        "a - b",
        "b - a",
        "steps.step",
    ),
    "argument names": (modules(steps="def step(x, b): return b"), "b", "c", "steps.step"),
    "names that locals() shows": (
        modules(steps="def step(x):\n name = x\n return locals()"),
        "name",
        "other",
        "steps.step",
    ),
    "*args for one": (modules(steps="def step(*x): return x"), "*x", "x", "steps.step"),
    "a generator": (modules(steps="def step(x): return [1]"), "return", "yield", "steps.step"),
    "match": (
        modules(
            steps="""
            def step(x):
                match x:
                    case {"k": int()}: return 1
                    case [a, *b] if a: return b
                    case _: return 3
            """
        ),
        "int()",
        "str()",
        "steps.step",
    ),
    "walrus and comprehension": (
        modules(steps="def step(x): return [y for a in x if (y := a + 1)]"),
        "a + 1",
        "a + 2",
        "steps.step",
    ),
    "class body with a comprehension": (
        modules(steps="class C:\n t = [i * 2 for i in range(3)]\ndef step(x): return C.t"),
        "* 2",
        "* 3",
        "steps.C",
    ),
    "frozenset constant": (
        modules(steps="def step(x): return x in {'a', 'b'}"),
        "'b'",
        "'c'",
        "steps.step",
    ),
    "decorator that registers": (
        modules(
            steps="""
            REGISTRY = {}
            def register(f):
                REGISTRY[f.__name__] = f
                return f
            @register
            def h(x): return x + 1
            def step(x): return REGISTRY['h'](x)
            """
        ),
        "x + 1",
        "x + 2",
        "steps.h",
    ),
    "generic class": (
        modules(
            steps="""
            from typing import Generic, Protocol, TypeVar
            T = TypeVar("T")
            class P(Protocol):
                def fit(self) -> int: ...
            class C(Generic[T]):
                def fit(self): return 1
            class D(C[int]): ...
            def step(x): return D().fit()
            """
        ),
        "1",
        "2",
        "steps.C.fit",
    ),
    "named tuple field": (
        modules(
            steps="""
            from typing import NamedTuple
            class S(NamedTuple):
                a: int
                b: int
            def step(x): return S(1, 2)
            """
        ),
        "a: int",
        "c: int",
        "steps.S",
    ),
    "pydantic field": (
        modules(
            steps="""
            import pydantic
            class C(pydantic.BaseModel):
                k: int = 1
            def step(x): return C(k=x)
            """
        ),
        "k: int",
        "k: float",
        "steps.C",
    ),
    "pydantic constraint": (
        modules(
            steps="""
            import pydantic
            class C(pydantic.BaseModel):
                k: int = pydantic.Field(1, gt=0)
            def step(x): return C(k=x)
            """
        ),
        "gt=0",
        "gt=1",
        "steps.C",
    ),
    "pydantic validator": (
        modules(
            steps="""
            import pydantic
            class C(pydantic.BaseModel):
                k: int = 1
                @pydantic.field_validator("k")
                def check(cls, value): return value + 1
            def step(x): return C(k=x)
            """
        ),
        "value + 1",
        "value + 2",
        "steps.C.check",
    ),
    "attrs default": (
        modules(
            steps="import attrs\n@attrs.define\nclass C:\n k: int = 1\ndef step(x): return C().k"
        ),
        "1",
        "2",
        "steps.C",
    ),
    "split output": (
        modules(
            steps="""
            from typing import NamedTuple
            class S(NamedTuple):
                a: int
            def step(x) -> S: return x
            """
        ),
        "a: int",
        "b: int",
        None,
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_a_change_is_seen_and_named(project: Project, case: str) -> None:
    files, word, becomes, part = SEEN[case]
    before = project.read(files)
    assert any(word in text for text in files.values())
    after = project.read({name: text.replace(word, becomes) for name, text in files.items()})
    assert before.digest != after.digest
    if part is not None:
        assert part in changed_parts(before, after)


BODY = '''
import helpers
K = 3
def step(x, n=1):
    """Doc."""
    total = helpers.clean(x)
    for item in [1, 2]:
        if item > n and total:
            total += item
        else:
            pass
    return {"a": total, 'b': K}
'''

NAMED_TUPLE = """
from typing import NamedTuple
class C(NamedTuple):
    k: 'int | None'
def step(x): return C
"""

# What does not count: the step before and after.
UNSEEN = {
    "00 nothing": (BODY, BODY),
    "20a comment": (BODY, BODY.replace("total +=", "# why\n            total +=")),
    "20b docstring": (BODY, BODY.replace("Doc.", "Other.")),
    "20h docstring added": (BODY.replace('"""Doc."""', ""), BODY),
    "20c blank lines and spaces": (BODY, BODY.replace("    total = ", "\n\n    total   =  ")),
    "20d quotes": (BODY, BODY.replace("'b'", '"b"')),
    "20e local renamed": (BODY, BODY.replace("total", "zebra").replace("item", "a")),
    "20f comment above": (BODY, "# about\n" + BODY),
    "one line for many": (
        "def step(x):\n    if x:\n        return 1\n    else:\n        return 2",
        "def step(x):\n  if x: return 1\n  else: return 2",
    ),
    "broken over lines": (
        "def step(x, y): return f(x, 1) + (y if x else [x, y])",
        "def step(\n x,\n y):\n return f(\n x,\n 1,\n) + (\n y\n if x\n else [\n x,\n y])",
    ),
    "pass": ("def step(x):\n  return 1", "def step(x):\n  pass\n  return 1"),
    "21 unrelated function": (BODY, BODY + "\ndef unrelated(): return 1\n"),
    "21b unrelated global": (BODY, BODY + "\nUNRELATED = 1\n"),
    "22 lines moved": (BODY, "\n" * 50 + BODY),
    "annotations": (BODY, BODY.replace("(x, n=1)", "(x: int, n: float = 1) -> dict")),
    "26b renamed": (BODY, BODY.replace("def step", "def other") + "\nstep = other\n"),
    "many docstrings": (BODY, BODY.replace('"""Doc."""', '"""' + "x" * 5000 + '"""')),
    "a logger": (
        "import logging\nlog = logging.getLogger('a')\ndef step(x): log.info(x)",
        "import logging\nlog = logging.getLogger('b')\ndef step(x): log.info(x)",
    ),
    "set order": (
        "S = {1, 2, 3, 'a'}\ndef step(x): return x in S",
        "S = {'a', 3, 2, 1}\ndef step(x): return x in S",
    ),
    "order of methods": (
        "class C:\n def a(self): return 1\n def b(self): return 2\ndef step(x): return C()",
        "class C:\n def b(self): return 2\n def a(self): return 1\ndef step(x): return C()",
    ),
    "spelling of a field's type": (
        NAMED_TUPLE,
        NAMED_TUPLE.replace("int | None", "int|None"),
    ),
    "methods' docstrings": (
        "class C:\n 'Doc.'\n def a(self): 'x'; return 1\ndef step(x): return C()",
        "class C:\n def a(self): return 1\ndef step(x): return C()",
    ),
    "nested class moved": (
        "def step(x):\n class C:\n  'Doc.'\n  k = 1\n return C",
        "\n\n\ndef step(x):\n\n class C:\n\n  k = 1\n return C",
    ),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_what_does_nothing_does_not_count(project: Project, case: str) -> None:
    before, after = ({**modules(helpers=HELPERS), "steps.py": text} for text in UNSEEN[case])
    assert project.read(before).digest == project.read(after).digest


def test_a_comment_or_a_neighbour_in_a_helpers_module_does_not_count(project: Project) -> None:
    before = project.read({**modules(helpers=HELPERS), "steps.py": BODY})
    edited = HELPERS.replace("return x\n", "return 9\n").replace("def clean", "# new\ndef clean")
    assert project.read({"helpers.py": edited}).digest == before.digest


def test_only_the_changed_part_is_named(project: Project) -> None:
    files = modules(
        helpers="def inner(x): return x\ndef clean(x): return inner(x)",
        steps="import helpers\ndef step(x): return helpers.clean(x)",
    )
    before = project.read(files)
    after = project.read({"helpers.py": files["helpers.py"].replace("return x", "return -x")})
    assert changed_parts(before, after) == {"helpers.inner"}
    assert set(before.parts) == {"steps.step", "helpers.clean", "helpers.inner"}


# What cloudpickle cannot copy, or copies without what the original would find.
NOT_COPIED = {"18c singledispatch", "cached_property", "15c globals()", "module __getattr__"}


@pytest.mark.parametrize("case", [case for case in SEEN if case not in NOT_COPIED])
def test_a_copy_by_value_has_the_same_digest(
    project: Project, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SEEN[case][0]
    step = project.load(files).step
    loaded = [sys.modules[name] for name in project.modules()]
    for module in loaded:
        cloudpickle.register_pickle_by_value(module)
    try:
        by_value = cloudpickle.dumps(step)
    finally:
        for module in loaded:
            cloudpickle.unregister_pickle_by_value(module)
    copy = cloudpickle.loads(by_value)
    expected = CodeReader().read(step)
    found = CodeReader().read(copy)
    assert changed_parts(expected, found) == set()
    assert found.digest == expected.digest


def test_17_twins_with_other_globals_differ(project: Project) -> None:
    source = "def step(x): return x + K"
    files = {
        "one.py": f"K = 1\n{source}",
        "two.py": f"K = 2\n{source}",
        "three.py": f"K = 1\n{source}",
    }
    one, two, three = (
        project.read(files, f"{name}.step").digest for name in ("one", "two", "three")
    )
    assert one != two
    assert one == three  # 26: a step may move to another module


def test_19_the_loaded_code_counts_not_the_edited_file(project: Project) -> None:
    step = project.load("def step(x): return x + 1").step
    before = CodeReader().read(step).digest
    project.write({"steps.py": "def step(x): return x + 2"})
    assert CodeReader().read(step).digest == before


def test_mutual_recursion_has_an_end_and_every_member_counts(project: Project) -> None:
    source = """
def a(x): return b(x) if x else 0
def b(x): return c(x) + 1
def c(x): return a(x) + D['k'](x)
def d(x): return a(x)
D = {'k': d}
def step(x): return a(x)
"""
    before = project.read(source)
    for name in "abcd":
        after = project.read(source.replace(f"def {name}(x): return", f"def {name}(x): return 1 +"))
        assert changed_parts(before, after) == {f"steps.{name}"}
        assert after.digest != before.digest


def test_a_cycle_reads_the_same_whoever_asks_first(project: Project) -> None:
    module = project.load(
        "def a(x): return b(x)\ndef b(x): return a(x) + 1\ndef step(x): return b(x)"
    )
    reader = CodeReader()
    reader.read(module.a)
    assert reader.read(module.b).digest == CodeReader().read(module.b).digest


def test_a_global_without_content_is_refused_with_the_way_to_it(project: Project) -> None:
    files = modules(
        helpers="import threading\nSESSION = threading.Thread()\ndef fetch(x): return SESSION",
        steps="import helpers\ndef step(x): return helpers.fetch(x)",
    )
    with pytest.raises(Undigestible) as refused:
        project.read(files)
    assert refused.value.path == "step → helpers.fetch → helpers.SESSION"
    assert refused.value.type == "threading.Thread"
    project.read(files, ignore=frozenset({"helpers.SESSION"}))


def test_a_global_of_the_steps_own_module_can_be_ignored_by_its_name(project: Project) -> None:
    source = "CACHE = {'a': 1}\ndef step(x): return CACHE"
    ignore = frozenset({"CACHE"})
    before = project.read(source, ignore=ignore)
    assert before.digest == project.read(source.replace("1", "2"), ignore=ignore).digest
    assert before.digest != project.read(source).digest


def test_inert_globals_count_by_their_type(project: Project) -> None:
    source = """
import contextvars, logging, threading
LOCK = threading.Lock()
VAR = contextvars.ContextVar("x")
class Model:
    def __init__(self): self.lock, self.log = threading.RLock(), logging.getLogger("m")
MODEL = Model()
def step(x):
    with LOCK: return VAR.get(), MODEL
"""
    assert project.read(source).digest == project.read(source).digest


def test_a_mutable_global_is_seen_by_the_next_reader_and_not_by_the_same(project: Project) -> None:
    module = project.load("T = {'k': [1]}\nF = {'k': len}\ndef step(x): return T, F")
    reader = CodeReader()
    before = reader.read(module.step).digest
    module.T["k"].append(2)
    assert reader.read(module.step).digest == before
    changed = CodeReader().read(module.step).digest
    assert changed != before
    module.F["k"] = max
    assert CodeReader().read(module.step).digest not in (before, changed)
    module.T["k"].pop()
    module.F["k"] = len
    assert CodeReader().read(module.step).digest == before


MUTATIONS = {
    "global rebound": "m.K = 5",
    "helper replaced": "m.h = lambda x: x",
    "helper's code replaced": "m.h.__code__ = (lambda x: x - 1).__code__",
    "helper's default replaced": "m.h.__defaults__ = (9,)",
    "helper's attribute set": "m.h.note = 1",
    "method replaced": "m.C.fit = lambda self: 5",
    "class attribute set": "m.C.k = 5",
    "instance attribute set": "m.c.k = 5",
    "array element set": "m.A[1] = 9",
    "name bound that was a builtin": "m.len = max",
    "cell filled anew": "m.inner.__closure__[0].cell_contents = 5",
    "dict of functions": "m.T['a'] = m.h2",
    "attribute of another module": "import helpers; helpers.K = 5",
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_what_changes_between_two_calls_is_seen_by_the_second(
    project: Project, mutation: str
) -> None:
    module = project.load(
        modules(
            helpers=HELPERS,
            steps="""
            import helpers
            import numpy as np
            K = 3
            A = np.arange(3)
            def h(x, n=1): return x + n
            def h2(x): return x
            class C:
                k = 1
                def fit(self): return self.k
            c = C()
            def make(n):
                def inner(): return n
                return inner
            inner = make(1)
            T = {'a': h}
            def step(x): return K, A, h(x), c.fit(), len(x), inner(), T, helpers.K
            """,
        )
    )
    before = CodeReader().read(module.step)
    assert CodeReader().read(module.step) is before
    exec(MUTATIONS[mutation], {"m": module})
    after = CodeReader().read(module.step)
    assert after.digest != before.digest
    assert changed_parts(before, after)


def test_28_a_project_may_lie_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import os
from pathlib import Path
HERE = Path(__file__).parent
DATA = HERE / "data" / "x.csv"
NAME = os.path.join(os.path.dirname(__file__), "vocabulary.txt")
def step(x): return DATA, NAME, __file__, __name__
"""
    found = []
    for name in ("here", "elsewhere/deep"):
        (tmp_path / name).mkdir(parents=True)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / name))
            project = Project(tmp_path / name)
            found.append(project.read(source))
            moved = project.read(source.replace("x.csv", "y.csv"))
            assert moved.digest != found[-1].digest
            project.forget()
    assert found[0].digest == found[1].digest


def test_what_is_installed_counts_by_name_and_its_version_stands_in_the_environment(
    project: Project,
) -> None:
    import numpy

    code = project.read(
        "import numpy as np\nfrom json import dumps\ndef step(x): return np.sum(x), dumps(x)"
    )
    assert code.environment == {"numpy": numpy.__version__}
    assert set(code.parts) == {"steps.step"}
    aliased = project.read(
        "import pydantic as np\nfrom json import dumps\ndef step(x): return np.sum(x), dumps(x)"
    )
    assert aliased.digest != code.digest


def test_our_own_package_counts_by_name_only(project: Project) -> None:
    code = project.read(
        "from prefect_mlpipe.core.digest import digest\ndef step(x): return digest(x)"
    )
    assert code.environment == {}
    assert set(code.parts) == {"steps.step"}


def test_a_step_that_is_called_as_a_function_counts_as_that_function(project: Project) -> None:
    source = """
class Step:
    def __init__(self, fn): self.fn, self.options = fn, object()
    @property
    def __mlpipe_function__(self): return self.fn
    def __call__(self, *a): return self.fn(*a)
@Step
def clean(x): return x + 1
def step(x): return clean(x)
"""
    code = project.read(source)
    assert set(code.parts) == {"steps.step", "steps.clean"}
    assert project.read(source.replace("x + 1", "x + 2")).digest != code.digest
    assert project.read(source.replace("object()", "1")).digest == code.digest


def test_code_made_by_exec_without_a_module_is_read(project: Project) -> None:
    def read(body: str) -> str:
        names: dict[str, object] = {}
        exec(f"def h(x): return {body}\ndef step(x): return h(x)", names)
        return CodeReader().read(names["step"]).digest  # type: ignore[arg-type]

    assert read("x + 1") == read("x + 1")
    assert read("x + 1") != read("x + 2")


def test_a_users_module_may_be_named_like_one_of_the_library() -> None:
    def read(body: str) -> str:
        names: dict[str, Any] = {"__name__": "json"}
        source = f"class C:\n def m(self): return {body}\ndef h(x): return C().m()"
        exec(source + "\ndef step(x): return h(x)", names)
        return CodeReader().read(names["step"]).digest

    assert read("1") != read("2")


def test_tracing_and_specialisation_leave_the_digest_alone(project: Project) -> None:
    module = project.load(
        "def h(x): return x + 1\ndef step(n):\n t = 0\n for i in range(n): t += h(i)\n return t"
    )
    before = CodeReader().read(module.step).digest
    module.step(10_000)
    previous = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        module.step(10)
    finally:
        sys.settrace(previous)
    fresh = project.load(
        "def h(x): return x + 1\ndef step(n):\n t = 0\n for i in range(n): t += h(i)\n return t"
    )
    assert CodeReader().read(fresh.step).digest == before
    assert CodeReader().read(module.step).digest == before


LIBRARIES_IN_BODIES = """
import importlib, json, sys
from prefect_mlpipe.core.code import CodeReader

def top():
    import xml.dom.minidom
    return xml.dom.minidom.parseString, xml.dom.Node

def renamed():
    import xml.dom.minidom as dom
    return dom.parseString, dom.Node

def from_a_package():
    from xml.dom import minidom, pulldom
    return minidom.parseString, pulldom

def installed():
    import joblib.memory
    return joblib.memory.Memory, joblib.hash

def installed_and_renamed():
    import joblib.memory as memory
    from joblib import hashing
    return memory.Memory, hashing.hash

def only_imported():
    import joblib.numpy_pickle

bodies = [top, renamed, from_a_package, installed, installed_and_renamed, only_imported]

def read():
    codes = [CodeReader().read(each) for each in bodies]
    return [[code.digest, dict(code.environment)] for code in codes]

assert not {"xml.dom.minidom", "joblib"} & sys.modules.keys()
unloaded = read()
for name in ("xml.dom.minidom", "xml.dom.pulldom", "joblib.memory", "joblib.numpy_pickle"):
    importlib.import_module(name)
print(json.dumps([unloaded, read()]))
"""


def test_it_does_not_show_whether_somebody_has_loaded_a_library_that_a_body_imports() -> None:
    pytest.importorskip("joblib", reason="needs the extra [dev]")
    unloaded, loaded = json.loads(python(LIBRARIES_IN_BODIES))
    assert loaded == unloaded
    assert ["joblib" in environment for _, environment in loaded] == [False] * 3 + [True] * 3
