"""What is known of workers and calls, without a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

from prefect_mlpipe import step
from prefect_mlpipe.compute.deaths import of_exit, of_memory, of_silence
from prefect_mlpipe.compute.offers import Needs, Offer
from prefect_mlpipe.compute.ticket import Ticket
from prefect_mlpipe.compute.watching import Workers

ONE, TWO = "tcp://one", "tcp://two"


def said(seen: float, **more: Any) -> dict[str, Any]:
    return {"nthreads": 1, "memory_limit": 1000, "last_seen": seen, **more}


def test_a_worker_is_silent_once_the_scheduler_says_nothing_new_of_it() -> None:
    workers = Workers(now=0.0)
    for now in (0.0, 5.0, 10.0):
        workers.take_in({ONE: said(3.0), TWO: said(1000.0 + now)}, now)
    assert workers.silent(10.0, limit_s=9.0) == [(ONE, 10.0)]
    assert workers.silent(10.0, limit_s=11.0) == []
    workers.take_in({ONE: said(4.0)}, 11.0)
    assert workers.silent(11.0, limit_s=9.0) == []


def test_what_no_worker_ever_had_is_hopeless_and_what_one_had_is_missed() -> None:
    workers = Workers(now=0.0)
    assert not workers.hopeless(Needs(gpus=1))
    workers.take_in({ONE: said(1.0), TWO: said(1.0, resources={"GPU": 1})}, 1.0)
    assert workers.hopeless(Needs(gpus=2))
    assert workers.missing_s(Needs(gpus=1), 1.0) == 0
    workers.take_in({ONE: said(2.0)}, 2.0)
    assert not workers.hopeless(Needs(gpus=1))
    assert workers.missing_s(Needs(gpus=1), 8.0) == 7
    assert workers.missing_s(Needs(), 8.0) == 0


class ACall(SimpleNamespace):
    """What a ticket knows of a call."""

    def failed(self) -> None:
        self.attempt_started = 0.0


def a_ticket(**options: Any) -> Ticket:
    made = step(**options)(lambda: 1)
    call = ACall(step=made, attempt=0, attempt_started=0.0)
    return Ticket(cast("Any", call), "mine", uuid4(), ())


def test_notices_may_overtake_each_other() -> None:
    ticket = a_ticket(name="mine")
    ticket.notice(1, "begins", ONE)
    ticket.notice(1, "taken", ONE)
    assert ticket.begun
    assert ticket.call.attempt == 1
    assert ticket.call.attempt_started > 0
    ticket.notice(2, "taken", ONE)
    ticket.notice(1, "failed", ONE)
    assert ticket.call.attempt == 2


def test_a_step_that_was_taken_up_is_to_blame_for_its_workers_death() -> None:
    ticket = a_ticket(name="mine", cache=False)
    ticket.died(blameless=False)
    assert ticket.may_go_again(allowed_failures=2)
    ticket.notice(1, "taken", TWO)
    ticket.died(blameless=False)
    assert not ticket.may_go_again(allowed_failures=2)


def test_causes_say_what_was_seen() -> None:
    offer = Offer(1, 500 * 1024**2, {})
    event = {"worker": ONE, "rss": 490 * 1024**2}
    assert "memory limit of 500MiB (it had 490MiB)" in of_memory(event, offer).because
    assert of_exit(3).because == "its process ended with status 3"
    assert of_exit(-9).because == "its process was killed by signal 9 (SIGKILL)"
    assert "crashed" in of_exit(-11).advice
    assert "signal 99 (unknown)" in of_exit(-99).because
    assert "was stopped" in of_silence(31, "stopped").because
    assert "nor does a nanny" in of_silence(31, None).because
