"""What a run used of its computes: pure counting."""

from __future__ import annotations

import pytest

from prefect_mlpipe.compute import Dask, Threads
from prefect_mlpipe.compute.usage import Span, Work, WorkerClock, total, usage
from prefect_mlpipe.reporting.summary import cost_text

CPU, GIVEN = (
    Dask(n_workers=2, cost_per_hour=36),
    Dask(address="tcp://127.0.0.1:1", cost_per_hour=3.6),
)


def by_name(entries: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    return {name: entry for entry in entries for name in entry["names"]}  # type: ignore[attr-defined]


def test_a_cluster_of_ours_costs_while_its_workers_are_there() -> None:
    spans = [Span(CPU, 0, 50, 80.0), Span(CPU, 60, 70, 20.0)]
    (entry,) = usage({"cpu": CPU}, spans, [Work("cpu", 7, False), Work("cpu", 3, True)])
    assert (entry["busy_s"], entry["saved_s"]) == (7, 3)
    assert entry["cost"] == pytest.approx(100 * 0.01)
    assert entry["saved_cost"] == pytest.approx(3 * 0.01)


def test_a_given_cluster_and_threads_cost_while_steps_run_on_them() -> None:
    threads = Threads(cost_per_hour=7.2)
    work = [Work("default", 5, False), Work("given", 10, False)]
    found = by_name(usage({"default": threads, "given": GIVEN}, [Span(GIVEN, 0, 90, None)], work))
    assert found["default"]["cost"] == pytest.approx(5 * 0.002)
    assert found["given"]["cost"] == pytest.approx(10 * 0.001)


def test_what_ran_on_threads_instead_of_its_cluster_costs_nothing_there() -> None:
    (entry,) = usage({"given": GIVEN}, [], [Work("given", 10, False), Work("given", 5, True)])
    assert entry["cost"] == 0
    assert entry["saved_cost"] == pytest.approx(5 * 0.001)


def test_names_that_share_a_cluster_share_an_entry_and_threads_do_not() -> None:
    computes = {"default": Threads(), "other": Threads(), "cpu": CPU, "gpu": CPU, "idle": GIVEN}
    work = [Work(name, 1, False) for name in ("default", "other", "cpu", "gpu")]
    entries = usage(computes, [Span(CPU, 0, 9, 18.0)], work)
    assert [(entry["names"], entry["busy_s"]) for entry in entries] == [
        (["default"], 1),
        (["other"], 1),
        (["cpu", "gpu"], 2),
    ]


def test_without_a_price_there_is_no_cost() -> None:
    entries = usage({"default": Threads()}, [], [Work("default", 5, False)])
    assert total(entries, "cost") is None
    assert cost_text(None, None) == ""
    priced = usage({"a": Threads(), "b": Threads(cost_per_hour=3600)}, [], [Work("b", 5, False)])
    assert total(priced, "cost") == 5
    assert cost_text(5.0, 0.004) == "cost 5.00, saved 0.004"


def test_workers_are_counted_from_coming_to_going() -> None:
    clock = WorkerClock(given=False)
    clock.hear((100.0, {"action": "add-worker", "worker": "a"}))
    clock.hear((110.0, {"action": "add-worker", "worker": "b"}))
    clock.hear((115.0, {"action": "remove-worker", "worker": "a"}))
    clock.hear((116.0, ["of", "something", "else"]))
    clock.hear((130.0, {"action": "remove-worker", "worker": "b"}))
    clock.hear((131.0, {"action": "remove-worker", "worker": "unheard of"}))
    assert clock.span(CPU).worker_s == 35.0
    assert WorkerClock(given=True).span(GIVEN).worker_s is None
