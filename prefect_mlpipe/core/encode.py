"""Turn any value into one canonical, typed, length-prefixed piece of bytes.

Knows containers, cycles and shared references, and how handlers for further types are found. Knows
nothing of arrays, tables, functions or classes: `core.values`, `core.arrays`, `core.tables` and
`core.code` register handlers here. Two values have equal pieces only if they are of equal type and
content; no piece is a prefix of another, so pieces can be concatenated without ambiguity.

Worth arguing: the piece of a value depends on nothing but what can be reached from it. Sharing does
not count, so `x = [1]; [x, x]` equals `[[1], [1]]`: whether two equal constants are one object is up
to the compiler, and a pickle or JSON round trip may change it. Values that contain themselves are
collected into strongly connected components (Tarjan) and coloured by partition refinement, which,
unlike numbering by first visit, is linear, needs no order in sets, and gives the same piece whichever
member is asked for first.
"""

from __future__ import annotations

import itertools
import marshal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from blake3 import blake3

# Versions above 2 write references and the interning of strings, which are not content.
MARSHAL_VERSION: Final = 2
_INLINE_BYTES: Final = 1024
_THREADS_FROM_BYTES: Final = 1 << 20
_LARGE_TEXT: Final = 1 << 16
_DEEP_FRAMES: Final = 100_000
_DEEP_STACK_BYTES: Final = 1 << 28
_deep_lock = threading.Lock()

# First bytes of pieces. Scalars are written by marshal, whose type codes are all ASCII.
_FLAT: Final = b"\x80"
_LIST: Final = b"\x81"
_TUPLE: Final = b"\x82"
_DICT: Final = b"\x83"
_SET: Final = b"\x84"
_FROZENSET: Final = b"\x85"
_HASHED: Final = b"\x86"
_RECORD: Final = b"\x87"
_TEXT: Final = b"\x88"
_BYTES: Final = b"\x89"
_CYCLE: Final = b"\x8a"

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
                blake3(octets, max_threads=blake3.AUTO).digest(),
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
Handler: TypeAlias = "Callable[[Encoder, Any], Piece]"
Branch: TypeAlias = "Callable[[Encoder, Any], Sequence[Piece]]"


def count(number: int) -> bytes:
    """Encode a length."""
    return number.to_bytes(8, "little")


def text(name: str) -> bytes:
    """Encode a short string with its length."""
    octets = name.encode("utf-8", "surrogatepass")
    return len(octets).to_bytes(8, "little") + octets


def record(kind: str, *fields: Piece) -> list[Piece]:
    """Encode a named kind of thing with a number of fields, each a piece of its own."""
    return [_RECORD, text(kind), count(len(fields)), *fields]


def packed(kind: str, *fields: bytes) -> bytes:
    """Encode a record whose fields are all known."""
    return b"".join((_RECORD, text(kind), count(len(fields)), *fields))


def bounded(piece: bytes) -> bytes:
    """Return the piece, or its hash where it is long: pieces stay small however deep they nest."""
    if len(piece) <= _INLINE_BYTES:
        return piece
    threads = blake3.AUTO if len(piece) >= _THREADS_FROM_BYTES else 1
    return _HASHED + blake3(piece, max_threads=threads).digest()


def octets(encoder: Encoder, buffer: Any) -> bytes:
    """Encode a contiguous buffer: its bytes where there are few, else its hash."""
    view = memoryview(buffer)
    if view.nbytes <= _INLINE_BYTES:
        return b"\x00" + count(view.nbytes) + bytes(_octets(view))
    return b"\x01" + count(view.nbytes) + encoder.buffers.hash(view)


def scalar(value: Any) -> bytes:
    """Encode a small instance of exactly one of `SCALARS`."""
    return bounded(marshal.dumps(value, MARSHAL_VERSION))


def _long_text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return bounded(_TEXT + count(len(data)) + data)


def type_name(kind: type) -> str:
    """Return the qualified name of a type, for people."""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


