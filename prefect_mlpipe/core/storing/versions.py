"""The frozen versions of pipelines: a document for each, and the order in which they were deployed.

Knows documents; what a version says is `deploy.versions`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from prefect_mlpipe.core.storing.documents import Documents, quoted

FOLDER: Final = "versions"


class FrozenVersions:
    """The versions in one store. Cross-thread and cross-process safe."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def write(self, pipeline: str, name: str, document: Mapping[str, Any]) -> None:
        """Keep a version, in place of what stood under its name."""
        self._documents.write(_name(pipeline, name), document)

    def read(self, pipeline: str, name: str) -> dict[str, Any] | None:
        """Give a version by its name."""
        return self._documents.read(_name(pipeline, name))

    def all(self, pipeline: str) -> list[dict[str, Any]]:
        """Give all versions of a pipeline, in no order."""
        folder = f"{_folder(pipeline)}/names"
        names = [entry.name for entry in self._documents.place.reading().list(folder)]
        return [*self._documents.read_many(names).values()]

    def deployed(self, pipeline: str) -> list[str]:
        """Give the names of the versions in the order of their deployment, the default last."""
        found = self._documents.read(_history(pipeline))
        return [] if found is None else list(found["names"])

    def deploy(self, pipeline: str, names: list[str]) -> None:
        """Have these be the versions in the order of their deployment, the default last."""
        self._documents.write(_history(pipeline), {"names": names})


def _folder(pipeline: str) -> str:
    return f"{FOLDER}/{quoted(pipeline)}"


def _name(pipeline: str, name: str) -> str:
    return f"{_folder(pipeline)}/names/{quoted(name)}.json"


def _history(pipeline: str) -> str:
    return f"{_folder(pipeline)}/deployed.json"
