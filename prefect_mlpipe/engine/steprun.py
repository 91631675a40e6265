"""The state of one node (or one item of a mapped node) in a run.

Plain data and the small questions that the engine asks of it. Knows nothing of the queue.

States: `waiting` → `running` → `ran` | `failed`, or straight from `waiting` to `reused` (its
record stands for it), `skipped` (something above has failed) or `cancelled` (the run was stopped).
`behind`: decided that it must run, but another run computes its key just now.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefect_mlpipe.core.graph import Node, Output
from prefect_mlpipe.core.manifest import Manifest, Reason
from prefect_mlpipe.core.record import Record

if TYPE_CHECKING:
    from prefect_mlpipe.engine.calls import StepCall

SETTLED = frozenset({"reused", "ran", "failed", "skipped", "cancelled"})
FAILED = frozenset({"failed", "skipped", "cancelled"})


class StepRun:
    """One node in a run.

    Attributes:
        node: what is run.
        group: the run of the mapped node that this is an item of.
        items: the items of a mapped node, once their number is known.
        waiting: how many others must end first.
        children: those that wait for it.
        expanded_children: mapped ones that wait only until its items are known.
        followers: those of the same key that wait for it to do the work.
        failed_items: the items of a mapped node that have failed.
        lost: why its record cannot be used although it stands, if so.
        lost_with: that record.
        remade: when what was lost was last made again, by the monotonic clock.
        submitted: when it was last sent to run, or began to read, by the same.
        same_as: name of the node with the same key that ran in its place.
        leased: whether this run has the lease of its key.
        adopted: whether another run's record was taken, because that was first.
        alone: whether it is not to share a batch: the worker of one that it was in has died.
        batched: whether items of this mapped node have gone in batches.
        batches: whether items of this mapped node go in batches, once that is known.
        task_run_id: what Prefect calls it, for edges.
    """

    __slots__ = (
        "adopted",
        "alone",
        "batched",
        "batches",
        "blocked_by",
        "call",
        "children",
        "ended",
        "error",
        "expanded_children",
        "failed_items",
        "files",
        "followers",
        "group",
        "items",
        "key",
        "leased",
        "lost",
        "lost_with",
        "manifest",
        "node",
        "parents",
        "queued",
        "reasons",
        "record",
        "remade",
        "repairs",
        "same_as",
        "started",
        "state",
        "submission",
        "submitted",
        "task_run_id",
        "unfinished_items",
        "waiting",
        "wanted",
        "whole_digest",
    )

    def __init__(self, node: Node, group: StepRun | None = None) -> None:
        self.node = node
        self.group = group
        self.state = "waiting"
        self.wanted = self.queued = self.adopted = self.leased = False
        self.alone = self.batched = False
        self.batches: bool | None = None
        self.waiting = self.repairs = self.submission = self.unfinished_items = 0
        # Lists are made where something comes in: in a run of thousands most would stay empty, and
        # each one costs the garbage collector a visit.
        self.parents: Sequence[StepRun] = ()
        self.children: list[StepRun] | None = None
        self.expanded_children: list[StepRun] | None = None
        self.followers: list[StepRun] | None = None
        self.failed_items: Sequence[StepRun] = ()
        self.items: list[StepRun] | None = None
        self.manifest: Manifest | None = None
        self.key: str | None = None
        self.record: Record | None = None
        self.reasons: tuple[Reason, ...] = ()
        self.lost: Reason | None = None
        self.lost_with: Record | None = None
        self.remade = self.submitted = 0.0
        self.blocked_by: StepRun | None = None
        self.error: BaseException | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.call: StepCall | None = None
        self.files: Sequence[tuple[Any, object]] = ()
        self.same_as: str | None = None
        self.task_run_id: Any = None
        self.whole_digest: str | None = None

    def __repr__(self) -> str:
        return f"<{self.node.name}: {self.state}>"

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.node.name

    @property
    def settled(self) -> bool:
        """Whether it has come to its end."""
        return self.state in SETTLED

    @property
    def failed(self) -> bool:
        """Whether it ended without an output."""
        return self.state in FAILED

    def enqueue(self) -> bool:
        """Return whether it is to be put into the ready-queue now, and note that it was."""
        if self.queued or self.waiting or not self.wanted or self.state != "waiting":
            return False
        self.queued = True
        return True

    def wait_for(self, other: StepRun, until: str = "children") -> None:
        """Be released by another run: when it has ended, or when its items are known."""
        waiting = getattr(other, until)
        if waiting is None:
            setattr(other, until, [self])
        else:
            waiting.append(self)
        self.waiting += 1

    def links_to(self, parent: StepRun) -> bool:
        """Return whether items of this mapped node may be linked to items of a mapped parent."""
        mapped = self.node.mapped
        if mapped is None or parent.node.mapped is None or parent.node in self.node.after:
            return False
        arguments = self.node.arguments
        linked = {p for p in mapped.parameters if type(arguments[p]) is Output}
        uses = [p for p, output in self.node.inputs if output._mlpipe_node is parent.node]
        return all(parameter in linked for parameter in uses)

    @property
    def deadline(self) -> float | None:
        """When the current try must have ended, by the monotonic clock."""
        limit = self.node.step.options.timeout_seconds
        if limit is None or self.call is None or not self.call.attempt_started:
            return None
        return float(self.call.attempt_started + limit)

    def overdue(self, grace_s: float) -> bool:
        """Whether the current try has gone on for too long."""
        deadline = self.deadline
        return deadline is not None and time.monotonic() > deadline + grace_s

    def allowed_failures(self) -> int:
        """How many items of this mapped node may fail."""
        mapped = self.node.mapped
        allowed = mapped.allowed_failures if mapped else 0
        if isinstance(allowed, float):
            return math.floor(allowed * len(self.items or ()))
        return int(allowed)
