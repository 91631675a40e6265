"""What a key is made of, and what changed between two of them.

One walk over the manifest has two readers: `key()` hashes what it yields, `diff()` compares it.
So an explanation can never disagree with the key. Knows nothing of stores, steps or when a key is
asked.

Compute, resources, retries, order and names of pipelines are not here: they do not change a value.
Labels (which function, where an input came from, how a parameter looks) are kept for the
explanation and stay out of the walk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson
from blake3 import blake3

from prefect_mlpipe.core.telling.describing import shorten

KEY_VERSION = "prefect-mlpipe key 1"
CODE: Final = "code"  # among the facts of what has code: the digest of it
_LONGEST_SENTENCE: Final = 110


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
                told = self.before and self.after and self.before != self.after  # not of secrets
                shown = f": {self.before} → {self.after}" if told else ""
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
            case "waited for" if self.name:
                return f"waited for run {self.name}, which computed it"
            case _:
                return self.kind


def sentences(reasons: Sequence[Reason], most: int) -> list[str]:
    """Return reasons as people read them; of many, the first ones and how many more there are."""
    said = [shorten(str(reason), _LONGEST_SENTENCE) for reason in reasons[:most]]
    return [*said, f"and {len(reasons) - most} more"] if len(reasons) > most else said


def distinct(reasons: Iterable[Reason], most: int = 5) -> tuple[Reason, ...]:
    """Return the first different ones: what is said of a mapped step whose items each have some."""
    found: dict[Reason, None] = {}
    for reason in reasons:
        if reason not in found:
            found[reason] = None
            if len(found) == most:
                break
    return tuple(found)


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
                changed: list[str] = []
                if parts is not None and parts_before is not None:
                    changed = changed_parts(parts, parts_before)
                # Where no piece can be named, two of them have changed places.
                return [Reason("code changed", label) for label in changed or [self.function]]
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


def changed_parts(parts: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """Name the pieces of code that differ between two readings: label → digest.

    Pieces that came or went are named where nothing else says what changed, or where one of the
    same name took the place of another: `from a import f` became `from b import f`.
    """
    changed = [label for label in parts if label in before and parts[label] != before[label]]
    come, gone = parts.keys() - before.keys(), before.keys() - parts.keys()
    changed += [new for new, old in replaced(parts, before) if parts[new] != before[old]]
    return sorted(changed) or sorted(come | gone)


def replaced(parts: Mapping[str, str], before: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return which piece took the place of which other one, as far as their names tell."""
    gone = {label.rpartition(".")[2]: label for label in before if label not in parts}
    come = {label.rpartition(".")[2]: label for label in parts if label not in before}
    return [(come[name], gone[name]) for name in sorted(come.keys() & gone.keys())]
