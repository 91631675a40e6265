"""What all computes on Dask clusters have in common, as frozen settings.

Knows how a cluster is made when it is asked for; that is when dask is imported, not before. Knows
nothing of steps or runs. A cluster is either ours, started when a step must run there and closed
when none can need it any more, or somebody's with an `address`, and then it is left running.
"""

from __future__ import annotations

import ipaddress
import logging
from abc import abstractmethod
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from prefect_mlpipe.compute.targets import Target, compute_of
from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import StoreNotShared

# The hangs that these prevent are described in `ClusterTarget.scheduler_settings`.
_UNKNOWN_THREADS = 4
_LOST_WORKER, _LOST_WORKER_S = "distributed.deploy.lost-worker-timeout", 120


class ClusterTarget(Target):
    """A place where steps run on the workers of a Dask cluster; the base of `Dask` and `Cuda`.

    Attributes:
        address: of a scheduler that runs already; it is left running.
        shared_store: whether workers elsewhere see the store's folder under the same path.
        allowed_failures: how often a step whose worker died is sent to another one, if it may be
            reused: it has no effects but its value. Other steps are sent again only as often as
            their `retries` say.
        workers_timeout_s: how long a step waits for a worker while there is none.
        silent_s: how long nothing may be heard of the scheduler, or of a worker that does nothing,
            before it is taken for dead. A worker that computes in C code and holds Python's lock
            can say nothing either; its nanny sees that it takes CPU time, and it is left alone.
            One that waits in C code with the lock held, or computes so without a nanny, is not:
            raise this for such steps. A lower limit finds stopped machines sooner, and gives
            up a connection that would have come back.
    """

    # Names of fields that say what to start; none of them goes with `address`.
    _starting: ClassVar[tuple[str, ...]] = ()

    address: str | None = None
    shared_store: bool = False
    allowed_failures: int = Field(default=2, ge=0)
    workers_timeout_s: float = Field(default=300, gt=0)
    silent_s: float = Field(default=30, gt=0)

    @model_validator(mode="after")
    def _refuse_address_of_ours(self) -> ClusterTarget:
        said = [name for name in self._starting if name in self.model_fields_set]
        if self.address is not None and said:
            raise ValueError(
                f"address={self.address!r} names a cluster that runs already, but "
                f"{', '.join(said)} would start one; leave one of them out"
            )
        return self

    @property
    def remote(self) -> bool:
        """Whether its workers may be on other machines."""
        return self.address is not None and not _is_loopback(self.address)

    def scheduler_settings(self) -> dict[str, Any]:
        """Return dask's settings for a cluster of ours.

        A worker that needs longer than `lost-worker-timeout` to come back is given up for good, and
        what waits for it waits for ever. A step whose worker died would be run again without
        anybody knowing (`allowed-failures`): we send it again ourselves, and count. After
        `worker-ttl` a worker that computes in C code and holds Python's lock would be killed: we
        look for silent workers ourselves, and ask their nannies (`silent_s`).
        """
        return {
            "distributed.scheduler.no-workers-timeout": f"{self.workers_timeout_s}s",
            "distributed.scheduler.allowed-failures": 0,
            "distributed.scheduler.worker-ttl": None,
            "distributed.scheduler.worker-saturation": 1.0,
            # At INFO each worker writes ten lines when it comes and goes.
            "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "warning",
        }

    def start(self) -> Any:
        """Start a cluster and return it; `None` where there is an `address`.

        Raises:
            ComputeUnavailable: it cannot be started; says what is needed.
        """
        if self.address is not None:
            return None
        import dask.config
        import dask.utils
        import distributed  # sets up its log, too

        log = logging.getLogger(distributed.__name__)
        if log.level == logging.INFO:  # its default: lines for each worker that comes and goes
            log.setLevel(logging.WARNING)
        with dask.config.set(self.scheduler_settings()):
            cluster = self._start()
        # Read when a worker is lost, from the settings of the process: so it has to stand for as
        # long as the cluster does. A longer one of the user's own stays.
        if dask.utils.parse_timedelta(dask.config.get(_LOST_WORKER)) < _LOST_WORKER_S:
            dask.config.set({_LOST_WORKER: f"{_LOST_WORKER_S}s"})
        return cluster

    @property
    def threads(self) -> int:
        """How many calls its workers can run at a time, by a guess before there are any."""
        return _UNKNOWN_THREADS

    @abstractmethod
    def _start(self) -> Any:
        """Start a cluster of ours."""


def refuse_unshared(node: Node, target: ClusterTarget, store: Store) -> None:
    """Refuse a node whose workers could not see the store.

    Raises:
        StoreNotShared: with what to do.
    """
    own_memory = store.url.startswith("memory:")
    if own_memory or (store.is_local and target.remote and not target.shared_store):
        raise StoreNotShared(
            f"Step '{node.name}' would run on workers that cannot see the store.",
            {
                "compute": compute_of(node),
                "store": store.url,
                "workers": target.address or "on other machines",
            },
            "Use a store that they reach, as store='s3://...'"
            + ("." if own_memory else ", or say shared_store=True if they see that folder."),
        )


def _is_loopback(address: str) -> bool:
    host = urlsplit(address if "://" in address else f"tcp://{address}").hostname or ""
    if host == "localhost" or address.startswith("inproc:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
