"""What an ordinary Prefect task asks of the place where it runs, as tags.

Tags, because they are what Prefect keeps of a task whatever is done to it: `with_options`, pickling
and deployments leave them, and `with tags(...)` adds them to whatever is submitted below it. The
task run itself has them no more: Prefect asks the server about concurrency limits for each run that
has a tag. Knows nothing of computes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

from prefect_mlpipe.errors import InvalidStep
from prefect_mlpipe.step_options import Resources

if TYPE_CHECKING:
    from prefect import Task

P = ParamSpec("P")
R = TypeVar("R")

_COMPUTE, _RESOURCE = "compute:", "compute."


class Asked(NamedTuple):
    """Where a task is to run, and what it occupies there; a compute of `None` is the default."""

    compute: str | None
    resources: Resources


def on(compute: str | None = None, resources: Resources | None = None) -> set[str]:
    """Return the tags by which a Prefect task asks for a compute, for `RoutingTaskRunner`.

    @task(tags=on("gpu", Resources(gpus=1, memory="8GiB")))
    def train(table): ...

    train.with_options(tags=on("cpu")).submit(table)

    Args:
        compute: name of the compute; default that of tasks which ask for none.
        resources: what one call occupies there.
    """
    default, asked = Resources(), resources or Resources()
    tags = {
        f"{_RESOURCE}{name}:{getattr(asked, name)}"
        for name in ("cpus", "gpus", "memory")
        if getattr(asked, name) != getattr(default, name)
    }
    return tags if compute is None else {*tags, f"{_COMPUTE}{compute}"}


def without_asking(tags: Iterable[str]) -> set[str]:
    """Return the tags that say nothing of where a task runs."""
    return {tag for tag in tags if not tag.startswith((_COMPUTE, _RESOURCE))}


def bare(task: Task[P, R]) -> Task[P, R]:
    """Return a task without the tags by which it asks; they have said what they had to."""
    tags = without_asking(task.tags)
    if len(tags) == len(task.tags):
        return task
    made = copy.copy(task)
    made.tags = tags
    return made


def asked_by(task: str, own: Iterable[str], around: Iterable[str] = ()) -> Asked:
    """Return what a task asks for.

    Args:
        task: its name.
        own: its tags.
        around: those of the flow, and of `with tags(...)`; the task's own go before them.

    Raises:
        InvalidStep: a tag says nothing that can be understood, or two say different things.
    """
    said = {**_read(task, around), **_read(task, own)}
    amounts = {name: _amount(task, name, said.get(name)) for name in ("cpus", "gpus")}
    given = {name: amount for name, amount in amounts.items() if amount is not None}
    return Asked(said.get("compute"), Resources(memory=said.get("memory"), **given))


def _read(task: str, tags: Iterable[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    for tag in sorted(tags):
        if not tag.startswith((_COMPUTE, _RESOURCE)):
            continue
        name, _, value = tag.removeprefix(_RESOURCE).partition(":")
        if name not in ("compute", "cpus", "gpus", "memory") or not value:
            raise InvalidStep(
                f"Task '{task}' has a tag that says nothing about where it runs.",
                {"tag": tag},
                "Make such tags by on('gpu', Resources(gpus=1, memory='8GiB')).",
            )
        if said.setdefault(name, value) != value:
            raise InvalidStep(
                f"Task '{task}' has tags that contradict each other.",
                {name: f"{said[name]} and {value}"},
                "Keep one of them.",
            )
    return said


def _amount(task: str, name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidStep(
            f"Task '{task}' asks for an amount that is no number.",
            {"tag": f"{_RESOURCE}{name}:{text}"},
            "Make such tags by on('gpu', Resources(gpus=1, memory='8GiB')).",
        ) from None
