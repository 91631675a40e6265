"""`@step`: what it takes, what it refuses, and that a step stays the function it is."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect import Task
from prefect.utilities.engine import resolve_inputs_sync

from prefect_mlpipe import File, Resources, pipeline, resolve, step, unmapped
from prefect_mlpipe.errors import InvalidParameters, InvalidStep, UnresolvedOutput
from tests.project import Project, ran


@step
def double(x: int, times: int = 2) -> int:
    """Multiply."""
    return x * times


@step
def nothing(x: int) -> None:
    ran("nothing")


def test_outside_a_pipeline_a_step_is_its_function() -> None:
    assert double(3) == 6
    assert double(3, times=3) == 9
    assert double.map([1, 2], times=3) == [3, 6]
    assert resolve(double(3)) == 6


def test_signature_docstring_and_name_survive() -> None:
    assert inspect.signature(double) == inspect.signature(double.fn)
    assert double.__doc__ == "Multiply."
    assert double.__name__ == "double"
    assert repr(double) == "<step 'double'>"


LATER = """
from typing import TYPE_CHECKING, NamedTuple
from prefect_mlpipe import pipeline, step
if TYPE_CHECKING:
    from nowhere import Unknown

@step
def parted(table: Unknown, start: Start) -> Parts:
    return Parts(start.at, table)

@pipeline
def main(table: Unknown, start: Start) -> Unknown:
    return parted(table, start).second

class Start:
    at = 1

class Parts(NamedTuple):
    first: int
    second: str
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_may_name_what_comes_later_or_is_for_a_type_checker_alone(
    tmp_path: Path,
) -> None:
    names: dict[str, Any] = {"__name__": "later"}
    exec(compile(LATER, "later.py", "exec", dont_inherit=True), names)
    main = names["main"].with_options(store=str(tmp_path))
    assert main.local("rows", names["Start"]()) == "rows"
    assert names["parted"].fields.types == (int, str)
    assert [each.action for each in main.plan("rows", names["Start"]())] == ["reuse"]
    with pytest.raises(InvalidParameters, match="missing a required argument: 'start'"):
        main.plan("rows")


def test_a_step_can_be_pickled() -> None:
    assert pickle.loads(cloudpickle.dumps(double))(2) == 4


def test_map_outside_a_pipeline_is_a_loop() -> None:
    assert double.map((1, 2), [10, 20], allowed_failures=1, drop_failed=True) == [10, 40]
    assert double.map(range(2)) == [0, 2]
    with pytest.raises(InvalidStep, match="different lengths"):
        double.map([1, 2], [1])
    with pytest.raises(InvalidStep, match="none of its arguments is a list"):
        double.map(1)


def test_an_unmapped_list_goes_whole_to_every_item() -> None:
    @step
    def within(x: int, known: list[int]) -> bool:
        return x in known

    assert within.map([1, 2], unmapped([1])) == [True, False]


def test_options_are_changed_on_a_copy() -> None:
    other = double.with_options(name="triple", version=3, retries=2, compute="gpu")
    assert (other.name, other.options.version, other.options.retries) == ("triple", "3", 2)
    assert other.compute == "gpu"
    assert double.name == "double"
    assert other(1) == 2


def test_all_options_of_ours_and_those_of_prefects_tasks_are_taken() -> None:
    @step(
        name="f",
        version=1,
        cache=True,
        cache_expiration=timedelta(hours=1),
        reads=[File("x")],
        ignore=["x"],
        compute="gpu",
        resources=Resources(gpus=1, memory="8GiB"),
        retries=2,
        retry_delay_seconds=[1, 2],
        timeout_seconds=10,
        tags={"a"},
        log_prints=True,
        description="d",
    )
    def f(x: int) -> int:
        return x

    assert f.options.resources == Resources(gpus=1, memory="8GiB")
    assert f.options.timeout_seconds == 10
    assert set(f.options.task) == {
        *("retries", "retry_delay_seconds", "timeout_seconds", "tags", "log_prints", "description")
    }


REFUSED = {
    "cache_policy": "version",
    "cache_key_fn": "version",
    "refresh_cache": "refresh",
    "persist_result": "cache=False",
    "result_storage": "store=",
    "result_storage_key": "store",
    "result_serializer": "format",
    "cache_result_in_memory": "store",
}


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_fights_the_store_is_refused_with_our_word(option: str) -> None:
    with pytest.raises(InvalidStep) as raised:
        step(**{option: True})(lambda x: x)
    assert option in str(raised.value)
    assert REFUSED[option] in raised.value.advice
    with pytest.raises(InvalidStep, match=option):
        double.with_options(**{option: True})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(InvalidStep, match=r"(?s)'f'.*unknown option 'chache'.*cache_expiration"):

        @step(chache=False)
        def f() -> int: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Model:
    def fit(self) -> int:
        return 1

    @staticmethod
    def static() -> int:
        return 1


