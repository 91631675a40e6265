"""What a store keeps of some code, so that any later process can show what changed in it.

Knows the document and how it shares texts with the one before it. Knows nothing of stores.

A document has the digest of each part, and what each part looks like. What looks as it did in the
code that this one came after is not written again: the document says which other one has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prefect_mlpipe.core.code import Code
from prefect_mlpipe.core.telling.sources import Looks, looks

Read = Callable[[str], Mapping[str, Any] | None]


class KeptCode(NamedTuple):
    """The parts of some code as they were when it was read.

    Attributes:
        parts: label → digest.
        looks: label → what the part looks like.
        elsewhere: label → digest of the code whose document says what the part looks like.
    """

    parts: Mapping[str, str]
    looks: Mapping[str, Looks]
    elsewhere: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        shown = {label: each.to_json() for label, each in self.looks.items()}
        return {"parts": dict(self.parts), "looks": shown, "elsewhere": dict(self.elsewhere)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> KeptCode:
        """Read what `to_json` wrote."""
        shown = {label: Looks(*each) for label, each in document["looks"].items()}
        return cls(document["parts"], shown, document["elsewhere"])

    def look(self, label: str, read: Read) -> Looks | None:
        """Return what a part looks like, `None` where that is not known any more."""
        found = self.looks.get(label)
        if found is not None or label not in self.elsewhere:
            return found
        document = read(self.elsewhere[label])
        return None if document is None else KeptCode.from_json(document).looks.get(label)


def kept(code: Code, before: str | None, read: Read) -> KeptCode:
    """Return what is to be kept of code that was just read.

    Args:
        code: as it is now.
        before: digest of the code that it came after, if there was any.
        read: gives the document of some code.
    """
    document = read(before) if before else None
    known: dict[str, str] = {}
    if before is not None and document is not None:
        old = KeptCode.from_json(document)
        for label, digest in code.parts.items():
            holder = before if label in old.looks else old.elsewhere.get(label)
            # Never in itself: this document may take the place of one that has the texts.
            if old.parts.get(label) == digest and holder not in (None, code.digest):
                known[label] = str(holder)
    new = code.parts.keys() - known.keys()
    return KeptCode(code.parts, looks(code, new), known)
