"""Computes: named places where steps run, as frozen settings.

Says where, never what: no compute is in a key. Knows nothing of runs. A pipeline's `compute` maps
the names that steps ask for (`@step(compute="gpu")`) to targets; steps that ask for none run on
`default`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from prefect_mlpipe.core.graph import Graph, Node
from prefect_mlpipe.errors import NoSuchCompute

DEFAULT = "default"


class Target(BaseModel):
    """A place where steps run; the base of all of them.

    Attributes:
        cost_per_hour: what one worker costs in an hour, in any currency; of `Threads`, one thread.
            The run then says what it cost and what reuse saved. It is never in a key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Whether names with equal settings share one of it.
    shared: ClassVar[bool] = True

    cost_per_hour: float | None = Field(default=None, ge=0)


class Threads(Target):
    """Threads of this process.

    Threads()               # as many as concurrent.futures takes: cores + 4, at most 32
    Threads(max_workers=2)  # two steps at a time

    A step that asks for a GPU or for memory runs here too: give a name another target to test on a
    laptop what runs on a cluster, `compute={"gpu": Threads()}`.
    """

    shared: ClassVar[bool] = False

    max_workers: int | None = Field(default=None, ge=1)


def compute_of(node: Node) -> str:
    """Return the name of the compute that a node asks for."""
    return node.step.compute or DEFAULT


def adopt_computes(
    graph: Graph,
    nodes: Collection[Node],
    computes: dict[str, Target],
    named: Mapping[str, Target],
) -> None:
    """Take up what pipelines in this one define, unless it is defined already; refuse the rest.

    Args:
        graph: has what they define.
        nodes: for which computes are needed.
        computes: name → target, as the call and the pipeline say; the others are added.
        named: name → target, as the settings say; asked for what is defined nowhere else.

    Raises:
        NoSuchCompute: a node asks for a compute which nobody defined.
    """
    for name, target in graph.computes.items():
        computes.setdefault(name, target)
    for name in {compute_of(node) for node in nodes} & named.keys():
        computes.setdefault(name, named[name])
    refuse_unknown(nodes, computes)


def refuse_unknown(nodes: Iterable[Node], computes: Mapping[str, Target]) -> None:
    """Refuse nodes that ask for a compute which nobody defined.

    Raises:
        NoSuchCompute: with the names that are there.
    """
    for node in nodes:
        name = compute_of(node)
        if name not in computes:
            raise NoSuchCompute(
                f"Step '{node.name}' asks for compute '{name}', which is not defined.",
                {"defined": ", ".join(sorted(computes))},
                f"Say where it is: pipeline.with_options(compute={{{name!r}: Threads()}}), or\n"
                f"[tool.prefect-mlpipe.compute.{name}] in pyproject.toml.",
            )
