"""Errors of our own tree name the step and the argument, and say what to do."""

from __future__ import annotations

import inspect
import pickle
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from prefect_mlpipe import errors, pipeline, step
from prefect_mlpipe.errors import (
    MlpipeError,
    OutputMismatch,
    UnstableCode,
    UnstableInput,
    UnstorableOutput,
)
from tests.project import Project, ran

LOCK = threading.Lock()
SESSION = iter([1])


class Split(NamedTuple):
    train: int
    test: int


class Holder:
    def __init__(self) -> None:
        self.pool = {"lock": threading.Lock()}


@step
def train(session: Any, depth: int = 1) -> int:
    ran("train")
    return depth


@step
def connected() -> int:
    ran("connected")
    return next(SESSION)


@step
def unstorable(make: str) -> Any:
    made: dict[str, Callable[[], Any]] = {
        "lock": threading.Lock,
        "iterator": lambda: iter([1]),
        "nested": lambda: {"a": [threading.Lock()]},
    }
    return made[make]()


@step
def wrong_fields() -> Split:
    return (*Split(1, 2), 3)  # type: ignore[return-value]


def running(project: Project, body: Callable[[], Any], kind: type[MlpipeError]) -> MlpipeError:
    @pipeline
    def p() -> Any:
        return body()

    with pytest.raises(kind) as raised:
        project.own(p).local()
    assert raised.value.advice
    return raised.value


def test_an_input_without_content_names_step_argument_and_the_way_inside(project: Project) -> None:
    error = running(project, lambda: train(Holder()), UnstableInput)
    assert "'train'" in error.sentence
    assert error.facts["argument"] == "session"
    assert error.facts["at"] == "session.pool['lock']"
    assert "lock" in str(error.facts["type"])
    for way in ("ignore=['session']", "cache=False", "plain data"):
        assert way in error.advice
    assert project.ran() == []


@pytest.mark.parametrize("iterator", [iter([1]), (x for x in [1]), open])
def test_an_iterator_as_argument_is_refused_and_not_consumed(
    project: Project, iterator: Any
) -> None:
    if iterator is open:
        iterator = open(__file__)  # noqa: SIM115
    running(project, lambda: train(iterator), UnstableInput)
    assert next(iterator)
    if hasattr(iterator, "close"):
        iterator.close()


def test_with_cache_off_an_input_without_content_is_passed_on(project: Project) -> None:
    @pipeline
    def p() -> int:
        return train.with_options(cache=False)(threading.Lock())

    assert project.own(p).local() == 1


def test_code_that_reaches_something_without_content_is_shown_the_way(project: Project) -> None:
    error = running(project, connected, UnstableCode)
    assert "'connected'" in error.sentence
    assert "connected → " in str(error.facts["the way there"])
    assert "SESSION" in str(error.facts["the way there"])
    ways = [text for text in error.advice.split("'") if "SESSION" in text]
    assert project.ran() == []

    @pipeline
    def p() -> int:
        return connected.with_options(ignore=ways)()

    assert project.own(p).local() == 1


def test_inert_globals_are_no_obstacle(project: Project) -> None:
    @step
    def locked() -> int:
        with LOCK:
            return 1

    @pipeline
    def p() -> int:
        return locked()

    assert project.own(p).local() == 1


@pytest.mark.parametrize(
    ("make", "at"), [("lock", "value"), ("iterator", "value"), ("nested", "value['a'][0]")]
)
def test_an_output_that_cannot_be_stored_names_the_step_and_the_place(
    project: Project, make: str, at: str
) -> None:
    error = running(project, lambda: unstorable(make), UnstorableOutput)
    assert "'unstorable'" in error.sentence
    assert error.facts["at"] == at


def test_an_output_that_is_not_what_is_declared_names_the_fields(project: Project) -> None:
    error = running(project, wrong_fields, OutputMismatch)
    assert "'wrong_fields'" in error.sentence
    assert "train, test" in str(error.facts["declares"])
    assert "length 3" in str(error.facts["returned"])


TREE = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, MlpipeError) and cls.__module__ == errors.__name__
]


@pytest.mark.parametrize("cls", TREE)
def test_every_error_stands_in_the_tree_and_travels(cls: type[MlpipeError]) -> None:
    assert cls.__doc__
    assert cls.__name__ in (errors.__doc__ or "")
    error = cls("Step 'a' failed.", {"argument": "x"}, "Do this.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error) == "Step 'a' failed.\n    argument  x\nDo this."


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("failures", "abort", "Give 'finish', 'stop' or 'cancel'."),
        ("compute", {"gpu": 3}, "{'gpu': Threads()}"),
        ("targets", 7, "Give names of steps."),
    ],
)
def test_a_wrong_value_of_a_pipeline_option_is_refused(
    option: str, value: object, advice: str
) -> None:
    @pipeline
    def p() -> None:
        return None

    with pytest.raises(errors.InvalidPipeline, match=f"'p' cannot take the option {option}=") as no:
        p.with_options(**{option: value})
    assert advice in str(no.value)
