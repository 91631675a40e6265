"""Give the members of a cycle pieces that depend on nothing but what can be reached from each.

Knows nodes and their pieces. Knows nothing of the values behind them.

Worth arguing: partition refinement, as in minimising an automaton, not numbering by first visit. It
gives the same piece whichever member is asked for first, needs no order in sets, does not tell a
shared object from two equal ones, and a graph in which everything knows everything stays cheap.
"""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from prefect_mlpipe.core.encoding.pieces import CYCLE, Node, Piece, Unordered


def colours(members: list[Node]) -> list[bytes] | None:
    """Colour the members of a cycle by what can be reached from each.

    Refines until no class splits. The final colour holds the colours of all members, without which
    two cycles could agree in one member and differ in another. Returns `None` where members of a
    set cannot be told apart.
    """
    position = {id(member): index for index, member in enumerate(members)}
    known = [b""] * len(members)
    classes, unordered = 1, any(_has_unordered(member.pieces) for member in members)
    while True:
        known = [
            blake3(own + _coloured(member.pieces, position, known)).digest()
            for own, member in zip(known, members, strict=True)
        ]
        distinct = len(set(known))
        if distinct == classes:
            break
        classes = distinct
    if unordered and classes < len(members):
        return None
    everything = blake3(b"".join(sorted(known))).digest()
    return [CYCLE + everything + colour for colour in known]


def _has_unordered(pieces: Iterable[Piece]) -> bool:
    return any(isinstance(piece, Unordered) for piece in pieces)


def _coloured(pieces: Iterable[Piece], position: dict[int, int], known: list[bytes]) -> bytes:
    parts: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            parts.append(piece)
        elif isinstance(piece, Unordered):
            inner = [_coloured([each], position, known) for each in piece.pieces]
            parts.extend(sorted(inner))
        else:
            parts.append(CYCLE + known[position[id(piece)]])
    return b"".join(parts)
