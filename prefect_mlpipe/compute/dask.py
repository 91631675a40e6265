"""`Dask`: steps run on the workers of a Dask cluster.

Settings only; dask is imported when a cluster is started. Knows nothing of steps or runs.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

from pydantic import Field, field_validator

from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.errors import ComputeUnavailable

_SAME_MACHINE = frozenset({"LocalCluster", "LocalCUDACluster"})


class Dask(ClusterTarget):
    """Workers of a Dask cluster; by default processes of this machine.

    Dask()                                      # a LocalCluster, as many workers as dask chooses
    Dask(n_workers=2, threads_per_worker=1)     # two processes, one step at a time in each
    Dask(memory_limit="8GiB", resources={"GPU": 1})  # what each worker offers
    Dask(address="tcp://10.0.0.4:8786")         # a cluster that runs already; it is left running
    Dask(                                       # any class that dask clusters have
        cluster_class="dask_jobqueue.SLURMCluster",
        cluster_kwargs={"queue": "ml"},
        adapt={"maximum": 8},
    )

    A cluster of ours starts when the first step must run there, and is closed as soon as no
    remaining step can need it. Workers need the store: a folder of this machine will not do for
    workers elsewhere, unless `shared_store=True` says that they see it under the same path.

    Attributes:
        n_workers: worker processes.
        threads_per_worker: steps at a time in each of them.
        memory_limit: of one worker; one that needs more is killed and replaced.
        resources: what each worker offers besides CPU and memory, as `{"GPU": 1}`.
        cluster_class: a dask cluster class or its dotted name, instead of `LocalCluster`.
        cluster_kwargs: its arguments.
        adapt: arguments of the cluster's `adapt`, to let it grow and shrink.
    """

    _starting: ClassVar[tuple[str, ...]] = (
        "n_workers",
        "threads_per_worker",
        "memory_limit",
        "resources",
        "cluster_class",
        "cluster_kwargs",
        "adapt",
    )

    n_workers: int | None = Field(default=None, ge=0)
    threads_per_worker: int | None = Field(default=None, ge=1)
    memory_limit: str | int | float | None = None
    resources: dict[str, float] = Field(default={})
    cluster_class: str | type[Any] | None = None
    cluster_kwargs: dict[str, Any] = Field(default={})
    adapt: dict[str, Any] | None = None

    @field_validator("cluster_class")
    @classmethod
    def _has_a_module(cls, value: str | type[Any] | None) -> str | type[Any] | None:
        if isinstance(value, str) and "." not in value:
            raise ValueError(f"{value!r} is no dotted name, as 'dask_jobqueue.SLURMCluster' is")
        return value

    @property
    def remote(self) -> bool:
        """Whether its workers may be on other machines."""
        named = self.cluster_class
        if named is None:
            return super().remote
        if isinstance(named, str):
            return named.rpartition(".")[2] not in _SAME_MACHINE
        return _SAME_MACHINE.isdisjoint(base.__name__ for base in named.__mro__)

    @property
    def threads(self) -> int:
        """How many calls its workers can run at a time, by a guess before there are any."""
        workers = (self.adapt or {}).get("maximum") or self.n_workers
        known = (workers or 0) * (self.threads_per_worker or 1)
        return int(known) or super().threads

    def _start(self) -> Any:
        cluster = self.find_class()(**self._arguments())
        if self.adapt is not None:
            cluster.adapt(**self.adapt)
        return cluster

    def find_class(self) -> Any:
        """Return the class of its clusters.

        Raises:
            ComputeUnavailable: it cannot be imported.
        """
        if self.cluster_class is None:
            from distributed import LocalCluster

            return LocalCluster
        if not isinstance(self.cluster_class, str):
            return self.cluster_class
        module, _, name = self.cluster_class.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ComputeUnavailable(
                f"The cluster class '{self.cluster_class}' cannot be imported.",
                {"error": f"{type(error).__name__}: {error}"},
                f"Install the distribution that has it ({module.partition('.')[0]}), "
                "or correct the name.",
            ) from error

    def _arguments(self) -> dict[str, Any]:
        said = {
            "n_workers": self.n_workers,
            "threads_per_worker": self.threads_per_worker,
            "memory_limit": self.memory_limit,
            "resources": self.resources or None,
        }
        given = {name: value for name, value in said.items() if value is not None}
        if self.cluster_class is None:
            # dask's own default is port 8787 for all the world to see
            given = {"dashboard_address": "127.0.0.1:0", **given}
        return {**given, **self.cluster_kwargs}
