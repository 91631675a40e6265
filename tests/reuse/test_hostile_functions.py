"""Cases that a hostile reader adds: functions, what they hold, and what they look at."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import rerun, reuse, work

UNWRAPPED = """
def scaled(by):
    def decorate(function):
        def inner(x):
            return function(x) * by
        return inner
    return decorate

@scaled(by=2)
def clean(x):
    return x + 1
"""
WRAPS = """
import functools

def outer(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x) + 10
    return wrapper

def middle(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x) * 3
    return wrapper

@outer
@middle
def clean(x):
    return x + 1
"""
COUNTING = """
class Calls:
    limit = 5
    def __init__(self, function):
        self.function, self.offset = function, 7
    def __call__(self, x):
        return min(self.limit, self.function(x)) + self.offset

@Calls
def clean(x):
    return x + 1
"""
MUTUAL = {
    **work("even.even(x + 9)", "import even"),
    "even.py": "import odd\ndef even(n): return n == 0 or odd.odd(n - 1)",
    "odd.py": "import even\ndef odd(n): return n > 1 and even.even(n - 1)",
}
COUNTER = """
def counter():
    count = 3
    def more(x):
        nonlocal count
        return count + x
    return more

more = counter()
"""
MANAGED = """
import contextlib

LOG = []

@contextlib.contextmanager
def opened(x):
    yield x + 1

class Scope:
    def __enter__(self):
        return 5
    def __exit__(self, *error):
        return True
"""
ASYNC = """
import asyncio

async def numbers(x):
    for number in range(3):
        yield number + x

async def total(x):
    return sum([number * 2 async for number in numbers(x)])
"""
REDUCED = """
import functools

def add(a, b, weight):
    return a + b * weight

total = functools.partial(functools.reduce, functools.partial(add, weight=2))
"""
MATCHED = """
class Point:
    __match_args__ = ("x", "y")
    def __init__(self, x, y):
        self.x, self.y = x, y

def first(value):
    match value:
        case Point(found, _):
            return found
        case [*_, found]:
            return found
"""
PASSED = """
def helper(x):
    def key(item: int) -> int:
        return -item
    return sorted([x, x + 1], key=key)
"""
COPIED = """
import functools, types

def original(x, k=2):
    return x * k

