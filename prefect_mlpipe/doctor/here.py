"""Checks of this process: what is installed, the settings, the folder for copies."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pydantic import ValidationError

from prefect_mlpipe.compute.named import named_computes
from prefect_mlpipe.core.telling.describing import size_text
from prefect_mlpipe.doctor.findings import Finding, Look, Notes
from prefect_mlpipe.errors import InvalidCompute
from prefect_mlpipe.settings import Settings

_OURS: Final = "prefect-mlpipe"
_PREFIX: Final = "PREFECT_MLPIPE_"
_OTHERS: Final = {f"{_PREFIX}TRACEBACK"}  # read by the command line
_SHOWN: Final = ("prefect", "dask", "sqlalchemy", "fastapi")
_WHY: Final[Mapping[str, str]] = {
    "sqlalchemy": "with 2.1 schedules of Prefect 3.8 never fire, and nobody says so",
    "fastapi": "with newer ones the Prefect server does not start",
}
LITTLE_ROOM: Final = 1 << 30


def installed(look: Look) -> Finding:
    """The versions of Python and of the packages that we build on."""
    notes = Notes()
    notes.fact("Python", platform.python_version())
    wanted = metadata.metadata(_OURS)["Requires-Python"]
    if platform.python_version() not in SpecifierSet(wanted, prereleases=True):
        notes.problem(f"Use a Python {wanted}.")
    for name in (_OURS, *_SHOWN):
        notes.fact(name, _version(name) or "not installed")
    for requirement in _requirements():
        have = _version(requirement.name)
        if have is None or not requirement.specifier.contains(have, prereleases=True):
            notes.fact(
                requirement.name, f"{have or 'not installed'}, needs {requirement.specifier}"
            )
            why = _WHY.get(requirement.name)
            notes.problem(
                f"pip install '{requirement.name}{requirement.specifier}'"
                + (f": {why}." if why else ".")
            )
    if _version("dask") != _version("distributed"):
        notes.fact("distributed", _version("distributed"))
        notes.problem("Install dask and distributed of the same release.")
    return notes.finding()


def _requirements() -> Iterator[Requirement]:
    for line in metadata.requires(_OURS) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def settings(look: Look) -> Finding:
    """Our settings, in the environment and in pyproject.toml."""
    notes = Notes()
    given = sorted(name for name in os.environ if name.startswith(_PREFIX))
    notes.fact("set in the environment", ", ".join(given) or "none")
    known = {f"{_PREFIX}{field.upper()}" for field in Settings.model_fields} | _OTHERS
    for name in given:
        if name.upper() not in known:
            notes.warn(f"{name} is no setting and does nothing: correct its name, or unset it.")
    try:
        computes = named_computes(Settings())
    except ValidationError as error:
        for wrong in error.errors(include_input=False, include_url=False):  # it may be a secret
            where = ".".join(map(str, wrong["loc"]))
            notes.fact(where, wrong["msg"])
            notes.problem(f"Correct {_PREFIX}{where.upper()}, or `{where}` in pyproject.toml.")
    except InvalidCompute as error:
        for name, value in error.facts.items():
            notes.fact(name, value)
        notes.problem(f"{error.sentence} {error.advice}")
    else:
        notes.fact("computes", ", ".join(computes) or "none named")
    return notes.finding()


def cache(look: Look) -> Finding:
    """The folder of this machine for copies of remote values."""
    notes = Notes()
    settings = Settings()
    folder = Path(settings.cache).expanduser()
    notes.fact("folder", folder)
    notes.fact("holds", f"{size_text(_size(folder))} of {size_text(settings.cache_size)}")
    near = nearest(folder)
    free = shutil.disk_usage(near).free
    notes.fact("free space", size_text(free))
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        notes.problem(f"Make {near} a folder that you may write, or set {_PREFIX}CACHE.")
    if free < LITTLE_ROOM:
        notes.warn(f"Free some space there, or set {_PREFIX}CACHE to a folder with more of it.")
    return notes.finding()


def nearest(path: Path) -> Path:
    """Return the path itself, or the lowest folder above it that there is."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:  # another process has just removed it
                continue
    return total
