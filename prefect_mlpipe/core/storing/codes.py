"""What is kept of code, by its digest, to explain changes later. Written once.

Knows documents; what is in them is `core.telling.kept_code`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from prefect_mlpipe.core.storing.documents import Documents

FOLDER: Final = "code"


class Codes:
    """The kept code of one store. Cross-thread and cross-process safe."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._known: set[str] = set()

    def has(self, digest: str) -> bool:
        """Tell whether something is kept of some code."""
        if digest in self._known:
            return True
        if self._documents.place.reading().exists(_name(digest)):
            self._known.add(digest)
            return True
        return False

    def write(self, digest: str, document: Mapping[str, Any]) -> None:
        """Keep something of some code, once."""
        if not self.has(digest):
            self._documents.write(_name(digest), document)
            self._known.add(digest)

    def read(self, digest: str) -> dict[str, Any] | None:
        """Give what is kept of some code."""
        return self._documents.read(_name(digest))


def _name(digest: str) -> str:
    return f"{FOLDER}/{digest[:2]}/{digest}"