def reserved(wait_for: int) -> int:
    return wait_for


@pytest.mark.parametrize(
    ("function", "what", "advice"),
    [
        (generator, "a generator", "Return a list"),
        (async_generator, "a generator", "Return a list"),
        (Model.fit, "a method", "plain function"),
        (Model().fit, "a method", "plain function"),
        (Model.static, "a method", "plain function"),
        (staticmethod(generator), "a method", "plain function"),
        (Model, "a type", "Decorate a function"),
        (functools.partial(print, 1), "a partial", "Decorate a function"),
        (3, "a int", "Decorate a function"),
        (double, "a step already", "with_options"),
        (reserved, "wait_for", "Rename"),
    ],
)
def test_what_cannot_be_a_step_is_refused_with_the_way_out(
    function: Any, what: str, advice: str
) -> None:
    with pytest.raises(InvalidStep) as raised:
        step(function)
    assert what in raised.value.sentence
    assert advice in raised.value.advice


def test_a_method_is_refused_while_its_class_is_defined() -> None:
    with pytest.raises(InvalidStep, match="'fit' is a method"):

        class Trainer:
            @step
            def fit(self) -> int: ...


@pytest.mark.parametrize("name", ["a/b", "a#2", "a[0]", " ", "a\nb"])
def test_a_name_that_would_read_as_a_group_a_call_or_an_item_is_refused(name: str) -> None:
    with pytest.raises(InvalidStep, match="cannot be called"):
        double.with_options(name=name)


def test_async_steps_run(project: Project) -> None:
    @step
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @pipeline
    def p() -> int:
        return double(later(1))

    assert project.own(p).local() == 4


def test_async_steps_run_where_a_loop_runs_already(project: Project) -> None:
    @step
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @pipeline
    def p() -> int:
        return later(1)

    async def notebook() -> int:
        return project.own(p).local()

    assert asyncio.run(notebook()) == 2


def test_as_task_gives_a_prefect_task() -> None:
    made = double.with_options(retries=1).as_task()
    assert isinstance(made, Task)
    assert (made.name, made.retries) == ("double", 1)
    assert made.fn(2) == 4


def test_none_steps_run_every_time(project: Project) -> None:
    @pipeline
    def p() -> None:
        nothing(1)

    owned = project.own(p)
    assert owned.local() is None
    assert owned.local() is None
    assert project.ran() == ["nothing", "nothing"]
    assert [str(reason) for reason in owned.runs.last()["nothing"].reasons] == ["cache off"]


def test_a_none_step_that_asks_for_it_is_cached(project: Project) -> None:
    @pipeline
    def p() -> None:
        nothing.with_options(cache=True)(1)

    owned = project.own(p)
    owned.local()
    owned.local()
    assert project.ran() == ["nothing"]


def silent() -> Any:
    ran("silent")


@pytest.mark.parametrize(("cache", "warned"), [(None, True), (True, False), (False, False)])
def test_a_cached_step_that_returns_none_without_saying_so_warns_once(
    project: Project, cache: bool | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    made = step(silent) if cache is None else step(cache=cache)(silent)

    @pipeline
    def p() -> None:
        made()
        made()

    owned = project.own(p)
    owned.local()
    warnings = owned.runs.last().warnings
    assert len(warnings) == warned
    assert all("'silent' returned None" in text and "-> None" in text for text in warnings)
    assert ("returned None" in caplog.text) == warned


def test_a_prefect_task_called_in_a_body_with_an_output_is_an_error(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return resolve_inputs_sync({"x": [double(1)]})  # what Prefect does with arguments

    with pytest.raises(UnresolvedOutput, match=r"(?s)'double'.*resolve"):
        project.own(p).local()


@pytest.mark.parametrize("call", [lambda: double(), lambda: double(1, 2, 3), lambda: double(y=1)])
def test_a_call_that_does_not_fit_names_the_step_and_its_signature(
    project: Project, call: Callable[[], Any]
) -> None:
    @pipeline
    def p() -> int:
        return call()  # type: ignore[no-any-return]

    with pytest.raises(InvalidStep, match=r"(?s)'double'.*signature.*times"):
        project.own(p).local()


def test_every_kind_of_parameter_arrives(project: Project) -> None:
    @step
    def shape(a: int, /, b: int, *c: int, d: int = 4, **e: int) -> list[Any]:
        return [a, b, c, d, e]

    @pipeline
    def p() -> list[Any]:
        x = double(1)
        return shape(x, 2, x, 3, d=x, f=x)

    assert project.own(p).local() == [2, 2, (2, 3), 2, {"f": 2}]


def test_other_decorators_count_and_stay(project: Project) -> None:
    def twice(fn: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(fn)
        def wrapped(*args: Any) -> int:
            return 2 * fn(*args)

        return wrapped

    @step
    @twice
    def f(x: int) -> int:
        return x

    @pipeline
    def p() -> int:
        return f(1)

    assert project.own(p).local() == 2
