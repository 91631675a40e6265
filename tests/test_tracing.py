"""A body becomes a graph: what may stand in it, and what is said where it goes wrong."""

from __future__ import annotations

import contextvars
import threading
from typing import Any, NamedTuple, TypedDict

import pytest

from prefect_mlpipe import pipeline, resolve, step
from prefect_mlpipe.compute import Threads
from prefect_mlpipe.errors import (
    InvalidPipeline,
    InvalidStep,
    PipelineCircle,
    TypeClash,
    UnresolvedOutput,
)
from tests.project import Project, ran


class Split(NamedTuple):
    train: list[int]
    test: list[int]


class Parts(TypedDict):
    left: int
    right: int


@step
def one() -> int:
    ran("one")
    return 1


@step
def add(a: int, b: int = 1) -> int:
    ran("add")
    return a + b


@step
def split() -> Split:
    ran("split")
    return Split([1, 2], [3])


@step
def halves() -> tuple[int, int]:
    return 1, 2


@step
def parts() -> Parts:
    return {"left": 1, "right": 2}


@step
def kind(value: Any) -> str:
    return f"{type(value).__name__} {value}"


@step
def broken() -> int:
    ran("broken")
    raise ValueError("broken")


def test_a_runtime_value_steers_the_graph(project: Project) -> None:
    @pipeline
    def p(start: int) -> int:
        value = add(start)
        while resolve(value) < 5:
            value = add(value)
        return value

    assert project.own(p).local(2) == 5
    assert project.ran() == ["add"] * 3


def test_resolve_takes_outputs_inside_lists_tuples_and_dicts(project: Project) -> None:
    @pipeline
    def p() -> Any:
        s = split()
        x = one()
        got = resolve({"a": [x, (s.train, s.train)], "b": s, "c": 7})
        assert got == {"a": [1, ([1, 2], [1, 2])], "b": Split([1, 2], [3]), "c": 7}
        assert type(got["b"]) is Split
        return x

    assert project.own(p).local() == 1


def test_result_is_a_synonym_of_resolve(project: Project) -> None:
    @pipeline
    def p() -> int:
        return one().result() + 1  # type: ignore[attr-defined, no-any-return]

    assert project.own(p).local() == 2


def test_resolve_starts_all_that_was_traced_and_waits_only_for_what_it_needs(
    project: Project,
) -> None:
    go = threading.Event()
    started = threading.Event()

    @step(ignore=["go", "started"])
    def slow() -> int:
        started.set()
        assert go.wait(10)
        return 1

    @pipeline
    def p() -> int:
        x = slow()
        assert resolve(one()) == 1  # while `slow` is still running
        assert started.wait(10)
        go.set()
        return x

    slow_free = slow.with_options(cache=False)
    assert slow_free is not slow
    assert project.own(p).local() == 1


def test_resolve_of_a_reused_step_starts_the_others_too(project: Project) -> None:
    started = threading.Event()

    @step(cache=False)
    def other() -> int:
        started.set()
        return 2

    @pipeline
    def p() -> int:
        x, y = one(), other()
        resolve(x)
        assert started.wait(10)
        return y

    owned = project.own(p)
    owned.local()
    started.clear()
    assert owned.local() == 2


def test_a_failed_step_raises_at_resolve_and_the_body_may_catch_it(project: Project) -> None:
    @pipeline
    def p() -> int:
        try:
            return resolve(broken())
        except ValueError:
            return one()

    owned = project.own(p)
    assert owned.local() == 1
    assert owned.runs.last().state == "completed"
    assert owned.runs.last()["broken"].state == "failed"


def test_everything_traced_runs_returned_or_not(project: Project) -> None:
    @pipeline
    def p() -> None:
        one()
        split()

    assert project.own(p).local() is None
    assert project.ran() == ["one", "split"]


def test_a_body_returns_outputs_and_values_nested(project: Project) -> None:
    @pipeline
    def p() -> Any:
        s = split()
        return {"a": [one(), 5], "b": (s.test, "x"), "c": s}

    assert project.own(p).local() == {"a": [1, 5], "b": ([3], "x"), "c": Split([1, 2], [3])}


