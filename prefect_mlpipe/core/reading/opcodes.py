"""What each instruction of this Python's bytecode is, in tables of 256 entries.

Knows the bytecode of Python 3.11 to 3.14, through the tables of `dis` alone. Knows no code objects.

Worth arguing: not `dis.get_instructions`, which would be the obvious way and takes many times as
long: a step may reach a thousand functions. An instruction is one byte of a string, so that a table
says what all of them are with one `translate`.
"""

from __future__ import annotations

import dis
import re
from collections.abc import Sequence
from typing import Any, Final

_PSEUDO: Final = 256  # from here on, operations are of the compiler alone


def _operations(*names: str) -> bytes:
    found = (dis.opmap.get(name, _PSEUDO) for name in names)
    return bytes(operation for operation in found if operation < _PSEUDO)


def _table(values: dict[int, int], default: int = 0) -> bytes:
    return bytes(values.get(operation, default) for operation in range(256))


def _marks(operations: Sequence[int]) -> bytes:
    return _table(dict.fromkeys(operations, 1))


def _pair(name: str) -> bytes:
    """Return the two operations that a superinstruction on locals stands for."""
    return _operations(*(f"{half}_FAST" for half in re.findall(r"(LOAD|STORE)_FAST", name)))


def _spans() -> list[int]:
    """Return how many units an instruction takes with its caches."""
    entries: Any = dis._inline_cache_entries  # type: ignore[attr-defined]
    if isinstance(entries, dict):
        entries = [entries.get(name, 0) for name in dis.opname]
    return [1 + (entries[at] if at < len(entries) else 0) for at in range(256)]


NOP: Final = dis.opmap["NOP"]
EXTENDED: Final = dis.opmap["EXTENDED_ARG"]
STORE: Final = dis.opmap["STORE_FAST"]
STORE_CELL: Final = dis.opmap["STORE_DEREF"]
MAKE_FUNCTION: Final = dis.opmap["MAKE_FUNCTION"]
STORE_NAME: Final = dis.opmap["STORE_NAME"]
IMPORT: Final = dis.opmap["IMPORT_NAME"]
IMPORT_FROM: Final = dis.opmap["IMPORT_FROM"]
SHUFFLES: Final = _operations("SWAP", "POP_TOP")
GLOBAL: Final = _operations("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
ATTRIBUTE: Final = _operations("LOAD_ATTR")
OF_CELLS: Final = _operations(
    "STORE_DEREF", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"
)
LOAD: Final = _operations(*(name for name in dis.opmap if name.startswith("LOAD_FAST")))
PLAIN_LOADS: Final = _operations("LOAD_CONST", "LOAD_NAME", "LOAD_SMALL_INT")
_BACKWARD: Final = _operations(*(name for name in dis.opmap if "BACKWARD" in name), "END_ASYNC_FOR")

# What marks lines, holds caches, makes room for `self`, or prepares the frame: its order follows
# the names of variables.
SKIPPED: Final = _operations(
    *("NOP", "CACHE", "RESUME", "NOT_TAKEN", "EXTENDED_ARG", "MAKE_CELL", "COPY_FREE_VARS"),
    "PUSH_NULL",
)
# Superinstructions are made where two instructions stand on one line: they count as the two.
PAIRS: Final = {code: pair for name, code in dis.opmap.items() if len(pair := _pair(name)) == 2}
PAIR: Final = re.compile(b"[%s]" % re.escape(bytes(PAIRS))) if PAIRS else None
# A borrowed reference is only a quicker one. So is a method that is called without being bound,
# which is chosen by whether an import of the object stands in the same file or notebook cell.
_QUICKER: Final = {
    **dict.fromkeys(_operations("LOAD_FAST_BORROW"), dis.opmap["LOAD_FAST"]),
    **dict.fromkeys(_operations("LOAD_METHOD"), dis.opmap["LOAD_ATTR"]),
}
SAME: Final = bytes(_QUICKER.get(operation, operation) for operation in range(256))

SPANS: Final = _spans()
WIDTHS: Final = _table({**dict.fromkeys(SKIPPED, 0), **dict.fromkeys(PAIRS, 2)}, default=1)
DIRECTIONS: Final = [-1 if operation in _BACKWARD else 1 for operation in range(256)]
IS_NAME: Final = _marks(dis.hasname)
IS_CONST: Final = _marks(dis.hasconst)
IS_JUMP: Final = _marks(dis.hasjrel)

# How far the number of a name is shifted by flags of the instruction.
SHIFTS: Final = _table(
    {
        dis.opmap[name]: shift
        for name, shift in (
            ("LOAD_GLOBAL", 1),
            ("LOAD_ATTR", 1 if "LOAD_SUPER_ATTR" in dis.opmap else 0),
            ("LOAD_SUPER_ATTR", 2),
        )
        if name in dis.opmap
    }
)
# What of an argument is content by itself, as a mask: an index counts as what it points to, a jump
# as where it goes. Only of `super` do the flags: the others say how a call makes room for `self`.
_POINTS: Final = {*dis.hasconst, *dis.hasjrel, *dis.hasname}
CONTENT: Final = bytes(3 if SHIFTS[at] == 2 else 0 if at in _POINTS else 255 for at in range(256))
