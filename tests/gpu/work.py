"""Steps on GPUs; workers import this module by name. What only a GPU machine has is imported in
the steps."""

from __future__ import annotations

import os
from typing import Any

from prefect_mlpipe import Resources, log_metrics, pipeline, step

SIZE = 1 << 28  # bytes


@step(compute="gpu", resources=Resources(gpus=1))
def numbers(count: int) -> Any:
    import cupy

    return cupy.arange(count, dtype="f8")


@step(compute="gpu", resources=Resources(gpus=1))
def total(values: Any) -> float:
    import cupy

    assert isinstance(values, cupy.ndarray)
    return float(values.sum())


@pipeline
def sums(count: int) -> float:
    return total(numbers(count))


@step(compute="gpu", resources=Resources(gpus=1))
def trained(width: int) -> Any:
    import torch

    return torch.nn.Linear(width, 1).to("cuda:0")


@step
def device_of(model: Any) -> str:
    """Runs where there may be no GPU."""
    return next(model.parameters()).device.type


@pipeline
def model(width: int) -> str:
    return device_of(trained(width))


@step(compute="gpu", resources=Resources(gpus=1), cache=False)
def device(number: int) -> tuple[str, str]:
    """What this worker sees, and the UUID of what it uses."""
    import time

    import cupy

    time.sleep(1)  # so that the other worker takes the other item
    found = cupy.cuda.runtime.getDeviceProperties(0)["uuid"]
    return os.environ["CUDA_VISIBLE_DEVICES"], bytes(found).hex()


@pipeline
def pinned(count: int) -> list[tuple[str, str]]:
    return device.map(list(range(count)))


@step(compute="gpu", resources=Resources(gpus=1), cache=False)
def takes(fails: bool) -> int:
    """Take memory, let it go, and tell what the pool of cupy keeps."""
    import cupy

    held = cupy.ones(SIZE, dtype="u1")
    held.sum()
    del held
    if fails:
        raise ValueError("it takes, and fails")
    return int(cupy.get_default_memory_pool().total_bytes())


@step(compute="gpu", resources=Resources(gpus=1), cache=False)
def kept(after: int) -> int:
    import cupy

    left = int(cupy.get_default_memory_pool().total_bytes())
    log_metrics(left=left)
    return left


@pipeline
def memory() -> tuple[int, int]:
    taken = takes(False)
    return taken, kept(taken)


@pipeline
def failing() -> tuple[int, int]:
    return takes(True), kept(0)


@step(compute="gpu", resources=Resources(gpus=1), cache=False)
def resource() -> str:
    import rmm

    return type(rmm.mr.get_current_device_resource()).__name__


@pipeline
def pool() -> str:
    return resource()


@step(compute="gpu", resources=Resources(gpus=1))
def on_any(number: int) -> int:
    return number + 1


@pipeline
def anywhere(number: int) -> int:
    return on_any(number)
