"""Tell whose a module is: the user's, the standard library's, ours, or an installed distribution's.

Knows files and installed metadata. Knows nothing of code or digests. What it has found out about a
module or a distribution holds for the process: loaded code does not change when pip does.

Worth arguing: only a distribution that was installed *as a copy* is somebody else's. An editable
install, whose version does not move when its code does, is user code, and so is a folder that
merely has an `.egg-info` beside it.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from typing import Final, NamedTuple

from blake3 import blake3

OUR_PACKAGE: Final = "prefect_mlpipe"

_INSTALLED: Final = re.compile(r"[/\\](site|dist)-packages[/\\]")


class Owner(NamedTuple):
    """Whose a module is.

    Attributes:
        kind: `user`, `standard`, `ours` or `installed`.
        distributions: for what is installed, the distributions that hold it; mostly one.
    """

    kind: str
    distributions: tuple[str, ...] = ()


USER: Final = Owner("user")
STANDARD: Final = Owner("standard")
OURS: Final = Owner("ours")


def python_environment() -> dict[str, str]:
    """Return what of the interpreter belongs in a key: its minor version, and `-O` where given."""
    environment = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    if sys.flags.optimize:
        environment["optimize"] = str(sys.flags.optimize)
    return environment


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return distribution → installed version, sorted by name; empty for what is not installed."""
    return {name: _version(name) for name in sorted(set(distributions))}


@functools.cache
def _version(distribution: str) -> str:
    found = _distribution(distribution)
    if found is None:
        return ""
    if found.files.read_text("direct_url.json") is None:
        return found.version
    # Installed from a folder, a file or a repository, not from an index: what is installed can
    # change while the version does not.
    return f"{found.version} (files {_files_of(distribution)})"


def _files_of(distribution: str) -> str:
    """Return a short digest of the installed files; where they lie does not count."""
    lines = _recorded(distribution).splitlines()
    kept = sorted(line for line in lines if ".dist-info/" not in line and ",sha256=" in line)
    return blake3("\n".join(kept).encode()).hexdigest()[:8]


def owner_of(module_name: str, file: str | None = None) -> Owner:
    """Return whose the module of this name is.

    Args:
        module_name: as in `__module__` or `__name__`.
        file: where its code lies, if the caller knows better than `sys.modules`: a by-value copy of
            a function knows the file it came from, and there may be no such module here.
    """
    top = module_name.partition(".")[0]
    if top == OUR_PACKAGE:
        return OURS
    if top.startswith("_cython_"):  # where Cython keeps the types that all its modules share
        return STANDARD
    module = sys.modules.get(module_name)
    if module is not None and file is None:
        file = getattr(module, "__file__", None)
        if file is None and top != "__main__":
            file = _origin_without_file(module_name)
    return _owner(module_name, file)


def user_modules(labels: Iterable[str]) -> set[str]:
    """Return the user's modules, of those that are loaded, that labels of code are from."""
    found = set()
    for label in labels:
        parts = label.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        module = next((prefix for prefix in prefixes if prefix in sys.modules), None)
        if module is not None and owner_of(module).kind == "user":
            found.add(module)
    return found


def _origin_without_file(module_name: str) -> str | None:
    module = sys.modules[module_name]
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if origin in ("built-in", "frozen"):
        return str(origin)
    paths = list(getattr(module, "__path__", None) or ())
    return str(paths[0]) + os.sep if paths else None


@functools.cache
def _owner(module_name: str, file: str | None) -> Owner:
    top = module_name.partition(".")[0]
    if file in ("built-in", "frozen") or (file is not None and file.startswith("<frozen ")):
        return STANDARD
    if file is None or file.startswith("<"):
        return _owner_by_name(module_name, top)
    if _INSTALLED.search(file):
        distributions = _distributions_of(top, file)
        if distributions and all(_is_editable(name) for name in distributions):
            return USER
        return Owner("installed", distributions or (top,))
    if _is_standard(file):
        return STANDARD
    beside = _installed_beside(top, file)
    return Owner("installed", beside) if beside else USER


