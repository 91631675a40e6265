"""Take out of bytecode what only evaluates the annotations of nested functions.

Knows how Python builds them: below the code of the function, up to 3.13 as a tuple, since 3.14 as a
function that makes them when they are asked for. Knows nothing of what they mean.

Worth arguing: the annotations of a function at the top of a module never show in bytecode, and
those of one inside another should not either. They are kept aside, for code that reads annotations.
A function below a decorator keeps them: the decorator may be the one that reads.
"""

from __future__ import annotations

import dis
from collections.abc import Sequence
from types import CodeType
from typing import Final, NamedTuple

from blake3 import blake3

_MAKE: Final = dis.opmap["MAKE_FUNCTION"]
_SET: Final = dis.opmap.get("SET_FUNCTION_ATTRIBUTE", -1)  # since 3.13, in place of flags
_NOP: Final = dis.opmap["NOP"]
_CONST: Final = frozenset(dis.hasconst)
_NAMED: Final = frozenset(dis.hasname)
_KEPT: Final = frozenset(
    code
    for name, code in dis.opmap.items()
    if name.startswith("STORE_FAST") or name in ("STORE_DEREF", "STORE_NAME")
)
_ANNOTATIONS, _CLOSURE = 4 | 16, 8  # a tuple, or a function since 3.14


class Plain(NamedTuple):
    """Code without the annotations of nested functions.

    Attributes:
        units: an operation or a cache each.
        arguments: one for each.
        spelled: digest of what was taken out.
    """

    units: bytes
    arguments: Sequence[int]
    spelled: bytes


def without_annotations(
    code: CodeType, units: bytes, arguments: Sequence[int], spans: Sequence[int]
) -> Plain:
    """Take the annotations out of code that makes functions.

    Args:
        code: the code, for its names and constants.
        units: an operation or a cache each.
        arguments: one for each, `EXTENDED_ARG` added.
        spans: for each operation, how many units it takes.
    """
    if not _has_annotations(units, arguments):
        return Plain(units, arguments, b"")
    starts = [0]
    while (following := starts[-1] + spans[units[starts[-1]]]) < len(units):
        starts.append(following)
    found, plain = bytearray(units), [*arguments]
    spelled: list[bytes] = []
    for number, at in enumerate(starts):
        if units[at] != _MAKE:
            continue
        attributes = _attributes(units, starts, number)
        taken = _annotations(units, arguments, starts, number, attributes)
        if taken is None:
            continue
        spelled += (_spelled(code, units[each], arguments[each]) for each in taken)
        for each in (*taken, *(a for a in attributes if arguments[a] & _ANNOTATIONS)):
            found[each] = _NOP
        if _SET < 0:
            plain[at] &= ~_ANNOTATIONS
    digest = blake3(b"".join(spelled)).digest() if spelled else b""
    return Plain(bytes(found), plain, digest)


def _has_annotations(units: bytes, arguments: Sequence[int]) -> bool:
    flagged = _SET if _SET >= 0 else _MAKE
    at = units.find(flagged)
    while at >= 0:
        if arguments[at] & _ANNOTATIONS:
            return True
        at = units.find(flagged, at + 1)
    return False


def _attributes(units: bytes, starts: Sequence[int], number: int) -> list[int]:
    """Return where attributes of a new function are set, with flags of their own."""
    found = []
    while units[starts[number := number + 1]] == _SET:
        found.append(starts[number])
    return found


def _annotations(
    units: bytes,
    arguments: Sequence[int],
    starts: Sequence[int],
    number: int,
    attributes: Sequence[int],
) -> list[int] | None:
    """Return where the annotations of a function are made, `None` if they have to stay."""
    flags = sum(arguments[at] for at in attributes) if _SET >= 0 else arguments[starts[number]]
    after = units[starts[number + 1 + len(attributes)]]
    if not flags & _ANNOTATIONS or after not in _KEPT:
        return None
    last = number - 2  # before the code of the function
    if flags & _CLOSURE:
        cells = _first(units, arguments, starts, last)
        if cells is None:
            return None
        last = cells - 1
    first = _first(units, arguments, starts, last)
    return None if first is None else [starts[each] for each in range(first, last + 1)]


def _first(units: bytes, arguments: Sequence[int], starts: Sequence[int], last: int) -> int | None:
    """Return with which instruction the making of a value begins, given the last one of it."""
    height = 0
    for number in range(last, -1, -1):
        operation = units[starts[number]]
        argument = arguments[starts[number]] if operation >= dis.HAVE_ARGUMENT else None
        height += dis.stack_effect(operation, argument)
        if height >= 1:
            return number if height == 1 else None
    return None


def _spelled(code: CodeType, operation: int, argument: int) -> bytes:
    if operation in _CONST:
        constant = code.co_consts[argument]
        return b"c" + _spelled_constant(constant)
    if operation in _NAMED:
        # Some operations have flags beside the number of the name; a wrong name is as telling.
        return b"n" + _text([argument, *code.co_names])
    return b"o" + _text((operation, argument))


def _spelled_constant(constant: object) -> bytes:
    if not isinstance(constant, CodeType):
        return _text(constant)
    inner = map(_spelled_constant, constant.co_consts)
    return b"".join((_text((constant.co_code, constant.co_names, constant.co_freevars)), *inner))


def _text(value: object) -> bytes:
    return repr(value).encode("utf-8", "surrogatepass")
