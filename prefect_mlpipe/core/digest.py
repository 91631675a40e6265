"""The digest of a value: the same value gives the same digest in every process, on every machine.

Knows nothing of stores, keys or steps. How each type is encoded is said in `core.encoding`; what
functions and modules reach, in `core.reading`.

A value of one's own type counts by its class's code and by what `__reduce_ex__` gives. A type may
say itself what counts by a method `__mlpipe_digest__(self)` that returns plain content.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from prefect_mlpipe.core.encoding import classes, objects
from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.parts import Part
from prefect_mlpipe.core.encoding.pieces import Buffers, scalar
from prefect_mlpipe.core.reading import callables

_REGISTERS = (classes, objects, callables)  # imported for the handlers that they register

__all__ = ["Buffers", "code_in", "digest", "digest_and_owners", "owners"]

_PLAIN = frozenset({int, float, bool, str, type(None)})
_SHORT = 1024


def digest(value: object, *, buffers: Buffers | None = None) -> str:
    """Return the digest of a value, 64 hex digits.

    Types differ as values do: 1, 1.0, True and "1" have four digests. How arrays and tables lie in
    memory does not count.

    Args:
        value: anything that has content.
        buffers: to share the hashes of large buffers with whoever stores their bytes.

    Raises:
        Undigestible: something in it has no content, as a lock or an iterator.

    Example:
        >>> digest({"a": [1, 2]}) == digest({"a": [1, 2.0]})
        False
    """
    kind = type(value)
    if kind in _PLAIN and (kind is not str or len(value) < _SHORT):  # type: ignore[arg-type]
        return blake3(scalar(value)).hexdigest()
    return blake3(Encoder(buffers).whole(value)).hexdigest()


def digest_and_owners(
    value: object, *, buffers: Buffers | None = None, storing: bool = False
) -> tuple[str, frozenset[str]]:
    """Return the digest of a value and the distributions that own its types, in one walk.

    Args:
        value: anything that has content.
        buffers: to share the hashes of large buffers with whoever stores their bytes.
        storing: whether the value is to be written: then a secret in it is refused.
    """
    encoder = Encoder(buffers)
    encoder.storing = storing
    piece = encoder.whole(value)
    return blake3(piece).hexdigest(), frozenset(_names(encoder.reach))


def owners(value: object) -> frozenset[str]:
    """Return the installed distributions that own the types in a value, nested ones included.

    Their methods are code that a reader of the value can call. Large buffers are not read.
    """
    if type(value) in _PLAIN:
        return frozenset()
    encoder = Encoder(_Unread())
    encoder.whole(value)
    return frozenset(_names(encoder.reach))


def code_in(value: object) -> dict[str, str]:
    """Return the code that a value brings along: label → digest of a function, class or global.

    That of its types and functions, as far as it is the user's. Large buffers are not read.

    Raises:
        Undigestible: something in it has no content.
    """
    if type(value) in _PLAIN:
        return {}
    encoder = Encoder(_Unread())
    encoder.whole(value)
    found: dict[str, set[bytes]] = {}
    for entry in _entries(encoder.reach):
        if type(entry) is Part:
            found.setdefault(entry.label, set()).add(entry.own)
    return {label: b"".join(sorted(owns)).hex() for label, owns in sorted(found.items())}


class _Unread(Buffers):
    """Takes every buffer for the same."""

    def hash(self, buffer: Any) -> bytes:
        return b""


def _names(entries: list[Any]) -> set[str]:
    return {entry for entry in _entries(entries) if type(entry) is str}


def _entries(entries: list[Any]) -> Iterator[Any]:
    seen: set[int] = set()
    waiting = [entries]
    while waiting:
        for entry in waiting.pop():
            if type(entry) is not list:
                yield entry
            elif id(entry) not in seen:
                seen.add(id(entry))
                waiting.append(entry)
