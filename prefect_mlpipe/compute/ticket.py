"""One call on its way to a worker and back.

Plain state, and the rule of how often a call is sent again when workers die under it. Knows neither
dask nor Prefect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal
from uuid import UUID, uuid4

from prefect_mlpipe.compute.offers import Needs, needs_of
from prefect_mlpipe.engine.calls import StepCall

# How often a call may be on a worker that dies before the call has begun there. It bears no blame,
# as far as anybody can see; but one that kills its worker at once must come to an end, too.
BYSTANDER = 5

# What a worker says of a try: it has been taken up, its function begins, it has failed.
Phase = Literal["taken", "begins", "failed"]

# Of a batch it is told rows (`compute.item_orders`) and seconds in place of a `Done`.
Settle = Callable[[Any, BaseException | None], object]


def nobody(done: Any, error: BaseException | None) -> None:
    """Stand for a caller that has gone."""


class Ticket:
    """One call on its way, or a batch of them.

    Attributes:
        calls: those of a batch, else empty.
        call: the driver's, of a batch the first; its tries are kept up to date by notices from the
            worker.
        id: of this ticket; many batches belong to one task run.
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
        calls: Sequence[StepCall] = (),
    ) -> None:
        self.call = call
        self.calls = calls
        self.name = name
        self.task_run_id = task_run_id
        self.id = uuid4().hex if calls else str(task_run_id)
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
        if self.calls:
            return  # each item counts its own tries
        known = self.call.attempt
        if attempt < known or (attempt == known and phase == "taken"):
            return  # what was said later came earlier
        self.call.failed()
        self.call.attempt = attempt
        if phase == "begins":
            self.call.attempt_started = time.monotonic()

    def died(self, *, blameless: bool) -> None:
        """Take in that its worker died."""
        if blameless or not self.begun:
            self.unlucky += 1
        else:
            self.deaths += 1
        self.call.failed()

    def may_go_again(self, allowed_failures: int) -> bool:
        """Whether it is sent to another worker.

        A worker's death counts as a try. A step that may be reused has no effect but its value, so
        it may also be sent again where the user asked for no retries.
        """
        if self.unlucky > BYSTANDER:
            return False
        if len(self.calls) > 1:  # nobody knows which of them is to blame: they go alone
            return self.deaths == 0
        tries = self.deaths if self.calls else self.call.attempt
        if self.deaths == 0 or tries <= self.call.step.options.retries:
            return True
        return self.call.step.cached and self.deaths <= allowed_failures
