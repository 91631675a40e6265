"""One open cluster that takes runs of ordinary Prefect tasks.

All that keeps a call from hanging, when workers, schedulers or connections die, is that of
`Cluster`. Here is only what is different: what goes to a worker and what comes back. Knows nothing
of the flow or of where a task is routed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, ClassVar, cast
from uuid import UUID

from prefect import Task
from prefect.client.schemas.objects import State

from prefect_mlpipe.asking import bare
from prefect_mlpipe.compute.cluster import Cluster
from prefect_mlpipe.compute.task_orders import (
    TaskCall,
    TaskOrder,
    pack,
    run_task_order,
    unpack_state,
)
from prefect_mlpipe.compute.ticket import Ticket
from prefect_mlpipe.compute.worker import Result
from prefect_mlpipe.engine.calls import StepCall
from prefect_mlpipe.errors import ComputeError
from prefect_mlpipe.step_options import Resources, StepOptions
from prefect_mlpipe.steps import Step

_TASKS = 256


class _Tried:
    """Stands for the call of a step: counts tries."""

    def __init__(self, task: Task[..., Any], resources: Resources) -> None:
        # Not cached: it may have effects, so it is sent again only as its `retries` say.
        options = StepOptions(
            task.name, cache=False, resources=resources, task={"retries": task.retries}
        )
        self.step: Step[..., Any] = Step(task.fn, options)
        self.attempt = 0
        self.attempt_started = self.failed_s = 0.0

    def failed(self) -> None:
        """Keep no account of time."""


class TaskTicket(Ticket):
    """One run of a task on its way.

    Args:
        task: what is run.
        task_run_id: what Prefect calls it.
        resources: what it occupies.
        calling: gives what it is called with, once all that it waits for has ended.

    Attributes:
        state: what it came to on a worker.
    """

    def __init__(
        self,
        task: Task[..., Any],
        task_run_id: UUID,
        resources: Resources,
        calling: Callable[[], TaskCall],
    ) -> None:
        super().__init__(cast("StepCall", _Tried(task, resources)), task.name, task_run_id, ())
        self.task = task
        self.calling = calling
        self.state: State[Any] | None = None


class TaskCluster(Cluster):
    """A cluster that takes `TaskTicket`s; else as `Cluster`."""

    _function: ClassVar[staticmethod[[bytes], Result]] = staticmethod(run_task_order)

    def __init__(self, *args: Any) -> None:
        self._packed: dict[int, tuple[Task[..., Any], bytes]] = {}
        super().__init__(*args)

    def _order(self, ticket: Ticket) -> bytes:
        assert isinstance(ticket, TaskTicket)
        ticket.number += 1
        order = TaskOrder(
            self._run_id,
            ticket.id,
            ticket.number,
            ticket.task_run_id,
            ticket.name,
            ticket.call.attempt,
            self._task(ticket.task),
            pack(ticket.name, "an argument", ticket.calling()),
        )
        return pickle.dumps(order)

    def _task(self, task: Task[..., Any]) -> bytes:
        """Return a task as bytes; the same one is packed once."""
        known = self._packed.get(id(task))
        if known is None:
            while len(self._packed) >= _TASKS:
                self._packed.pop(next(iter(self._packed)))
            # With the task itself: another one cannot get its id while it is kept.
            known = self._packed[id(task)] = (task, pack(task.name, "its code", bare(task)))
        return known[1]

    def _recorded(self, ticket: Ticket) -> None:
        """Tasks leave no records."""

    def _ended(self, ticket: Ticket, number: int, result: Result) -> None:
        if not self._awaited(ticket, number):
            return
        assert isinstance(ticket, TaskTicket)
        state = unpack_state(ticket.name, result)
        if isinstance(state, ComputeError):
            self._settle(ticket, None, state)
            return
        ticket.ever_begun = True
        ticket.state = state
        self._settle(ticket, None, None)
