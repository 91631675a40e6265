"""Where steps run: `Threads` of this process, workers of a `Dask` cluster, GPU workers by `Cuda`.

Settings only: neither dask nor Prefect is imported before a step must run there.
`RoutingTaskRunner` takes the tasks of an ordinary Prefect flow to the same places.
"""

from __future__ import annotations

import typing as _typing

from prefect_mlpipe.asking import on
from prefect_mlpipe.compute.cuda import Cuda
from prefect_mlpipe.compute.dask import Dask
from prefect_mlpipe.compute.targets import Target, Threads

if _typing.TYPE_CHECKING:
    from prefect_mlpipe.compute.task_runner import RoutingTaskRunner

__all__ = ["Cuda", "Dask", "RoutingTaskRunner", "Target", "Threads", "on"]


def __getattr__(name: str) -> object:
    if name == "RoutingTaskRunner":  # imports Prefect
        from prefect_mlpipe.compute.task_runner import RoutingTaskRunner

        return RoutingTaskRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
