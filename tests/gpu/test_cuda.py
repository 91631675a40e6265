"""`Cuda` on a real machine: pinned devices, memory that goes back, pools of RMM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from prefect_mlpipe.compute import Cuda, Threads
from tests.gpu import devices, work
from tests.project import Project

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture(autouse=True)
def libraries() -> None:
    pytest.importorskip("dask_cuda", reason="needs the extra [gpu]")
    pytest.importorskip("cupy", reason="needs cupy-cuda12x")


@pytest.fixture
def on_gpu(project: Project) -> Callable[..., Any]:
    """A pipeline on workers of `Cuda` with these settings."""
    return lambda one, **settings: project.own(one, compute={"gpu": Cuda(**settings)})


def test_arrays_go_from_step_to_step_and_are_reused(on_gpu: Callable[..., Any]) -> None:
    sums = on_gpu(work.sums)
    assert sums(1000) == 499500.0
    assert sums(1000) == 499500.0
    assert [each.state for each in sums.runs.last()] == ["reused", "reused"]


def test_a_model_of_a_gpu_is_read_by_a_step_on_threads(on_gpu: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch", reason="needs torch with CUDA")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    assert on_gpu(work.model)(3) == "cuda"  # this process has the GPU too


def test_each_worker_has_one_gpu_of_its_own(on_gpu: Callable[..., Any]) -> None:
    seen = on_gpu(work.pinned)(4 * len(devices()))
    first = [visible.split(",")[0] for visible, _ in seen]
    assert len(set(first)) == len({uuid for _, uuid in seen}) == len(devices())


def test_named_devices_are_the_ones_that_are_used(on_gpu: Callable[..., Any]) -> None:
    seen = on_gpu(work.pinned, devices=(devices()[0],))(2)
    assert {visible for visible, _ in seen} == {devices()[0]}


def test_what_a_step_took_of_the_device_is_given_back(on_gpu: Callable[..., Any]) -> None:
    taken, kept = on_gpu(work.memory, devices=(0,))()
    assert taken >= work.SIZE
    assert kept == 0


def test_what_a_step_that_fails_took_is_given_back(on_gpu: Callable[..., Any]) -> None:
    failing = on_gpu(work.failing, devices=(0,))  # one worker: one step after the other
    with pytest.raises(ValueError, match="it takes, and fails"):
        failing()
    assert failing.runs.last()["kept"].metrics["left"] == 0


def test_a_pool_of_rmm_is_used_when_asked(on_gpu: Callable[..., Any]) -> None:
    pytest.importorskip("rmm", reason="needs the extra [gpu]")
    assert on_gpu(work.pool, devices=(0,), rmm_pool_size="1GiB")() == "PoolMemoryResource"
    assert on_gpu(work.pool, devices=(0,))() == "CudaMemoryResource"


def test_the_same_steps_run_on_threads(project: Project) -> None:
    assert project.own(work.anywhere, compute={"gpu": Threads()})(1) == 2
