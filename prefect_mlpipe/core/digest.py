"""The digest of a value: the same value gives the same digest in every process, on every machine.

Knows nothing of stores, keys or steps. How each type is encoded is said in `core.encoding`; what
functions and modules reach, in `core.reading`.

A value of one's own type counts by its class's code and by what `__reduce_ex__` gives. A type may
say itself what counts by a method `__mlpipe_digest__(self)` that returns plain content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from blake3 import blake3

from prefect_mlpipe.core.code import Code, code_of_parts
from prefect_mlpipe.core.encoding import classes, objects
from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.parts import Asks, Part, Parts, entries
from prefect_mlpipe.core.encoding.pieces import Buffers, scalar
from prefect_mlpipe.core.reading import callables

_REGISTERS = (classes, objects, callables)  # imported for the handlers that they register

__all__ = [
    "Buffers",
    "code_in",
    "digest",
    "digest_and_owners",
    "digest_as_made",
    "known_of",
    "owners",
]

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
    value: object,
    *,
    buffers: Buffers | None = None,
    storing: bool = False,
    reach: list[Any] | None = None,
) -> tuple[str, frozenset[str]]:
    """Return the digest of a value and the distributions that own its types, in one walk.

    Args:
        value: anything that has content.
        buffers: to share the hashes of large buffers with whoever stores their bytes.
        storing: whether the value is to be written: then a secret in it is refused.
        reach: takes in what the value reaches, for `core.held`.
    """
    encoder = Encoder(buffers)
    encoder.storing = storing
    piece = encoder.whole(value)
    if reach is not None:
        reach += encoder.reach
    return blake3(piece).hexdigest(), _sorted(encoder.reach)[0]


def digest_as_made(value: object) -> str:
    """Return the digest of a loaded value as it was made.

    What lives on a GPU and was loaded where there is none counts as if it were on one.
    """
    encoder = Encoder()
    encoder.as_made = True
    return blake3(encoder.whole(value)).hexdigest()


class Known(NamedTuple):
    """What one walk over a value tells of it.

    Attributes:
        digest: of the value.
        owners: installed distributions that own the types in it.
        code: the user's code that it brings along, `None` if there is none.
        asks: what that asks of code besides what it does, as its docstring.
    """

    digest: str
    owners: frozenset[str]
    code: Code | None
    asks: frozenset[str] = frozenset()


def known_of(value: object) -> Known:
    """Return the digest of a value with whose types and which code are in it, in one walk."""
    encoder = Encoder()
    digest = blake3(encoder.whole(value)).hexdigest()
    if not encoder.reach:  # as with plain data
        return Known(digest, frozenset(), None)
    owned, parts = _sorted(encoder.reach)
    return Known(digest, owned, code_of_parts(parts), asks_in(encoder.reach))


def asks_in(reach: list[Any]) -> frozenset[str]:
    """Return what the code that was reached asks of other code: values of `shapes.ASKS`."""
    return frozenset().union(*(each.kinds for each in entries(reach) if type(each) is Asks))


def owners(value: object) -> frozenset[str]:
    """Return the installed distributions that own the types in a value, nested ones included.

    Their methods are code that a reader of the value can call. Large buffers are not read.
    """
    if type(value) in _PLAIN:
        return frozenset()
    encoder = Encoder(_Unread())
    encoder.whole(value)
    return _sorted(encoder.reach)[0]


def code_in(value: object) -> Mapping[str, str]:
    """Return the code that a value brings along: label → digest of a function, class or global.

    That of its types and functions, as far as it is the user's. Large buffers are not read.

    Raises:
        Undigestible: something in it has no content.
    """
    if type(value) in _PLAIN:
        return {}
    encoder = Encoder(_Unread())
    encoder.whole(value)
    code = code_of_parts(_sorted(encoder.reach)[1])
    return {} if code is None else code.parts


class _Unread(Buffers):
    """Takes every buffer for the same."""

    def hash(self, buffer: Any) -> bytes:
        return b""


def _sorted(reach: list[Any]) -> tuple[frozenset[str], Parts]:
    """Return the names of distributions and the parts of code that were reached."""
    names: set[str] = set()
    parts: Parts = {}
    for entry in entries(reach):
        if type(entry) is str:
            names.add(entry)
        elif type(entry) is Part:
            parts.setdefault(entry.label, {})[entry.own] = entry.value
    return frozenset(names), parts
