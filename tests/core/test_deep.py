from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe.core.encoding.deep import deeply, shallow
from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.store import Store


def depth(levels: int) -> int:
    return 0 if levels == 0 else 1 + depth(levels - 1)


def test_it_goes_deeper_than_the_limit_and_leaves_the_limit_as_it_was() -> None:
    limit = sys.getrecursionlimit()
    assert deeply(lambda: depth(limit * 5)) == limit * 5
    assert sys.getrecursionlimit() == limit


def test_what_it_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        deeply(lambda: 1 / 0)
    with pytest.raises(RecursionError):
        deeply(lambda: deeply(lambda: 1))


def test_the_limit_is_not_raised_while_another_thread_counts_on_it() -> None:
    inside, leave, began = threading.Event(), threading.Event(), threading.Event()

    def count_on_it() -> None:
        with shallow():
            inside.set()
            assert leave.wait(20)

    with ThreadPoolExecutor(2) as threads:
        counting = threads.submit(count_on_it)
        assert inside.wait(20)
        deep = threads.submit(lambda: deeply(began.set))
        assert not began.wait(0.2)
        leave.set()
        deep.result(20)
        counting.result(20)
    assert began.is_set()


def test_no_other_thread_goes_deep_while_the_limit_is_raised() -> None:
    """It would be far below the limit when that is lowered again."""
    value: list[Any] = []
    for _ in range(500):
        value = [value]
    begun, leave = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert leave.wait(20)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(lambda: deeply(hold))
        assert begun.wait(20)
        with pytest.raises(RecursionError):
            Encoder().encode(value)
        leave.set()
        holding.result(20)
    assert Encoder().whole(value) != Encoder().whole(value[0])


def test_a_thread_that_counts_on_it_may_go_deep_itself() -> None:
    with shallow():
        assert deeply(lambda: 1) == 1


def test_several_threads_can_store_deep_values_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", cache_folder=str(tmp_path / "cache"))

    def stored(number: int) -> int:
        value: Any = [number]
        for _ in range(10_000):
            value = [value]
        found = store.get(store.put(value))
        while isinstance(found, list):
            (found,) = found
        return int(found)

    with ThreadPoolExecutor(3) as threads:
        assert [*threads.map(stored, range(3))] == [0, 1, 2]
