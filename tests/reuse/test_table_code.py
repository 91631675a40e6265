"""Rows 00-07, 13, 15 and 18 of the table: what changes in the code that a step can reach."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import check_price, edited, price, rerun, reuse, work

CLEAN = "def clean(x): return x + 1"
DECORATED = """
import functools
def twice(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) * 2
    return wrapper

@step
@twice
def work(x: int) -> int:
    ran("work")
    return x + 1

@pipeline
def main(x: int = 1) -> int:
    return work(x)
"""
SCALE = "class Scale:\n    factor = 2\n    def of(self, x): return x * self.factor"
FOUND = "importlib.import_module(''.join(['hel', 'pers'])).clean(x)"


def declared(files: dict[str, str]) -> dict[str, str]:
    return files | edited(files, "main.py", "@step", "@step(reads=[clean])")


ROWS = [
    Row("00 nothing changed", work("x + 1"), {}, "reuse"),
    rerun("01 own body", work("x + 1"), "x + 1", "abs(x) * 4", "code changed: main.work"),
    rerun("01b a constant in the body", work("x + 1"), "x + 1", "x + 2", "code changed: main.work"),
    rerun(
        "01c an attribute's name in the body",
        work("'Ab'.upper()"),
        "upper",
        "lower",
        "code changed: main.work",
    ),
    rerun(
        "02 a helper in the same module",
        work("clean(x)", CLEAN),
        "return x + 1",
        "return x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "03a a helper in another module",
        work("helpers.clean(x)", "import helpers", helpers=CLEAN),
        "+ 1",
        "+ 2",
        "code changed: helpers.clean",
        file="helpers.py",
    ),
    rerun(
        "03b a helper of a helper, two modules away",
        work("a.f(x)", "import a", a="import b\ndef f(x): return b.g(x)", b="def g(x): return -x"),
        "-x",
        "+x",
        "code changed: b.g",
        file="b.py",
    ),
    rerun(
        "03c a helper by from ... import",
        work("clean(x)", "from helpers import clean", helpers=CLEAN),
        "+ 1",
        "+ 2",
        "code changed: helpers.clean",
        file="helpers.py",
    ),
    rerun(
        "03d a helper that is imported in the body",
        {
            "helpers.py": CLEAN,
            "main.py": """
@step
def work(x: int) -> int:
    from helpers import clean
    ran("work")
    return clean(x)

@pipeline
def main(x: int = 1) -> int:
    return work(x)
""",
        },
        "+ 1",
        "+ 2",
        "code changed: helpers.clean",
        file="helpers.py",
    ),
    rerun("04a a global", work("x + K", "K = 1"), "K = 1", "K = 2", "code changed: main.K"),
    rerun(
        "04b a global that a helper reads",
        work(
            "helpers.clean(x)", "import helpers", helpers="K = 1\ndef clean(x):\n    return x + K"
        ),
        "K = 1",
        "K = 2",
        "code changed: helpers.K",
        file="helpers.py",
    ),
    rerun(
        "04c a global of another module",
        work("x + conf.K", "import conf", conf="K = 1"),
        "K = 1",
        "K = 2",
        "code changed: conf.K",
        file="conf.py",
    ),
    rerun(
        "05a a default, as a literal",
        work("x + k") | edited(work("x + k"), "main.py", "(x: int)", "(x: int, k: int = 1)"),
        "k: int = 1",
        "k: int = 2",
        ("code changed: main.work", "parameter 'k' changed: 1 → 2"),
    ),
    rerun(
        "05b a default, by a name",
        work("x + k") | edited(work("x + k", "K = 1"), "main.py", "(x: int)", "(x: int, k=K)"),
        "K = 1",
        "K = 2",
        ("code changed: main.work", "parameter 'k' changed: 1 → 2"),
    ),
    rerun(
        "05c a helper's default",
        work("clean(x)", "def clean(x, k=1): return x + k"),
        "k=1",
        "k=2",
        "code changed: main.clean",
    ),
    rerun(
        "06 a variable that a closure holds",
        work(
            "add(x)", "def adder(k):\n    def add(x): return x + k\n    return add\nadd = adder(1)"
        ),
        "adder(1)",
        "adder(2)",
        "code changed: main.adder.<locals>.add",
    ),
    rerun(
        "06 a variable that the step's own closure holds",
        {
            "main.py": """
def made(k):
    @step
    def work(x: int) -> int:
        ran("work")
        return x + k
    return work

work = made(1)

@pipeline
def main(x: int = 1) -> int:
    return work(x)
