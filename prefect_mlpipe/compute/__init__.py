"""Where steps run: `Threads` of this process."""

from prefect_mlpipe.compute.targets import Target, Threads

__all__ = ["Target", "Threads"]
