"""Decode the bytecode of a code object into the instructions that matter.

Knows how instructions, jumps and exception tables are written. Knows nothing of what the names and
constants are that instructions point to. `co_code` undoes what the adaptive interpreter, coverage
and debuggers write over the instructions.

Worth arguing: hardly a loop over instructions: `translate`, `compress` and `accumulate` do it,
and one large number that has a byte for each.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, compress
from types import CodeType
from typing import Final, NamedTuple

from prefect_mlpipe.core.reading.nested_annotations import without_annotations
from prefect_mlpipe.core.reading.opcodes import (
    CONTENT,
    DIRECTIONS,
    EXTENDED,
    IS_JUMP,
    MAKE_FUNCTION,
    NOP,
    PAIR,
    PAIRS,
    PLAIN_LOADS,
    SAME,
    SHIFTS,
    SKIPPED,
    SPANS,
    STORE_NAME,
    WIDTHS,
)

# Bookkeeping of class bodies; the order of `__static_attributes__` is that of a set.
_NOISE: Final = frozenset(
    {"__module__", "__qualname__", "__doc__", "__firstlineno__", "__static_attributes__"}
)

_FEW: Final = 12  # so many jumps are sooner counted one by one than looked up in a list


class Instructions(NamedTuple):
    """The instructions of a code object that matter.

    Attributes:
        code: the code object.
        operations: one byte for each.
        arguments: one for each.
        targets: for each jump among them, the number of the instruction that it goes to.
        handlers: the exception table: first, last, target and depth of each range, in numbers of
            instructions; ranges that nothing is left of are not among them.
        spelled: digest of annotations of nested functions, which are left out.
    """

    code: CodeType
    operations: bytes
    arguments: Sequence[int]
    targets: tuple[int, ...]
    handlers: tuple[int, ...]
    spelled: bytes

    def name(self, at: int) -> str:
        """Return the name that an instruction means."""
        return str(self.code.co_names[self.arguments[at] >> SHIFTS[self.operations[at]]])

    def content(self) -> bytes | tuple[int, ...]:
        """Return what of the arguments is content by itself: bytes, where all of them are bytes."""
        masks = self.operations.translate(CONTENT)
        if isinstance(self.arguments, bytes):  # all at once, as one large number
            both = int.from_bytes(self.arguments, "little") & int.from_bytes(masks, "little")
            return both.to_bytes(len(masks), "little")
        found = [
            argument if mask == 255 else argument & mask
            for argument, mask in zip(self.arguments, masks, strict=True)
        ]
        return bytes(found) if max(found, default=0) < 256 else tuple(found)


def decoded(code: CodeType) -> Instructions:
    """Return the instructions of a code object that matter."""
    raw = code.co_code
    units = raw[::2]
    arguments: Sequence[int] = raw[1::2]
    if EXTENDED in units:
        arguments = _extended(units, arguments)
    if not code.co_flags & inspect.CO_OPTIMIZED:
        units = _without_noise(code, units, arguments)
    spelled = b""
    if MAKE_FUNCTION in units:
        units, arguments, spelled = without_annotations(code, units, arguments, SPANS)
    jumps = _jumps(units, arguments)
    table = code.co_exceptiontable
    number = _numbering(units, many=bool(table) or len(jumps) > _FEW)
    operations = units.translate(SAME, SKIPPED)
    in_bytes = type(arguments) is bytes
    arguments = [*compress(arguments, units.translate(WIDTHS))]
    if PAIR is not None:
        operations, arguments = _split(PAIR, operations, arguments)
    return Instructions(
        code,
        operations,
        bytes(arguments) if in_bytes else arguments,
        tuple(map(number, jumps)),
        _handlers(table, number) if table else (),
        spelled,
    )


def _extended(units: bytes, arguments: Sequence[int]) -> list[int]:
    """Add to arguments what `EXTENDED_ARG`, once or more often, says before them."""
    whole = [*arguments]
    at = units.find(EXTENDED)
    while at >= 0:
        whole[at + 1] |= whole[at] << 8
        at = units.find(EXTENDED, at + 1)
    return whole


def _without_noise(code: CodeType, units: bytes, arguments: Sequence[int]) -> bytes:
    """Leave out what in a class body only says where and what it is."""
    found = bytearray(units)
    for at, unit in enumerate(units):
        if unit == STORE_NAME and code.co_names[arguments[at]] in _NOISE:
            load = len(units[:at].rstrip(bytes([EXTENDED]))) - 1
            if units[load] in PLAIN_LOADS:
                found[load] = found[at] = NOP
    return bytes(found)


def _jumps(units: bytes, arguments: Sequence[int]) -> list[int]:
    """Return the units that jumps go to."""
    marks, found = units.translate(IS_JUMP), []
    at = marks.find(1)
    while at >= 0:
        operation = units[at]
        found.append(at + SPANS[operation] + DIRECTIONS[operation] * arguments[at])
        at = marks.find(1, at + 1)
    return found


def _numbering(units: bytes, *, many: bool) -> Callable[[int], int]:
    """Return a function that gives the number of the next instruction for a unit."""
    widths = units.translate(WIDTHS)
    if many:
        return [*accumulate(widths, initial=0)].__getitem__
    return lambda at: widths.count(1, 0, at) + 2 * widths.count(2, 0, at)


def _split(
    pair: re.Pattern[bytes], operations: bytes, arguments: list[int]
) -> tuple[bytes, list[int]]:
    """Take superinstructions apart."""
    single, done = bytearray(), 0
    each: list[int] = []
    for found in pair.finditer(operations):
        at = found.start()
        single += operations[done:at] + PAIRS[operations[at]]
        each += (*arguments[done:at], arguments[at] >> 4, arguments[at] & 15)
        done = at + 1
    return bytes(single + operations[done:]), [*each, *arguments[done:]]


def _handlers(table: bytes, number: Callable[[int], int]) -> tuple[int, ...]:
    rows: list[int] = []
    for start, end, target, depth in _exception_table(table):
        first, last, to = number(start), number(end), number(target)
        if rows[-4:-3] and rows[-3:] == [first, to, depth]:
            rows[-3] = last
        elif first < last:
            rows += (first, last, to, depth)
    return tuple(rows)


def _exception_table(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield start, end, target (in code units) and depth of each entry."""
    numbers = _varints(table)
    for start in numbers:
        size, target, depth = next(numbers), next(numbers), next(numbers)
        yield start, start + size, target, depth


def _varints(table: bytes) -> Iterator[int]:
    value = 0
    for octet in table:
        value = value << 6 | octet & 63
        if not octet & 64:
            yield value
            value = 0
