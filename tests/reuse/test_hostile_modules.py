"""Cases that a hostile reader adds: modules, how they come by names, and what changes them."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import rerun, reuse, work

CLEAN = "def clean(x): return x + 1\ndef other(x): return x"
LAZY = {
    **work("pkg.clean(x)", "import pkg"),
    "pkg/__init__.py": """
import importlib
_HOMES = {"clean": ".cleaning", "other": ".others"}
__all__ = list(_HOMES)

def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
""",
    "pkg/cleaning.py": CLEAN,
    "pkg/others.py": "def other(x): return x",
}
EXPORTS = {
    **work("pkg.clean(x) + pkg.K", "import pkg"),
    "pkg/__init__.py": "from .inner import *\nfrom .inner.deep import K as K",
    "pkg/inner/__init__.py": "from ..tools import _clean as clean, unused\n__all__ = ['clean']",
    "pkg/inner/deep.py": "K = 10",
    "pkg/tools.py": "def _clean(x): return x + 1\ndef unused(): return 1",
}
CIRCLE = {
    **work("one.first(x)", "import one"),
    "one.py": "import two\nBASE = 2\ndef first(x): return two.second(x) + 1",
    "two.py": "import one\ndef second(x): return x * one.BASE",
}
OPTIONAL = {
    **work("helpers.clean(x)", "import helpers"),
    "helpers.py": """
try:
    from fast import clean
except ImportError:
    def clean(x): return x + 1
""",
}
OPTIONAL_INSIDE = {
    **work(
        "clean(x)",
        """
def clean(x):
    try:
        from fast import clean
    except ImportError:
        return x + 1
    return clean(x)
""",
    ),
    "fast.py": "import not_installed_at_all\ndef clean(x): return x + 5",
}
REGISTRY = {
    **work("[run(x) for run in registry.STEPS.values()]", "import plugins, registry"),
    "registry.py": """
STEPS = {}
def register(name):
    def decorate(function):
        STEPS[name] = function
        return function
    return decorate
""",
    "plugins.py": """
from registry import register

@register("one")
def one(x): return x + 1

@register("two")
def two(x): return x + 2
""",
}
PATCHED = {
    **work("helpers.clean(x)", "import helpers, patches"),
    "helpers.py": CLEAN,
    "patches.py": "import helpers\ndef better(x): return x + 7\nhelpers.clean = better",
}
PATCHED_CLASS = {
    **work("helpers.Tree().size()", "import helpers, patches"),
    "helpers.py": "class Tree:\n    def size(self): return 1",
    "patches.py": "import helpers\ndef better(self): return 7\nhelpers.Tree.size = better",
}
PATCHED_LIBRARY = {
    **work("json.dumps([x])", "import json, patches"),
    "patches.py": "import json\nbefore = json.dumps\ndef dumps(x): return before(x) + '!'\n"
    "json.dumps = dumps",
}
PATCHED_BUILTIN = {
    **work("ascii(x)", "import patches"),
    "patches.py": "import builtins\nbefore = ascii\ndef shown(x): return before(x) + '7'\n"
    "builtins.ascii = shown",
}
ADDED_BUILTIN = {
    **work("translate('yes')", "import patches"),
    "patches.py": "import builtins\nWORDS = {'yes': 'ja'}\nbuiltins.translate = WORDS.get",
}
ACCESSOR = {
    **work("pd.DataFrame({'a': [x, 3]}).tidy.mean_of('a')", "import accessors, pandas as pd"),
    "accessors.py": """
import pandas as pd

@pd.api.extensions.register_dataframe_accessor("tidy")
class Tidy:
    def __init__(self, table): self.table = table
    def mean_of(self, name): return float(self.table[name].mean())
""",
}
GRAFTED = {
    **work("pd.DataFrame({'a': [x, 3]}).total('a')", "import grafts, pandas as pd"),
    "grafts.py": "import pandas as pd\ndef total(self, name): return int(self[name].sum())\n"
    "pd.DataFrame.total = total",
}
CONSTANTS = """
import re
from datetime import date, timedelta
from decimal import Decimal
from pathlib import PurePath

