"""The options of `@step`: ours, and those that are handed on to Prefect's tasks.

One frozen object holds them all, so that a copy cannot forget one. Knows nothing of functions or
calls.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from prefect_mlpipe.errors import InvalidStep

# Prefect's options that decide about reuse or storage, and the word of ours that does what was
# meant.
_REFUSED = {
    "cache_policy": "reuse is decided by content; see `version`, `reads`, `ignore`, `cache`",
    "cache_key_fn": "reuse is decided by content; see `version`, `reads`, `ignore`",
    "refresh_cache": "ask for it at the call: pipeline.with_options(refresh=['{step}'])",
    "persist_result": "outputs are always stored, unless `cache=False`",
    "result_storage": "the store is the pipeline's: pipeline.with_options(store='...')",
    "result_storage_key": "the store names what it holds",
    "result_serializer": "the format follows from the type; register a format for a new one",
    "cache_result_in_memory": "outputs go through the store; nothing to set",
    "task_run_name": "a task run is called what its node is called: {step}.with_options(name=...)",
}


_NAME = re.compile(r"[^/#\[\]\s][^/#\[\]\n]*")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one call of a step occupies while it runs.

    Resources()                       # one thread on any worker
    Resources(gpus=1)                 # a whole GPU
    Resources(memory="8GiB")          # a worker with that much memory
    Resources(gpus=1, memory="40GiB") # both

    Changing resources never changes a key: they say where, not what.
    """

    cpus: float = 1
    gpus: float = 0
    memory: str | None = None


@dataclass(frozen=True, slots=True)
class StepOptions:
    """The options of `@step`; `task` holds those that are Prefect's.

    `reads` is `None` where nothing was said, and empty where it was said that there is nothing.
    """

    name: str
    version: str | None = None
    cache: bool | None = None
    cache_expiration: timedelta | None = None
    reads: tuple[Any, ...] | None = None
    ignore: frozenset[str] = frozenset()
    compute: str | None = None
    resources: Resources = Resources()
    task: Mapping[str, Any] = field(default_factory=dict)

    @property
    def retries(self) -> int:
        """How often a failed call is tried again."""
        return int(self.task.get("retries") or 0)

    @property
    def timeout_seconds(self) -> float | None:
        """How long one try may last."""
        return self.task.get("timeout_seconds")


@functools.cache
def _task_options() -> frozenset[str]:
    from prefect import Task

    return frozenset(inspect.signature(Task.__init__).parameters) - {"self", "fn"}


def merged(options: StepOptions, changes: Mapping[str, Any]) -> StepOptions:
    """Return options with changes checked and put where they belong."""
    name = changes.get("name") or options.name
    if not _NAME.fullmatch(name):
        raise InvalidStep(
            f"A step cannot be called '{name}'.",
            {},
            "Take a name without '/', '#', '[' and ']': they stand for groups, calls and items.",
        )
    own: dict[str, Any] = {}
    task = dict(options.task)
    for option, value in changes.items():
        if option in _REFUSED:
            raise InvalidStep(
                f"Step '{name}' has the option '{option}', which fights the store.",
                {"option": f"{option}={value!r}"},
                f"Leave it out: {_REFUSED[option].format(step=name)}.",
            )
        if option in StepOptions.__dataclass_fields__ and option != "task":
            own[option] = value
        elif option in _task_options():
            task[option] = value
        else:
            raise InvalidStep(
                f"Step '{name}' has an unknown option '{option}'.",
                {"options": "name version cache cache_expiration reads ignore compute resources"},
                "Use one of these, or an option of Prefect's tasks.",
            )
    own["version"] = None if (v := own.get("version", options.version)) is None else str(v)
    own["reads"] = _reads(name, own.get("reads", options.reads))
    ignore = own.get("ignore", options.ignore)
    own["ignore"] = frozenset((ignore,) if isinstance(ignore, str) else ignore)
    own["resources"] = own.get("resources", options.resources) or Resources()
    own["name"] = name
    return replace(options, **own, task=task)


def _reads(step: str, declared: Any) -> tuple[Any, ...] | None:
    """Return what is declared as read; a text says neither of what kind it is nor what counts."""
    if declared is None:
        return None
    found = (declared,) if isinstance(declared, str) else tuple(declared)
    for item in found:
        if isinstance(item, str):
            raise InvalidStep(
                f"Step '{step}' declares that it reads {item!r}, which is only a text.",
                {"option": f"reads=[{item!r}]"},
                f"Say what it is: File({item!r}), Folder({item!r}) or EnvVar({item!r}); of code, "
                "give the function, class or module itself.",
            )
    return found
