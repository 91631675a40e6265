"""Where steps run: `Threads` of this process, workers of a `Dask` cluster, GPU workers by `Cuda`.

Settings only: neither dask nor Prefect is imported before a step must run there.
"""

from prefect_mlpipe.compute.cuda import Cuda
from prefect_mlpipe.compute.dask import Dask
from prefect_mlpipe.compute.targets import Target, Threads

__all__ = ["Cuda", "Dask", "Target", "Threads"]
