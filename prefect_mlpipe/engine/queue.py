"""The ready-queue: decide each node, submit what must run, take in what came of it.

Knows a `Runner` and a `Reporter` by protocol only; nothing of Prefect, Dask or where a step runs,
nor of the body that is traced. One thread drives it; everything that needs many nodes' states
happens in that thread, so there is no lock here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any

from prefect_mlpipe.core.decide import Reuse
from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.core.leases.leases import Leases
from prefect_mlpipe.core.manifest import Reason
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.current import Current
from prefect_mlpipe.engine.batching import Gathered
from prefect_mlpipe.engine.calls import Done, InputLost
from prefect_mlpipe.engine.deciding import Decider
from prefect_mlpipe.engine.doubt import Doubt
from prefect_mlpipe.engine.failing import Failing
from prefect_mlpipe.engine.mapping import expand
from prefect_mlpipe.engine.outputs import Outputs
from prefect_mlpipe.engine.protocols import BatchPart, Cancel, Outcome, Reporter, Runner
from prefect_mlpipe.engine.ready import Ready
from prefect_mlpipe.engine.sending import Sending
from prefect_mlpipe.engine.states import States
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.engine.turns import Outcomes, Turns
from prefect_mlpipe.errors import RunCancelled, StepFailed, StepTimedOut, StoreUnavailable
from prefect_mlpipe.settings import Failures

# How long past its timeout a call may still end by itself before its thread is given up.
TIMEOUT_GRACE_S = 0.5
# How often it is asked which computes the remaining nodes may need: that looks at all of them.
RELEASE_S = 0.5
# Items on a remote store that are quicker than this may be computed twice at the same time.
LEASE_WORTH_S = 0.05
_REPAIRS = 2
_NONE = frozenset({"NoneType", "builtins.NoneType"})


class Queue:
    """Brings the runs that are ready to their end.

    Attributes:
        runs: node → its run; items of mapped nodes too.
        ready: those that wait for nothing.
        outcomes: where runners put what came of a call, and others a `Cancel`.
        counts: state → how many runs are in it.
        warnings: what is not as the user may think.
        failing: what failed, and what of it is still to be raised.
        stopped: why nothing new starts, if so.
        cancelled: the error of a run that was cancelled from outside.
        traced: whether the body has ended, so that no node will come any more.
    """

    def __init__(
        self,
        pipeline: str,
        *,
        outputs: Outputs,
        runner: Runner,
        reporter: Reporter,
        decider: Decider,
        leases: Leases,
        patient: bool,
        failures: Failures,
        current: Callable[[StepRun], Current],
        clock: Callable[[], float],
    ) -> None:
        self.runs: dict[Node, StepRun] = outputs.runs
        self.ready = Ready(self.runs)
        self._turns = Turns(
            leases, outputs.store, patient=patient, tell=reporter.behind, warn=self.warn
        )
        self.outcomes: SimpleQueue[Any] = Outcomes(self._turns)
        self._states = States(self.ready, self._turns, reporter, clock)
        self.counts = self._states.counts
        self.warnings: list[str] = []
        self.failing = Failing(pipeline)
        self.stopped: str | None = None
        self.cancelled: RunCancelled | None = None
        self.traced = False
        self._outputs = outputs
        self._store = outputs.store
        self._runner = runner
        self._reporter = reporter
        self._decider = decider
        self._failures = failures
        self._clock = clock
        self._doubt = Doubt(outputs.store)
        self._sending = Sending(
            outputs=outputs,
            runner=runner,
            reporter=reporter,
            decider=decider,
            states=self._states,
            outcomes=self.outcomes,
            current=current,
            clock=clock,
            warn=self.warn,
        )
        self._batches = self._sending.batches
        self._until: Callable[[], bool] = lambda: False
        self._leaders: dict[str, StepRun] = {}
        self._keyed: deque[StepRun] = deque()  # their records are asked for in one call
        self._released = 0.0

    # -- what the engine asks -------------------------------------------------------------------

    def advance(self, until: Callable[[], bool]) -> None:
        """Start all that is ready and take in outcomes until told to stop or nothing is left."""
        self._until = until
        while True:
            while self.ready or self._keyed:
                if self.ready:
                    self._start(self.ready.pop())
                else:
                    self._conclude_together()
            self._send_batches()
            if self.ready or self._keyed:
                continue
            if until() or not (self._states.running or self._turns.waiting or self._batches):
                return
            self._take(self._next())

    def abandon(self, state: str, message: str) -> None:
        """Give up everything that still runs or waits; after this nothing is outstanding."""
        self.stopped = self.stopped or message
        self._turns.give_up()
        self._keyed.clear()
        self._batches.give_up()
        for batch in self._batches.under_way():
            for call in batch.calls:
                call.recorded = False
            self._runner.abandon_batch(batch, state, message)
            self._batches.ended(batch, 0.0)
        for run in list(self._states.running):
            self._give_up(run, state, message)
            run.error = run.error or RunCancelled(
                f"Step '{run.name}' was given up: {message}.",
                {},
                "A thread cannot be stopped: the call may go on until the process ends; what it "
                "returns is dropped.",
            )
            self._states.settle(run, "cancelled")
        for run in list(self.runs.values()):
            if not run.settled and run.wanted:
                if run.call is not None:
                    run.call.recorded = False
                self._states.settle(run, "cancelled")

    def warn(self, text: str) -> None:
        """Say once that something is not as the user may think."""
        if text not in self.warnings:
            self.warnings.append(text)
            self._reporter.warned(text)

    # -- from nodes to ready calls --------------------------------------------------------------

    def _next(self) -> Any:
        """Wait for the next outcome, a run past its timeout, or those that waited long enough."""
        self._reporter.progress(self.counts, self._states.running)
        while True:
            self._release()
            late = self._states.overdue(TIMEOUT_GRACE_S)
            if late is not None:
                return late
            over = self._turns.due() if self.stopped is None else self._turns.give_up()
            if over:
                return over
            try:
                longest = 0.1 if self._states.timed else 1.0
                return self.outcomes.get(timeout=min(longest, self._turns.seconds()))
            except Empty:
                self._reporter.progress(self.counts, self._states.running)

    def _release(self) -> None:
        """Let the runner close what no remaining node can need; the body may add none any more."""
        now = time.monotonic()
        if self.traced and now - self._released > RELEASE_S:
            self._released = now
            runs = self.runs.values()
            self._runner.release(run.node for run in runs if run.wanted and not run.settled)

    def _start(self, run: StepRun | list[StepRun]) -> None:
        if isinstance(run, list):
            self._keyed += [item for item in run if self._may_run(item) and self._key(item)]
        elif not self._may_run(run):
            return
        elif run.node.mapped is not None:
            self._expand(run)
        elif self._key(run):
            if self._store.is_local or not run.node.step.cached:
                self._conclude(run)
            else:
                self._keyed.append(run)

    def _may_run(self, run: StepRun) -> bool:
        """Return whether a run that waits for nothing is to be decided; else it may end here."""
        if run.settled or run.waiting or not run.wanted:
            return False
        blocker = None if run.items is not None else _blocker(run)
        if blocker is not None:
            run.blocked_by = blocker.blocked_by or blocker
            self._states.settle(run, "skipped")
        elif self.stopped is not None:
            self._states.settle(run, "cancelled")
        return blocker is None and self.stopped is None

    def _expand(self, run: StepRun) -> None:
        """Turn a mapped node into its items, now that their number is known."""
        if run.items is None:
            run.submitted = time.monotonic()
            try:
                self.ready.expand(run, expand(run, self._outputs))
                run.started = self._clock()
            except InputLost as lost:
                self.repair(lost, run.parents, run)
                return
            except Exception as error:
                self._fail(run, error)
                return
        if run.unfinished_items == 0:
            self._states.settle_mapped(run)

    # -- one call -------------------------------------------------------------------------------

    def _key(self, run: StepRun) -> bool:
        """Find out the key of a run; return whether it is to be decided by its own record."""
        node, step = run.node, run.node.step
        try:
            group = None if run.group is None else run.group.node
            run.manifest, key, run.files = self._decider.keyed(node, group, self._outputs)
        except StoreUnavailable:
            raise
        except Exception as error:
            self._fail(run, error)
            return False
        if not step.cached:
            run.key = self._decider.keyer.key_of_its_own(key, run.name)
            return True
        run.key = key
        if self._follow(run, self._leaders.get(key)):
            return False
        self._leaders[key] = run
        return True

    def _conclude_together(self) -> None:
        """Decide on items of mapped steps, and on runs of which each record costs a round trip."""
        cached = (run for run in self._keyed if run.node.step.cached)
        self._decider.look_up([run.key for run in cached if run.key is not None])
        for _ in range(len(self._keyed)):
            if not self._keyed:  # what one of them met has ended the others
                return
            run = self._keyed.popleft()
            if self.stopped is not None:
                self._states.settle(run, "cancelled")
            else:
                self._conclude(run)

    def _conclude(self, run: StepRun, *, waited: bool = False) -> None:
        """Decide on a run whose key is known: reuse, submit, or wait for who computes the same."""
        assert run.manifest is not None
        assert run.key is not None
        key = run.manifest.key() if waited else run.key
        while True:
            decision, run.key, record = self._decider.decide(run.node, run.manifest, key, run.lost)
            if isinstance(decision, Reuse):
                run.reasons = (_waited_for(decision.record),) if waited else ()
                self._reuse(run, decision.record)
                return
            run.reasons = decision.reasons
            problem = self._doubt.problem(run)
            if problem is not None:
                self.stopped = self.stopped or f"nothing can be written into {self._store.url}"
                self._fail(run, problem)
                return
            refreshed = any(reason.kind == "refresh asked" for reason in run.reasons)
            if self._sending.goes_in_batches(run):
                self._batches.gather(Gathered(run, record, refreshed))
                return
            if not run.node.step.cached:
                break
            self._leaders[run.key] = run
            if not self._turns.take(run, record, waits=not refreshed):
                run.state = "behind"
                return
            # It may have been made, or made again, between the look at its record and the lease.
            same = refreshed or self._store.records.read(run.key) == record
            if same and (run.lost is None or record is None or run.lost_with == record):
                break
            run.lost = None
        self._submit(run, replace=refreshed or record is not None)

    def _submit(self, run: StepRun, *, replace: bool, attempt: int = 0) -> None:
        here = self._is_idle() and not self._turns.waiting
        outcome = self._sending.submit(run, replace=replace, attempt=attempt, here=here)
        if outcome is not None:
            self._take(outcome)

    def _is_idle(self) -> bool:
        """Return whether there is nothing else to do than what is about to be sent."""
        return not (self._states.running or self.ready or self._keyed) and not self._until()

    def _send_batches(self) -> None:
        """Send items that must run, as far as there is room for more batches."""
        for group, items in self._batches.due():
            if self.stopped is not None:
                for item in items:
                    self._states.settle(item.run, "cancelled")
                continue
            ready = self._taken(group, items)
            if ready:
                part = self._sending.submit_batch(group, ready, here=self._is_idle())
                if part is not None:
                    self._take(part)

    def _taken(self, group: StepRun, items: list[Gathered]) -> list[Gathered]:
        """Take the leases of items; give those whose records still are what they were.

        The others wait for another run, or are decided again.
        """
        step = items[0].run.node.step
        if not step.cached:
            return items
        each_s = self._batches.item_s(group)
        # Elsewhere a lease costs requests, which take longer than what it might spare.
        leased = self._store.is_local or each_s is None or each_s > LEASE_WORTH_S
        taken = self._first(items) if leased else items
        keys = [item.run.key for item in taken if item.run.key is not None]
        found = self._store.records.read_many(keys, fresh=True, loose=self._store.is_local)
        ready = []
        for item in taken:
            run, record = item.run, found.get(str(item.run.key), item.record)
            same = item.refreshed or record == item.record
            if same and (run.lost is None or record is None or run.lost_with == record):
                ready.append(item)
            else:
                run.lost = None
                self._conclude(run)
        return ready

    def _first(self, items: list[Gathered]) -> list[Gathered]:
        """Take the leases of items; give those of which no other run has it. The others wait."""
        wanted = [(item.run, item.record, not item.refreshed) for item in items]
        first = []
        for item, goes_on in zip(items, self._turns.take_many(wanted), strict=True):
            if goes_on:
                first.append(item)
            else:
                item.run.state = "behind"
        return first

    def _go_on(self, runs: Iterable[StepRun]) -> None:
        """Take up runs that are not behind another run any more."""
        for run in runs:
            run.state = "waiting"
            if self.stopped is not None:
                self._states.settle(run, "cancelled")
                continue
            if not run.leased:  # a record has come: what was lost with the one before is not now
                run.lost = None
            self._conclude(run, waited=True)

    def _follow(self, run: StepRun, leader: StepRun | None) -> bool:
        """Let one of two nodes of one key do the work; return whether this one need not."""
        if leader is None or leader is run or run.lost is not None:
            return False
        if not leader.settled:
            leader.followers = [*(leader.followers or ()), run]
        elif leader.record is not None:
            assert run.manifest is not None
            if self._decider.outdated(run.node, run.manifest, leader.record):
                return False  # a function in it would have another docstring
            run.same_as = leader.name
            self._reuse(run, leader.record)
        elif leader.state == "failed" and leader.error is not None:
            self._fail(run, leader.error)
        else:
            run.error = leader.error
            run.blocked_by = leader.blocked_by
            self._states.settle(run, leader.state)
        return True

    def _reuse(self, run: StepRun, record: Record) -> None:
        run.record = record
        self._states.settle(run, "reused")

    # -- what came of it ------------------------------------------------------------------------

    def _take(self, message: Any) -> None:
        if isinstance(message, Cancel):
            self.cancelled = RunCancelled(message.message)
            self.abandon("Cancelled", message.message.rstrip("."))
            raise self.cancelled
        if isinstance(message, StepRun):
            self._time_out(message)
        elif isinstance(message, list):
            self._go_on(message)
        elif isinstance(message, BatchPart):
            self._take_part(message)
        else:
            self._take_outcome(message)

    def _take_part(self, part: BatchPart) -> None:
        for outcome in part.outcomes:
            self._take_outcome(outcome)
        if not part.ended:
            return
        batch = part.batch
        self._batches.ended(batch, part.seconds)
        each = zip(batch.runs, batch.calls, strict=True)
        left = [run for run, call in each if run.call is call and run.state == "running"]
        if left:
            self._take_up(left)

    def _take_up(self, runs: list[StepRun]) -> None:
        """Go on with items of a batch whose worker has died: some may have been recorded there."""
        found = self._store.records.read_many([str(run.key) for run in runs], fresh=True)
        for run in runs:
            record = found.get(str(run.key))
            assert run.call is not None
            if record is not None and record.provenance.get("run_id") == run.call.current.run_id:
                self._states.stopped(run)
                self._took(run, Done(record, True))
                continue
            self._states.stopped(run)
            self._turns.release(run)
            run.alone, run.state = True, "waiting"
            if self.stopped is not None:
                self._states.settle(run, "cancelled")
            else:
                self._conclude(run)

    def _take_outcome(self, message: Outcome) -> None:
        run = message.run
        if run.state != "running" or message.attempt != run.submission:
            return  # it was given up, and somebody else has spoken for it
        self._states.stopped(run)
        self._turns.release(run)
        run.ended = self._clock()
        if message.done is not None:
            self._took(run, message.done)
        elif isinstance(message.error, InputLost):
            self.repair(message.error, run.parents, run)
        else:
            if isinstance(message.error, StoreUnavailable):
                self._lose_trust(message.error)
            elif isinstance(message.error, RunCancelled) and not (run.call and run.call.recorded):
                self._states.settle(run, "cancelled")
                return
            self._fail(
                run, message.error or StepFailed(f"Step '{run.name}' ended without a result.")
            )

    def _lose_trust(self, error: StoreUnavailable) -> None:
        """Let nothing new start whose work may be lost as that of a run was just now."""
        if self._doubt.grows(error):
            self.stopped = self.stopped or f"the store {self._store.url} cannot be used"
            for run in self._states.running:
                if run.call is not None and run.call.attempt == 0:
                    run.call.recorded = False

    def _took(self, run: StepRun, done: Done) -> None:
        run.record = done.record
        run.lost = None
        run.adopted = not done.own
        step = run.node.step
        if step.cached and step.options.cache is None and not step.returns_nothing:
            self._warn_of_none(step.name, done.record)
        self._states.settle(run, "ran")

    def _warn_of_none(self, step: str, record: Record) -> None:
        if "" in record.fields and record.fields[""].type in _NONE:
            self.warn(
                f"Step '{step}' returned None and is cached: a reuse restores nothing that it did "
                "outside the store. Annotate it '-> None' if it works outside the store, or say "
                "@step(cache=True) if None is its result."
            )

    def _time_out(self, run: StepRun) -> None:
        limit = run.node.step.options.timeout_seconds
        message = (
            f"it ran longer than its {limit:g} s; its thread is abandoned and its result dropped"
        )
        self._give_up(run, "TimedOut", message)
        self._states.stopped(run)
        run.ended = self._clock()
        assert run.call is not None
        attempts = run.call.attempt
        if attempts <= run.node.step.options.retries and self.stopped is None:
            self._submit(run, replace=run.call.replace, attempt=attempts)
            return
        self._fail(
            run,
            StepTimedOut(
                f"Step '{run.name}' took longer than its timeout.",
                {"timeout_seconds": limit, "tries": attempts},
                "Raise timeout_seconds on the step, or give it less to do. On a thread a blocking "
                "call cannot be interrupted: it may go on until the process ends; what it returns "
                "is dropped.",
            ),
        )

    def _give_up(self, run: StepRun, state: str, message: str) -> None:
        if run.call is not None:
            run.call.recorded = False
        self._runner.abandon(run, state, message)

    def _fail(self, run: StepRun, error: BaseException) -> None:
        run.error = error
        counts = self.failing.note(run)
        self._states.settle(run, "failed")
        if counts and self._failures != "finish":
            name = run.name
            self.stopped = self.stopped or f"step '{name}' failed and failures={self._failures!r}"
            if self._failures == "cancel":
                self.abandon("Cancelled", self.stopped)

    # -- values that are lost -------------------------------------------------------------------

    def repair(
        self, lost: InputLost, near: Iterable[StepRun], consumer: StepRun | None = None
    ) -> None:
        """Have a lost value made again by the step that made it; then the consumer goes on."""
        producer = self._outputs.producer(lost.value, near)
        # Several readers lose one value at once: it is made again for the first who says so.
        late = producer is not None and (
            not producer.settled or (consumer is not None and consumer.submitted < producer.remade)
        )
        if producer is None or (producer.repairs >= _REPAIRS and not late):
            if consumer is None:
                raise lost.error
            self._fail(consumer, lost.error)
            return
        if not late:
            producer.lost_with = producer.record
            self._states.reopen(producer)
            if producer.key is not None:
                self._leaders.pop(producer.key, None)
            producer.repairs += 1
            producer.lost = Reason(lost.kind)
            self.ready.put(producer)
        if consumer is not None:
            consumer.state = "waiting"
            if consumer.key is not None and self._leaders.get(consumer.key) is consumer:
                del self._leaders[consumer.key]
            if producer.settled:
                self.ready.put(consumer)
            else:
                consumer.wait_for(producer)


def _waited_for(record: Record) -> Reason:
    return Reason("waited for", str(record.provenance.get("run") or ""))


def _blocker(run: StepRun) -> StepRun | None:
    """Return a parent that failed. Of a mapped one, items that did not fail can be gone on with."""
    for parent in run.parents:
        if parent.failed and not (parent.items and run.links_to(parent)):
            return parent
    return None