"""
        },
        "made(1)",
        "made(2)",
        "code changed: main.made.<locals>.work",
    ),
    rerun(
        "07a a method of a class",
        work("Scale().of(x)", SCALE),
        "x * self",
        "x - self",
        "code changed: main.Scale.of",
    ),
    rerun(
        "07b a method of its base class",
        work("Own().of(x)", f"{SCALE}\nclass Own(Scale): pass"),
        "x * self",
        "x - self",
        "code changed: main.Scale.of",
    ),
    rerun(
        "07c an attribute of a class",
        work("Scale().of(x)", SCALE),
        "factor = 2",
        "factor = 3",
        "code changed: main.Scale",
    ),
    rerun(
        "07d a method of a class in another module",
        work("models.Scale().of(x)", "import models", models=SCALE),
        "x * self",
        "x - self",
        "code changed: models.Scale.of",
        file="models.py",
    ),
    rerun(
        "07e a method of a global instance",
        work("MODEL.of(x)", f"{SCALE}\nMODEL = Scale()"),
        "x * self",
        "x - self",
        "code changed: main.Scale.of",
    ),
    rerun(
        "13a the body below a decorator",
        {"main.py": DECORATED},
        "x + 1",
        "x + 2",
        "code changed: main.work",
    ),
    rerun(
        "13b the body of the decorator",
        {"main.py": DECORATED},
        "* 2",
        "* 3",
        "code changed: main.twice.<locals>.wrapper",
    ),
    rerun(
        "13c the body below a decorator without functools.wraps",
        {"main.py": DECORATED.replace("    @functools.wraps(function)\n", "")},
        "x + 1",
        "x + 2",
        "code changed: main.work",
    ),
    rerun(
        "15a a helper by getattr(module, name)",
        work("getattr(helpers, ''.join(['cle', 'an']))(x)", "import helpers", helpers=CLEAN),
        "+ 1",
        "+ 2",
        "code changed: helpers.clean",
        file="helpers.py",
    ),
    rerun(
        "15b a helper in a dict of functions",
        work("TABLE['clean'](x)", f"{CLEAN}\nTABLE = {{'clean': clean}}"),
        "return x + 1",
        "return x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "15c a helper by globals()[name]",
        work("globals()[''.join(['cle', 'an'])](x)", CLEAN),
        "return x + 1",
        "return x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "18a an alias of a user's function",
        work("h(x)", "import b\nh = b.g", b="def g(x): return -x"),
        "-x",
        "+x",
        "code changed: b.g",
        file="b.py",
    ),
    rerun(
        "18b a helper under lru_cache",
        work("clean(x)", f"import functools\n@functools.lru_cache\n{CLEAN}"),
        "return x + 1",
        "return x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "18c an implementation of a singledispatch helper",
        work(
            "clean(x)",
            "import functools\n@functools.singledispatch\ndef clean(x): return 0\n"
            "@clean.register\ndef clean_int(x: int): return x + 1",
        ),
        "return x + 1",
        "return x + 2",
        "code changed: main.clean_int",
    ),
    rerun(
        "18d a function that a package exports again",
        work("tools.clean(x)", "import tools", tools__deep=CLEAN)
        | {"tools/__init__.py": "from tools.deep import clean"},
        "+ 1",
        "+ 2",
        "code changed: tools.deep.clean",
        file="tools/deep.py",
    ),
    rerun(
        "18e a module held in a local",
        work("(lambda m: m.g(x))(b)", "import b", b="def g(x): return -x"),
        "-x",
        "+x",
        "code changed: b.g",
        file="b.py",
    ),
    rerun(
        "18f a global partial of a helper",
        work(
            "add(x)",
            "import functools\ndef plus(k, x): return k + x\nadd = functools.partial(plus, 3)",
        ),
        "k + x",
        "k - x",
        "code changed: main.plus",
    ),
    rerun(
        "18g the default of a dataclass field",
        work(
            "x + Settings().k",
            "import dataclasses\n@dataclasses.dataclass\nclass Settings:\n    k: int = 1",
        ),
        "k: int = 1",
        "k: int = 2",
        "code changed: main.Settings",
    ),
    rerun(
        "18h a method of a metaclass",
        work(
            "Own.of(x)",
            "class Meta(type):\n    def of(cls, x): return -x\nclass Own(metaclass=Meta): pass",
        ),
        "-x",
        "+x",
        "code changed: main.Meta.of",
    ),
    rerun(
        "18i an element of a global array",
        work("int(WEIGHTS.sum()) + x", "import numpy\nWEIGHTS = numpy.array([1, 2, 3])"),
        "2, 3",
        "2, 4",
        "code changed: main.WEIGHTS",
    ),
    rerun(
        "18j the value of an enum member",
        work("x + Kind.BIG.value", "import enum\nclass Kind(enum.Enum):\n    BIG = 1"),
        "BIG = 1",
        "BIG = 2",
        "code changed: main.Kind",
    ),
    rerun(
        "18k a helper by from ... import *",
        work("clean(x)", "from helpers import *", helpers=CLEAN),
        "+ 1",
        "+ 2",
        "code changed: helpers.clean",
        file="helpers.py",
    ),
    rerun(
        "18l a function by importlib.import_module('name')",
        work("importlib.import_module('helpers').clean(x)", "import importlib", helpers=CLEAN),
        "+ 1",
        "+ 2",
        "code changed: helpers.clean",
        file="helpers.py",
    ),
    price(
        reuse(
            "18l a function by importlib.import_module(name), which nothing declares",
            work(FOUND, "import importlib", helpers=CLEAN),
            "+ 1",
            "+ 2",
            file="helpers.py",
        )
    ),
    rerun(
        "18l a function by importlib.import_module(name), declared by reads=",
        declared(work(FOUND, "import importlib\nfrom helpers import clean", helpers=CLEAN)),
        "+ 1",
        "+ 2",
        "reads changed: clean (code of helpers.clean)",
        file="helpers.py",
    ),
    rerun(
        "18m an async helper",
        work("asyncio.run(clean(x))", f"import asyncio\nasync {CLEAN}"),
        "return x + 1",
        "return x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "18n an operator of a user's class",
        work("Own() + x", "class Own:\n    def __add__(self, x): return -x"),
        "-x",
        "+x",
        "code changed: main.Own.__add__",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_code(lab: Lab, row: Row) -> None:
    if row.want == "price":
        check_price(lab, row)
    else:
        check(lab, row)
