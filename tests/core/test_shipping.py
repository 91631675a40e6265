"""Code that goes to another process is the code that it was."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import cloudpickle
import pytest

from prefect_mlpipe.core.annotations import spelled_annotations
from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.core.shipping import ship

Make = Callable[[str], ModuleType]


@pytest.fixture
def module() -> Iterator[Make]:
    """Makes a module that nobody else can import."""
    found = ModuleType("shipped_by_value")

    def make(source: str) -> ModuleType:
        exec(compile(source, "shipped.py", "exec", dont_inherit=True), vars(found))
        cloudpickle.register_pickle_by_value(found)
        return found

    sys.modules[found.__name__] = found
    yield make
    cloudpickle.unregister_pickle_by_value(found)
    del sys.modules[found.__name__]


DECLARED = """
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

class Row(NamedTuple):
    x: int
    y: "str" = ""

@dataclass
class Point:
    x: int = 1

class Said(TypedDict, total=False):
    x: "int"

class Plain:
    x: int
"""


def test_classes_keep_their_annotations_and_their_code(module: Make) -> None:
    made = module(DECLARED)
    classes = [made.Row, made.Point, made.Said, made.Plain]
    assert elsewhere(classes) == [*map(seen, classes)]


UNKNOWN = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import nowhere

def made(x: nowhere.Row, *, times: int = 3) -> list[nowhere.Row]:
    \"\"\"Make it.\"\"\"
    return [x] * times if times else made(x)

class Holder:
    held: nowhere.Row

    def put(self, x: nowhere.Row) -> "Holder":
        return self
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_for_a_type_checker_alone_do_not_keep_code_from_travelling(
    module: Make,
) -> None:
    made = module(UNKNOWN)
    code = [made.made, made.Holder, made.Holder.put]
    assert elsewhere(code) == [*map(seen, code)]
    assert pickle.loads(ship(made.made))(2) == [2, 2, 2]


def seen(holder: Any) -> list[str | None]:
    """Its annotations as they read, its docstring, and the digest of its code."""
    spelled = {
        name: getattr(each, "__forward_arg__", each if isinstance(each, str) else repr(each))
        for name, each in spelled_annotations(holder).items()
    }
    return [str(spelled), holder.__doc__, CodeReader().read(holder).digest]


def elsewhere(holders: list[Any]) -> Any:
    """What a process sees that has got them, and cannot import them."""
    program = (
        "import json, pickle, sys\n"
        "from tests.core.test_shipping import seen\n"
        "holders = pickle.load(sys.stdin.buffer)\n"
        "print(json.dumps([seen(each) for each in holders]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=ship(holders),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


WITHOUT_CONTENT = """
import contextvars, threading
LOCK, OWN = threading.Lock(), threading.local()
LEVEL = contextvars.ContextVar("level", default=3)

def level():
    with LOCK:
        return LEVEL.get(), hasattr(OWN, "seen"), LOCK, LEVEL
"""


def test_what_has_no_content_is_made_anew_where_it_arrives(module: Make) -> None:
    made = module(WITHOUT_CONTENT)
    made.LEVEL.set(5)
    made.OWN.seen = True
    level, seen, lock, variable = pickle.loads(ship(made.level))()
    assert (level, seen) == (3, False)
    assert lock is not made.LOCK
    assert isinstance(lock, type(threading.Lock()))
    assert isinstance(variable, ContextVar)
