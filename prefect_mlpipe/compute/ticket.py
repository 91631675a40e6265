"""One call on its way to a worker and back.

Plain state, and the rule of how often a call is sent again when workers die under it. Knows neither
dask nor Prefect.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

from prefect_mlpipe.compute.offers import Needs, needs_of
from prefect_mlpipe.engine.calls import Done, StepCall

# How often a call may be on a worker that dies before the call has begun there. It bears no blame,
# as far as anybody can see; but one that kills its worker at once must come to an end, too.
BYSTANDER = 5

# What a worker says of a try: it has been taken up, its function begins, it has failed.
Phase = Literal["taken", "begins", "failed"]

Settle = Callable[[Done | None, BaseException | None], object]


def nobody(done: Done | None, error: BaseException | None) -> None:
    """Stand for a caller that has gone."""


class Ticket:
    """One call on its way.

    Attributes:
        call: the driver's; its tries are kept up to date by notices from the worker.
        name: name of the node.
        task_run_id: what Prefect calls it.
        parents: task runs above it.
        settle: told what came of it, once.
        begun: whether a worker has taken it up in its present submission.
        ever_begun: whether Prefect has heard of it.
        number: of the present submission.
        worker: address of the one where it has begun.
        by_value: whether the user's modules go with it.
        stranded: whether it waits for the connection to come back, to be sent again.
        deaths: workers that died while it ran there.
        unlucky: workers that died before it ran there.
        future: dask's, of the present submission.
        pinned: the only workers that it may run on, by address.
    """

    def __init__(
        self,
        call: StepCall,
        name: str,
        task_run_id: UUID,
        parents: tuple[UUID, ...],
    ) -> None:
        self.call = call
        self.name = name
        self.task_run_id = task_run_id
        self.parents = parents
        self.settle: Settle = nobody
        self.needs: Needs = needs_of(name, call.step.options.resources)
        self.begun = self.ever_begun = self.by_value = self.stranded = False
        self.number = self.deaths = self.unlucky = 0
        self.worker = ""
        self.future: Any = None
        self.pinned: tuple[str, ...] = ()

    def notice(self, attempt: int, phase: Phase, worker: str) -> None:
        """Take in what a worker says of a try."""
        if phase != "failed" and self.begun and worker != self.worker:
            self.deaths += 1  # the scheduler of a given cluster has sent it again by itself
        self.begun = self.ever_begun = True
        self.worker = worker
        known = self.call.attempt
        if attempt < known or (attempt == known and phase == "taken"):
            return  # what was said later came earlier
        self.call.attempt = attempt
        self.call.attempt_started = time.monotonic() if phase == "begins" else 0.0

    def died(self, *, blameless: bool) -> None:
        """Take in that its worker died."""
        if blameless or not self.begun:
            self.unlucky += 1
        else:
            self.deaths += 1
        self.call.attempt_started = 0.0

    def may_go_again(self, allowed_failures: int) -> bool:
        """Whether it is sent to another worker.

        A worker's death counts as a try. A step that may be reused has no effect but its value, so
        it may also be sent again where the user asked for no retries.
        """
        if self.unlucky > BYSTANDER:
            return False
        if self.deaths == 0 or self.call.attempt <= self.call.step.options.retries:
            return True
        return self.call.step.cached and self.deaths <= allowed_failures
