"""Values that live on a GPU, with the real libraries; the stand-ins of tests/core are beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.store import Store
from tests.gpu import WITHOUT, devices

if not devices():
    pytest.skip(WITHOUT, allow_module_level=True)
cupy = pytest.importorskip("cupy", reason="needs cupy-cuda12x")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))


ARRAYS: dict[str, Callable[[], Any]] = {
    "numbers": lambda: cupy.arange(6.0).reshape(2, 3),
    "in Fortran's order": lambda: cupy.asfortranarray(cupy.arange(6).reshape(2, 3)),
    "turned": lambda: cupy.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "nothing in it": lambda: cupy.empty((0, 3), "f4"),
    "one number": lambda: cupy.array(3),
    "complex": lambda: cupy.array([1 + 2j], dtype="c8"),
    "half": lambda: cupy.arange(5, dtype="f2"),
    "large": lambda: cupy.random.default_rng(0).random(1 << 20),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_cupy_come_back_as_they_were(name: str, store: Store) -> None:
    value = ARRAYS[name]()
    stored = store.put(value, inline=False)
    again: Any = store.get(stored)
    assert stored.format == "cupy"
    assert type(again) is cupy.ndarray
    assert digest(again) == stored.digest
    cupy.testing.assert_array_equal(again, value)
    np.testing.assert_array_equal(np.load(str(store.local_path(stored))), cupy.asnumpy(value))


def test_arrays_of_cupy_inside_other_values_come_back_to_the_gpu(store: Store) -> None:
    stored = store.put({"weights": ARRAYS["numbers"]()})
    again: Any = store.get(stored)
    assert type(again["weights"]) is cupy.ndarray
    assert digest(again) == stored.digest


@pytest.mark.skipif(cupy.cuda.runtime.getDeviceCount() < 2, reason="needs two GPUs")
def test_on_which_gpu_it_lies_does_not_count() -> None:
    first = cupy.arange(3)
    with cupy.cuda.Device(1):
        second = cupy.arange(3)
    assert digest(first) == digest(second)


TABLES = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [0.5, None]}),
    "strings": pd.DataFrame({"a": ["x", None, "é"]}),
    "times": pd.DataFrame({"a": pd.to_datetime(["2026-01-01", None])}),
    "categories": pd.DataFrame({"a": pd.Categorical(["x", "y", "x"])}),
    "labels": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="row")),
    "two levels": pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, 2), (1, 3)])),
    "labels that are numbers": pd.DataFrame({1: [2.0]}),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("alone", [False, True])
def test_tables_of_cudf_come_back_as_they_were(name: str, alone: bool, store: Store) -> None:
    cudf = pytest.importorskip("cudf", reason="needs cudf-cu12")
    frame = cudf.DataFrame(TABLES[name])
    value = frame[frame.columns[0]] if alone else frame
    stored = store.put(value, inline=False)
    again: Any = store.get(stored)
    assert type(again) is type(value)
    assert digest(again) == stored.digest
    assert again.equals(value)
    if not alone:
        assert stored.format == ("pickle" if name == "labels that are numbers" else "cudf")


def test_a_missing_number_of_cudf_is_not_nan() -> None:
    cudf = pytest.importorskip("cudf", reason="needs cudf-cu12")
    missing = cudf.Series([1.0, None], nan_as_null=False)
    nan = cudf.Series([1.0, float("nan")], nan_as_null=False)
    assert digest(missing) != digest(nan)


@pytest.mark.parametrize("kind", ["tensor", "parameter", "state", "module"])
def test_tensors_and_models_of_torch_come_back_to_the_gpu(kind: str, store: Store) -> None:
    torch = pytest.importorskip("torch", reason="needs torch with CUDA")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).cuda()
    value = {
        "tensor": torch.arange(6, device="cuda"),
        "parameter": torch.nn.Parameter(torch.ones(3, device="cuda")),
        "state": net.state_dict(),
        "module": net,
    }[kind]
    stored = store.put(value, inline=False)
    again: Any = store.get(stored)
    assert digest(again) == stored.digest
    found = again.state_dict() if kind == "module" else again
    tensors = list(found.values()) if isinstance(found, dict) else [found]
    assert {tensor.device.type for tensor in tensors} == {"cuda"}


def test_the_kind_of_device_counts() -> None:
    torch = pytest.importorskip("torch", reason="needs torch with CUDA")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    assert digest(torch.ones(3)) != digest(torch.ones(3, device="cuda"))
    assert digest(torch.ones(3, device="cuda:0")) == digest(torch.ones(3, device="cuda"))
