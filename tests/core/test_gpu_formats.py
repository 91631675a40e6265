"""Values that live on a GPU, with stand-ins for their libraries: where they go, what counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import NoDevice
from tests.core import gpu_stand_ins
from tests.core.formatting import dumped

ndarray, DataFrame, Series = gpu_stand_ins.ndarray, gpu_stand_ins.DataFrame, gpu_stand_ins.Series


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cupy", "cudf"):
        monkeypatch.setitem(sys.modules, name, getattr(gpu_stand_ins, name))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))


ARRAYS = {
    "numbers": np.arange(6.0).reshape(2, 3),
    "in Fortran's order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "nothing in it": np.empty((0, 3), "f4"),
    "one number": np.array(3),
    "large": np.arange(1 << 18, dtype="f4"),
}
TABLES = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [0.5, None]}),
    "strings": pd.DataFrame({"a": ["x", None]}),
    "labels": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="row")),
    "two levels": pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, 2), (1, 3)])),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_goes_to_npy_and_comes_back_as_it_was(name: str, store: Store) -> None:
    stored = store.put(ndarray(ARRAYS[name]), inline=False)
    again: Any = store.get(stored)
    assert (stored.format, stored.type) == ("cupy", "cupy.ndarray")
    assert type(again) is ndarray
    assert digest(again) == stored.digest
    np.testing.assert_array_equal(again.held, ARRAYS[name])
    assert again.held.flags.f_contiguous == ARRAYS[name].flags.f_contiguous
    path = store.local_path(stored)
    np.testing.assert_array_equal(np.load(str(path)), ARRAYS[name])


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("kind", [DataFrame, Series])
def test_a_table_goes_to_arrow_and_comes_back_as_it_was(kind: Any, name: str, store: Store) -> None:
    held = TABLES[name] if kind is DataFrame else TABLES[name]["a"]
    stored = store.put(kind(held), inline=False)
    again: Any = store.get(stored)
    assert (stored.format, type(again)) == ("cudf", kind)
    assert digest(again) == stored.digest
    assert again.held.equals(held)
    elsewhere = pd.read_feather(str(store.local_path(stored)))
    assert elsewhere.iloc[0, 0] == pd.DataFrame(held).iloc[0, 0]


def test_on_which_gpu_it_lies_does_not_count_but_that_it_does() -> None:
    values = np.arange(3)
    assert digest(ndarray(values, device=0)) == digest(ndarray(values, device=1))
    assert digest(ndarray(values)) != digest(values)
    assert digest(DataFrame(TABLES["numbers"])) != digest(TABLES["numbers"])


@pytest.mark.parametrize(
    "other",
    [
        pd.DataFrame({"a": [1, 3], "b": [0.5, None]}),
        pd.DataFrame({"a": [1, 2], "c": [0.5, None]}),
        pd.DataFrame({"a": [1.0, 2.0], "b": [0.5, None]}),
        pd.DataFrame({"b": [0.5, None], "a": [1, 2]}),
        pd.DataFrame({"a": [1, 2], "b": [0.5, None]}, index=[0, 1]),
        pd.DataFrame({"a": [1, 2], "b": [0.5, None]}, index=pd.RangeIndex(2, name="row")),
    ],
)
def test_labels_dtypes_index_and_elements_of_a_table_count(other: pd.DataFrame) -> None:
    assert digest(DataFrame(other)) != digest(DataFrame(TABLES["numbers"]))
    assert digest(DataFrame(other)) == digest(DataFrame(other.copy()))


def test_what_is_stored_was_copied_to_the_host_once(store: Store) -> None:
    value = ndarray(ARRAYS["large"])
    store.put(value)
    assert value.copied == 1
    value.held[0] = 7
    changed: Any = store.get(store.put(value))
    assert changed.held[0] == 7


def test_inside_other_values_arrays_are_pickled(store: Store) -> None:
    stored = store.put({"weights": ndarray(ARRAYS["numbers"])})
    again: Any = store.get(stored)
    assert stored.format == "pickle"
    assert type(again["weights"]) is ndarray
    assert digest(again) == stored.digest


def test_labels_that_are_no_strings_are_pickled(store: Store) -> None:
    stored = store.put(DataFrame(pd.DataFrame({1: [2]})))
    assert stored.format == "pickle"
    assert digest(store.get(stored)) == stored.digest


@pytest.mark.parametrize(
    ("library", "value"),
    [
        ("cupy", ndarray(ARRAYS["numbers"])),
        ("cupy", [ndarray(ARRAYS["numbers"])]),
        ("cudf", DataFrame(TABLES["numbers"])),
    ],
    ids=["array", "nested", "table"],
)
def test_where_the_library_is_missing_a_value_is_not_taken_for_damaged(
    library: str, value: object, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store.put(value, inline=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(NoDevice, match=rf"(?s)lives on a GPU.*{library}.*compute='gpu'"):
        store.get(stored)
    assert store.has(stored)
    store.check(stored)


class CUDARuntimeError(RuntimeError):
    """As cupy raises it where there is no GPU, or no memory left on it."""

    __module__ = "cupy_backends.cuda.api.runtime"


@step
def embed() -> Any:
    return ndarray(np.arange(3.0))


@step
def total(vectors: Any) -> float:
    return float(vectors.held.sum())


@pipeline
def embeddings() -> float:
    return total(embed())


def test_where_there_is_no_gpu_the_step_that_needs_it_is_named_and_nothing_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    here = embeddings.with_options(store=str(tmp_path))
    monkeypatch.setattr(gpu_stand_ins.cupy, "array", refuse)
    with pytest.raises(NoDevice, match=r"Step 'total' cannot be given its input"):
        here.local()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cupy", gpu_stand_ins.cupy)
    assert here.local() == 3.0
    assert [here.runs.last()[name].state for name in ("embed", "total")] == ["reused", "ran"]


def test_a_process_that_meets_no_such_value_imports_neither_library() -> None:
    code = (
        "import sys, numpy as np, pandas as pd\n"
        "from prefect_mlpipe.core.digest import digest\n"
        "from prefect_mlpipe.core.formats.registry import format_named, formats_for\n"
        "for value in (np.arange(3), pd.DataFrame({'a': [1]}), {'a': 1}):\n"
        "    digest(value), formats_for(value)\n"
        "assert [format_named(name).suffix for name in ('cupy', 'cudf')] == ['.npy', '.arrow']\n"
        "print({'cupy', 'cudf', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_file_of_an_array_is_what_numpy_would_have_written() -> None:
    assert dumped(ndarray(ARRAYS["numbers"]))[1] == dumped(ARRAYS["numbers"])[1]