WORD = re.compile("b", re.IGNORECASE)
SINCE = date(2024, 1, 1) + timedelta(days=1)
PRICE = Decimal("1.50")
PLACE = PurePath("data/raw")
"""
CLASSED = {
    **work("settings.size", "import settings"),
    "settings.py": """
import sys, types

class Settings(types.ModuleType):
    @property
    def size(self): return self.base * 2

base = 3
sys.modules[__name__].__class__ = Settings
""",
}
LOADED_LATE = {
    **work(
        "helpers.clean(x)",
        """
import importlib.util, sys

def late(name):
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

helpers = late("helpers")
""",
    ),
    "helpers.py": CLEAN,
}
REPLACED = {
    **work("settings.size", "import settings"),
    "settings.py": """
import sys

class Settings:
    size = 3

sys.modules[__name__] = Settings()
""",
}


def reached(expression: str, above: str = "") -> dict[str, str]:
    """A project whose step comes by `helpers.clean` in a way of its own."""
    return {**work(expression, above), "helpers.py": CLEAN}


CHANGED = ("x + 1", "x + 2", "code changed: helpers.clean")
ROWS = [
    rerun(
        "a function that a lazy package gives changes",
        LAZY,
        *CHANGED[:2],
        "code changed: pkg.cleaning.clean",
        file="pkg/cleaning.py",
    ),
    reuse(
        "another function of a lazy package changes",
        LAZY,
        "return x",
        "return -x",
        file="pkg/others.py",
    ),
    reuse(
        "a lazy package offers one name more",
        LAZY,
        '"other": ".others"',
        '"other": ".others", "more": ".more"',
        file="pkg/__init__.py",
    ),
    rerun(
        "what is exported again, relative and by star, changes",
        EXPORTS,
        "x + 1",
        "x + 2",
        "code changed: pkg.tools._clean",
        file="pkg/tools.py",
    ),
    rerun(
        "a constant that is exported again changes",
        EXPORTS,
        "K = 10",
        "K = 11",
        "code changed: pkg.K",
        file="pkg/inner/deep.py",
    ),
    reuse(
        "a neighbour of what is exported again changes",
        EXPORTS,
        "return 1",
        "return 2",
        file="pkg/tools.py",
    ),
    reuse(
        "__all__ gets a name that nothing reads",
        EXPORTS,
        "['clean']",
        "['clean', 'unused']",
        file="pkg/inner/__init__.py",
    ),
    rerun(
        "__all__ that the code reads changes",
        work("helpers.__all__", "import helpers", helpers="__all__ = ['a']\na = b = 1"),
        "['a']",
        "['b']",
        "code changed: helpers.__all__",
        file="helpers.py",
    ),
    rerun(
        "a constant in a circle of imports changes",
        CIRCLE,
        "BASE = 2",
        "BASE = 3",
        "code changed: one.BASE",
        file="one.py",
    ),
    reuse(
        "a circle of imports is written in another order",
        CIRCLE,
        "import two\nBASE = 2",
        "BASE = 2\nimport two",
        file="one.py",
    ),
    Row(
        "a conditional import finds its module now",
        OPTIONAL,
        {"fast.py": "def clean(x): return x + 5"},
        "rerun",
        "code changed: fast.clean",
    ),
    Row(
        "an import in a body that fails within finds its module now",
        OPTIONAL_INSIDE,
        {"not_installed_at_all.py": ""},
        "rerun",
        "code changed: fast.clean",
    ),
    reuse(
        "the fallback of a conditional import by version changes",
        {
            **work("helpers.K", "import helpers"),
            "helpers.py": "import sys\nif sys.version_info >= (3,):\n    K = 1\nelse:\n    K = 2",
        },
        "K = 2",
        "K = 3",
        file="helpers.py",
    ),
    rerun(
        "a module of a namespace package changes",
        {**work("space.part.clean(x)", "import space.part"), "space/part.py": CLEAN},
        *CHANGED[:2],
        "code changed: space.part.clean",
        file="space/part.py",
    ),
    reuse(
        "another module of a namespace package changes",
        {
            **work("space.part.clean(x)", "import space.part"),
            "space/part.py": CLEAN,
            "space/rest.py": "K = 1",
        },
        "K = 1",
        "K = 2",
        file="space/rest.py",
    ),
    rerun(
        "a.b.c imported as a whole changes",
        {
            **work("a.b.c.clean(x)", "import a.b.c"),
            "a/__init__.py": "",
            "a/b/__init__.py": "",
            "a/b/c.py": CLEAN,
        },
        *CHANGED[:2],
        "code changed: a.b.c.clean",
        file="a/b/c.py",
    ),
    rerun(
        "a name imported under another changes",
        reached("tidy(x)", "from helpers import clean as tidy"),
        *CHANGED,
        file="helpers.py",
    ),
    rerun(
        "a function read through vars(module) changes",
        reached("vars(helpers)['clean'](x)", "import helpers"),
        *CHANGED,
        file="helpers.py",
    ),
    rerun(
        "a function read through module.__dict__ changes",
        reached("helpers.__dict__['clean'](x)", "import helpers"),
        *CHANGED,
        file="helpers.py",
    ),
    rerun(
        "a function read through getattr with a name put together changes",
        reached("getattr(helpers, 'cle' + str('an'))(x)", "import helpers"),
        *CHANGED,
        file="helpers.py",
    ),
    rerun(
        "a function read through sys.modules changes",
        reached("sys.modules['helpers'].clean(x)", "import helpers, sys"),
        *CHANGED,
        file="helpers.py",
    ),
    rerun(
        "a function of the step's own module read through sys.modules changes",
        work(
            "getattr(sys.modules[__name__], 'clean_' + str('it'))(x)",
            "import sys\ndef clean_it(x): return x + 1",
        ),
        "x + 1",
        "x + 2",
        "code changed: main.clean_it",
    ),
    rerun(
        "a function of a module imported by its name changes",
        reached("import_module('helpers').clean(x)", "from importlib import import_module"),
        *CHANGED,
        file="helpers.py",
    ),
    rerun(
        "a function of a module imported by __import__ changes",
        reached("__import__('helpers').clean(x)"),
        *CHANGED,
        file="helpers.py",
    ),
    rerun(
        "a function of a module imported by its name within a package changes",
        {
            **work("pkg.run(x)", "import pkg"),
            "pkg/__init__.py": "import importlib\n"
            "def run(x): return importlib.import_module('.deep', __package__).clean(x)",
            "pkg/deep.py": CLEAN,
        },
        *CHANGED[:2],
        "code changed: pkg.deep.clean",
        file="pkg/deep.py",
    ),
    rerun(
        "a function found in globals() of a helper's module changes",
        reached("run(x)", "from helpers import run")
        | {"helpers.py": CLEAN + "\ndef run(x): return globals()['cle' + 'an'](x)"},
        *CHANGED,
        file="helpers.py",
    ),
    rerun(
        "a function found by builtins.eval changes",
        work("builtins.eval('clean(1)')", "import builtins\ndef clean(x): return x + 1"),
        "x + 1",
        "x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "a module imported in a body is used in a comprehension and changes",
        {
            **work(
                "clean(x)",
                "def clean(x):\n    import helpers\n"
                "    return [helpers.clean(i) for i in range(x)]",
            ),
            "helpers.py": CLEAN,
        },
        *CHANGED,
        file="helpers.py",
    ),
    reuse(
        "a neighbour in a module that a body imports for a comprehension changes",
        {
            **work(
                "clean(x)",
                "def clean(x):\n    import helpers\n"
                "    return [helpers.clean(i) for i in range(x)]",
            ),
            "helpers.py": CLEAN,
        },
        "def other(x): return x",
        "def other(x): return -x",
        file="helpers.py",
    ),
    rerun(
        "a function that a decorator registers in another module changes",
        REGISTRY,
        "x + 2",
        "x + 3",
        "code changed: plugins.two",
        file="plugins.py",
    ),
    rerun(
        "a function is no longer registered",
        REGISTRY,
        '@register("two")\n',
        "",
        "code changed: registry.STEPS",
        file="plugins.py",
    ),
    reuse(
        "a function that is not registered comes in",
        REGISTRY,
        '@register("two")\n',
        'def three(x): return x\n\n@register("two")\n',
        file="plugins.py",
    ),
    rerun(
        "what another module puts in place of a function changes",
        PATCHED,
        "x + 7",
        "x + 8",
        "code changed: patches.better",
        file="patches.py",
    ),
    reuse(
        "a function that another module has replaced changes",
        PATCHED,
        "x + 1",
        "x + 2",
        file="helpers.py",
    ),
    rerun(
        "what another module puts in place of a method changes",
        PATCHED_CLASS,
        "return 7",
        "return 8",
        "code changed: patches.better",
        file="patches.py",
    ),
    rerun(
        "what a user puts in place of a library's function changes",
        PATCHED_LIBRARY,
        "'!'",
        "'?'",
        "code changed: patches.dumps",
        file="patches.py",
    ),
    rerun(
        "a library's function is replaced no longer",
        PATCHED_LIBRARY,
        "json.dumps = dumps",
        "",
        "code changed: patches.dumps",
        file="patches.py",
    ),
    rerun(
        "what a user puts in place of a builtin changes",
        PATCHED_BUILTIN,
        "'7'",
        "'8'",
        "code changed: patches.shown",
        file="patches.py",
    ),
    rerun(
        "what a user adds to the builtins changes",
        ADDED_BUILTIN,
        "'ja'",
        "'oui'",
        "code changed: builtins.translate",
        file="patches.py",
    ),
    rerun(
        "an accessor that a user adds to tables changes",
        ACCESSOR,
        "mean()",
        "max()",
        "code changed: accessors.Tidy.mean_of",
        file="accessors.py",
    ),
    rerun(
        "a method that a user adds to tables changes",
        GRAFTED,
        "sum()",
        "max()",
        "code changed: grafts.total",
        file="grafts.py",
    ),
    reuse(
        "an accessor that the step does not use changes",
        {
            **ACCESSOR,
            **work("len(pd.DataFrame({'a': [x, 3]}))", "import accessors, pandas as pd"),
        },
        "mean()",
        "max()",
        file="accessors.py",
    ),
    rerun(
        "the flags of a pattern change",
        work("WORD.findall('aBb')", CONSTANTS),
        ", re.IGNORECASE",
        "",
        "code changed: main.WORD",
    ),
    rerun(
        "a date put together of others changes",
        work("str(SINCE)", CONSTANTS),
        "days=1",
        "days=2",
        "code changed: main.SINCE",
    ),
    rerun(
        "the exponent of a Decimal changes",
        work("str(PRICE)", CONSTANTS),
        '"1.50"',
        '"1.5"',
        "code changed: main.PRICE",
    ),
    rerun(
        "a path that only names something changes",
        work("PLACE.name", CONSTANTS),
        "data/raw",
        "data/new",
        "code changed: main.PLACE",
    ),
    rerun(
        "a property of a module with a class of its own changes",
        CLASSED,
        "self.base * 2",
        "self.base * 4",
        "code changed: settings.size",
        file="settings.py",
    ),
    rerun(
        "what a property of a module reads changes",
        CLASSED,
        "base = 3",
        "base = 4",
        "code changed: settings.size",
        file="settings.py",
    ),
    rerun(
        "a function of a module that is loaded late changes",
        LOADED_LATE,
        *CHANGED,
        file="helpers.py",
    ),
    reuse(
        "a neighbour in a module that is loaded late changes",
        LOADED_LATE,
        "def other(x): return x",
        "def other(x): return -x",
        file="helpers.py",
    ),
    rerun(
        "an object in the place of a module changes its class",
        REPLACED,
        "size = 3",
        "size = 4",
        "code changed: settings.Settings",
        file="settings.py",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_modules(lab: Lab, row: Row) -> None:
    check(lab, row)
