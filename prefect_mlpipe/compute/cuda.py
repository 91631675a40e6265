"""`Cuda`: steps run on workers with one NVIDIA GPU each, by dask-cuda.

Settings only; dask-cuda is imported when a cluster is started. Knows nothing of steps or runs.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.errors import ComputeUnavailable


class Cuda(ClusterTarget):
    """Workers with one GPU each: dask-cuda's `LocalCUDACluster`, or a cluster that runs already.

    Cuda()                                    # one worker for each GPU of this machine
    Cuda(devices=(0, 1), rmm_pool_size="20GiB")
    Cuda(enable_cudf_spill=True)              # let cudf move frames to the host when it is full
    Cuda(address="tcp://10.0.0.7:8786")       # its workers must offer the resource GPU

    Needs the extra `prefect-mlpipe[gpu]` and an NVIDIA driver. `compute={"gpu": Threads()}` at the
    call runs the same steps without. After a step that asked for a GPU the memory that cupy and
    torch keep for themselves is given back; a pool of RMM is kept.

    Attributes:
        devices: numbers or UUIDs of GPUs; default all.
        rmm_pool_size: device memory that each worker takes at its start, as "20GiB" or a share.
        enable_cudf_spill: whether cudf moves frames to the host when the device is full.
        device_memory_limit: device memory above which dask moves what it holds itself to the host.
            What a running step holds is not moved, and between steps values are in the store.
        protocol: how workers talk, `tcp` or `ucx`.
        threads_per_worker: steps at a time on one GPU.
        memory_limit: host memory of one worker.
        cluster_kwargs: further arguments of `LocalCUDACluster`.
    """

    _starting: ClassVar[tuple[str, ...]] = (
        "devices",
        "rmm_pool_size",
        "enable_cudf_spill",
        "device_memory_limit",
        "protocol",
        "threads_per_worker",
        "memory_limit",
        "cluster_kwargs",
    )

    devices: tuple[int | str, ...] | None = None
    rmm_pool_size: str | int | float | None = None
    enable_cudf_spill: bool | None = None
    device_memory_limit: str | int | float | None = None
    protocol: str | None = None
    threads_per_worker: int | None = Field(default=None, ge=1)
    memory_limit: str | int | float | None = None
    cluster_kwargs: dict[str, Any] = Field(default={})

    def _start(self) -> Any:
        try:
            from dask_cuda import LocalCUDACluster
        except ImportError as error:
            raise ComputeUnavailable(
                "GPU workers cannot be started here: dask-cuda cannot be imported.",
                {"needs": "prefect-mlpipe[gpu] (dask-cuda)", "error": error},
                _ADVICE,
            ) from error
        try:
            return LocalCUDACluster(**self._arguments())
        except Exception as error:
            if not _lacks_gpu(error):
                raise
            raise ComputeUnavailable(
                "GPU workers cannot be started here: no NVIDIA GPU is offered.",
                {
                    "needs": "an NVIDIA GPU and its driver",
                    "error": f"{type(error).__name__}: {error}",
                },
                _ADVICE,
            ) from error

    def _arguments(self) -> dict[str, Any]:
        said = {
            "CUDA_VISIBLE_DEVICES": None if self.devices is None else list(self.devices),
            "rmm_pool_size": self.rmm_pool_size,
            "enable_cudf_spill": self.enable_cudf_spill,
            "device_memory_limit": self.device_memory_limit,
            "protocol": self.protocol,
            "threads_per_worker": self.threads_per_worker,
            "memory_limit": self.memory_limit,
        }
        given = {name: value for name, value in said.items() if value is not None}
        own = {"resources": {"GPU": 1}, "dashboard_address": "127.0.0.1:0"}
        return {**own, **given, **self.cluster_kwargs}


_ADVICE = (
    "Use a machine that has them, or give the name another place at the call: "
    "compute={'gpu': Threads()}."
)


def _lacks_gpu(error: BaseException) -> bool:
    """Whether NVML says so; an empty list of devices ends in an `IndexError` in dask-cuda."""
    return type(error).__name__.startswith("NVMLError") or isinstance(error, IndexError)
