"""What a step needs of a worker, and whether one offers it.

Pure: knows `Resources` and what dask's scheduler says of its workers, but not dask. A GPU, and CPU
or memory where workers declare them, are resources in dask's sense: what one step takes, another
cannot have at the same time. Memory that no worker declares is compared with its limit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from prefect_mlpipe.errors import InvalidStep, NoSuchWorker
from prefect_mlpipe.step_options import Resources

_SIZE = re.compile(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class Needs(NamedTuple):
    """What one call of a step occupies."""

    cpus: float = 1
    gpus: float = 0
    memory: int = 0

    def __str__(self) -> str:
        said = {"cpus": f"{self.cpus:g}", "gpus": f"{self.gpus:g}", "memory": size(self.memory)}
        default = Needs()
        named = [n for n in self._fields if getattr(self, n) != getattr(default, n)]
        return "  ".join(f"{name}={said[name]}" for name in named) or "one thread"

    @property
    def special(self) -> bool:
        """Whether not just any worker will do."""
        return self != Needs()


class Offer(NamedTuple):
    """What one worker has."""

    cpus: float
    memory: int
    resources: Mapping[str, float]

    def __str__(self) -> str:
        said = [f"cpus={self.cpus:g}", *([f"memory={size(self.memory)}"] if self.memory else [])]
        said += [f"{name}={amount:g}" for name, amount in sorted(self.resources.items())]
        return f"({', '.join(said)})"

    def fits(self, needs: Needs) -> bool:
        """Whether a step with these needs can run on this worker when nothing else does."""
        cpus = self.resources.get("CPU", self.cpus)
        memory = self.resources.get("MEMORY", self.memory or float("inf"))
        gpus = self.resources.get("GPU", 0)
        return needs.cpus <= cpus and needs.memory <= memory and needs.gpus <= gpus


def needs_of(step: str, resources: Resources) -> Needs:
    """Return what a step needs, its memory in bytes.

    Raises:
        InvalidStep: the memory is no size.
    """
    memory = 0
    if resources.memory is not None:
        found = _SIZE.fullmatch(resources.memory)
        if found is None:
            raise InvalidStep(
                f"Step '{step}' asks for an amount of memory that is no size.",
                {"memory": repr(resources.memory)},
                "Write it as '8GiB' or '500MB'.",
            )
        number, prefix, binary = found.groups()
        base = 1024 if binary else 1000
        memory = int(float(number) * base ** _POWERS[prefix.lower()])
    return Needs(resources.cpus, resources.gpus, memory)


def offers_of(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, Offer]:
    """Return worker address → what it has, from what the scheduler says."""
    return {
        address: Offer(
            info.get("nthreads") or 0, info.get("memory_limit") or 0, info.get("resources") or {}
        )
        for address, info in workers.items()
    }


def restrictions(needs: Needs, offers: Mapping[str, Offer]) -> dict[str, Any]:
    """Return the arguments of `Client.submit` that take a call to a worker that has what it needs.

    Addresses are named only where a limit of memory or threads tells workers apart that declare
    neither as a resource.
    """
    declared = {name for offer in offers.values() for name in offer.resources}
    wanted = {"GPU": needs.gpus, "MEMORY": float(needs.memory), "CPU": needs.cpus}
    asked = {name: amount for name, amount in wanted.items() if amount and name in declared}
    if needs.cpus == Needs().cpus:
        asked.pop("CPU", None)
    found: dict[str, Any] = {"resources": asked} if asked else {}
    fitting = [address for address, offer in offers.items() if offer.fits(needs)]
    if fitting and len(fitting) < len(offers) and not asked:
        found["workers"] = fitting
    return found


def no_such_worker(
    step: str, compute: str, needs: Needs, cluster: str, offers: Iterable[Offer]
) -> NoSuchWorker:
    """Return the error for a step that no worker can take."""
    counts = Counter(map(str, offers))
    offered = ", ".join(f"{count} x {text}" for text, count in counts.items())
    return NoSuchWorker(
        f"Step '{step}' needs resources that no worker offers.",
        {"needs": needs, "compute": compute, "cluster": cluster, "offers": offered or "no worker"},
        f"Give compute '{compute}' a target with such workers, or lower the request on the step.",
    )


def size(count: float) -> str:
    """Return a number of bytes as people write it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g}{unit}"
        count /= 1024
    return f"{count:.3g}TiB"
