"""Published values: versions by name, and aliases that point to one of them.

Knows documents; what a version says is the publisher's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from prefect_mlpipe.core.storing.documents import Documents, quoted

FOLDER: Final = "published"
LATEST: Final = "latest"


class Published:
    """The published values of one store. Cross-thread and cross-process safe."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def write(
        self, name: str, version: str, document: Mapping[str, Any], alias: str | None = None
    ) -> None:
        """Keep a version, once, and let an alias point to it; `latest` always does."""
        if self._version(name, version) is None:
            self._documents.write(_version_name(name, version), document)
        for pointer in {LATEST, alias or LATEST}:
            self._documents.write(_alias_name(name, pointer), {"version": version})

    def read(self, name: str, version: str = LATEST) -> dict[str, Any] | None:
        """Give a version, by version or alias."""
        pointer = self._documents.read(_alias_name(name, version))
        return self._version(name, str(pointer["version"]) if pointer else version)

    def _version(self, name: str, version: str) -> dict[str, Any] | None:
        return self._documents.read(_version_name(name, version))


def _version_name(name: str, version: str) -> str:
    return f"{FOLDER}/{quoted(name)}/versions/{quoted(version)}.json"


def _alias_name(name: str, alias: str) -> str:
    return f"{FOLDER}/{quoted(name)}/aliases/{quoted(alias)}.json"