def test_fields_are_unpacked_indexed_and_read(project: Project) -> None:
    @pipeline
    def p() -> Any:
        train, test = split()
        left, right = halves()
        either = parts()
        return [train, test, split()[0], left, right, either["right"]]

    assert project.own(p).local() == [[1, 2], [3], [1, 2], 1, 2, 2]


def test_passed_whole_an_output_arrives_as_its_own_type(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return [kind(split()), kind(halves()), kind(parts())]

    assert project.own(p).local() == [
        "Split Split(train=[1, 2], test=[3])",
        "tuple (1, 2)",
        "dict {'left': 1, 'right': 2}",
    ]


def test_local_classes_of_spelled_annotations_are_resolved(project: Project) -> None:
    class Local(NamedTuple):
        a: int
        b: int

    @step
    def make() -> Local:
        return Local(1, 2)

    @step
    def take(x: Local) -> int:
        return x.a

    @step
    def text() -> str:
        return "x"

    @pipeline
    def p() -> Any:
        made = make()
        return [made.b, take(made)]

    assert project.own(p).local() == [2, 1]

    @pipeline
    def wrong() -> Any:
        return take(text())

    with pytest.raises(TypeClash):
        project.own(wrong).local()


def test_outputs_inside_containers_of_arguments_arrive(project: Project) -> None:
    @pipeline
    def p() -> str:
        x = one()
        return kind({"a": [x, (x, 2)], "b": Split([x], [])})  # type: ignore[list-item]

    assert project.own(p).local() == "dict {'a': [1, (1, 2)], 'b': Split(train=[1], test=[])}"


def test_an_output_used_as_a_value_is_an_error_and_nothing_runs(project: Project) -> None:
    @pipeline
    def p() -> int:
        x = one()
        return x if x > 1 else 2

    with pytest.raises(UnresolvedOutput, match=r"(?s)'one'.*resolve"):
        project.own(p).local()
    assert project.ran() == []


def test_after_an_error_of_the_body_nothing_new_starts(project: Project) -> None:
    @pipeline
    def p() -> None:
        resolve(one())
        split()
        raise KeyError("the body's own")

    owned = project.own(p)
    with pytest.raises(KeyError, match="the body's own"):
        owned.local()
    assert project.ran() == ["one"]
    assert owned.runs.last().state == "failed"


def test_in_a_thread_that_the_body_starts_a_step_is_its_function(project: Project) -> None:
    got: list[Any] = []

    @pipeline
    def p() -> int:
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: got.append(context.run(add, 1, 2)))
        thread.start()
        thread.join()
        return one()

    owned = project.own(p)
    assert owned.local() == 1
    assert got == [3]
    assert [entry.name for entry in owned.runs.last()] == ["one"]


def test_in_a_running_step_a_step_is_its_function(project: Project) -> None:
    @step
    def outer() -> list[int]:
        return [add(1, 2), *add.map([1, 2]), resolve(add(3))]

    @pipeline
    def p() -> Any:
        return outer(), outer.with_options(name="again", cache=False)()

    owned = project.own(p)
    assert owned.local() == ([3, 2, 3, 4], [3, 2, 3, 4])
    assert [entry.name for entry in owned.runs.last()] == ["outer", "again"]


def test_a_pipeline_in_a_pipeline_is_a_group(project: Project) -> None:
    @pipeline
    def prep(x: int = 1) -> Any:
        return add(x), add(x, b=5)

    @pipeline
    def p() -> Any:
        a, b = prep()
        c, _ = prep(b)
        return [a, b, c]

    owned = project.own(p)
    assert owned.local() == [2, 6, 7]
    assert [node.name for node in owned.graph()] == [
        *("prep/add", "prep/add#2", "prep#2/add", "prep#2/add#2")
    ]


def test_groups_nest(project: Project) -> None:
    @pipeline
    def inner() -> int:
        return one()

    @pipeline
    def outer() -> int:
        return add(inner())

    @pipeline
    def p() -> int:
        return add(outer())

    owned = project.own(p)
    assert owned.local() == 3
    assert [node.name for node in owned.graph()] == ["outer/inner/one", "outer/add", "add"]