class Encoder:
    """Encodes values; remembers what it has seen, so one encoder sees one state of the world.

    Not for several threads at once.

    Attributes:
        buffers: hashes large buffers.
        ignore: labels of globals that are left out.
        code_as: what stands for a function, class or module, where they are not followed.
        reach: what is being collected: what code the open branch reaches.
        trail: labels of the open functions, classes and globals, each with the depth of `open`.
        code_depth: how many functions, classes or modules are open.
        open: the containers being encoded, outermost first.
        spaces: what stands for the names of each module.
        reads: what has been read of which module: the piece, and what it reached.
    """

    handlers: ClassVar[dict[type, Handler]] = {}
    find: ClassVar[Callable[[type, object], Handler]]
    finders: ClassVar[list[Callable[[type], Handler | None]]] = []

    def __init__(
        self,
        buffers: Buffers | None = None,
        *,
        ignore: frozenset[str] = frozenset(),
        code_as: Callable[[object], bytes] | None = None,
    ) -> None:
        self.buffers = buffers or Buffers()
        self.ignore = ignore
        self.code_as = code_as
        self.reach: list[Any]
        self.trail: list[tuple[str, int]]
        self.code_depth: int
        self.open: list[Node]
        self.spaces: dict[int, Any]
        self.reads: dict[tuple[int, tuple[str, ...]], tuple[bytes, list[Any]]]
        self._stack: list[Node]
        self._values: dict[int, Node | Closed]
        self._globals: dict[int, Node | Closed]
        self.clear()

    def encode(self, value: Any) -> Piece:
        """Return the piece of a value; a `Node` where it is part of a cycle still open."""
        kind = type(value)
        if kind in SCALARS:
            return self._scalar(kind, value)
        flat = _FLAT_CONTAINERS.get(kind)
        if flat is not None:
            piece = flat(value)
            if piece is not None:
                return piece
        handler = Encoder.handlers.get(kind)
        if handler is None:
            handler = Encoder.find(kind, value)
        return handler(self, value)

    def _scalar(self, kind: type, value: Any) -> bytes:
        if kind is bytes and len(value) > _INLINE_BYTES:
            return _BYTES + count(len(value)) + self.buffers.hash(value)
        if kind is str and len(value) > _LARGE_TEXT:
            return _long_text(value)
        return bounded(marshal.dumps(value, MARSHAL_VERSION))

    def whole(self, value: Any) -> bytes:
        """Return the piece of a value that stands alone.

        Raises:
            Undigestible: something in it has no content.
        """
        try:
            piece = self.encode(value)
        except RecursionError:
            self.clear()
            piece = _deep(self, value)
        assert isinstance(piece, bytes)  # nothing is open around it
        return piece

    def clear(self) -> None:
        """Forget everything; needed after an error, which leaves the way to it open."""
        self.reach, self.trail, self.code_depth = [], [], 0
        self.open, self._stack = [], []
        self.spaces, self.reads, self._values, self._globals = {}, {}, {}, {}

    def branch(self, value: object, encode: Branch) -> Piece:
        """Encode a value that may contain others, itself among them."""
        memo = self._globals if self.code_depth else self._values
        known = memo.get(id(value))
        if known is not None:
            return self._again(known)
        node = Node(value, len(self._stack))
        memo[id(value)] = node
        self._stack.append(node)
        self.open.append(node)
        outer, self.reach = self.reach, node.reach
        pieces = encode(self, value)  # an error leaves `open` as it is: it is the way to the culprit
        self.reach = outer
        self.open.pop()
        if node.reach:
            outer.append(node.reach)
        if node.low == node.index:
            return self._close(node, pieces, memo)
        node.pieces = pieces
        parent = self.open[-1]
        parent.low = min(parent.low, node.low)
        return node

    def _again(self, known: Node | Closed) -> Piece:
        if isinstance(known, Closed):
            if known.reach:
                self.reach.append(known.reach)
            return known.piece
        current = self.open[-1]
        current.low = min(current.low, known.index)
        known.loops = known.loops or known is current
        self.reach.append(known.reach)
        return known

    def _close(
        self, node: Node, pieces: Sequence[Piece], memo: dict[int, Node | Closed]
    ) -> bytes:
        if self._stack[-1] is node and not node.loops:
            self._stack.pop()
            piece = bounded(b"".join(pieces))  # type: ignore[arg-type]
            memo[id(node.value)] = Closed(node.value, piece, node.reach)
            return piece
        node.pieces = pieces
        members = self._stack[node.index :]
        del self._stack[node.index :]
        for member, piece in zip(members, _colours(members, self), strict=True):
            closed = Closed(member.value, piece, member.reach)
            for table in (self._globals, self._values):
                if table.get(id(member.value)) is member:
                    table[id(member.value)] = closed
            if member is node:
                result = piece
        return result

    def in_code(self, value: object, label: str, encode: Branch) -> Piece:
        """Encode a function, class or module, or what it reads: inert globals are let through."""
        if self.code_as is not None:
            return self.code_as(value)
        self.code_depth += 1
        self.trail.append((label, len(self.open) + 1))
        piece = self.branch(value, encode)
        self.trail.pop()
        self.code_depth -= 1
        return piece

    def refuse(self, value: object, why: str) -> Undigestible:
        """Return the error for a value without content, with the way to it."""
        start = self.trail[-1][1] if self.trail else 0
        inside = way([node.value for node in self.open[start:]] + [value])
        before = ""
        if self.trail:
            outer = way([node.value for node in self.open[: self.trail[0][1]]])
            labels = dict.fromkeys(label for label, _ in self.trail if label)
            before = " → ".join([*([outer] if outer else []), *labels])
        return Undigestible(before + inside, type_name(type(value)), why)


