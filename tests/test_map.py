"""`map`: each item has its own key, reason, retries and failure."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from prefect_mlpipe import pipeline, resolve, step, unmapped
from prefect_mlpipe.errors import InvalidStep, OutputError
from tests.project import Project, ran


class Split(NamedTuple):
    train: int
    test: int


@step
def numbers(n: int) -> list[int]:
    ran("numbers")
    return [*range(n)]


@step
def double(x: int) -> int:
    ran(f"double({x})")
    return 2 * x


@step
def plus(x: int, y: Any = 1) -> Any:
    ran(f"plus({x})")
    return x + y


@step
def total(items: list[int]) -> int:
    ran("total")
    return sum(items)


@step
def split(x: int) -> Split:
    return Split(x, -x)


@step
def odd_fails(x: int) -> int:
    ran(f"odd({x})")
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def test_each_item_is_reused_by_itself(project: Project) -> None:
    @pipeline
    def p(items: list[int]) -> int:
        return total(double.map(items))

    owned = project.own(p)
    assert owned.local([1, 2]) == 6
    assert project.ran() == ["double(1)", "double(2)", "total"]
    assert owned.local([1, 2, 5]) == 16
    assert project.ran() == ["double(5)", "total"]
    run = owned.runs.last()
    assert [run[f"double[{i}]"].state for i in range(3)] == ["reused", "reused", "ran"]
    assert run["double"].state == "ran"
    assert owned.local([2, 1]) == 6
    assert project.ran() == ["total"]  # the order of the list is content
    assert owned.local([1, 2]) == 6
    assert project.ran() == []


def test_each_item_has_its_own_reason(project: Project) -> None:
    @pipeline
    def p(items: list[int]) -> Any:
        return double.map(items)

    owned = project.own(p)
    owned.local([1, 2])
    owned.local([1, 3])
    run = owned.runs.last()
    assert [str(reason) for reason in run["double[1]"].reasons] == ["parameter 'x' changed: 2 → 3"]
    assert run["double[0]"].reasons == []


def test_lists_tuples_ranges_and_outputs_that_are_lists_are_mapped(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return [
            double.map([1, 2]),
            double.map((1, 2)),
            double.map(range(2)),
            double.map(numbers(2)),
            plus.map(numbers(3), [10, 20, 30]),
        ]

    assert project.own(p).local() == [[2, 4], [2, 4], [0, 2], [0, 2], [10, 21, 32]]


def test_all_else_is_the_same_for_every_item(project: Project) -> None:
    @step
    def pair(x: int, y: Any) -> Any:
        return [x, type(y).__name__, len(y)]

    @step
    def text() -> str:
        return "abc"

    @step
    def array() -> Any:
        return np.arange(4)

    @pipeline
    def p() -> Any:
        return [
            pair.map([1, 2], "xy"),
            pair.map([1], text()),
            pair.map([1], array()),
            pair.map([1], {"a": 1}),
            pair.map([1], split(1)),
            pair.map([1], Split(1, 2)),
            pair.map([1], unmapped([1, 2, 3])),
            pair.map([1], unmapped(numbers(2))),
        ]

    assert project.own(p).local() == [
        [[1, "str", 2], [2, "str", 2]],
        [[1, "str", 3]],
        [[1, "ndarray", 4]],
        [[1, "dict", 1]],
        [[1, "Split", 2]],
        [[1, "Split", 2]],
        [[1, "list", 3]],
        [[1, "list", 2]],
    ]


def test_unmapped_in_a_plain_call_is_an_error(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return double(unmapped(1))

    with pytest.raises(InvalidStep, match=r"(?s)'double'.*unmapped.*argument +x"):
        project.own(p).local()


def test_chained_maps_are_linked_item_by_item(project: Project) -> None:
    @pipeline
    def p(items: list[int]) -> Any:
        return plus.map(double.map(items))

    owned = project.own(p)
    assert owned.local([1, 2]) == [3, 5]
    project.ran()
    assert owned.local([1, 3]) == [3, 7]
    assert project.ran() == ["double(3)", "plus(6)"]
    assert str(owned.runs.last()["plus[1]"].reasons[0]) == "input 'x' changed (from double[1])"


def test_an_item_need_not_wait_for_the_whole_list_above(project: Project) -> None:
    import threading

    seen = threading.Event()

    @step(cache=False)
    def first(x: int) -> int:
        if x:
            assert seen.wait(20)  # until item 0 has come through the second map
        return x

    @step(cache=False)
    def second(x: int) -> int:
        seen.set()
        return x

    @pipeline
    def p() -> Any:
        return second.map(first.map([0, 1]))

    assert project.own(p).local() == [0, 1]


def test_an_empty_list_is_an_empty_output(project: Project) -> None:
    @pipeline
    def p(items: list[int]) -> Any:
        doubled = double.map(items)
        return doubled, plus.map(doubled), total(doubled), double.map(numbers(0))

    owned = project.own(p)
    assert owned.local([]) == ([], [], 0, [])
    assert owned.local([]) == ([], [], 0, [])
    assert project.ran() == ["numbers", "total"]


def test_unequal_lists_are_an_error_before_anything_runs(project: Project) -> None:
    @pipeline
    def p() -> Any:
        numbers(1)
        return plus.map([1, 2], [1])

    with pytest.raises(InvalidStep, match=r"(?s)'plus'.*different lengths.*x +2.*y +1.*unmapped"):
        project.own(p).local()
    assert project.ran() == []


def test_unequal_outputs_are_an_error_of_the_step(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return plus.map(numbers(2), numbers(3))

    with pytest.raises(InvalidStep, match="different lengths"):
        project.own(p).local()


def test_mapping_over_nothing_that_is_a_list_is_an_error(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return double.map(split(1))

    with pytest.raises(InvalidStep, match=r"(?s)'double'.*none of its arguments is a list"):
        project.own(p).local()


def test_a_mapped_output_has_the_fields(project: Project) -> None:
    @pipeline
    def p() -> Any:
        parts: Any = split.map([1, 2])
        return parts.train, parts.test, total(parts.test), double.map(parts.train), parts

    train, test, summed, doubled, whole = project.own(p).local()
    assert (train, test, summed, doubled) == ([1, 2], [-1, -2], -3, [2, 4])
    assert whole == [Split(1, -1), Split(2, -2)]


def test_items_of_one_key_execute_once(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return double.map([1, 1, 2, 1])

    assert project.own(p).local() == [2, 2, 4, 2]
    assert project.ran() == ["double(1)", "double(2)"]


def test_resolve_gives_the_list(project: Project) -> None:
    @pipeline
    def p() -> int:
        return sum(resolve(double.map([1, 2])))

    assert project.own(p).local() == 6


def test_a_failed_item_is_a_failure_and_the_others_are_kept(project: Project) -> None:
    @pipeline
    def p() -> int:
        return total(odd_fails.map([0, 1, 2]))

    owned = project.own(p)
    with pytest.raises(ValueError, match="1 is odd"):
        owned.local()
    assert project.ran() == ["odd(0)", "odd(1)", "odd(2)"]
    with pytest.raises(ValueError, match="1 is odd"):
        owned.local()
    assert project.ran() == ["odd(1)"]  # what was finished is not run again
    run = owned.runs.last()
    assert [run[name].state for name in ("odd_fails", "odd_fails[0]", "odd_fails[1]")] == [
        *("failed", "reused", "failed")
    ]
    assert run["total"].state == "skipped"


def test_several_failed_items_come_in_a_group(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return odd_fails.map([1, 2, 3])

    with pytest.raises(ExceptionGroup) as raised:
        project.own(p).local()
    assert sorted(map(str, raised.value.exceptions)) == ["1 is odd", "3 is odd"]


def test_all_failed_items_are_given_to_a_body_that_catches_them(project: Project) -> None:
    @pipeline
    def p() -> Any:
        try:
            return resolve(odd_fails.map([1, 2, 3]))
        except ExceptionGroup as group:
            return len(group.exceptions)

    assert project.own(p).local() == 2


@pytest.mark.parametrize("allowed", [2, 5, 0.5, 1.0])
def test_tolerated_failures_are_gaps(project: Project, allowed: float) -> None:
    @pipeline
    def p() -> Any:
        items = odd_fails.map([0, 1, 2, 3], allowed_failures=allowed, drop_failed=True)
        return items, total(items), plus.map(items, drop_failed=True)

    owned = project.own(p)
    assert owned.local() == ([0, 2], 2, [1, 3])
    run = owned.runs.last()
    assert run.state == "completed"
    assert [run[f"plus[{i}]"].state for i in range(4)] == ["ran", "skipped", "ran", "skipped"]
    assert run["odd_fails"].output.load() == [0, 2]
    said = "ValueError: 1 is odd\nin odd_fails[1], an item of a mapped step"
    assert run["odd_fails[1]"].error.endswith(said)  # type: ignore[union-attr]


@pytest.mark.parametrize("allowed", [1, 0.49, 0])
def test_more_than_the_tolerated_failures_fail(project: Project, allowed: float) -> None:
    @pipeline
    def p() -> Any:
        return odd_fails.map([0, 1, 2, 3], allowed_failures=allowed)

    with pytest.raises(ExceptionGroup):
        project.own(p).local()


@pytest.mark.parametrize("allowed", [-1, 1.5, "some", None])
def test_a_senseless_tolerance_is_refused(project: Project, allowed: Any) -> None:
    @pipeline
    def p() -> Any:
        return odd_fails.map([0], allowed_failures=allowed)

    with pytest.raises(InvalidStep, match=r"'odd_fails'.*allowed_failures"):
        project.own(p).local()


def test_a_step_that_takes_a_list_with_gaps_raises_unless_they_are_dropped(
    project: Project,
) -> None:
    @pipeline
    def p() -> Any:
        return total(odd_fails.map([0, 1, 2], allowed_failures=1))

    owned = project.own(p)
    with pytest.raises(OutputError, match=r"(?s)'odd_fails' has gaps.*odd_fails\[1\].*drop_failed"):
        owned.local()
    assert owned.runs.last()["total"].state == "failed"


def test_gaps_raise_at_resolve_too(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return resolve(odd_fails.map([0, 1], allowed_failures=1))

    with pytest.raises(OutputError, match="gaps"):
        project.own(p).local()


def test_gaps_go_through_chains_of_maps(project: Project) -> None:
    @pipeline
    def p() -> Any:
        first = odd_fails.map([0, 1, 2], allowed_failures=1)
        second = plus.map(first)
        return total(plus.map(second, drop_failed=True))

    assert project.own(p).local() == 6


def test_linked_items_go_on_though_the_map_above_has_failed(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return plus.map(odd_fails.map([0, 1, 2]))

    owned = project.own(p)
    with pytest.raises(ValueError, match="1 is odd"):
        owned.local()
    run = owned.runs.last()
    assert [run[f"plus[{i}]"].state for i in range(3)] == ["ran", "skipped", "ran"]
    assert run["plus"].state == "skipped"


def test_each_item_has_its_own_retries(project: Project) -> None:
    @step(retries=1, cache=False)
    def flaky(x: int) -> int:
        import os

        marker = f"{os.environ['MLPIPE_TESTS_LOG']}.{x}"
        if not os.path.exists(marker):
            open(marker, "w").close()
            raise ValueError("once")
        return x

    @pipeline
    def p() -> Any:
        return flaky.map([1, 2])

    assert project.own(p).local() == [1, 2]


def test_a_lost_list_and_lost_items_are_made_again(project: Project) -> None:
    @step
    def arrays(n: int) -> list[Any]:
        ran("arrays")
        return [np.full(3000, float(i)) for i in range(n)]

    @step
    def grow(array: Any) -> Any:
        ran("grow")
        return array + 1

    @step
    def summed(items: list[Any], plus: int) -> float:
        ran("summed")
        return float(sum(item.sum() for item in items)) + plus

    @pipeline
    def p(plus: int) -> Any:
        return summed(grow.map(arrays(2)), plus)

    @pipeline
    def q() -> Any:
        return resolve(grow.map(arrays(2)))

    owned = project.own(p)
    assert owned.local(0) == 9000.0
    project.ran()
    for file in project.stored_files():
        file.unlink()
    assert owned.local(1) == 9001.0
    assert project.ran() == ["arrays", "grow", "grow", "summed"]
    for file in project.stored_files():
        file.unlink()
    assert [array[0] for array in project.own(q).local()] == [1.0, 2.0]
    assert project.ran() == ["arrays", "grow", "grow"]


def test_a_thousand_items(project: Project) -> None:
    @step
    def inc(x: int) -> int:
        return x + 1

    @pipeline
    def p() -> int:
        return total(inc.map(inc.map(range(1000))))

    owned = project.own(p)
    assert owned.local() == owned.local() == sum(range(1000)) + 2000
