"""A mapped step of 10,000 trivial items on a Dask cluster of two workers, beside `Client.map`.

One cluster for all, which is given by its address: what it takes to start is in none of the times.
"""

from __future__ import annotations

import logging
from functools import partial

from distributed import Client

from prefect_mlpipe.compute import Dask
from tests.benchmarks.flows import connected
from tests.benchmarks.local import folder
from tests.benchmarks.measure import Row, in_turn, seconds
from tests.benchmarks.work import fan, plain_increment


def benchmark_map_dask(scale: float) -> list[Row]:
    """Executed beside `Client.map`, reused beside a budget of 2 s for 10,000 items."""
    length = max(10, int(10_000 * scale))
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with connected(), Dask(n_workers=2, threads_per_worker=1).start() as cluster:
        there = Dask(address=cluster.scheduler_address)
        with folder() as known, Client(cluster, set_as_default=False) as client:
            _ours(length, there, known)
            took = in_turn(
                {
                    "Client.map": partial(seconds, partial(_theirs, length, client)),
                    "executed": partial(_fresh, length, there),
                    "reused": partial(seconds, partial(_ours, length, there, known)),
                },
                rounds=3,
            )
    return [
        Row(
            f"map of {length} on Dask: executed, in all",
            took["executed"] * 1000,
            "Client.map",
            took["Client.map"] * 1000,
            5.0,
        ),
        Row(
            f"map of {length} on Dask: reused, in all",
            took["reused"] * 1000,
            "budget",
            2000.0 * length / 10_000,
            1.0,
        ),
    ]


def _ours(length: int, there: Dask, store: str) -> None:
    fan.with_options(store=store, compute={"default": there})(length=length)


def _fresh(length: int, there: Dask) -> float:
    with folder() as store:
        return seconds(partial(_ours, length, there, store))


def _theirs(length: int, client: Client) -> None:
    client.gather(client.map(plain_increment, range(length), pure=False))
