"""What annotations do: declared fields, provable clashes, names that cannot be resolved."""

from __future__ import annotations

import collections.abc
import enum
import os
from typing import Annotated, Any, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import pytest

from prefect_mlpipe.core.annotations import clash, declared_fields, resolve_annotations
from prefect_mlpipe.core.files import File
from prefect_mlpipe.errors import OutputMismatch


class Split(NamedTuple):
    train: list[int]
    test: str


class Parts(TypedDict):
    left: int
    right: str


class Partial(TypedDict, total=False):
    left: int


class Animal: ...


class Dog(Animal): ...


class Walker(Protocol):
    def walk(self) -> None: ...


class Colour(enum.Enum):
    RED = 1


class Anything(type):
    def __subclasscheck__(cls, other: type) -> bool:
        return True


class Open(metaclass=Anything): ...


Metres = NewType("Metres", float)
T = TypeVar("T")


@pytest.mark.parametrize(
    ("annotation", "kind", "names"),
    [
        (Split, "namedtuple", ("train", "test")),
        (tuple[int, str], "tuple", ("0", "1")),
        (tuple[int], "tuple", ("0",)),
        (Parts, "typeddict", ("left", "right")),
        (Annotated[Split, "note"], "namedtuple", ("train", "test")),
    ],
)
def test_declared_fields(annotation: Any, kind: str, names: tuple[str, ...]) -> None:
    fields = declared_fields(annotation)
    assert fields is not None
    assert (fields.kind, fields.names) == (kind, names)


@pytest.mark.parametrize(
    "annotation", [tuple, tuple[int, ...], tuple[()], list[int], dict[str, int], Partial, int, Any]
)
def test_what_declares_no_fields_is_one_value(annotation: Any) -> None:
    assert declared_fields(annotation) is None


def test_the_types_of_fields_are_resolved() -> None:
    fields = declared_fields(Split)
    assert fields is not None
    assert fields.type_of("train") == list[int]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(Split, Split([1], "a")), (tuple[int, str], (1, "a")), (Parts, {"left": 1, "right": "a"})],
)
def test_a_value_is_split_and_joined_to_the_same(annotation: Any, value: Any) -> None:
    fields = declared_fields(annotation)
    assert fields is not None
    joined = fields.join(fields.split(value, "f"))
    assert joined == value
    assert type(joined) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Split, ([1], "a")),
        (tuple[int, str], (1, "a", 2)),
        (tuple[int, str], [1, "a"]),
        (Parts, {"left": 1}),
        (Parts, {"left": 1, "wrong": 2}),
    ],
)
def test_a_value_that_is_not_what_is_declared_is_refused(annotation: Any, value: Any) -> None:
    fields = declared_fields(annotation)
    assert fields is not None
    with pytest.raises(OutputMismatch, match=r"(?s)'split'.*declares.*returned"):
        fields.split(value, "split")


CLASHES = [
    (int, str),
    (float, int),
    (list[int], dict[str, int]),
    (int | str, list),
    (None, int),
    (Animal, int),
    (Split, list),
    (Parts, list),
    (File, str),
    (Colour, int),
    (Annotated[int, "note"], str),
    (Metres, str),
]
PASSES = [
    (int, int),
    (int, float),
    (bool, int),
    (int, complex),
    (Dog, Animal),
    (Animal, Dog),  # what is declared wider than it is
    (int | None, int),
    (int, str | float),
    (list[int], list[str]),  # arguments of generics
    (list[int], collections.abc.Sequence),
    (Dog, Walker),
    (int, Open),
    (Parts, dict[str, int]),
    (File, os.PathLike),
    (Any, int),
    (int, object),
    (int, Literal[1]),
    (T, int),
    ("Nowhere", int),
    (Metres, float),
]


@pytest.mark.parametrize(("produced", "declared"), CLASHES)
def test_what_can_never_fit_clashes(produced: Any, declared: Any) -> None:
    assert clash(produced, declared)


@pytest.mark.parametrize(("produced", "declared"), PASSES)
def test_what_may_fit_passes(produced: Any, declared: Any) -> None:
    assert not clash(produced, declared)


def test_a_name_that_cannot_be_resolved_counts_as_any() -> None:
    def f(x: Nowhere, y: int) -> Somewhere.Else: ...  # type: ignore[name-defined]  # noqa: F821

    assert resolve_annotations(f) == {"x": Any, "y": int, "return": Any}


def test_names_around_the_function_can_be_given() -> None:
    class Local: ...

    def f(x: Local) -> None: ...

    assert resolve_annotations(f, {"Local": Local}) == {"x": Local, "return": type(None)}


def test_names_that_the_function_closes_over_are_found() -> None:
    class Local: ...

    def f(x: Local) -> Local:
        return Local()

    assert resolve_annotations(f)["x"] is Local