def _owner_by_name(module_name: str, top: str) -> Owner:
    if top in sys.builtin_module_names or (
        top in sys.stdlib_module_names and top not in ("__main__", "this")
    ):
        return STANDARD
    # C extensions name modules that are not theirs; the package above them is in `sys.modules`.
    parent = module_name.rpartition(".")[0]
    if parent and sys.modules.get(parent) is not None:
        return owner_of(parent)
    return USER


@functools.cache
def _standard_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib")} | {os.path.dirname(os.__file__)}
    return tuple({os.path.join(each(f), "") for f in folders for each in (str, os.path.realpath)})


def _is_standard(file: str) -> bool:
    return file.startswith(_standard_folders()) or os.path.realpath(file).startswith(
        _standard_folders()
    )


def _distributions_of(top: str, file: str) -> tuple[str, ...]:
    """Return the distributions that own a file below site-packages, without scanning them all."""
    named = _distribution(top)
    if named is not None and _holds(named, top):
        candidates: tuple[str, ...] = (named.name,)
        if not _is_namespace(top):
            return candidates
    candidates = tuple(sorted(set(_packages(top))))
    if len(candidates) <= 1:
        return candidates
    relative = _INSTALLED.split(file)[-1].replace(os.sep, "/")
    exact = [name for name in candidates if relative in _recorded(name)]
    return tuple(exact) or candidates


def _is_namespace(top: str) -> bool:
    module = sys.modules.get(top)
    return module is not None and getattr(module, "__file__", None) is None


class _Distribution(NamedTuple):
    """An installed distribution; its metadata are read once, which takes a millisecond."""

    name: str
    version: str
    files: importlib.metadata.Distribution


@functools.cache
def _distribution(name: str) -> _Distribution | None:
    for found in importlib.metadata.distributions(name=name):
        facts = found.metadata
        if "Name" in facts:  # an uninstall may leave a `.dist-info` behind that holds nothing
            version = facts["Version"] if "Version" in facts else ""  # noqa: SIM401, has no `get`
            return _Distribution(facts["Name"], version, found)
    return None


def _holds(distribution: _Distribution, top: str) -> bool:
    recorded = _recorded(distribution.name)
    return f"\n{top}/" in recorded or f"\n{top}.py" in recorded


@functools.cache
def _recorded(distribution: str) -> str:
    found = _distribution(distribution)
    return "\n" + ((found.files.read_text("RECORD") if found else None) or "")


def _packages(top: str) -> list[str]:
    """Return the distributions that hold a top-level name, one installed just now among them."""
    return _all_packages().get(top) or _all_packages(_state_of_path()).get(top, [])


@functools.lru_cache(maxsize=2)
def _all_packages(state: tuple[object, ...] = ()) -> dict[str, list[str]]:
    found = importlib.metadata.packages_distributions()
    return {top: [name for name in names if name] for top, names in found.items()}


def _state_of_path() -> tuple[object, ...]:
    folders = [folder for folder in sys.path if os.path.isdir(folder)]
    return tuple((folder, os.stat(folder).st_mtime_ns) for folder in folders)


@functools.cache
def _is_editable(distribution: str) -> bool:
    found = _distribution(distribution)
    source = found.files.read_text("direct_url.json") if found else None
    return bool(source and json.loads(source).get("dir_info", {}).get("editable"))


@functools.cache
def _folders_of_copies() -> dict[str, str]:
    """Return folder → one `.dist-info` in it, for folders on the path outside site-packages."""
    found: dict[str, str] = {}
    for folder in sys.path:
        if not _INSTALLED.search(os.path.join(folder, "")) and os.path.isdir(folder):
            for entry in os.listdir(folder):
                if entry.endswith(".dist-info"):
                    found[os.path.realpath(folder)] = entry
                    break
    return found


def _installed_beside(top: str, file: str) -> tuple[str, ...]:
    """Return the distributions of a folder filled by `pip install --target`."""
    folders = _folders_of_copies()
    if not folders:
        return ()
    folder = next((f for f in folders if os.path.realpath(file).startswith(f + os.sep)), None)
    if folder is None:
        return ()
    relative = os.path.relpath(os.path.realpath(file), folder).replace(os.sep, "/")
    names = _packages(top)
    return tuple(
        sorted({n for n in names if f"\n{relative}," in _recorded(n) and not _is_editable(n)})
    )