def _deep(encoder: Encoder, value: Any) -> Piece:
    """Encode what is nested deeper than Python's limit, on a thread with room for it.

    The limit is the process's; it stays raised for the time of one value.
    """
    found: list[Piece] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(encoder.encode(value))
        except RecursionError:
            name = type_name(type(value))
            failed.append(Undigestible("", name, "it is nested too deeply"))
        except BaseException as error:  # raised again below, on the thread that asked
            failed.append(error)

    with _deep_lock:
        limit, size = sys.getrecursionlimit(), threading.stack_size(_DEEP_STACK_BYTES)
        sys.setrecursionlimit(max(limit, _DEEP_FRAMES))
        try:
            thread = threading.Thread(target=run)
            thread.start()
            threading.stack_size(size)
            thread.join()
        finally:
            sys.setrecursionlimit(limit)
    if failed:
        encoder.clear()
        raise failed[0]
    return found[0]


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
        **{name: getattr(outer, name, None) for name in _slots(type(outer))},
        **getattr(outer, "__dict__", {}),
    }
    return next((f".{name}" for name, item in attributes.items() if item is inner), "")


def _slots(kind: type) -> list[str]:
    declared = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    return [
        name for names in declared for name in ((names,) if isinstance(names, str) else names)
    ]


def _colours(members: list[Node], encoder: Encoder) -> list[bytes]:
    """Colour the members of a cycle by what can be reached from each.

    Refines until no class splits. The final colour holds the colours of all members, without which
    two cycles could agree in one member and differ in another.
    """
    position = {id(member): index for index, member in enumerate(members)}
    colours = [b""] * len(members)
    classes, unordered = 1, any(_has_unordered(member.pieces) for member in members)
    while True:
        colours = [
            blake3(own + _coloured(member.pieces, position, colours)).digest()
            for own, member in zip(colours, members, strict=True)
        ]
        distinct = len(set(colours))
        if distinct == classes and colours[0]:
            break
        classes = distinct
    if unordered and classes < len(members):
        culprit = members[0].value
        raise encoder.refuse(culprit, "objects in a set refer to each other and look the same")
    everything = blake3(b"".join(sorted(colours))).digest()
    return [_CYCLE + everything + colour for colour in colours]


def _has_unordered(pieces: Iterable[Piece]) -> bool:
    return any(isinstance(piece, Unordered) for piece in pieces)


def _coloured(pieces: Iterable[Piece], position: dict[int, int], colours: list[bytes]) -> bytes:
    parts: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            parts.append(piece)
        elif isinstance(piece, Unordered):
            inner = [_coloured([each], position, colours) for each in piece.pieces]
            parts.extend(sorted(inner))
        else:
            parts.append(_CYCLE + colours[position[id(piece)]])
    return b"".join(parts)


def _flat_sequence(value: Any) -> bytes | None:
    if not value or SCALARS.issuperset(map(type, value)):
        return _marshalled(value)
    return None


def _flat_dict(value: Any) -> bytes | None:
    if SCALARS.issuperset(map(type, value)) and SCALARS.issuperset(map(type, value.values())):
        return _marshalled(value)
    return None


def _marshalled(value: Any) -> bytes | None:
    try:
        return bounded(_FLAT + marshal.dumps(value, MARSHAL_VERSION))
    except ValueError:  # a string or a list beyond 2 GiB
        return None


_FLAT_CONTAINERS: Final[dict[type, Callable[[Any], bytes | None]]] = {
    list: _flat_sequence,
    tuple: _flat_sequence,
    dict: _flat_dict,
}


def _list(encoder: Encoder, value: list[object]) -> Sequence[Piece]:
    return [_LIST, count(len(value)), *[encoder.encode(item) for item in value]]


def _tuple(encoder: Encoder, value: tuple[object, ...]) -> Sequence[Piece]:
    return [_TUPLE, count(len(value)), *[encoder.encode(item) for item in value]]


def _dict(encoder: Encoder, value: dict[object, object]) -> Sequence[Piece]:
    pieces: list[Piece] = [_DICT, count(len(value))]
    for key, item in value.items():
        pieces.append(encoder.encode(key))
        pieces.append(encoder.encode(item))
    return pieces


def unordered(pieces: Iterable[Piece]) -> list[Piece]:
    """Encode pieces whose order is not content."""
    known = list(pieces)
    if all(isinstance(piece, bytes) for piece in known):
        return [count(len(known)), *sorted(known)]  # type: ignore[type-var]
    return [count(len(known)), Unordered(known)]


def _set(encoder: Encoder, value: set[object]) -> Sequence[Piece]:
    return [_SET, *unordered([encoder.encode(item) for item in value])]


def _frozenset(encoder: Encoder, value: frozenset[object]) -> Sequence[Piece]:
    return [_FROZENSET, *unordered([encoder.encode(item) for item in value])]


def leaf(*kinds: type) -> Callable[[Callable[[Encoder, Any], bytes]], Handler]:
    """Register how values of exactly these types, which hold no others, are encoded."""

    def register(encode: Callable[[Encoder, Any], bytes]) -> Handler:
        handler = as_leaf(encode)
        Encoder.handlers.update(dict.fromkeys(kinds, handler))
        return handler

    return register


def branch(*kinds: type) -> Callable[[Branch], Handler]:
    """Register how values of exactly these types, which may hold others, are encoded."""

    def register(encode: Branch) -> Handler:
        handler = as_branch(encode)
        Encoder.handlers.update(dict.fromkeys(kinds, handler))
        return handler

    return register


def as_leaf(encode: Callable[[Encoder, Any], bytes]) -> Handler:
    """Make a handler of a function that returns the bytes of a value."""
    return lambda encoder, value: bounded(encode(encoder, value))


def as_branch(encode: Branch) -> Handler:
    """Make a handler of a function that returns the pieces of a value."""
    return lambda encoder, value: encoder.branch(value, encode)


branch(list)(_list)
branch(tuple)(_tuple)
branch(dict)(_dict)
branch(set)(_set)
branch(frozenset)(_frozenset)
