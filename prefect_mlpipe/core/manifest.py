"""What a key is made of, and what changed between two of them.

One walk over the manifest has two readers: `key()` hashes what it yields, `diff()` compares it.
So an explanation can never disagree with the key. Knows nothing of stores, steps or when a key is
asked.

Compute, resources, retries, order and names of pipelines are not here: they do not change a value.
Labels (which function, where an input came from, how a parameter looks) are kept for the
explanation and stay out of the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import orjson
from blake3 import blake3

from prefect_mlpipe.core.telling.describing import Facts, differences, exchanged, shorten

KEY_VERSION = "prefect-mlpipe key 1"
_LONGEST_SENTENCE: Final = 110
_FEW: Final = 3  # of what changed inside one input

# Digest of code → its pieces, label → digest of each; `None` where they are not known.
Parts: TypeAlias = Mapping[str, str]
Pieces: TypeAlias = Callable[[str], Parts | None]


class Reason(NamedTuple):
    """Why a step has to run. `str()` is the sentence a person would say.

    Attributes:
        kind: as in `parameter changed`.
        name: of what changed.
        before: how it looked, where that is short.
        after: how it looks now; without `before`, what has changed inside of it.
    """

    kind: str
    name: str = ""
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "code changed":
                return f"code changed: {self.name}"
            case "parameter changed":
                return f"parameter '{self.name}' changed{self._told()}"
            case "input changed":
                source = f" (from {self.after})" if self.after else ""
                return f"input '{self.name}' changed{source}"
            case "reads changed":
                return f"reads changed: {self.name}" + (f" ({self.after})" if self.after else "")
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

    def _told(self) -> str:
        if not self.before or not self.after:
            return f": {self.after}" if self.after else ""
        return "" if self.before == self.after else f": {self.before} → {self.after}"  # of secrets


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
        brought: like `described`, place → digest of the user's code that the value brings along:
            functions in it, and the classes of objects; a label, its content counts in `inputs`.
        given: place → digest of what shows of the user's code in it, as docstrings; a label, there
            once a step is to run: it counts for outputs that hold code.
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
    brought: Mapping[str, str] = MappingProxyType({})
    given: Mapping[str, str] = MappingProxyType({})

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

    def keys(self, names: Sequence[str]) -> Callable[[Sequence[str]], str]:
        """Return what gives the key of this manifest with other digests of some inputs.

        Args:
            names: of the inputs, whether they are in this manifest or not. What is returned takes
                the digest of each, in this order.
        """
        marks = {name: f"{number}{'~' * 63}" for number, name in enumerate(names)}
        whole = self._replace(inputs={**self.inputs, **marks})
        text = orjson.dumps([KEY_VERSION, *whole.walk()])
        places = sorted((text.index(mark.encode()), names.index(n)) for n, mark in marks.items())
        parts, start = [], 0
        for place, _ in places:
            parts.append(text[start:place])
            start = place + 64
        rest, order = text[start:], [number for _, number in places]

        def key(digests: Sequence[str]) -> str:
            pieces: list[bytes] = []
            for part, number in zip(parts, order, strict=True):
                pieces += (part, digests[number].encode())
            return blake3(b"".join((*pieces, rest))).hexdigest()

        return key

    def diff(self, before: Manifest, pieces: Pieces = lambda code: None) -> list[Reason]:
        """Return what differs from an earlier manifest, empty only if the keys are equal.

        Args:
            before: the manifest to compare with.
            pieces: the pieces of some code by its digest; name the piece that changed.
        """
        now = {(kind, name): content for kind, name, content in self.walk()}
        then = {(kind, name): content for kind, name, content in before.walk()}
        reasons: list[Reason] = []
        for kind, name in sorted(now.keys() | then.keys(), key=_order):
            content, earlier = now.get((kind, name), ""), then.get((kind, name), "")
            if content != earlier:
                reasons += self._reasons(before, kind, name, pieces)
        return reasons

    def _reasons(self, before: Manifest, kind: str, name: str, pieces: Pieces) -> list[Reason]:
        match kind:
            case "code":
                changed = changed_parts(*_both(pieces, self.code, before.code))
                # Where no piece can be named, two of them have changed places.
                return [Reason("code changed", label) for label in changed or [self.function]]
            case "version":
                return [Reason(f"{kind} changed", "", before.version or "", self.version or "")]
            case "environment":
                versions = before.environment.get(name, ""), self.environment.get(name, "")
                return [Reason("environment changed", name, *versions)]
            case "read":
                brought = self._brought(before, f"read {name}", pieces) or ({}, {})
                return [Reason("reads changed", name, "", _code_of(changed_parts(*brought)))]
            case _:
                return [self._reason_of_input(before, name, pieces)]

    def _reason_of_input(self, before: Manifest, name: str, pieces: Pieces) -> Reason:
        brought = self._brought(before, f"input {name}", pieces)
        if name in self.sources:
            # Beside outputs there may be code, as in `[model, scale]`: that is known for certain.
            edited = "" if brought is None else _code_of(edited_parts(*brought))
            if edited:
                return Reason("parameter changed", name, "", edited)
            return Reason("input changed", name, "", self.sources[name])
        if brought is not None:
            return Reason(
                "parameter changed", name, *_inside(before.facts(name), self.facts(name), *brought)
            )
        shown = before.shown.get(name, ""), self.shown.get(name, "")
        return Reason("parameter changed", name, *(shown if all(shown) else ()))

    def _brought(self, before: Manifest, place: str, pieces: Pieces) -> tuple[Parts, Parts] | None:
        """Return the pieces of code in a value, now and before; `None` if it never had any."""
        codes = self.brought.get(place, ""), before.brought.get(place, "")
        return _both(pieces, *codes) if any(codes) else None

    def given_otherwise(self, before: Mapping[str, str]) -> list[Reason]:
        """Return the reasons to run for a step whose output shows what code in its inputs shows.

        Args:
            before: what was `given` when the output was stored.
        """
        places = self.given.keys() | before.keys()
        changed = (at for at in sorted(places) if self.given.get(at) != before.get(at))
        return [self._given_otherwise(*place.split(" ", 1)) for place in changed]

    def _given_otherwise(self, kind: str, name: str) -> Reason:
        if kind == "read":
            return Reason("reads changed", name, "", "docstring, name or annotations")
        if name in self.sources:
            return Reason("input changed", name, "", self.sources[name])
        return Reason("parameter changed", name, "", "docstring, name or annotations")

    def facts(self, name: str) -> Facts:
        """Return what is known of a parameter's value that is no output of a step."""
        if name in self.shown:
            return {"": self.shown[name]}
        return dict(self.described.get(f"input {name}", {}))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        document = self._asdict()
        for name in ("described", "brought", "given"):  # most have none
            if not document[name]:
                del document[name]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """Read what `to_json` wrote."""
        return cls(**document)


