"""What shows of code beside what each part of it does.

Two things: docstrings, names, annotations and sources, where code that is reached asks for them
(`work.__doc__`, `inspect.signature`); and which global values are one and the same object, since a
step that changes the one changes the other. Knows nothing of how code is read.

Worth arguing: who asks, and of what, is not followed. Once anything that a step reaches asks for
docstrings, all docstrings that it reaches count.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.encoding.classes import owner_of_class
from prefect_mlpipe.core.encoding.parts import Parts, alone
from prefect_mlpipe.core.encoding.pieces import count, text
from prefect_mlpipe.core.encoding.type_hints import annotations_of
from prefect_mlpipe.core.reading.shapes import shape_of

_NAMES: Final = ("name", "qualified name")


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
                hidden = _NAMES if value is function else ()
                kinds = (kind for kind in sorted(asks) if kind not in hidden)
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
    if isinstance(value, type):
        return _docstring_of_class(value)
    own = value.__doc__
    return (text(own) if isinstance(own, str) else b"") + docstrings_in(_nested_in(value))


def _docstring_of_class(cls: Any) -> bytes:
    own = vars(cls).get("__doc__")
    properties = [each.__doc__ for each in vars(cls).values() if isinstance(each, property)]
    found = b"".join(text(each) for each in (own, *properties) if isinstance(each, str))
    fields = vars(cls).get("__pydantic_fields__")
    if fields:
        found += alone([[getattr(each, name, None) for name in _SAID] for each in fields.values()])
    return found


def _name(value: Any) -> bytes:
    return text(value.__name__) + names_of(_nested_in(value))


def _qualified_name(value: Any) -> bytes:
    return text(value.__qualname__) + names_of(_nested_in(value))


def _nested_in(value: Any) -> Iterable[CodeType]:
    return nested(value.__code__) if isinstance(value, FunctionType) else ()


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yield the code objects inside another, from which it makes functions and classes."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from nested(constant)


def docstrings_in(codes: Iterable[CodeType]) -> bytes:
    """Return the docstrings of functions and classes that are yet to be made."""
    return b"".join(text(each) for code in codes for each in _docstrings(code))


def _docstrings(code: CodeType) -> Iterator[str]:
    first = 1 if code.co_flags & inspect.CO_OPTIMIZED else None  # of a class body: any may be it
    yield from (each for each in code.co_consts[:first] if isinstance(each, str))


def names_of(codes: Iterable[CodeType]) -> bytes:
    """Return the names of functions and classes that are yet to be made."""
    return b"".join(text(code.co_name) for code in codes if code.co_name.isidentifier())


def _annotations(value: Any) -> bytes:
    spelled = shape_of(value.__code__).spelled if isinstance(value, FunctionType) else b""
    return spelled + alone(annotations_of(value))


def _source(value: Any) -> bytes:
    try:
        return text(inspect.getsource(value))
    except (OSError, TypeError):  # made by exec: who asks gets the same error
        return b""


def shown_of(value: object, kind: str) -> bytes:
    """Return what shows of a function or a class to code that asks for this.

    Args:
        value: anything; what is no code shows nothing.
        kind: a value of `shapes.ASKS`.
    """
    return _SHOWN[kind](value) if isinstance(value, (FunctionType, type)) else b""


def _bytecode(value: Any) -> bytes:
    if isinstance(value, type):
        return b""
    code = value.__code__
    names = (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars)
    constants = [each for each in code.co_consts if not isinstance(each, CodeType)]
    return alone([code.co_code, names, constants])


# What pydantic tells of a field, for people.
_SAID: Final = ("title", "description", "examples", "json_schema_extra", "deprecated", "repr")


def _nothing(_: Any) -> bytes:
    return b""


_SHOWN: Final = {
    "annotations": _annotations,
    "bytecode": _bytecode,
    "docstring": _docstring,
    "name": _name,
    "qualified name": _qualified_name,
    "source": _source,
    "wrapping": _nothing,  # what is copied shows where it is asked for, or in an output
}
