"""Documents: JSON under a name, sealed, replaced as a whole.

Knows places and seals. Knows nothing of what a document says: the rooms beside this one do, and
what only explains (the parts of code, the latest manifest of a function) needs no room of its own.

A document that is damaged, not signed, or not of the form that its reader asks for is said once in
the log, and then is as one that is not there.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import orjson
from blake3 import blake3

from prefect_mlpipe.core.storing.place import Place
from prefect_mlpipe.core.storing.seals import Seal, Unsealed

logger = logging.getLogger(__name__)

LONGEST_NAME = 120

Json = Any


class Documents:
    """The documents of one store, under their names in it."""

    def __init__(self, place: Place, seal: Seal) -> None:
        self.place, self.seal = place, seal
        self.refused: dict[str, str] = {}  # name → why
        self.unsigned: set[str] = set()
        self._unsigned_told = False

    def read(self, name: str) -> dict[str, Json] | None:
        """Give a document, `None` where there is none that can be believed."""
        data = self.place.reading().read(name)
        return None if data is None else self.opened(name, data)

    def read_many(self, names: Sequence[str]) -> dict[str, dict[str, Json]]:
        """Give the documents that there are; of a remote store, all in one call."""
        data = self.place.reading().read_many(names)
        found = {name: self.opened(name, each) for name, each in data.items()}
        return {name: document for name, document in found.items() if document is not None}

    def write(self, name: str, document: Mapping[str, Json]) -> None:
        """Write a document in place of what stood under its name."""
        self.place.writing().replace(name, self.sealed(name, document))

    def opened(self, name: str, data: bytes) -> dict[str, Json] | None:
        """Give the document in sealed bytes, `None` if it cannot be believed."""
        try:
            found: dict[str, Json] = orjson.loads(self.seal.open(name, data))
        except Unsealed as error:
            self.refuse(name, error)
            return None
        return found

    def sealed(self, name: str, document: Mapping[str, Json]) -> bytes:
        """Give the bytes that stand for a document under its name."""
        return self.seal.close(name, orjson.dumps(dict(document)))

    def sign(self, folder: str) -> int:
        """Sign what is whole in a folder and has no signature of our key; give their number."""
        backend, plain, signed = self.place.writing(), Seal(), 0
        for entry in list(backend.list(folder)):
            data = backend.read(entry.name) or b""
            try:
                self.seal.open(entry.name, data)
                continue
            except Unsealed as error:
                if not error.unsigned:
                    continue
            with suppress(Unsealed):  # damaged, and stays so
                content = plain.open(entry.name, data)
                backend.replace(entry.name, self.seal.close(entry.name, content))
                self.refused.pop(entry.name, None)
                self.unsigned.discard(entry.name)
                signed += 1
        return signed

    def refuse(self, name: str, error: Unsealed) -> None:
        """Say once that a document is not believed; of unsigned ones, once for all."""
        if name in self.refused:
            return
        self.refused[name] = str(error)
        if error.unsigned:
            self.unsigned.add(name)
        if not error.unsigned:
            logger.warning("%s in %s is damaged and not used", name, self.place.url)
        elif not self._unsigned_told:
            self._unsigned_told = True
            logger.warning(
                "%s in %s is %s, and not used; nothing in this store is that has no signature of "
                "the signing key of the settings. If you trust what is in it, sign it: "
                "open_store().sign()",
                name,
                self.place.url,
                error,
            )


class Drawer:
    """The documents of one folder of a store, by names that may hold anything."""

    def __init__(self, documents: Documents, folder: str) -> None:
        self._documents, self._folder = documents, folder

    def read(self, name: str) -> dict[str, Json] | None:
        """Give the document of a name, `None` where there is none that can be believed."""
        return self._documents.read(self._path(name))

    def write(self, name: str, document: Mapping[str, Json]) -> None:
        """Keep the document of a name, in place of the one before."""
        self._documents.write(self._path(name), document)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{quoted(name)}.json"


def quoted(name: str) -> str:
    """A name as one file name, the same for the same name and for no other."""
    safe = quote(name, safe=" ()+,=@#{}").replace("*", "%2A")
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    safe = safe or "%"
    if len(safe) <= LONGEST_NAME:
        return safe
    return f"{safe[:LONGEST_NAME]}~{blake3(name.encode()).hexdigest()[:16]}"
