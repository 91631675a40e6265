"""The pieces that every encoding is made of, and the errors and buffers that go with them.

Knows bytes and lengths. Knows nothing of which type is encoded how.

Worth arguing: scalars are written by `marshal`, in a version whose format has stood since Python
2.5. It is typed, exact to the bit, writes long lists at the speed of C, and golden digests would
tell of any change.
"""

from __future__ import annotations

import itertools
import marshal
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from blake3 import blake3

# Versions above 2 write references and the interning of strings, which are not content.
MARSHAL_VERSION: Final = 2
INLINE_BYTES: Final = 1024
_THREADS_FROM_BYTES: Final = 1 << 20
LARGE_TEXT: Final = 1 << 16
# First bytes of pieces. Scalars are written by marshal, whose type codes are all ASCII.
FLAT: Final = b"\x80"
LIST: Final = b"\x81"
TUPLE: Final = b"\x82"
DICT: Final = b"\x83"
SET: Final = b"\x84"
FROZENSET: Final = b"\x85"
HASHED: Final = b"\x86"
RECORD: Final = b"\x87"
TEXT: Final = b"\x88"
BYTES: Final = b"\x89"
CYCLE: Final = b"\x8a"

SCALARS: Final = frozenset({int, float, complex, str, bytes, bool, type(None), type(Ellipsis)})


class Undigestible(Exception):
    """A value has no content that can be digested.

    Attributes:
        path: the way to it, `.pool._lock` or `[3]['x']`; for what code reaches,
            `train → helpers.fetch → helpers.SESSION`.
        type: qualified name of its type.
        why: what keeps it from being digested.
    """

    def __init__(self, path: str, type: str, why: str) -> None:
        super().__init__(path, type, why)
        self.path = path
        self.type = type
        self.why = why

    def __str__(self) -> str:
        return f"{self.path or 'the value'} ({self.type}): {self.why}"


_threads = blake3.AUTO


def threads() -> int:
    """Return how many threads a large buffer is hashed with."""
    return _threads


def _hash_alone() -> None:
    global _threads
    _threads = 1


# blake3's pool of threads does not survive a fork: a child that asked for it would wait for ever.
os.register_at_fork(after_in_child=_hash_alone)


class Buffers:
    """Hashes each buffer once, for the digest of a value and the checksum of its bytes alike.

    Keeps a reference to every buffer it has seen, so that an address cannot come to mean another
    one; make one for one put and drop it. A buffer that is written to meanwhile keeps its old hash.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[bytes, object]] = {}

    def hash(self, buffer: Any) -> bytes:
        """Return the blake3 hash, 32 bytes, of a contiguous buffer."""
        view = memoryview(buffer)
        if view.nbytes < _THREADS_FROM_BYTES:
            return blake3(_octets(view)).digest()
        key = (_address(view), view.nbytes)
        known = self._seen.get(key)
        if known is None:
            octets = _octets(view)
            known = self._seen[key] = (
                blake3(octets, max_threads=threads()).digest(),
                view,
            )
        return known[0]


def _octets(view: memoryview) -> memoryview:
    return view if view.format == "B" and view.ndim == 1 else _cast(view)


def _cast(view: memoryview) -> memoryview:
    if view.nbytes == 0:
        return memoryview(b"")
    return view.cast("B")


def _address(view: memoryview) -> int:
    import numpy  # a dependency, imported only where there is a large buffer to address

    return int(numpy.frombuffer(_octets(view), dtype=numpy.uint8).ctypes.data)


class Stream:
    """What `octets` gives for one buffer, from blocks of it, none of which is kept."""

    def __init__(self) -> None:
        self._hasher = blake3(max_threads=threads())
        self._start, self._size = b"", 0

    def add(self, block: Any) -> None:
        """Take the next bytes, a contiguous buffer."""
        view = _octets(memoryview(block))
        if self._size <= INLINE_BYTES:
            self._start += bytes(view[: INLINE_BYTES + 1])
        self._size += view.nbytes
        self._hasher.update(view)

    def octets(self) -> bytes:
        """Encode all that was added."""
        if self._size <= INLINE_BYTES:
            return b"\x00" + count(self._size) + self._start
        return b"\x01" + count(self._size) + self._hasher.digest()


class Unordered:
    """Pieces whose order is not content, some of which are not known yet."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces


