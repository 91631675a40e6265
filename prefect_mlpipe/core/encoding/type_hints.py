"""Encode what stands for types: annotations by what they mean, type variables and aliases.

Knows `typing`. Knows nothing of classes, nor of who reads an annotation.

Worth arguing: an annotation that is a text counts by its syntax, since what it means is not known
before somebody resolves it.
"""

from __future__ import annotations

import ast
import functools
import typing
from collections.abc import Sequence
from typing import Any, Final

from prefect_mlpipe.core.annotations import spelled_annotations
from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.pieces import Piece, packed, record, text

_TYPE_VARIABLES: Final = (typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)


def annotations_of(holder: Any) -> list[object]:
    """Return the annotations of a class or a function, to be encoded by what they mean."""
    return [Annotation(*pair) for pair in spelled_annotations(holder).items()]


class Annotation:
    """An annotation that something reads: its meaning counts, not how it is spelled."""

    def __init__(self, name: str, meaning: object) -> None:
        self.name = name
        self.meaning = meaning


def _annotation(encoder: Encoder, value: Annotation) -> Piece:
    meaning = value.meaning
    if isinstance(meaning, typing.ForwardRef):
        meaning = meaning.__forward_arg__
    if isinstance(meaning, str):
        return packed("annotation", text(value.name), text(_parsed(meaning)))
    return encoder.branch(
        value, lambda _, each: record("annotation", text(value.name), encoder.encode(meaning))
    )


@functools.cache
def _parsed(spelling: str) -> str:
    try:
        return ast.dump(ast.parse(spelling, mode="eval"))
    except SyntaxError:
        return spelling


def _type_variable(encoder: Encoder, value: Any) -> Sequence[Piece]:
    names = ("__bound__", "__constraints__", "__covariant__", "__contravariant__", "__default__")
    held = [encoder.encode(getattr(value, name, None)) for name in names]
    return record("typevar", text(type(value).__name__), text(value.__name__), *held)


def _type_alias(encoder: Encoder, value: Any) -> Sequence[Piece]:
    try:
        meaning = value.__value__
    except NameError:  # meant for a type checker alone
        return record("type alias", text(value.__name__))
    return record("type alias", encoder.encode(meaning))


def _forward(encoder: Encoder, value: typing.ForwardRef) -> Piece:
    return packed("forward", text(_parsed(value.__forward_arg__)))


def _find(kind: type) -> Any:
    if issubclass(kind, _TYPE_VARIABLES):
        return lambda encoder, value: encoder.branch(value, _type_variable)
    if kind is getattr(typing, "TypeAliasType", None):  # since 3.12
        return lambda encoder, value: encoder.branch(value, _type_alias)
    if issubclass(kind, typing.ForwardRef):
        return _forward
    return None


Encoder.finders.append(_find)
Encoder.handlers[Annotation] = _annotation
