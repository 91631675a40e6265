"""What shows of code beside what each part of it does.

Two things: docstrings, names, annotations and sources, where code that is reached asks for them
(`work.__doc__`, `inspect.signature`); and which global values are one and the same object, since a
step that changes the one changes the other. Knows nothing of how code is read.

Worth arguing: who asks, and of what, is not followed. Once anything that a step reaches asks for
docstrings, all docstrings that it reaches count.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from types import FunctionType
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.encoding.classes import owner_of_class
from prefect_mlpipe.core.encoding.parts import Parts, alone
from prefect_mlpipe.core.encoding.pieces import count, text
from prefect_mlpipe.core.encoding.type_hints import annotations_of
from prefect_mlpipe.core.reading.shapes import shape_of


def with_what_shows(parts: Parts, asks: Collection[str], function: object) -> tuple[Parts, bytes]:
    """Return the parts, digests changed where more of them shows, and what of it counts.

    Args:
        parts: what a function reaches.
        asks: what is asked of code: values of `shapes.ASKS`.
        function: the function itself, which does not see its own name.
    """
    shared = _shared(parts)
    if not shared and not asks:
        return parts, b""
    found: Parts = {}
    extra: list[bytes] = []
    for label, owns in parts.items():
        found[label] = {}
        for own, value in owns.items():
            shows = [*_names_of(shared, label, value)]
            if isinstance(value, (FunctionType, type)):
                kinds = (kind for kind in sorted(asks) if kind != "name" or value is not function)
                shows += [_SHOWN[kind](value) for kind in kinds]
            if any(shows):
                own = blake3(b"".join((own, *map(_framed, shows)))).digest()
                extra.append(own)
            found[label][own] = value
    return found, b"".join(sorted(extra))


def _framed(shown: bytes) -> bytes:
    return count(len(shown)) + shown


# One object under several names


def _shared(parts: Parts) -> Mapping[int, list[str]]:
    """Return for each object that several globals name: under which names, without modules."""
    found: dict[int, list[str]] = {}
    for label, owns in parts.items():
        for value in owns.values():
            if _can_change(value):
                found.setdefault(id(value), []).append(label.rpartition(".")[2])
    return {key: sorted(names) for key, names in found.items() if len(names) > 1}


def _can_change(value: object) -> bool:
    kind: Any = type(value)
    if isinstance(value, (FunctionType, type)):
        return False
    return kind.__hash__ is None or (hasattr(value, "__dict__") and _is_users(kind))


def _is_users(kind: type) -> bool:
    return owner_of_class(kind).kind == "user"


def _names_of(shared: Mapping[int, list[str]], label: str, value: object) -> Iterable[bytes]:
    return map(text, shared.get(id(value), ()))


# What code asks of other code


def _docstring(value: Any) -> bytes:
    own = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    return text(own) if isinstance(own, str) else b""


def _name(value: Any) -> bytes:
    return text(value.__name__)


def _annotations(value: Any) -> bytes:
    spelled = shape_of(value.__code__).spelled if isinstance(value, FunctionType) else b""
    return spelled + alone(annotations_of(value))


def _source(value: Any) -> bytes:
    try:
        return text(inspect.getsource(value))
    except (OSError, TypeError):  # made by exec: who asks gets the same error
        return b""


_SHOWN: Final = {
    "annotations": _annotations,
    "docstring": _docstring,
    "name": _name,
    "source": _source,
}
