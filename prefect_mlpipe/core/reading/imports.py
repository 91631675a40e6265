"""Find the modules that function bodies import.

Knows `sys.modules` and the import system. Knows nothing of what of a module counts.

Worth arguing: a module of the user's is imported when it is first reached, as the body will do. One
of a library is not: its name and version are all that counts, and a plan must not import torch.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from typing import Any

from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.parts import MISSING, Binding, foreign
from prefect_mlpipe.core.encoding.pieces import packed, text
from prefect_mlpipe.core.environment import Owner, owner_of
from prefect_mlpipe.core.reading.imports_in_bodies import Import


def absolute_name(names: dict[str, Any], found: Import) -> str:
    """Return the full name of the module that an import in a body of this module means."""
    if not found.level:
        return found.name
    package = names.get("__package__")
    if package is None:
        package = str(names.get("__name__", ""))
        package = package if "__path__" in names else package.rpartition(".")[0]
    base = package.rsplit(".", found.level - 1)[0] if found.level > 1 else package
    return f"{base}.{found.name}" if found.name else base


def find_module(encoder: Encoder, name: str, top: bool = False) -> types.ModuleType | bytes:
    """Return a module that a body imports: loaded if it is the user's, else by name.

    Whether somebody else has loaded it must not show: by name, it is what it would be if loaded.

    Args:
        encoder: notes what was looked up.
        name: full name of the module.
        top: whether the import binds the package at the top, as `import a.b` does.
    """
    known = sys.modules.get(name)
    encoder.reach.append(Binding(sys.modules, name, MISSING if known is None else known))
    if known is not None:
        return known
    first = name.partition(".")[0]
    if first in sys.stdlib_module_names:
        return foreign(encoder, Owner("standard"), first if top else name, "")
    package, spec = _first_package(name)
    if spec is None:
        return packed("absent", text(name))
    places = spec.submodule_search_locations
    place = spec.origin or (os.path.join(next(iter(places)), "") if places else None)
    owner = owner_of(package, place)
    if owner.kind != "user":
        return foreign(encoder, owner, package if top else name, "")
    return _load(encoder, name)


def _first_package(name: str) -> tuple[str, importlib.machinery.ModuleSpec | None]:
    """Return the outermost package in a name that is more than a namespace of several, and where
    it is found. Only namespaces, which have no code, are loaded by the search."""
    parts = name.split(".")
    package, spec = parts[0], None
    for length in range(1, len(parts) + 1):
        package = ".".join(parts[:length])
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is not None:
            break
    return package, spec


def _load(encoder: Encoder, name: str) -> types.ModuleType | bytes:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (name == missing or name.startswith(f"{missing}.")):
            return packed("absent", text(name))
        # The body gets the same error, and may be ready for it: `try: import fast`.
        return packed("incomplete", text(name), text(missing))
    except Exception as error:  # whatever the user's module raises
        raise encoder.refuse(sys, f"importing {name!r} fails: {error!r}") from error