_KINDS = ("code", "version", "input", "read", "environment")


def _order(item: tuple[str, str]) -> tuple[int, str]:
    return _KINDS.index(item[0]), item[1]


def changed_parts(parts: Parts, before: Parts) -> list[str]:
    """Name the pieces of code that differ between two readings: label → digest.

    Pieces that came or went are named where nothing else says what changed.
    """
    return edited_parts(parts, before) or sorted(parts.keys() ^ before.keys())


def edited_parts(parts: Parts, before: Parts) -> list[str]:
    """Name the pieces of code that were there before and are different now.

    One that took the place of another of its name counts: `from a import f`, now from `b`.
    """
    changed = [label for label in parts if label in before and parts[label] != before[label]]
    changed += [new for new, old in replaced(parts, before) if parts[new] != before[old]]
    return sorted(changed)


def replaced(parts: Parts, before: Parts) -> list[tuple[str, str]]:
    """Return which piece took the place of which other one, as far as their names tell."""
    gone = {label.rpartition(".")[2]: label for label in before if label not in parts}
    come = {label.rpartition(".")[2]: label for label in parts if label not in before}
    return [(come[name], gone[name]) for name in sorted(come.keys() & gone.keys())]


def _both(pieces: Pieces, code: str, before: str) -> tuple[Parts, Parts]:
    """Return the pieces of two readings; none of either where one of them is not known."""
    found = (pieces(code), pieces(before)) if code and before else (None, None)
    return ({}, {}) if found[0] is None or found[1] is None else (found[0], found[1])


def _inside(old: Facts, new: Facts, parts: Parts, before: Parts) -> tuple[str, str]:
    """Return what changed in a function or an object: `before` and `after` of a reason."""
    pair = exchanged(old, new) if old and new else None
    if pair is not None:
        return pair
    edited = _code_of(edited_parts(parts, before))
    told = ([edited] if edited else []) + (differences(old, new) if old and new else [])
    return "", "; ".join(_few(told)) or _code_of(changed_parts(parts, before))


def _code_of(labels: Sequence[str]) -> str:
    return f"code of {', '.join(_few(labels))}" if labels else ""


def _few(names: Sequence[str]) -> list[str]:
    more = len(names) - _FEW
    return [*names] if more <= 0 else [*names[: _FEW - 1], f"{names[_FEW - 1]} and {more} more"]