class Node:
    """A container on the way: open, or waiting for the rest of its cycle."""

    __slots__ = ("index", "loops", "low", "pieces", "reach", "value")

    def __init__(self, value: object, index: int) -> None:
        self.value = value
        self.index = index
        self.low = index
        self.loops = False
        self.pieces: Sequence[Piece] = ()
        self.reach: list[Any] = []


class Closed:
    """A finished container: its piece, and what code and distributions it reaches."""

    __slots__ = ("piece", "reach", "value")

    def __init__(self, value: object, piece: bytes, reach: list[Any]) -> None:
        self.value = value
        self.piece = piece
        self.reach = reach


Piece: TypeAlias = "bytes | Node | Unordered"


def count(number: int) -> bytes:
    """Encode a length."""
    return number.to_bytes(8, "little")


def text(name: str) -> bytes:
    """Encode a short string with its length."""
    octets = name.encode("utf-8", "surrogatepass")
    return len(octets).to_bytes(8, "little") + octets


def record(kind: str, *fields: Piece) -> list[Piece]:
    """Encode a named kind of thing with a number of fields, each a piece of its own."""
    return [RECORD, text(kind), count(len(fields)), *fields]


def packed(kind: str, *fields: bytes) -> bytes:
    """Encode a record whose fields are all known."""
    return b"".join((RECORD, text(kind), count(len(fields)), *fields))


def bounded(piece: bytes) -> bytes:
    """Return the piece, or its hash where it is long: pieces stay small however deep they nest."""
    if len(piece) <= INLINE_BYTES:
        return piece
    many = threads() if len(piece) >= _THREADS_FROM_BYTES else 1
    return HASHED + blake3(piece, max_threads=many).digest()


def octets(buffers: Buffers, buffer: Any) -> bytes:
    """Encode a contiguous buffer: its bytes where there are few, else its hash."""
    view = memoryview(buffer)
    if view.nbytes <= INLINE_BYTES:
        return b"\x00" + count(view.nbytes) + bytes(_octets(view))
    return b"\x01" + count(view.nbytes) + buffers.hash(view)


def scalar(value: Any) -> bytes:
    """Encode a small instance of exactly one of `SCALARS`."""
    return bounded(marshal.dumps(value, MARSHAL_VERSION))


def long_text(value: str) -> bytes:
    """Encode a string that marshal would copy as a whole."""
    data = value.encode("utf-8", "surrogatepass")
    return bounded(TEXT + count(len(data)) + data)


def unordered(pieces: Iterable[Piece]) -> list[Piece]:
    """Encode pieces whose order is not content."""
    known = list(pieces)
    if all(isinstance(piece, bytes) for piece in known):
        return [count(len(known)), *sorted(known)]  # type: ignore[type-var]
    return [count(len(known)), Unordered(known)]


def type_name(kind: type) -> str:
    """Return the qualified name of a type, for people."""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def way(values: Sequence[object]) -> str:
    """Return the way from the first value through the others, as it would be written: `.a[3]`."""
    return "".join(_step(outer, inner) for outer, inner in itertools.pairwise(values))


def _step(outer: Any, inner: object) -> str:
    if isinstance(outer, dict):
        return next((f"[{key!r}]" for key, item in outer.items() if item is inner), "")
    if isinstance(outer, (list, tuple)):
        names = getattr(outer, "_fields", None)
        at = next((at for at, item in enumerate(outer) if item is inner), None)
        if at is None:
            return ""
        return f".{names[at]}" if names else f"[{at}]"
    attributes = {
        **{name: getattr(outer, name, None) for name in slots_of(type(outer))},
        **getattr(outer, "__dict__", {}),
    }
    return next((f".{name}" for name, item in attributes.items() if item is inner), "")


def slots_of(kind: type) -> list[str]:
    """Return the names of the slots that a class and its bases declare."""
    declared = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    return [name for names in declared for name in ((names,) if isinstance(names, str) else names)]
