"""Read the code that a function can reach: one digest for all of it, one for each part.

Knows when what was read before still holds. Knows nothing of steps or keys. What is read is the
loaded bytecode and the present value of every global, never a source file: a file that was edited
after the import, or a stale .pyc, would poison any reader of sources.

Worth arguing: what a former reader found is trusted only after every name, attribute and mutable
value on the way has been compared with what it was. That is a few comparisons of pointers for each
function that a step reaches, and cheaper than any scheme of versions.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from operator import is_
from types import FunctionType
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.annotations import declared_fields, resolve_annotations
from prefect_mlpipe.core.encoding import classes, objects
from prefect_mlpipe.core.encoding.classes import class_values
from prefect_mlpipe.core.encoding.encode import Encoder, defines
from prefect_mlpipe.core.encoding.parts import (
    MISSING,
    Attributes,
    Binding,
    Content,
    Part,
    Parts,
    content_of,
    entries,
    label_of_module,
    together,
)
from prefect_mlpipe.core.encoding.pieces import Undigestible, count, packed, text
from prefect_mlpipe.core.environment import versions
from prefect_mlpipe.core.reading import callables
from prefect_mlpipe.core.reading.functions import attribute_values
from prefect_mlpipe.core.reading.showing import with_what_shows

_REMEMBERED: Final = 1024
_REGISTERS: Final = (callables, classes, objects)  # imported for the handlers that they register


@dataclass(frozen=True, slots=True)
class Code:
    """The code that a function can reach.

    Attributes:
        digest: of all of it; names of modules and files do not enter it.
        parts: label, as `helpers.clean`, → digest of that function, class or global value alone.
        environment: installed distribution that it reaches → version.
        values: label → the parts themselves: two lambdas of one module share a label.
        asks: what is asked of code besides what it does, as its docstring or its name.
    """

    digest: str
    parts: Mapping[str, str]
    environment: Mapping[str, str]
    values: Mapping[str, tuple[object, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    asks: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Code, (self.digest, dict(self.parts), dict(self.environment)))


class CodeReader:
    """Reads code for one pipeline call: what it has read once, it does not look at again.

    A change of a global between two calls is seen by the reader of the second. Cross-thread safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: dict[tuple[int, frozenset[str]], tuple[Code, object]] = {}
        self._encoders: dict[frozenset[str], Encoder] = {}

    def read(
        self,
        function: Callable[..., Any],
        *,
        ignore: frozenset[str] | tuple[str, ...] = frozenset(),
    ) -> Code:
        """Return the code that a function can reach.

        Args:
            function: the outer callable, decorators included.
            ignore: globals to leave out, as `helpers.SESSION`; of the function's own module also
                without the module.

        Raises:
            Undigestible: a global that is reached has no content.
        """
        key = (id(function), frozenset(ignore))
        known = self._codes.get(key)
        if known is not None:
            return known[0]
        with self._lock:
            code = self._read(function, key[1])
            self._codes[key] = (code, function)
        return code

    def _read(self, function: Callable[..., Any], ignore: frozenset[str]) -> Code:
        is_step = defines(type(function), "__mlpipe_function__")
        plain = function.__mlpipe_function__ if is_step else function  # type: ignore[attr-defined]
        key = (id(plain), ignore)
        snapshot = _snapshots.get(key)
        if snapshot is not None and snapshot.holds():
            return snapshot.code
        labels = _labels(plain, ignore)
        encoder = self._encoders.setdefault(labels, Encoder(ignore=labels))
        try:
            piece = encoder.whole(plain)
        except Undigestible as error:
            encoder.clear()
            raise _from_here(plain, error) from None
        reach, encoder.reach = encoder.reach, []
        whole = packed("step", piece, Encoder().whole(_effects(function, plain)))
        snapshot = _Snapshot(plain, whole, reach)
        while len(_snapshots) >= _REMEMBERED:
            _snapshots.pop(next(iter(_snapshots)))
        _snapshots[key] = snapshot
        return snapshot.code


def _labels(function: Any, ignore: frozenset[str]) -> frozenset[str]:
    if not ignore:
        return ignore
    module = label_of_module(getattr(inspect.unwrap(function), "__globals__", {}))
    return ignore | {f"{module}.{name}" for name in ignore}


