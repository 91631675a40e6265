"""Changes of code in shapes that are easily overlooked."""

from __future__ import annotations

import pytest

from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.core.encoding.encode import Undigestible
from tests.core.projects import Project

# The files, a word in them, and what it becomes.
SEEN: dict[str, tuple[dict[str, str], str, str]] = {
    "conditional import": (
        {
            "steps.py": (
                "try:\n"
                " import nonexist as j\n"
                "except ImportError:\n"
                " import json as j\n"
                "def step(x): return j.dumps(x), 1\n"
            ),
        },
        "1",
        "2",
    ),
    "import of what is not installed": (
        {
            "steps.py": (
                "def step(x):\n try:\n  import nonexist\n except ImportError: pass\n return 1\n"
            ),
        },
        "return 1",
        "return 2",
    ),
    "lazy in method": (
        {
            "h.py": "def f(): return 1",
            "steps.py": (
                "class C:\n def m(self):\n  import h\n  return h.f()\ndef step(x): return C().m()\n"
            ),
        },
        "return 1",
        "return 2",
    ),
    "super": (
        {
            "steps.py": (
                "class B:\n"
                " def m(self): return 1\n"
                "class C(B):\n"
                " def m(self): return super().m()\n"
                "def step(x): return C().m()\n"
            ),
        },
        "1",
        "2",
    ),
    "dataclass with slots": (
        {
            "steps.py": (
                "import dataclasses\n"
                "@dataclasses.dataclass(slots=True, frozen=True)\n"
                "class C:\n"
                " a: int = 1\n"
                " def m(self): return 5\n"
                "def step(x): return C().m()\n"
            ),
        },
        "5",
        "6",
    ),
    "frozen of a dataclass": (
        {
            "steps.py": (
                "import dataclasses\n"
                "@dataclasses.dataclass(frozen=True)\n"
                "class C:\n"
                " a: int = 1\n"
                "def step(x): return C()\n"
            ),
        },
        "frozen=True",
        "frozen=False",
    ),
    "order of a dataclass": (
        {
            "steps.py": (
                "import dataclasses\n"
                "@dataclasses.dataclass(order=True)\n"
                "class C:\n"
                " a: int = 1\n"
                "def step(x): return C()\n"
            ),
        },
        "order=True",
        "order=False",
    ),
    "type of a dataclass field": (
        {
            "steps.py": (
                "from __future__ import annotations\n"
                "import dataclasses\n"
                "@dataclasses.dataclass\n"
                "class C:\n"
                " a: int\n"
                " b: int\n"
                "def step(x): return C(1,2)\n"
            ),
        },
        " b: int",
        " b: float",
    ),
    "nested pydantic model": (
        {
            "steps.py": (
                "import pydantic\n"
                "class I(pydantic.BaseModel):\n"
                " a: int = 1\n"
                "class C(pydantic.BaseModel):\n"
                " i: I = I()\n"
                "def step(x): return C()\n"
            ),
        },
        "a: int = 1",
        "a: int = 2",
    ),
    "pydantic default_factory": (
        {
            "steps.py": (
                "import pydantic\n"
                "class C(pydantic.BaseModel):\n"
                " i: list = pydantic.Field(default_factory=lambda: [1])\n"
                "def step(x): return C()\n"
            ),
        },
        "[1]",
        "[2]",
    ),
    "pydantic model validator": (
        {
            "steps.py": (
                "import pydantic\n"
                "class C(pydantic.BaseModel):\n"
                " i: int = 1\n"
                " @pydantic.model_validator(mode='after')\n"
                " def chk(self):\n"
                "  self.i += 5\n"
                "  return self\n"
                "def step(x): return C()\n"
            ),
        },
        "5",
        "6",
    ),
    "mode of a pydantic validator": (
        {
            "steps.py": (
                "import pydantic\n"
                "class C(pydantic.BaseModel):\n"
                " i: int = 1\n"
                " @pydantic.field_validator('i', mode='after')\n"
                " def chk(cls, v): return v\n"
                "def step(x): return C()\n"
            ),
        },
        "'after'",
        "'before'",
    ),
    "pydantic config": (
        {
            "steps.py": (
                "import pydantic\n"
                "class C(pydantic.BaseModel):\n"
                " model_config = {'extra': 'forbid'}\n"
                " i: int = 1\n"
                "def step(x): return C()\n"
            ),
        },
        "forbid",
        "allow",
    ),
    "pydantic computed field": (
        {
            "steps.py": (
                "import pydantic\n"
                "class C(pydantic.BaseModel):\n"
                " i: int = 1\n"
                " @pydantic.computed_field\n"
                " def d(self) -> int: return self.i * 2\n"
                "def step(x): return C().d\n"
            ),
        },
        "* 2",
        "* 3",
    ),
    "pydantic private attribute": (
        {
            "steps.py": (
                "import pydantic\n"
                "class C(pydantic.BaseModel):\n"
                " _p: int = pydantic.PrivateAttr(7)\n"
                "def step(x): return C()._p\n"
            ),
        },
        "7",
        "8",
    ),
    "pydantic annotated validator": (
        {
            "steps.py": (
                "import pydantic\n"
                "from typing import Annotated\n"
                "def dbl(v): return v*2\n"
                "class C(pydantic.BaseModel):\n"
                " i: Annotated[int, pydantic.AfterValidator(dbl)] = 1\n"
                "def step(x): return C(i=x)\n"
            ),
        },
        "v*2",
        "v*3",
    ),
    "global pydantic model": (
        {
            "steps.py": (
                "import pydantic\n"
                "class C(pydantic.BaseModel):\n"
                " i: int = 1\n"
                "c = C(i=4)\n"
                "def step(x): return c.i\n"
            ),
        },
        "i=4",
        "i=5",
    ),
    "validate_call": (
        {
            "steps.py": (
                "import pydantic\n"
                "@pydantic.validate_call\n"
                "def h(x: int): return x + 1\n"
                "def step(x): return h(x)\n"
            ),
        },
        "x + 1",
        "x + 2",
    ),
    "annotation that validate_call reads": (
        {
            "steps.py": (
                "import pydantic\n"
                "@pydantic.validate_call\n"
                "def h(x: int): return x + 1\n"
                "def step(x): return h(x)\n"
            ),
        },
        "x: int",
        "x: str",
    ),
    "pydantic TypeAdapter": (
        {
            "steps.py": (
                "import pydantic\n"
                "A = pydantic.TypeAdapter(list[int])\n"
                "def step(x): return A.validate_python(x)\n"
            ),
        },
        "list[int]",
        "list[str]",
    ),
    "attrs validator": (
        {
            "steps.py": (
                "import attrs\n"
                "@attrs.define\n"
                "class C:\n"
                " a: int = attrs.field(default=1, validator=lambda s,a,v: v+1, converter=int)\n"
                "def step(x): return C()\n"
            ),
        },
        "v+1",
        "v+2",
    ),
    "abc": (
        {
            "steps.py": (
                "import abc\n"
                "class B(abc.ABC):\n"
                " @abc.abstractmethod\n"
                " def m(self): ...\n"
                " def n(self): return 1\n"
                "class C(B):\n"
                " def m(self): return 3\n"
                "def step(x): return C().n()\n"
            ),
        },
        "return 1",
        "return 2",
    ),
    "enum methods": (
        {
            "steps.py": (
                "import enum\n"
                "class E(enum.Enum):\n"
                " A = enum.auto()\n"
                " B = enum.auto()\n"
                " def m(self): return 5\n"
                " @classmethod\n"
                " def _missing_(cls, v): return cls.A\n"
                "def step(x): return E(x).m()\n"
            ),
        },
        "5",
        "6",
    ),
    "flag": (
        {
            "steps.py": (
                "import enum\n"
                "class E(enum.Flag):\n"
                " A = 1\n"
                " B = 2\n"
                " C = A | B\n"
                "def step(x): return E.C\n"
            ),
        },
        "C = A | B",
        "C = A",
    ),
    "enum with __init__": (
        {
            "steps.py": (
                "import enum\n"
                "class E(enum.Enum):\n"
                " A = (1, 2)\n"
                " def __init__(self, a, b): self.s = a + b\n"
                "def step(x): return E.A.s\n"
            ),
        },
        "a + b",
        "a - b",
    ),
    "enum with __new__": (
        {
            "steps.py": (
                "import enum\n"
                "class E(str, enum.Enum):\n"
                " def __new__(cls, v):\n"
                "  o = str.__new__(cls, v); o._value_ = v; o.k = 5\n"
                "  return o\n"
                " A = 'a'\n"
                "def step(x): return E.A.k\n"
            ),
        },
        "= 5",
        "= 6",
    ),
    "newtype": (
        {
            "steps.py": (
                "from typing import NewType\nU = NewType('U', int)\ndef step(x): return U(x), 1\n"
            ),
        },
        "1",
        "2",
    ),
    "typeddict": (
        {
            "steps.py": (
                "from typing import TypedDict\n"
                "class T(TypedDict):\n"
                " a: int\n"
                "def step(x): return T(a=1)\n"
            ),
        },
        "a: int",
        "b: int",
    ),
    "aliases": (
        {
            "steps.py": (
                "from typing import *\n"
                "import collections.abc as c\n"
                "A = dict[str, int]\n"
                "B = Union[int, str]\n"
                "C = Optional[int]\n"
                "D = Callable[[int], int]\n"
                "E = Literal['a']\n"
                "F = Annotated[int, 5]\n"
                "P = ParamSpec('P')\n"
                "G = int | None\n"
                "H = c.Mapping[str, 'int']\n"
                "T = TypeVar('T', bound=int)\n"
                "def step(x): return A, B, C, D, E, F, P, G, H, T\n"
            ),
        },
        "Literal['a']",
        "Literal['b']",
    ),
    "global estimator": (
        {
            "steps.py": (
                "from sklearn.linear_model import LogisticRegression\n"
                "M = LogisticRegression(C=1)\n"
                "def step(x): return M.fit(x)\n"
            ),
        },
        "C=1",
        "C=2",
    ),
    "function in a sklearn pipeline": (
        {
            "steps.py": (
                "from sklearn.pipeline import make_pipeline\n"
                "from sklearn.preprocessing import FunctionTransformer\n"
                "def f(x): return x + 1\n"
                "M = make_pipeline(FunctionTransformer(f))\n"
                "def step(x): return M.fit(x)\n"
            ),
        },
        "x + 1",
        "x + 2",
    ),
    "subclass of an estimator": (
        {
            "steps.py": (
                "from sklearn.base import BaseEstimator, TransformerMixin\n"
                "class M(BaseEstimator, TransformerMixin):\n"
                " def fit(self, X): return 5\n"
                "def step(x): return M().fit(x)\n"
            ),
        },
        "5",
        "6",
    ),
    "global frame": (
        {
            "steps.py": (
                "import pandas as pd\nD = pd.DataFrame({'a':[1,2]})\ndef step(x): return D\n"
            ),
        },
        "1,2",
        "1,3",
    ),
    "defaultdict lambda": (
        {
            "steps.py": (
                "import collections\n"
                "D = collections.defaultdict(lambda: 5)\n"
                "def step(x): return D[x]\n"
            ),
        },
        "5",
        "6",
    ),
    "partialmethod": (
        {
            "steps.py": (
                "import functools\n"
                "class C:\n"
                " def m(self, n): return n + 1\n"
                " k = functools.partialmethod(m, 5)\n"
                "def step(x): return C().k()\n"
            ),
        },
        "5",
        "6",
    ),
    "singledispatchmethod": (
        {
            "steps.py": (
                "import functools\n"
                "class C:\n"
                " @functools.singledispatchmethod\n"
                " def m(self, n): return 1\n"
                " @m.register\n"
                " def _(self, n: int): return 5\n"
                "def step(x): return C().m(x)\n"
            ),
        },
        "5",
        "6",
    ),
    "total_ordering": (
        {
            "steps.py": (
                "import functools\n"
                "@functools.total_ordering\n"
                "class C:\n"
                " def __lt__(self, o): return 5\n"
                " def __eq__(self, o): return 1\n"
                "def step(x): return C() >= C()\n"
            ),
        },
        "5",
        "6",
    ),
    "namedtuple fn": (
        {
            "steps.py": (
                "import collections\n"
                "P = collections.namedtuple('P', 'a b', defaults=[5])\n"
                "def step(x): return P(1)\n"
            ),
        },
        "[5]",
        "[6]",
    ),
    "namespace": (
        {
            "steps.py": ("import types\nN = types.SimpleNamespace(a=5)\ndef step(x): return N.a\n"),
        },
        "5",
        "6",
    ),
    "__set_name__": (
        {
            "steps.py": (
                "class D:\n"
                " def __set_name__(self, o, n): self.n = n\n"
                " def __get__(self, i, o): return 5\n"
                "class C:\n"
                " d = D()\n"
                "def step(x): return C().d\n"
            ),
        },
        "5",
        "6",
    ),
    "recursive closure": (
        {
            "steps.py": (
                "def make():\n"
                " def inner(n): return inner(n - 1) if n else 5\n"
                " return inner\n"
                "inner = make()\n"
                "def step(x): return inner(x)\n"
            ),
        },
        "5",
        "6",
    ),
    "modules in dict": (
        {
            "h.py": "def f(): return 1",
            "steps.py": ("import h\nM = {'h': h}\ndef step(x): return M['h'].f()\n"),
        },
        "return 1",
        "return 2",
    ),
    "foreign from user": (
        {
            "h.py": ("import numpy as np\nfrom json import dumps\n"),
            "steps.py": ("from h import np, dumps\ndef step(x): return np.sum(x), dumps, 1\n"),
        },
        "1",
        "2",
    ),
    "star import with __all__": (
        {
            "h.py": ("__all__=['f']\ndef f(): return 1\ndef g(): return 9\n"),
            "steps.py": ("from h import *\ndef step(x): return f()\n"),
        },
        "return 1",
        "return 2",
    ),
    "joblib memory": (
        {
            "steps.py": (
                "import joblib\n"
                "mem = joblib.Memory(None)\n"
                "@mem.cache\n"
                "def h(x): return x + 1\n"
                "def step(x): return h(x)\n"
            ),
        },
        "x + 1",
        "x + 2",
    ),
    "weak cache": (
        {
            "steps.py": (
                "import weakref\n"
                "W = weakref.WeakValueDictionary()\n"
                "class C: ...\n"
                "def step(x): return W.get(x), 5\n"
            ),
        },
        "5",
        "6",
    ),
    "global random generator": (
        {
            "steps.py": (
                "import numpy as np, random\n"
                "R = np.random.default_rng(3); Q = random.Random(3)\n"
                "def step(x): return R.normal(), Q.random()\n"
            ),
        },
        "default_rng(3)",
        "default_rng(4)",
    ),
    "functions of the hidden generators": (
        {
            "steps.py": (
                "from random import random, randint\n"
                "from numpy.random import rand\n"
                "def step(x): return random(), randint(1, 2), rand(), 5\n"
            ),
        },
        "5",
        "6",
    ),
    "class decorator": (
        {
            "steps.py": (
                "def deco(c):\n"
                " c.extra = lambda self: 5\n"
                " return c\n"
                "@deco\n"
                "class C: ...\n"
                "def step(x): return C().extra()\n"
            ),
        },
        "5",
        "6",
    ),
    "property setter": (
        {
            "steps.py": (
                "class C:\n"
                " @property\n"
                " def a(self): return 1\n"
                " @a.setter\n"
                " def a(self, v): self.b = v + 5\n"
                "def step(x): C().a = x\n"
            ),
        },
        "+ 5",
        "+ 6",
    ),
    "class __getattr__": (
        {
            "steps.py": (
                "class C:\n"
                " def __getattr__(self, n): return 5\n"
                "c = C()\n"
                "def step(x): return c.anything\n"
            ),
        },
        "5",
        "6",
    ),
    "metaclass __getattr__": (
        {
            "steps.py": (
                "class M(type):\n"
                " def __getattr__(cls, n):\n"
                "  if n.startswith('__'): raise AttributeError(n)\n"
                "  return 5\n"
                "class C(metaclass=M): ...\n"
                "def step(x): return C.anything\n"
            ),
        },
        "5",
        "6",
    ),
    "mock": (
        {
            "steps.py": (
                "from unittest import mock\n"
                "m = mock.Mock(return_value=1)\n"
                "def step(x): return m(), 5\n"
            ),
        },
        "5",
        "6",
    ),
    "async gen": (
        {
            "steps.py": (
                "async def g():\n yield 5\nasync def step(x): return [i async for i in g()]\n"
            ),
        },
        "5",
        "6",
    ),
    "contextclass": (
        {
            "steps.py": (
                "class C:\n"
                " def __enter__(self): return 5\n"
                " def __exit__(self, *a): return None\n"
                "def step(x):\n"
                " with C() as c: return c\n"
            ),
        },
        "return 5",
        "return 6",
    ),
    "method as global fn": (
        {
            "steps.py": ("class C:\n def m(self): return 5\nf = C.m\ndef step(x): return f(C())\n"),
        },
        "5",
        "6",
    ),
    "global in nested class body": (
        {
            "steps.py": ("K = 5\ndef step(x):\n class C:\n  k = K\n return C.k\n"),
        },
        "5",
        "6",
    ),
    "comprehension global": (
        {
            "steps.py": ("K = [5]\ndef step(x): return [k for k in K]\n"),
        },
        "5",
        "6",
    ),
    "lambda default": (
        {
            "steps.py": ("f = lambda x, k=5: x + k\ndef step(x): return f(x)\n"),
        },
        "5",
        "6",
    ),
    "decorator args": (
        {
            "steps.py": (
                "def rep(n):\n"
                " def d(f):\n"
                "  def w(*a): return [f(*a) for _ in range(n)]\n"
                "  return w\n"
                " return d\n"
                "@rep(5)\n"
                "def step(x): return x\n"
            ),
        },
        "rep(5)",
        "rep(6)",
    ),
    "numpy constants": (
        {
            "steps.py": (
                "import numpy as np\n"
                "K = np.float64(5)\n"
                "D = np.dtype('i4')\n"
                "P = np.poly1d([1,2])\n"
                "def step(x): return K, D, P\n"
            ),
        },
        "float64(5)",
        "float64(6)",
    ),
    "global time with a zone": (
        {
            "steps.py": (
                "import datetime, zoneinfo\n"
                "Z = zoneinfo.ZoneInfo('Europe/Paris')\n"
                "T = datetime.datetime(2024,1,1,tzinfo=Z)\n"
                "def step(x): return T\n"
            ),
        },
        "2024",
        "2025",
    ),
    "class in dict by str": (
        {
            "steps.py": (
                "class A:\n def m(self): return 5\nR = {'A': A}\ndef step(x): return R[x]().m()\n"
            ),
        },
        "5",
        "6",
    ),
    "instance in tuple default": (
        {
            "steps.py": (
                "class A:\n def __init__(self, k): self.k = k\ndef step(x, a=(A(5),)): return a\n"
            ),
        },
        "5",
        "6",
    ),
    "user exc": (
        {
            "steps.py": ("class E(Exception):\n code = 5\ndef step(x): raise E('x')\n"),
        },
        "5",
        "6",
    ),
    "parametrised generic class": (
        {
            "steps.py": (
                "from typing import Generic, TypeVar\n"
                "T = TypeVar('T')\n"
                "class C(Generic[T]):\n"
                " def m(self): return 5\n"
                "A = C[int]\n"
                "def step(x): return A().m()\n"
            ),
        },
        "5",
        "6",
    ),
    "operator": (
        {
            "steps.py": (
                "import operator as o\n"
                "a = o.attrgetter('x.y'); b = o.methodcaller('m', 5)\n"
                "def step(x): return a(x), b(x)\n"
            ),
        },
        "5",
        "6",
    ),
    "global stmt": (
        {
            "steps.py": (
                "N = 5\ndef h():\n global N\n N += 1\n return N\ndef step(x): return h()\n"
            ),
        },
        "5",
        "6",
    ),
    "builtin shadow": (
        {
            "steps.py": ("def len(x): return 5\ndef step(x): return len(x)\n"),
        },
        "5",
        "6",
    ),
    "str method partial": (
        {
            "steps.py": (
                "import functools\n"
                "f = functools.partial(str.split, sep='5')\n"
                "def step(x): return f(x)\n"
            ),
        },
        "5",
        "6",
    ),
    "chain call": (
        {
            "steps.py": ("class Cfg:\n class sub:\n  k = 5\ndef step(x): return Cfg.sub.k\n"),
        },
        "5",
        "6",
    ),
    "instance attr chain": (
        {
            "h.py": ("class C: ...\nc = C(); c.d = C(); c.d.k = 5\n"),
            "steps.py": ("import h\ndef step(x): return h.c.d.k\n"),
        },
        "5",
        "6",
    ),
    "functools cache method": (
        {
            "steps.py": (
                "import functools\n"
                "class C:\n"
                " @functools.lru_cache(maxsize=None)\n"
                " def m(self): return 5\n"
                "def step(x): return C().m()\n"
            ),
        },
        "5",
        "6",
    ),
    "type alias recursion": (
        {
            "steps.py": (
                "import typing\n"
                "Json = typing.Union[int, list['Json']]\n"
                "def step(x): return Json, 5\n"
            ),
        },
        "5",
        "6",
    ),
    "exception group": (
        {
            "steps.py": (
                "def step(x):\n try: return h(x)\n except* ValueError as e: y = 5\n return y\n"
            ),
        },
        "5",
        "6",
    ),
    "attribute that __getattr__ finds": (
        {
            "pkg/__init__.py": (
                "def __getattr__(n):\n from pkg import impl\n return getattr(impl, n)\n"
            ),
            "pkg/impl.py": "def f(): return 5",
            "steps.py": ("import pkg\ndef step(x): return pkg.f()\n"),
        },
        "return 5",
        "return 6",
    ),
    "submodule not imported yet": (
        {
            "pkg/__init__.py": "",
            "pkg/impl.py": "def f(): return 5",
            "steps.py": ("import pkg\ndef step(x): return pkg.impl.f()\n"),
        },
        "return 5",
        "return 6",
    ),
    "submodule that __getattr__ imports": (
        {
            "pkg/__init__.py": (
                "import importlib\n"
                "def __getattr__(n):\n"
                " return importlib.import_module('.'+n, __name__)\n"
            ),
            "pkg/sub.py": "def f(): return 5",
            "steps.py": ("import pkg\ndef step(x): return pkg.sub.f()\n"),
        },
        "return 5",
        "return 6",
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_a_change_is_seen_and_nothing_else_is(project: Project, case: str) -> None:
    files, word, becomes = SEEN[case]
    before = project.read(files)
    assert project.read(files).digest == before.digest
    after = project.read({name: text.replace(word, becomes) for name, text in files.items()})
    assert after.digest != before.digest
    assert dict(after.parts) != dict(before.parts)


def test_what_cannot_be_seen_into_is_refused(project: Project) -> None:
    source = "h = iter([1, 2])\ndef step(x): return next(h)"
    step = project.load(source).step
    with pytest.raises(Undigestible, match="iterator") as refused:
        CodeReader().read(step)
    assert refused.value.path == "step → steps.h"
