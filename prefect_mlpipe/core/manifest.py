"""What a key is made of, and what changed between two of them.

One walk over the manifest has two readers: `key()` hashes what it yields, `diff()` compares it.
So an explanation can never disagree with the key. Knows nothing of stores, steps or when a key is
asked.

Compute, resources, retries, order and names of pipelines are not here: they do not change a value.
Labels (which function, where an input came from, how a parameter looks) are kept for the
explanation and stay out of the walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
from blake3 import blake3

KEY_VERSION = "prefect-mlpipe key 1"


class Reason(NamedTuple):
    """Why a step has to run. `str()` is the sentence a person would say."""

    kind: str
    name: str = ""
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "code changed":
                return f"code changed: {self.name}"
            case "parameter changed":
                shown = f": {self.before} → {self.after}" if self.before and self.after else ""
                return f"parameter '{self.name}' changed{shown}"
            case "input changed":
                source = f" (from {self.after})" if self.after else ""
                return f"input '{self.name}' changed{source}"
            case "reads changed":
                return f"reads changed: {self.name}"
            case "environment changed":
                before, after = self.before or "absent", self.after or "absent"
                return f"environment changed: {self.name} {before} → {after}"
            case "version changed":
                return f"version changed: {self.before or 'none'} → {self.after or 'none'}"
            case "input may change":
                return f"input '{self.name}' may change (from {self.after})"
            case "value missing" | "value damaged" | "expired" if self.name:
                return f"{self.kind}: {self.name}"
            case _:
                return self.kind


class Manifest(NamedTuple):
    """Everything a key is made of.

    Attributes:
        function: module-qualified name, a label.
        code: digest of the code that the function reaches.
        inputs: parameter → digest of its value.
        reads: what `@step(reads=...)` declares → digest.
        version: `@step(version=...)`.
        environment: distribution → version, and `python` → minor version.
        shown: parameter → how a short plain value looks, a label.
        sources: parameter → the node it comes from, a label.
        described: `input table`, `read LANG` → facts of a value that is not shown, a label; there
            once a step is to run.
    """

    function: str
    code: str
    inputs: Mapping[str, str]
    reads: Mapping[str, str]
    version: str | None
    environment: Mapping[str, str]
    shown: Mapping[str, str]
    sources: Mapping[str, str]
    described: Mapping[str, Mapping[str, str]] = MappingProxyType({})

    def walk(self) -> Iterator[tuple[str, str, str]]:
        """Yield `(kind, name, content)` of all that counts, in one fixed order."""
        yield ("code", "", self.code)
        for name in sorted(self.inputs):
            yield ("input", name, self.inputs[name])
        for name in sorted(self.reads):
            yield ("read", name, self.reads[name])
        if self.version is not None:
            yield ("version", "", self.version)
        for name in sorted(self.environment):
            yield ("environment", name, self.environment[name])

    def key(self) -> str:
        """Return the digest of the walk, 64 hex digits."""
        return blake3(orjson.dumps([KEY_VERSION, *self.walk()])).hexdigest()

    def diff(
        self,
        before: Manifest,
        parts: Mapping[str, str] | None = None,
        parts_before: Mapping[str, str] | None = None,
    ) -> list[Reason]:
        """Return what differs from an earlier manifest, empty only if the keys are equal.

        Args:
            before: the manifest to compare with.
            parts: label → digest of each piece of code reached now; names the piece that changed.
            parts_before: the same for `before`.
        """
        now = {(kind, name): content for kind, name, content in self.walk()}
        then = {(kind, name): content for kind, name, content in before.walk()}
        reasons: list[Reason] = []
        for kind, name in sorted(now.keys() | then.keys(), key=_order):
            content, earlier = now.get((kind, name), ""), then.get((kind, name), "")
            if content != earlier:
                reasons += self._reasons(before, kind, name, parts, parts_before)
        return reasons

    def _reasons(
        self,
        before: Manifest,
        kind: str,
        name: str,
        parts: Mapping[str, str] | None,
        parts_before: Mapping[str, str] | None,
    ) -> list[Reason]:
        match kind:
            case "code":
                return [
                    Reason("code changed", label)
                    for label in _changed_parts(self, before, parts, parts_before)
                ]
            case "version":
                return [Reason(f"{kind} changed", "", before.version or "", self.version or "")]
            case "environment":
                versions = before.environment.get(name, ""), self.environment.get(name, "")
                return [Reason("environment changed", name, *versions)]
            case "read":
                return [Reason("reads changed", name)]
            case _ if name in self.sources:
                return [Reason("input changed", name, "", self.sources[name])]
            case _:
                shown = before.shown.get(name, ""), self.shown.get(name, "")
                return [Reason("parameter changed", name, *shown)]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        document = self._asdict()
        if self.described:
            return document
        del document["described"]  # most have none
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """Read what `to_json` wrote."""
        return cls(**document)


_KINDS = ("code", "version", "input", "read", "environment")


def _order(item: tuple[str, str]) -> tuple[int, str]:
    return _KINDS.index(item[0]), item[1]


def _changed_parts(
    now: Manifest,
    before: Manifest,
    parts: Mapping[str, str] | None,
    parts_before: Mapping[str, str] | None,
) -> list[str]:
    """Name the pieces of code that differ; the function itself where no piece can be named."""
    if parts is None or parts_before is None:
        return [now.function]
    both = parts.keys() & parts_before.keys()
    changed = sorted(label for label in both if parts[label] != parts_before[label])
    if changed:
        return changed
    # Only wiring changed: a name now leads to another piece. What came or went says it best.
    return sorted(parts.keys() ^ parts_before.keys()) or [now.function]
