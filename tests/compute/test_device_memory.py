"""Device memory goes back after a step, with stand-ins for the libraries; tests/gpu has the real.

Models that a GPU has trained are read where there is none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from prefect_mlpipe import Resources
from prefect_mlpipe.compute.device_memory import give_back
from tests.core import gpu_stand_ins
from tests.core.gpu_stand_ins import Pool


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    made = [Pool(), Pool()]
    monkeypatch.setitem(sys.modules, "cupy", gpu_stand_ins.cupy)
    monkeypatch.setattr(gpu_stand_ins.cupy, "pool", made[0])
    monkeypatch.setattr(gpu_stand_ins.cupy, "pinned", made[1])
    return made


def emptied(pools: list[Pool]) -> list[int]:
    return [pool.emptied for pool in pools]


def test_after_a_step_that_asked_for_a_gpu_the_pools_of_cupy_are_emptied(pools: list[Pool]) -> None:
    give_back(Resources(gpus=1))
    assert emptied(pools) == [1, 1]


def test_after_other_steps_nothing_is_touched(pools: list[Pool]) -> None:
    give_back(Resources(cpus=4, memory="8GiB"))
    assert emptied(pools) == [0, 0]


@pytest.mark.parametrize("initialized", [True, False])
def test_torch_is_asked_only_if_it_has_used_a_gpu(
    initialized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    cuda = SimpleNamespace(
        is_initialized=lambda: initialized, empty_cache=lambda: calls.append("emptied")
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    give_back(Resources(gpus=1))
    assert calls == (["emptied"] if initialized else [])


def rmm(*names: str) -> Any:
    """A stand-in for rmm with these memory resources around each other, the innermost last."""
    resource = None
    for name in reversed(names):
        inner, resource = resource, type(name, (), {})()
        if inner is not None:
            resource.upstream_mr = inner
    module: Any = ModuleType("rmm")
    module.mr = SimpleNamespace(get_current_device_resource=lambda: resource)
    return module


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["CudaMemoryResource"], False),
        (["ManagedMemoryResource"], False),
        (["LoggingResourceAdaptor", "CudaMemoryResource"], False),
        (["PoolMemoryResource", "CudaMemoryResource"], True),
        (["TrackingResourceAdaptor", "PoolMemoryResource", "CudaMemoryResource"], True),
        (["LimitingResourceAdaptor", "CudaAsyncMemoryResource"], True),
    ],
    ids=str,
)
def test_a_pool_of_rmm_is_kept(
    names: list[str], kept: bool, pools: list[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rmm", rmm(*names))
    give_back(Resources(gpus=1))
    assert emptied(pools) == ([0, 0] if kept else [1, 1])


def test_a_process_that_loaded_no_such_library_loads_none() -> None:
    code = (
        "import json, sys\n"
        "from prefect_mlpipe import Resources\n"
        "from prefect_mlpipe.compute.device_memory import give_back\n"
        "give_back(Resources(gpus=1))\n"
        "print(json.dumps(sorted({'cupy', 'torch', 'rmm'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
