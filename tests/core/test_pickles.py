from __future__ import annotations

import importlib
import pickle
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from prefect_mlpipe.core.formats.base import Unstorable
from prefect_mlpipe.core.formats.pickles import Pickle, importable, importable_main, type_name
from tests.core.formatting import dumped, loaded, round_trip

# --- what cannot be stored -----------------------------------------------------------------------


@dataclass
class Model:
    weights: object
    inner: object = None


@pytest.mark.parametrize(
    ("value", "path", "type_", "why"),
    [
        (Path("a"), "", type_name(Path()), "return File(path)"),
        ([1, {"where": Path("a")}], "[1]['where']", type_name(Path()), "str(path)"),
        (Model(1, Path("a")), ".inner", type_name(Path()), "str(path)"),
        ((n for n in ()), "", "generator", "return a list"),
        ([iter([1])], "[0]", "list_iterator", "return a list"),
        (Model(threading.Lock()), ".weights", "_thread.lock", "cannot be pickled"),
        ({"a": (1, sys._getframe())}, "['a'][1]", "frame", "cannot be pickled"),
    ],
)
def test_what_cannot_be_pickled_says_where_it_is(
    value: object, path: str, type_: str, why: str
) -> None:
    with pytest.raises(Unstorable) as caught:
        Pickle().dump(value)
    assert caught.value.path == path
    assert caught.value.type == type_
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i2").reshape(3, 2)[:, 0],
        np.array("NaT", dtype=">M8[Y]"),
        np.array([1, 2], dtype=">m8[s]"),
    ],
    ids=["scattered", "a time", "durations"],
)
def test_arrays_inside_other_values_keep_the_order_of_their_bytes(array: Any) -> None:
    (again,) = round_trip([array])
    assert again.dtype.str == array.dtype.str
    assert again.tobytes() == array.tobytes()


def test_an_unstorable_error_travels() -> None:
    error = pickle.loads(pickle.dumps(Unstorable("[0]", "int", "because")))
    assert (error.path, error.type, error.why) == ("[0]", "int", "because")


# --- code and classes of a script ----------------------------------------------------------------


def test_lambdas_and_local_classes_are_stored_by_value() -> None:
    factor = 3
    assert round_trip(lambda x: x * factor)(2) == 6

    class Local:
        def answer(self) -> int:
            return 42

    assert round_trip(Local()).answer() == 42


SCRIPT = """
class Model:
    class Inner: ...
    def __init__(self, weight): self.weight, self.inner = weight, Model.Inner()

def double(x): return 2 * x
"""


def main_module(file: Path | None) -> ModuleType:
    """A `__main__` that runs the script, from a file or from a notebook's cell."""
    module = ModuleType("__main__")
    module.__dict__.update({"__file__": str(file)} if file else {})
    exec(SCRIPT, module.__dict__)
    return module


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "trained_script.py"
    path.write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop("trained_script", None)


def contents(module: ModuleType) -> list[Any]:
    return [module.Model(3), module.double, module.Model, module.Model.Inner]


def test_classes_of_a_script_are_found_under_its_importable_name(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", main_module(script))
    format, data = dumped(contents(sys.modules["__main__"]))
    assert b"__main__" not in data
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(script.parent))
    model, function, kind, inner = loaded(format, data)
    assert kind.__module__ == inner.__module__ == "trained_script"
    assert (type(model), type(model.inner)) == (kind, inner)
    assert (model.weight, function(4)) == (3, 8)


def test_a_script_gets_its_own_classes_of_what_it_stored(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = main_module(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    model, *others = round_trip(contents(main))
    assert type(model) is main.Model
    assert others == contents(main)[1:]
    assert "trained_script" not in sys.modules


def test_a_script_gets_its_own_classes_of_what_others_stored(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(contents(importlib.import_module("trained_script")))
    main = main_module(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    model, *others = loaded(Pickle(), data)
    assert type(model) is main.Model
    assert others == contents(main)[1:]


def test_what_a_notebook_defines_is_stored_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", main_module(None))
    format, data = dumped(contents(sys.modules["__main__"]))
    monkeypatch.undo()
    model, function, kind, _ = loaded(format, data)
    assert type(model) is kind
    assert (model.weight, function(4)) == (3, 8)


def test_a_script_that_cannot_be_imported_by_its_name_is_stored_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text(SCRIPT)
    monkeypatch.setitem(sys.modules, "__main__", main_module(tmp_path / "json.py"))
    assert importable_main() is None
    assert round_trip(contents(sys.modules["__main__"]))[0].weight == 3


def test_this_process_has_an_importable_main_or_none() -> None:
    name = importable_main()
    assert name is None or importable(name, "__name__")


def test_a_name_that_is_gone_is_an_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        importable("json", "nothing_of_this_name")
