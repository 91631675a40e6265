"""Holders of leases that fail, are killed or stopped while others wait: one of those succeeds."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.reuse.gate import (
    BLIND,
    FAST,
    NEVER,
    SLOW,
    Gate,
    holder_and_waiter,
    leases,
    records,
    run_of,
    waits,
)
from tests.reuse.lab import Lab, Process


def test_a_waiter_computes_what_the_other_run_failed_to(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write("""
        import os
        from gate import say, until

        @step
        def slow(x: int) -> int:
            ran("slow")
            say("begun")
            until("go")
            if os.environ.get("FAILS"):
                raise ValueError("no")
            return x + 1

        @pipeline
        def main(who: str, x: int = 1) -> int:
            return slow(x)
    """)
    holder, waiter = holder_and_waiter(gate, start, NEVER, environ={"FAILS": "1"})
    gate.open("go")
    assert holder.outcome().error == "ValueError: no"
    outcome = waiter.outcome()
    assert (outcome.value, outcome.ran) == ("builtins.int 2", ["slow"])
    step = run_of(lab, "waiter")["slow"]
    assert (step.state, [str(one) for one in step.reasons]) == ("ran", ["first run"])


def test_a_lease_goes_back_when_the_step_fails_though_the_body_goes_on(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write("""
        import os
        from gate import say, until

        @step
        def quick(x: int) -> int:
            return x

        @step
        def slow(x: int) -> int:
            ran("slow")
            if os.environ.get("FAILS"):
                until("go")
                raise ValueError("no")
            return x + 1

        @pipeline
        def main(who: str, x: int = 1) -> int:
            found = slow(x)
            resolve(quick(x))
            if os.environ.get("FAILS"):
                say("begun")
                until("end")  # the driver of this run is busy with the body
            return found
    """)
    holder, waiter = holder_and_waiter(gate, start, NEVER, environ={"FAILS": "1"})
    gate.open("go")
    assert waiter.outcome().value == "builtins.int 2"
    gate.open("end")
    assert holder.outcome().error == "ValueError: no"


@pytest.mark.parametrize("count", [1, 7])
def test_a_holder_that_is_killed_is_succeeded_at_once_by_one_of_the_waiters(
    lab: Lab, gate: Gate, start: Callable[..., Process], count: int
) -> None:
    lab.write(SLOW)
    holder = start(NEVER, who="holder")
    gate.seen("begun")
    waiters = [start(NEVER, who=f"waiter-{number}") for number in range(count)]
    for waiter in waiters:
        waits(waiter)
    holder.kill()
    holder.wait()
    gate.open("go")
    outcomes = [waiter.outcome() for waiter in waiters]
    assert [(one.value, one.error) for one in outcomes] == [("builtins.int 2", None)] * count
    assert [name for one in outcomes for name in one.ran] == ["slow"]
    assert leases(lab) == []


def test_a_holder_that_is_killed_elsewhere_is_succeeded_when_its_lease_expires(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(SLOW)
    holder, waiter = holder_and_waiter(gate, start, NEVER, waiter_has=[BLIND, FAST])
    holder.kill()
    holder.wait()
    gate.open("go")
    gate.open("expired")
    outcome = waiter.outcome()
    assert (outcome.value, outcome.ran) == ("builtins.int 2", ["slow"])
    assert leases(lab) == []


def test_a_holder_that_was_stopped_for_too_long_takes_what_the_other_has_made(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write("""
        import os
        from gate import say, until

        @step
        def slow(x: int) -> int:
            ran("slow")
            say("begun")
            until("go")
            return os.getpid()

        @step
        def after(x: int) -> int:
            ran("after")
            return x + 1

        @pipeline
        def main(who: str, x: int = 1) -> int:
            return after(slow(x))
    """)
    holder, waiter = holder_and_waiter(gate, start, NEVER, waiter_has=[FAST])
    holder.kill(signal.SIGSTOP)
    gate.open("go")
    gate.open("expired")
    value = f"builtins.int {waiter.pid + 1}"
    assert waiter.outcome().value == value
    assert waiter.ran() == ["after", "slow"]
    holder.kill(signal.SIGCONT)
    outcome = holder.outcome()
    assert (outcome.value, outcome.ran) == (value, ["slow"])
    step = run_of(lab, "holder")["slow"]
    assert (step.state, step.reused_from) == ("ran", run_of(lab, "waiter").name)
    assert len(records(lab)) == 2
    assert leases(lab) == []