def _from_here(function: Any, error: Undigestible) -> Undigestible:
    """Name the function itself as its author does, without its module."""
    first, arrow, rest = error.path.partition(" → ")
    module = label_of_module(getattr(function, "__globals__", {}))
    return Undigestible(first.removeprefix(f"{module}.") + arrow + rest, error.type, error.why)


def _effects(function: Any, plain: Any) -> object:
    """Return what the annotations of a step do: its output may be split into fields.

    A copy by value cannot resolve annotations that are strings, so who makes one says beforehand
    in `__mlpipe_effects__` what `effects` gave.
    """
    for holder in (function, plain):
        known = getattr(holder, "__mlpipe_effects__", None)
        if known is not None:
            return known
    return effects(plain)


def code_of_parts(parts: Parts) -> Code | None:
    """Return the code that a value brings along, of which its encoding reached these parts.

    Its digest says whether there is anything to tell of it; that of the value has counted it.
    """
    if not parts:
        return None
    labelled = {label: together(owns) for label, owns in sorted(parts.items())}
    pieces = (text(each) for pair in labelled.items() for each in pair)
    values = {label: tuple(owns.values()) for label, owns in parts.items()}
    return Code(blake3(packed("brought", *pieces)).hexdigest(), labelled, {}, values)


def shown_by(brought: Code, asks: frozenset[str]) -> bytes:
    """Return what shows of code that a value brings along to code that asks for it.

    Args:
        brought: as `code_of_parts` gave it.
        asks: what the reader of the value asks of code.
    """
    if not asks:
        return b""
    parts: Parts = {
        label: {count(at): value for at, value in enumerate(values)}
        for label, values in brought.values.items()
    }
    return with_what_shows(parts, asks, None)[1]


def effects(function: Any) -> list[str]:
    """Return the kind and names of the fields that the return annotation declares."""
    fields = declared_fields(resolve_annotations(function).get("return"))
    return [] if fields is None else [fields.kind, *fields.names]


class _Snapshot:
    """Code that was read, and all that it was read from."""

    def __init__(self, function: object, piece: bytes, reach: list[Any]) -> None:
        self.function = function
        self.bindings: dict[int, tuple[dict[str, Any], dict[str, object]]] = {}
        self.attributes: dict[int, Attributes] = {}
        self.contents: dict[int, Content] = {}
        parts: Parts = {}
        asks: set[str] = set()
        distributions: set[str] = set()
        for entry in entries(reach):
            kind = type(entry)
            if kind is Binding:
                self._bound(*entry)
            elif kind is Attributes:
                self.attributes[id(entry.holder)] = entry
            elif kind is Part:
                parts.setdefault(entry.label, {})[entry.own] = entry.value
            elif kind is str:
                distributions.add(entry)
            elif kind is Content:
                self.contents[id(entry.value)] = entry
            else:
                asks |= entry.kinds
        parts, shows = with_what_shows(parts, asks, function)
        self.code = Code(
            blake3(piece + shows).hexdigest(),
            {label: together(parts[label]) for label in sorted(parts)},
            versions(distributions),
            {label: tuple(owns.values()) for label, owns in sorted(parts.items())},
            frozenset(asks),
        )

    def _bound(self, names: dict[str, Any], name: str, value: object) -> None:
        known = self.bindings.get(id(names))
        if known is None:
            known = self.bindings[id(names)] = (names, {})
        known[1][name] = value

    def holds(self) -> bool:
        """Return whether a reader would find the same now."""
        for names, values in self.bindings.values():
            now = map(names.get, values, repeat(MISSING))
            if not all(map(is_, now, values.values())):
                return False
        for holder, known in self.attributes.values():
            found = _values_of(holder)
            if len(found) != len(known) or not all(map(is_, found, known)):
                return False
        return all(_unchanged(content) for content in self.contents.values())


def _values_of(holder: Any) -> tuple[object, ...]:
    if isinstance(holder, FunctionType):
        return attribute_values(holder)
    return class_values(holder) if isinstance(holder, type) else tuple(holder.values())


def _unchanged(content: Content) -> bool:
    try:
        return content_of(content.value) == content.piece
    except Undigestible:  # it has got something without content since
        return False


_snapshots: dict[tuple[int, frozenset[str]], _Snapshot] = {}
