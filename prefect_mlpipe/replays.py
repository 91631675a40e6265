"""A run that runs another one again: which one, and what stands in for files that have changed.

Knows files. Knows nothing of how it is found out that nothing else has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.nested import refilled


@dataclass
class Replay:
    """The run that is run again, and the run that does it.

    Attributes:
        run_id: of the run that is run again.
        stand_ins: absolute path or URL of an input file → the copy of it in the store.
        made: id of the new run, once there is one.
    """

    run_id: str
    stand_ins: Mapping[str, File | Folder] = field(default_factory=dict)
    made: str = ""

    def originals(self) -> dict[str, str]:
        """Return the path of each copy → the path of the file that it stands in for."""
        return {str(path_of(copy)): path for path, copy in self.stand_ins.items()}


_replay: ContextVar[Replay | None] = ContextVar("prefect_mlpipe_replay", default=None)


@contextmanager
def replaying(replay: Replay) -> Iterator[None]:
    """Have the next run in this context be the replay of another one."""
    token = _replay.set(replay)
    try:
        yield
    finally:
        _replay.reset(token)


def taken_up(run_id: str) -> Replay | None:
    """Return the replay that a run is, if it is one; runs within it are none."""
    replay = _replay.get()
    if replay is None or replay.made:
        return None
    replay.made = run_id
    return replay


def path_of(value: object) -> str | None:
    """Return the absolute path or the URL of a file or folder; `None` for anything else."""
    if isinstance(value, File | Folder):
        return value.path if value.is_url else os.path.abspath(value.path)
    return os.path.abspath(value) if isinstance(value, PurePath) else None


def with_stand_ins(value: Any, stand_ins: Mapping[str, File | Folder]) -> Any:
    """Return a value with its files, also in lists, tuples and dicts, replaced."""
    path = path_of(value)
    if path is not None:
        return stand_ins.get(path, value)
    if type(value) is list:
        return [with_stand_ins(item, stand_ins) for item in value]
    if isinstance(value, tuple):
        return refilled(value, [with_stand_ins(item, stand_ins) for item in value])
    if type(value) is dict:
        return {name: with_stand_ins(item, stand_ins) for name, item in value.items()}
    return value
