"""Which values are plain: made only of types whose pickles are known to keep everything.

Knows nothing of formats or stores. The set is short on purpose: a value outside it is not refused,
it is only read back once when it is stored, to see that it is still the same.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import sys
import uuid
from collections.abc import Iterable
from typing import Any

_SCALARS = frozenset(
    {
        type(None),
        type(Ellipsis),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        bytearray,
        range,
        datetime.date,
        datetime.timedelta,
        decimal.Decimal,
        fractions.Fraction,
        uuid.UUID,
    }
)
_SEQUENCES = frozenset({list, tuple, set, frozenset})
_NUMBERS = "?bhilqBHILQefdFD"
MAX_DEPTH = 32


def is_plain(value: object) -> bool:
    """Tell whether a value is made of plain types only, at every depth."""
    return _all_plain((value,), MAX_DEPTH)


def _all_plain(values: Iterable[object], depth: int) -> bool:
    if depth == 0:
        return False
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind in _SEQUENCES:
            inner = _all_plain(value, depth - 1)  # type: ignore[arg-type]
        elif kind is dict:
            inner = _all_plain(value, depth - 1)  # type: ignore[arg-type]
            inner = inner and _all_plain(value.values(), depth - 1)  # type: ignore[attr-defined]
        else:
            inner = kind.__module__ == "numpy" and _is_plain_numpy(value)
        if not inner:
            return False
    return True


def _is_plain_numpy(value: Any) -> bool:
    numpy = sys.modules["numpy"]  # it has a value of its own here, so it is imported
    if type(value) is numpy.ndarray:
        return value.dtype.isbuiltin == 1 and not value.dtype.hasobject
    return isinstance(value, numpy.generic) and value.dtype.char in _NUMBERS
