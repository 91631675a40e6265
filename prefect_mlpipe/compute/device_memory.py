"""Gives the GPU back what a step has taken of its memory.

Libraries keep what they have freed for their own next allocation, so a worker would hold the most
that any step took, and a step that uses another library would find nothing left. Imports none of
them: what a step did not load holds nothing.

Worth arguing: a pool of RMM is left alone. Whoever asked for one wants it to be kept.
"""

from __future__ import annotations

import gc
import sys
from typing import Any, Final

from prefect_mlpipe.step_options import Resources

_POOLS: Final = frozenset(
    {
        "ArenaMemoryResource",
        "BinningMemoryResource",
        "CudaAsyncManagedMemoryResource",
        "CudaAsyncMemoryResource",
        "CudaAsyncViewMemoryResource",
        "FixedSizeMemoryResource",
        "PoolMemoryResource",
    }
)


def give_back(resources: Resources) -> None:
    """Free the device memory that libraries hold in this process and nobody uses.

    Does nothing after a step that asked for no GPU, nor where a pool of RMM serves this process.

    Args:
        resources: what the step asked for.
    """
    cupy, torch = sys.modules.get("cupy"), sys.modules.get("torch")
    if not resources.gpus or not (cupy or torch) or _has_rmm_pool():
        return
    gc.collect()  # arrays in circles, as of models and of errors with their frames
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _has_rmm_pool() -> bool:
    rmm: Any = sys.modules.get("rmm")
    if rmm is None:
        return False
    resource = rmm.mr.get_current_device_resource()
    while resource is not None and type(resource).__name__ not in _POOLS:
        resource = getattr(resource, "upstream_mr", None)
    return resource is not None
