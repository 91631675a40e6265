"""What code reads from outside is seen where there is no doubt, and nothing else is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent, indent
from types import ModuleType

import pytest

from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.core.telling.undeclared import Use, undeclared

HEADER = """
import datetime, gzip, importlib, os, random, secrets, socket, sqlite3, subprocess, time, uuid
import urllib.request
from datetime import date, datetime as dt
from os import environ, getenv
from pathlib import Path
from random import shuffle
from time import time as now

import numpy as np
import pandas as pd

import other

VOCABULARY = "vocabulary.txt"
PLACE = Path("place.txt")
VARIABLE = "VARIABLE"
COUNT = 0

"""


@pytest.fixture
def written() -> Iterator[list[str]]:
    """Names of modules that a test makes."""
    names: list[str] = []
    yield names
    for name in names:
        sys.modules.pop(name, None)


def module(name: str, source: str, written: list[str], folder: Path) -> ModuleType:
    made = ModuleType(name)
    made.__file__ = str(folder / f"{name}.py")
    sys.modules[name] = made
    written.append(name)
    exec(compile(dedent(source), made.__file__, "exec"), vars(made))
    return made


def uses(body: str, written: list[str], folder: Path) -> list[Use]:
    """What a function with this body reads; `x` is its parameter."""
    module("other", "import os\nLIMIT = 3\ndef none(x): return x", written, folder)
    source = f"{HEADER}def work(x):\n{indent(dedent(body).strip(), '    ')}\n"
    work = module("reading", source, written, folder).work
    return undeclared(CodeReader().read(work))


SEEN = [
    ("return os.environ['HOME']", ("environment", "os.environ", "HOME")),
    ("return os.environ[VARIABLE]", ("environment", "os.environ", "VARIABLE")),
    ("return os.environ[x]", ("environment", "os.environ", None)),
    ("return os.environ.get('HOME', 'a')", ("environment", "os.environ", "HOME")),
    ("return environ['HOME'] + x", ("environment", "os.environ", "HOME")),
    ("return 'HOME' in os.environ", ("environment", "os.environ", "HOME")),
    ("return dict(os.environ)", ("environment", "os.environ", None)),
    ("return getenv('HOME')", ("environment", "os.getenv", "HOME")),
    ("return os.getenv(key='HOME')", ("environment", "os.getenv", "HOME")),
    ("return other.os.environ['HOME']", ("environment", "os.environ", "HOME")),
    ("import os as system\nreturn system.environ['A']", ("environment", "os.environ", "A")),
    ("from os import environ as e\nreturn e['A']", ("environment", "os.environ", "A")),
    ("return [os.environ['A'] for _ in x]", ("environment", "os.environ", "A")),
    ("return (lambda: os.environ['A'])()", ("environment", "os.environ", "A")),
    ("return os.getcwd()", ("folder", "os.getcwd", None)),
    ("return Path.cwd()", ("folder", "pathlib.Path.cwd", None)),
    ("return random.random()", ("chance", "random.random", None)),
    ("shuffle(x)\nreturn x", ("chance", "random.shuffle", None)),
    ("return sorted(x, key=lambda _: random.random())", ("chance", "random.random", None)),
    ("return np.random.rand(3)", ("chance", "numpy.random.rand", None)),
    ("return np.random.default_rng()", ("chance", "numpy.random.default_rng", None)),
    ("return np.random.default_rng(None)", ("chance", "numpy.random.default_rng", None)),
    ("return np.random.default_rng(seed=None)", ("chance", "numpy.random.default_rng", None)),
    ("import numpy.random as r\nreturn r.rand(2)", ("chance", "numpy.random.rand", None)),
    ("return random.Random()", ("chance", "random.Random", None)),
    ("return random.SystemRandom().random()", ("chance", "random.SystemRandom", None)),
    ("random.seed()", ("chance", "random.seed", None)),
    ("return uuid.uuid4()", ("chance", "uuid.uuid4", None)),
    ("return secrets.token_hex()", ("chance", "secrets.token_hex", None)),
    ("return os.urandom(3)", ("chance", "os.urandom", None)),
    ("return time.time()", ("time", "time.time", None)),
    ("return now()", ("time", "time.time", None)),
    ("return datetime.datetime.now()", ("time", "datetime.datetime.now", None)),
    ("return dt.now(tz=None)", ("time", "datetime.datetime.now", None)),
    ("return date.today()", ("time", "datetime.date.today", None)),
    ("return pd.Timestamp.now()", ("time", "pandas.Timestamp.now", None)),
    ("return time.strftime('%Y')", ("time", "time.strftime", None)),
    ("return open('a.txt').read()", ("file", "open", "a.txt")),
    ("return open(VOCABULARY).read()", ("file", "open", "vocabulary.txt")),
    ("return open(PLACE).read()", ("file", "open", "place.txt")),
    ("with open('a.txt', 'rb') as f:\n    return f.read()", ("file", "open", "a.txt")),
    ("return gzip.open('a.gz').read()", ("file", "gzip.open", "a.gz")),
    ("return pd.read_csv('a.csv', sep=x)", ("file", "pandas.read_csv", "a.csv")),
    ("return pd.read_csv(filepath_or_buffer='a.csv')", ("file", "pandas.read_csv", "a.csv")),
    ("return np.load('a.npy', allow_pickle=False)", ("file", "numpy.load", "a.npy")),
    ("return Path('a.txt').read_text()", ("file", "pathlib.Path", "a.txt")),
    ("return PLACE.read_bytes()", ("file", "Path.read_bytes", "place.txt")),
    ("return pd.read_csv('https://a/b.csv')", ("outside", "pandas.read_csv", "https://a/b.csv")),
    ("return urllib.request.urlopen(x)", ("outside", "urllib.request.urlopen", None)),
    ("return socket.socket()", ("outside", "socket.socket", None)),
    ("return sqlite3.connect(x)", ("outside", "sqlite3.connect", None)),
    ("return subprocess.run(x)", ("outside", "subprocess.run", None)),
    ("import requests\nreturn requests.get(x)", ("outside", "requests.get", None)),
    ("return importlib.import_module(x)", ("code", "importlib.import_module", None)),
    ("return importlib.import_module('other')", ("code", "importlib.import_module", "other")),
    ("global COUNT\nCOUNT += 1\nreturn COUNT", ("global", "reading.COUNT", None)),
]


@pytest.mark.parametrize(("body", "expected"), SEEN, ids=[body for body, _ in SEEN])
def test_what_is_read_from_outside_is_seen(
    body: str, expected: tuple[str, str, str | None], written: list[str], tmp_path: Path
) -> None:
    assert uses(body, written, tmp_path) == [Use("reading.work", *expected)]


UNSEEN = [
    "return os.path.join('a', x)",
    "os.environ['A'] = '1'\ndel os.environ['A']",
    "os.environ.setdefault('A', '1')",
    "return np.random.default_rng(x)",
    "return np.random.default_rng(seed=0).normal()",
    "return np.random.RandomState(3)",
    "return random.Random(4).random()",
    "return isinstance(x, np.random.Generator)",
    "start = time.time()\nother.none(x)\nprint(time.time() - start)",
    "start = dt.now()\nother.none(x)\nreturn (dt.now() - start) * 0",
    "return time.perf_counter() - time.monotonic()",
    "return time.strftime('%Y', x), time.gmtime(0), time.sleep(0)",
    "return datetime.datetime(2026, 1, 1), date(2026, 1, 1), dt.fromtimestamp(0)",
    "return open(x).read(), open('a.txt', 'w'), open('a.txt', mode='xb'), open('a' + x)",
    "return open(f'{x}/a.txt'), open('{}'.format(x)), open(os.path.join('a', x))",
    "return pd.read_csv(x), np.load(x), Path(x).read_text(), Path('a.txt'), PLACE.name",
    "return pd.read_csv(x, sep='a.csv')",
    "return subprocess.PIPE, subprocess.CalledProcessError, uuid.UUID(x), uuid.uuid5(x, 'a')",
    "return importlib.import_module('json')",
    "global NEVER_READ\nNEVER_READ = x",
    "return other.LIMIT, other.none(x), [len(each) for each in sorted(x)]",
    "environ = {'A': x}\nreturn environ['A']",
]


@pytest.mark.parametrize("body", UNSEEN)
def test_what_is_a_value_or_not_certain_is_left_alone(
    body: str, written: list[str], tmp_path: Path
) -> None:
    assert uses(body, written, tmp_path) == []


def test_a_generator_that_is_seeded_is_known_as_such(written: list[str], tmp_path: Path) -> None:
    body = "random.seed(x)\nnp.random.seed(x)"
    assert {(use.kind, use.name) for use in uses(body, written, tmp_path)} == {
        ("seed", "random.seed"),
        ("seed", "numpy.random.seed"),
    }


def test_what_a_library_reads_inside_is_its_own_affair(written: list[str], tmp_path: Path) -> None:
    body = """
        import tempfile, logging
        logging.getLogger("a").info("%s", x)
        return tempfile.gettempdir(), pd.Series([1, 2]).sum()
    """
    assert uses(body, written, tmp_path) == []


def test_the_function_that_reads_is_named(written: list[str], tmp_path: Path) -> None:
    module(
        "settings",
        """
        import os

        class Settings:
            def language(self):
                return os.environ["LANG"]

            @property
            def home(self):
                return os.environ["HOME"]

        def home():
            return Settings().home
        """,
        written,
        tmp_path,
    )
    body = "import settings\nreturn settings.home()"
    assert [(use.label, use.detail) for use in uses(body, written, tmp_path)] == [
        ("settings.Settings.home", "HOME"),
        ("settings.Settings.language", "LANG"),
    ]
