"""Find the source files that a module needs to be imported in an empty place.

Knows modules, files and whose they are. Knows nothing of pipelines, and imports nothing: what a
module imports is read from its source, also where that stands inside a function.

Worth arguing: of a package every module is taken, of a folder of scripts only those that are
imported. Code asks for modules of its own package by computed names; a folder of scripts may hold
anything.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from typing import Final, NamedTuple

from prefect_mlpipe.core.environment import owner_of

_INIT: Final = "__init__.py"
_LOADERS: Final = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
)
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})


class Module(NamedTuple):
    """A module of the user as a file.

    Attributes:
        name: by which it is imported.
        file: its source.
    """

    name: str
    file: str

    @property
    def is_package(self) -> bool:
        """Whether it is the `__init__` of a package."""
        return os.path.basename(self.file) == _INIT

    @property
    def place(self) -> str:
        """The path below a folder of `sys.path`, with forward slashes."""
        path = self.name.replace(".", "/")
        return f"{path}/{_INIT}" if self.is_package else f"{path}{os.path.splitext(self.file)[1]}"

    @property
    def root(self) -> str:
        """The folder of `sys.path` that it is below."""
        return os.path.abspath(self.file)[: -len(self.place)]


@dataclass
class Reached:
    """What was found.

    Attributes:
        modules: name → module, of the user's.
        distributions: installed ones that are imported.
    """

    modules: dict[str, Module] = field(default_factory=dict)
    distributions: set[str] = field(default_factory=set)


def module_at(file: str, given: str = "__main__") -> Module:
    """Return the module of a source file under the name by which others import it.

    Args:
        file: its source.
        given: the name that it was loaded under; one of a script is not its own.
    """
    file = os.path.abspath(file)
    candidate = Module(given, file)
    if given != "__main__" and file.endswith(f"{os.sep}{candidate.place}"):
        return candidate
    folder, name = os.path.split(file)
    parts = [] if name == _INIT else [os.path.splitext(name)[0]]
    while os.path.exists(os.path.join(folder, _INIT)):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return Module(".".join(parts), file)


def reached_from(start: Iterable[Module]) -> Reached:
    """Return the modules that some modules need, themselves included."""
    found = Reached()
    waiting = list(start)
    while waiting:
        module = waiting.pop()
        if module.name in found.modules:
            continue
        found.modules[module.name] = module
        waiting += _package_of(module)
        for name in _imported(module):
            spec = _found(name, module.root)
            if spec is None or spec.origin is None:
                continue
            owner = owner_of(name, spec.origin)
            found.distributions.update(owner.distributions)
            if owner.kind == "user" and os.path.isfile(spec.origin):
                waiting.append(Module(name, os.path.abspath(spec.origin)))
    return found


def _package_of(module: Module) -> Iterator[Module]:
    """Yield the modules of the outermost package that a module is in."""
    top = module.name.partition(".")[0]
    folder = os.path.join(module.root, top)
    if not os.path.isfile(os.path.join(folder, _INIT)):
        return
    for here, folders, files in os.walk(folder):
        folders[:] = [
            each
            for each in folders
            if each not in _SKIPPED
            and each.isidentifier()
            and not os.path.exists(os.path.join(here, each, "pyvenv.cfg"))
        ]
        package = os.path.relpath(here, module.root).replace(os.sep, ".")
        for file in files:
            stem, ending = os.path.splitext(file)
            if ending == ".py" and stem.isidentifier():
                name = package if file == _INIT else f"{package}.{stem}"
                yield Module(name, os.path.join(here, file))


def _imported(module: Module) -> Iterator[str]:
    """Yield what a module may import, packages before what is in them."""
    with open(module.file, "rb") as source:
        text = source.read()
    nodes: list[ast.AST] = []
    with suppress(SyntaxError):  # a file of the package that no Python of this version imports
        nodes = [*ast.walk(ast.parse(text))]
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*parts, *filter(None, [node.module])])


def _found(name: str, root: str) -> ModuleSpec | None:
    """Return where a module lies, without importing it; as it is loaded, if it is."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if loaded is not None:
        return loaded  # type: ignore[no-any-return]
    parent, _, _ = name.rpartition(".")
    if not parent:
        spec = PathFinder.find_spec(name, [root, *sys.path])
        return spec or importlib.util.find_spec(name)  # some editable installs have own finders
    above = _found(parent, root)
    if above is None or above.submodule_search_locations is None:
        return None
    return _found_in(name, list(above.submodule_search_locations))


def _found_in(name: str, folders: list[str]) -> ModuleSpec | None:
    """As `PathFinder.find_spec`, which wants the packages above to be imported."""
    portions: list[str] = []
    for folder in folders:
        spec = FileFinder(folder, *_LOADERS).find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec and spec.submodule_search_locations) or []
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace
