"""Turn any value into one canonical, typed, length-prefixed piece of bytes.

Knows containers, cycles and shared references, and how handlers for further types are found. Knows
nothing of arrays, tables, functions or classes: its neighbours and `core.reading` register handlers
here. Two values have equal pieces only if they are of equal type and content; no piece is a prefix
of another, so pieces can be concatenated without ambiguity.

Worth arguing: the piece of a value depends on nothing but what can be reached from it. Sharing does
not count, so `x = [1]; [x, x]` equals `[[1], [1]]`: whether two equal constants are one object is
up to the compiler, and a JSON round trip may change it. Values that contain themselves are found as
strongly connected components (Tarjan) and get their pieces together (`core.encoding.cycles`).
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from prefect_mlpipe.core.encoding.cycles import colours
from prefect_mlpipe.core.encoding.deep import deeply, is_deep
from prefect_mlpipe.core.encoding.pieces import (
    BYTES,
    DICT,
    FLAT,
    FROZENSET,
    INLINE_BYTES,
    LARGE_TEXT,
    LIST,
    MARSHAL_VERSION,
    SCALARS,
    SET,
    TUPLE,
    Buffers,
    Closed,
    Node,
    Piece,
    Undigestible,
    bounded,
    count,
    long_text,
    text,
    type_name,
    unordered,
    way,
)
from prefect_mlpipe.core.environment import Owner

__all__ = [
    "Branch",
    "Buffers",
    "Encoder",
    "Handler",
    "Undigestible",
    "as_branch",
    "as_leaf",
    "attributes",
    "branch",
    "defines",
    "leaf",
]

Handler: TypeAlias = "Callable[[Encoder, Any], Piece]"
Branch: TypeAlias = "Callable[[Encoder, Any], Sequence[Piece]]"


def defines(kind: type, name: str) -> bool:
    """Whether a class itself defines a name; a metaclass or a proxy may answer to any."""
    return any(name in vars(base) for base in kind.__mro__)


# So many values in each other are encoded on any thread: far from Python's limit.
_LEVELS: Final = 60


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
        modules: names of each module whose functions were seen, and whose it is.
        grafts: what the user has added to libraries' classes, once somebody has asked.
        storing: whether the value is to be written, which a secret must not be.
        as_made: whether a tensor that was made on a GPU and stayed in host memory, since there is
            none here, counts as what it was.
    """

    handlers: ClassVar[dict[type, Handler]] = {}
    find: ClassVar[Callable[[type, object], Handler]]
    finders: ClassVar[list[Callable[[type], Handler | None]]] = []
    storing = False
    as_made = False

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
        self.reads: dict[int, dict[tuple[str, ...], tuple[Piece, list[Any]]]]
        self.modules: dict[int, tuple[dict[str, Any], Owner]]
        self.grafts: dict[str, list[tuple[type, object]]] | None
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
        if kind is bytes and len(value) > INLINE_BYTES:
            return BYTES + count(len(value)) + self.buffers.hash(value)
        if kind is str and len(value) > LARGE_TEXT:
            return long_text(value)
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
        self.spaces, self.reads, self.modules = {}, {}, {}
        self._values, self._globals = {}, {}
        self.grafts = None

    def branch(self, value: object, encode: Branch) -> Piece:
        """Encode a value that may contain others, itself among them."""
        memo = self._globals if self.code_depth else self._values
        known = memo.get(id(value))
        if known is not None:
            return self._again(known)
        if len(self.open) >= _LEVELS and not is_deep():
            raise RecursionError("the rest is for a thread with room for it")
        node = Node(value, len(self._stack))
        memo[id(value)] = node
        self._stack.append(node)
        self.open.append(node)
        outer, self.reach = self.reach, node.reach
        pieces = encode(
            self, value
        )  # an error leaves `open` as it is: it is the way to the culprit
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

    def _close(self, node: Node, pieces: Sequence[Piece], memo: dict[int, Node | Closed]) -> bytes:
        if self._stack[-1] is node and not node.loops:
            self._stack.pop()
            piece = bounded(b"".join(pieces))  # type: ignore[arg-type]
            memo[id(node.value)] = Closed(node.value, piece, node.reach)
            return piece
        node.pieces = pieces
        members = self._stack[node.index :]
        del self._stack[node.index :]
        coloured = colours(members)
        if coloured is None:
            why = "objects in a set refer to each other and look the same"
            raise self.refuse(node.value, why)
        for member, piece in zip(members, coloured, strict=True):
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

    def seen_in_code(self, value: object) -> Piece | None:
        """Return what `in_code` has given for a value, `None` if it has not seen it yet."""
        known = self._globals.get(id(value))
        return None if known is None else self._again(known)

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
    """Encode what is nested deeper than Python's limit."""
    try:
        return deeply(lambda: encoder.encode(value))
    except RecursionError:
        encoder.clear()
        name = type_name(type(value))
        raise Undigestible("", name, "it is nested too deeply") from None
    except BaseException:
        encoder.clear()
        raise


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
        return bounded(FLAT + marshal.dumps(value, MARSHAL_VERSION))
    except ValueError:  # a string or a list beyond 2 GiB
        return None


_FLAT_CONTAINERS: Final[dict[type, Callable[[Any], bytes | None]]] = {
    list: _flat_sequence,
    tuple: _flat_sequence,
    dict: _flat_dict,
}


def _list(encoder: Encoder, value: list[object]) -> Sequence[Piece]:
    return [LIST, count(len(value)), *[encoder.encode(item) for item in value]]


def _tuple(encoder: Encoder, value: tuple[object, ...]) -> Sequence[Piece]:
    return [TUPLE, count(len(value)), *[encoder.encode(item) for item in value]]


def _dict(encoder: Encoder, value: dict[object, object]) -> Sequence[Piece]:
    pieces: list[Piece] = [DICT, count(len(value))]
    for key, item in value.items():
        pieces.append(encoder.encode(key))
        pieces.append(encoder.encode(item))
    return pieces


def _set(encoder: Encoder, value: set[object]) -> Sequence[Piece]:
    return [SET, *unordered([encoder.encode(item) for item in value])]


def _frozenset(encoder: Encoder, value: frozenset[object]) -> Sequence[Piece]:
    return [FROZENSET, *unordered([encoder.encode(item) for item in value])]


def attributes(encoder: Encoder, state: dict[str, object]) -> list[Piece]:
    """Encode attributes by name; the order in which they were set does not count."""
    pieces: list[Piece] = [count(len(state))]
    for name in sorted(state):
        pieces += (text(name), encoder.encode(state[name]))
    return pieces


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