copy = functools.wraps(original)(
    types.FunctionType(original.__code__, globals(), "copy", original.__defaults__)
)
"""
EXECUTED = """
SPACE = {"BASE": 4}
exec("def made(x): return x + BASE", SPACE)
made = SPACE["made"]
"""
FRAME = "import pandas as pd\nLIMIT = 2\nTABLE = pd.DataFrame({'a': [1, 2, 3]})"

ROWS = [
    rerun(
        "a decorator without wraps changes its argument",
        work("clean(x)", UNWRAPPED),
        "by=2",
        "by=3",
        "code changed: main.scaled.<locals>.decorate.<locals>.inner",
    ),
    rerun(
        "a function below a decorator without wraps changes",
        work("clean(x)", UNWRAPPED),
        "x + 1",
        "x + 2",
        "code changed: main.clean",
    ),
    reuse(
        "the factory of a decorator is only renamed within",
        work("clean(x)", UNWRAPPED),
        "decorate",
        "decorated",
    ),
    rerun(
        "the innermost of a chain of wraps changes",
        work("clean(x)", WRAPS),
        "return x + 1",
        "return x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "the middle of a chain of wraps changes",
        work("clean(x)", WRAPS),
        "* 3",
        "* 4",
        "code changed: main.middle.<locals>.wrapper",
    ),
    rerun(
        "the order of a chain of wraps changes",
        work("clean(x)", WRAPS),
        "@outer\n@middle",
        "@middle\n@outer",
        ("code changed: main.middle.<locals>.wrapper", "code changed: main.outer.<locals>.wrapper"),
    ),
    reuse(
        "a wrapped function gets a docstring",
        work("clean(x)", WRAPS),
        "def clean(x):\n",
        'def clean(x):\n    "Clean."\n',
    ),
    rerun(
        "a decorator that is an object changes its state",
        work("clean(x)", COUNTING),
        "function, 7",
        "function, 8",
        ("code changed: main.Calls.__init__", "code changed: main.clean"),
    ),
    rerun(
        "a decorator that is an object changes its class",
        work("clean(x)", COUNTING),
        "limit = 5",
        "limit = 1",
        "code changed: main.Calls",
    ),
    rerun(
        "a decorator that caches is taken away",
        work(
            "base().append(x) or len(base())",
            "import functools\n@functools.cache\ndef base():\n    return []",
        ),
        "@functools.cache\n",
        "",
        "code changed: main.base",
    ),
    rerun(
        "a function far into mutual recursion across modules changes",
        MUTUAL,
        "n > 1",
        "n > -1",
        "code changed: odd.odd",
        file="odd.py",
    ),
    reuse(
        "a neighbour of mutual recursion across modules changes",
        MUTUAL,
        "import even",
        "import even\ndef other(n): return n",
        file="odd.py",
    ),
    rerun(
        "a lambda in a list changes",
        work("[f(x) for f in TABLE]", "TABLE = [lambda x: x + 1, lambda x: x * 2]"),
        "x * 2",
        "x * 3",
        "code changed: main.<lambda>",
    ),
    rerun(
        "a lambda as a default argument changes",
        work("clean(x)", "def clean(x, key=lambda x: x + 1):\n    return key(x)"),
        "key=lambda x: x + 1",
        "key=lambda x: x + 2",
        "code changed: main.<lambda>",
    ),
    rerun(
        "a function as a default argument is exchanged for another",
        work(
            "clean(x)",
            "def up(x): return x + 1\ndef down(x): return x - 1\n"
            "def clean(x, *, key=up): return key(x)",
        ),
        "key=up",
        "key=down",
        "code changed: main.clean",
    ),
    rerun(
        "operator.methodcaller gets another argument",
        work("pick('a-b')", "import operator\npick = operator.methodcaller('split', '-')"),
        "'split', '-'",
        "'split', 'a'",
        "code changed: main.pick",
    ),
    rerun(
        "operator.attrgetter gets another name",
        work("pick(x)", "import operator\npick = operator.attrgetter('real')"),
        "'real'",
        "'imag'",
        "code changed: main.pick",
    ),
    rerun(
        "a partial in a partial changes",
        work("total([1, x, 3])", REDUCED),
        "weight=2",
        "weight=3",
        "code changed: main.total",
    ),
    rerun(
        "what functools.reduce is given changes",
        work("total([1, x, 3])", REDUCED),
        "a + b * weight",
        "a - b * weight",
        "code changed: main.add",
    ),
    rerun(
        "a dict comprehension changes its key",
        work("clean(x)", "def clean(x): return {i: i * x for i in range(3)}"),
        "{i: i",
        "{i + 1: i",
        "code changed: main.clean",
    ),
    rerun(
        "the condition of a generator expression changes",
        work("clean(x)", "def clean(x): return sum(i for i in range(9) if i % 2)"),
        "i % 2",
        "i % 3",
        "code changed: main.clean",
    ),
    reuse(
        "the variable of a set comprehension is renamed",
        work("clean(x)", "def clean(x): return sorted({i + x for i in range(3)})"),
        "i + x for i",
        "each + x for each",
    ),
    rerun(
        "a walrus in a comprehension changes",
        work("clean(x)", "def clean(x): return [y for i in range(5) if (y := i * 2) > x]"),
        "i * 2",
        "i * 3",
        "code changed: main.clean",
    ),
    rerun(
        "a cell that a closure may change begins with another value",
        work("more(x)", COUNTER),
        "count = 3",
        "count = 4",
        "code changed: main.counter.<locals>.more",
    ),
    rerun(
        "a context manager made of a generator changes",
        work("clean(x)", MANAGED + "def clean(x):\n    with opened(x) as y:\n        return y"),
        "x + 1",
        "x + 2",
        "code changed: main.opened",
    ),
    rerun(
        "the exit of a context manager changes",
        work(
            "clean(x)",
            MANAGED + "def clean(x):\n    with Scope() as y:\n        1 / 0\n    return y",
        ),
        "return 5",
        "return 6",
        "code changed: main.Scope.__enter__",
    ),
    rerun(
        "an asynchronous generator changes",
        work("asyncio.run(total(x))", ASYNC),
        "range(3)",
        "range(4)",
        "code changed: main.numbers",
    ),
    rerun(
        "an asynchronous comprehension changes",
        work("asyncio.run(total(x))", ASYNC),
        "number * 2",
        "number * 3",
        "code changed: main.total",
    ),
    rerun(
        "the order of names in a class pattern changes",
        work("first(Point(x, 5))", MATCHED),
        '("x", "y")',
        '("y", "x")',
        "code changed: main.Point",
    ),
    rerun(
        "a pattern of a match changes",
        work("first([x, 5])", MATCHED),
        "[*_, found]",
        "[found, *_]",
        "code changed: main.first",
    ),
    reuse(
        "the annotations of a nested function change",
        work("helper(x)", PASSED),
        "(item: int) -> int",
        "(item: float) -> float",
    ),
    reuse(
        "the annotations of a nested function go",
        work("helper(x)", PASSED),
        "(item: int) -> int",
        "(item)",
    ),
    rerun(
        "a default of a nested annotated function changes",
        work(
            "helper(x)",
            PASSED.replace("int)", "int, by: int = 1)").replace("-item", "by * item"),
        ),
        "by: int = 1",
        "by: int = -1",
        "code changed: main.helper",
    ),
    rerun(
        "the original of a copied function changes",
        work("copy(x)", COPIED),
        "x * k",
        "x - k",
        ("code changed: main.original",),
    ),
    rerun(
        "a function made by exec changes",
        work("made(x)", EXECUTED),
        "x + BASE",
        "x - BASE",
        "code changed: __main__.made",
    ),
    rerun(
        "a global of a function made by exec changes",
        work("made(x)", EXECUTED),
        '"BASE": 4',
        '"BASE": 5',
        "code changed: __main__.BASE",
    ),
    rerun(
        "a keyword-only default that is a constant of another module changes",
        work(
            "clean(x)",
            "import config\ndef clean(x, *, k=config.K): return x * k",
            config="K = 3",
        ),
        "3",
        "4",
        "code changed: main.clean",
        file="config.py",
    ),
    rerun(
        "starred arguments become one",
        work("clean((x, 2))", "def clean(*args): return args"),
        "*args",
        "args",
        "code changed: main.clean",
    ),
    rerun(
        "a local comes to shadow a global",
        work("clean(x)", "K = 2\ndef clean(x):\n    k = 5\n    return x + K"),
        "    k = 5",
        "    K = 5",
        "code changed: main.clean",
    ),
    reuse(
        "a global that a local shadows changes",
        work("clean(x)", "K = 2\ndef clean(x):\n    K = 5\n    return x + K"),
        "K = 2",
        "K = 3",
    ),
    rerun(
        "a function that is defined by a condition changes sides",
        work(
            "clean(x)",
            "FAST = True\nif FAST:\n    def clean(x): return x\nelse:\n    def clean(x): return -x",
        ),
        "FAST = True",
        "FAST = False",
        "code changed: main.clean",
    ),
    reuse(
        "the side of a condition that was not taken changes",
        work(
            "clean(x)",
            "FAST = True\nif FAST:\n    def clean(x): return x\nelse:\n    def clean(x): return -x",
        ),
        "return -x",
        "return -x - 1",
    ),
    rerun(
        "an attribute of a function changes",
        work("clean(x)", "def clean(x): return x + clean.by\nclean.by = 2"),
        "by = 2",
        "by = 3",
        "code changed: main.clean",
    ),
    rerun(
        "a docstring that the code reads changes",
        work("clean(x)", 'def clean(x):\n    "One."\n    return clean.__doc__'),
        "One.",
        "Two.",
        "code changed: main.clean",
    ),
    rerun(
        "a docstring of a class that a helper reads changes",
        work(
            "[title(each) for each in (Tree, Line)]",
            "def title(cls): return getattr(cls, '__doc__')\n"
            "class Tree:\n    'A tree.'\nclass Line:\n    'A line.'",
        ),
        "A line.",
        "A lane.",
        "code changed: main.Line",
    ),
    rerun(
        "the docstring of the module is read and changes",
        work("helpers.usage()", "import helpers", helpers='"Use."\ndef usage(): return __doc__'),
        "Use.",
        "Do not use.",
        "code changed: helpers.__doc__",
        file="helpers.py",
    ),
    reuse(
        "a docstring changes while another attribute is read",
        work("clean.by", 'def clean(x):\n    "One."\nclean.by = 2'),
        "One.",
        "Two.",
    ),
    rerun(
        "a name that the code reads changes",
        work("clean().__name__", "def inner(): pass\ndef clean(f=inner): return f"),
        "inner",
        "other",
        "code changed: main.clean",
    ),
    rerun(
        "annotations that the code reads change",
        work(
            "hints(clean)",
            "def hints(f): return sorted(f.__annotations__.items())\n"
            "def clean(size: int): return x",
        ),
        "size: int)",
        "size: float)",
        "code changed: main.clean",
    ),
    rerun(
        "annotations that are read through typing change",
        work(
            "str(typing.get_type_hints(Row))",
            "import typing\nclass Row:\n    size: int",
        ),
        "size: int",
        "size: float",
        "code changed: main.Row",
    ),
    rerun(
        "a signature that the code reads changes",
        work(
            "str(inspect.signature(clean))",
            "import inspect\ndef clean(size: int): return x",
        ),
        "size: int)",
        "size: float)",
        "code changed: main.clean",
    ),
    rerun(
        "a source that the code reads changes by a comment",
        work(
            "inspect.getsource(clean)",
            "import inspect\ndef clean(x):\n    return x  # once",
        ),
        "# once",
        "# twice",
        "code changed: main.clean",
    ),
    rerun(
        "a query of a table names a global that changes",
        work("TABLE.query('a > @LIMIT')", FRAME),
        "LIMIT = 2",
        "LIMIT = 1",
        "code changed: main.LIMIT",
    ),
    reuse(
        "a query of a table does not name the global that changes",
        work("TABLE.query('a > 1')", FRAME),
        "LIMIT = 2",
        "LIMIT = 1",
    ),
    rerun(
        "a global that is deleted and bound anew changes",
        work("K + x", "K = 1\ndel K\nK = 2"),
        "K = 2",
        "K = 3",
        "code changed: main.K",
    ),
    reuse(
        "a global that is bound anew changes only before",
        work("K + x", "K = 1\ndel K\nK = 2"),
        "K = 1",
        "K = 0",
    ),
    rerun(
        "a global that a step sets itself begins with another value",
        work(
            "more(x)",
            "COUNT = 1\ndef more(x):\n    global COUNT\n    COUNT += x\n    return COUNT",
        ),
        "COUNT = 1",
        "COUNT = 2",
        "code changed: main.COUNT",
    ),
    rerun(
        "two names of one list become two equal lists",
        work(
            "FIRST.append(x) or sum(SECOND)",
            "FIRST = [1]\nSECOND = FIRST",
        ),
        "SECOND = FIRST",
        "SECOND = [1]",
        ("code changed: main.FIRST", "code changed: main.SECOND"),
    ),
    reuse(
        "two names of one constant become two equal constants",
        work("(FIRST, SECOND)", "FIRST = (1, 'a' * 50)\nSECOND = FIRST"),
        "SECOND = FIRST",
        "SECOND = (1, 'a' * 50)",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_functions(lab: Lab, row: Row) -> None:
    check(lab, row)