def test_parameters_of_an_inner_pipeline_are_validated(project: Project) -> None:
    @pipeline
    def inner(n: int) -> int:
        return add(n)

    @pipeline
    def p() -> int:
        return inner("many")  # type: ignore[arg-type]

    with pytest.raises(Exception, match=r"(?s)'inner'.*wrong type"):
        project.own(p).local()


def test_a_circle_is_shown(project: Project) -> None:
    @pipeline
    def a() -> Any:
        return b()

    @pipeline
    def b() -> Any:
        return a()

    with pytest.raises(PipelineCircle, match="a → b → a"):
        project.own(a).local()


def test_run_options_of_an_inner_pipeline_are_refused(project: Project) -> None:
    @pipeline
    def inner() -> int:
        return one()

    @pipeline
    def p() -> int:
        return project.own(inner)()

    with pytest.raises(InvalidPipeline, match=r"(?s)'inner'.*store"):
        project.own(p).local()


def test_order_without_data(project: Project) -> None:
    done: list[str] = []

    @step(cache=False, ignore=["done"])
    def setup() -> int:
        done.append("setup")
        return 0

    @step(cache=False)
    def train(x: int) -> int:
        done.append(f"train {x}")
        return x

    @pipeline
    def p() -> Any:
        s = setup()
        return train.after(s)(1), train(2, wait_for=[s]), train(3, wait_for=s)  # type: ignore[call-overload]

    assert project.own(p).local() == (1, 2, 3)
    assert done[0] == "setup"
    assert sorted(done[1:]) == ["train 1", "train 2", "train 3"]


def test_order_is_not_in_the_key(project: Project) -> None:
    @pipeline
    def p(ordered: bool) -> int:
        x = one()
        return (add.after(x) if ordered else add)(1, 2)

    owned = project.own(p)
    assert owned.local(ordered=False) == 3
    project.ran()
    assert owned.local(ordered=True) == 3
    assert project.ran() == []


def test_a_group_can_wait_and_be_waited_for(project: Project) -> None:
    done: list[str] = []

    @step(cache=False)
    def note(word: str) -> str:
        done.append(word)
        return word

    @pipeline
    def group(word: str) -> Any:
        return [note(word), note(word)]

    @pipeline
    def p() -> Any:
        first = group("first")
        second = group("second", wait_for=[first])  # type: ignore[call-arg]
        return note.after(second)("last")

    assert project.own(p).local() == "last"
    assert done == ["first", "first", "second", "second", "last"]


def test_waiting_for_what_is_no_output_is_an_error(project: Project) -> None:
    @pipeline
    def p() -> int:
        return one.after(3)()

    with pytest.raises(InvalidStep, match=r"(?s)'one'.*not an output.*int 3"):
        project.own(p).local()


def test_an_output_kept_from_another_run_is_refused(project: Project) -> None:
    kept: list[Any] = []

    @pipeline
    def p() -> int:
        kept.append(one())
        return add(kept[0])

    owned = project.own(p)
    assert owned.local() == 2
    with pytest.raises(UnresolvedOutput, match="another run"):
        owned.local()


def test_a_provable_clash_is_refused_before_anything_runs(project: Project) -> None:
    @pipeline
    def p() -> int:
        return add(kind(one()))  # type: ignore[arg-type]

    with pytest.raises(TypeClash, match=r"(?s)'add'.*'kind'.*argument +a"):
        project.own(p).local()
    assert project.ran() == []


def test_a_body_is_plain_python_outside_tracing() -> None:
    @pipeline
    def p(x: int) -> int:
        value = add(x)
        return value if resolve(value) > 1 else 0

    assert p.body(1) == 2


def test_an_inner_pipeline_gives_its_compute(project: Project) -> None:
    @step(compute="gpu")
    def on_gpu() -> int:
        return 1

    @pipeline(compute={"gpu": Threads(max_workers=1)})
    def inner() -> int:
        return on_gpu()

    @pipeline
    def p() -> int:
        return inner()

    owned = project.own(p)
    assert [one.compute for one in owned.plan()] == ["gpu"]
    assert owned.local() == 1
