"""The ready-queue: decide each node, submit what must run, take in what came of it.

Knows a `Runner` and a `Reporter` by protocol only; nothing of Prefect, Dask or where a step runs.
One thread drives it, the one in which the pipeline body is traced: it works while the body waits
at a `resolve` and after the body has ended. Everything that needs many nodes' states happens in
that thread, so there is no lock here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from prefect_mlpipe.core.decide import Options, Reuse, changes_since, decide
from prefect_mlpipe.core.files import fingerprint_state
from prefect_mlpipe.core.graph import Graph, Node, Output
from prefect_mlpipe.core.manifest import Manifest, Reason
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.current import Current
from prefect_mlpipe.engine.calls import Done, InputLost, StepCall, files_in
from prefect_mlpipe.engine.keying import Keyer
from prefect_mlpipe.engine.outputs import Outputs
from prefect_mlpipe.engine.selection import Selection
from prefect_mlpipe.engine.steprun import StepRun, expand
from prefect_mlpipe.errors import RunCancelled, StepFailed, StepTimedOut
from prefect_mlpipe.settings import Failures

# How long past its timeout a call may still end by itself before its thread is given up.
TIMEOUT_GRACE_S = 0.5
_REPAIRS = 2


class Outcome(NamedTuple):
    """What a runner reports of a submitted call."""

    run: StepRun
    attempt: int
    done: Done | None
    error: BaseException | None


class Runner(Protocol):
    """Where calls run."""

    def inline(self, run: StepRun, call: StepCall) -> Outcome | None:
        """Run a call here and now, or return `None` where that cannot be done."""

    def submit(self, run: StepRun, call: StepCall, outcomes: SimpleQueue[Any]) -> None:
        """Start a call; put its `Outcome` on the queue when it has ended."""

    def abandon(self, run: StepRun, state: str, message: str) -> None:
        """Give up a call that cannot be stopped; its outcome will be dropped."""

    def close(self) -> None:
        """Release what was started."""


class Reporter(Protocol):
    """Who is told what happens."""

    def reading(self, run: StepRun) -> None:
        """A step is about to run: `run.reasons` say why."""

    def settled(self, run: StepRun) -> None:
        """A step has come to its end: `run.state` says how."""

    def progress(self, runs: Mapping[str, int], running: Iterable[StepRun]) -> None:
        """Counts by state have changed."""


class Cancel(NamedTuple):
    """Put on the queue to stop the run from outside."""

    message: str


class Engine:
    """Executes one run of a pipeline."""

    def __init__(
        self,
        graph: Graph,
        *,
        outputs: Outputs,
        runner: Runner,
        reporter: Reporter,
        keyer: Keyer,
        selection: Selection,
        failures: Failures,
        current: Callable[[StepRun], Current],
        baseline: Callable[[StepRun], Manifest | None],
        check: Callable[[Graph], None] = lambda graph: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.graph = graph
        self.runs: dict[Node, StepRun] = outputs.runs
        self.outcomes: SimpleQueue[Any] = SimpleQueue()
        self.counts: dict[str, int] = {}
        self._outputs = outputs
        self._store = outputs.store
        self._runner = runner
        self._reporter = reporter
        self._keyer = keyer
        self._selection = selection
        self._failures = failures
        self._current = current
        self._baseline = baseline
        self._clock = clock
        self._check = check
        self._admitted = 0
        self._ready: deque[StepRun] = deque()
        self._running: dict[StepRun, None] = {}
        self._leaders: dict[str, StepRun] = {}
        self._stopped: str | None = None
        self._failed: list[StepRun] = []
        self._raised: list[BaseException] = []

    # -- what the tracer and the pipeline ask ---------------------------------------------------

    def resolve(self, outputs: Sequence[Output]) -> dict[Output, Any]:
        """Run what these outputs need, start all else that was traced, return their values."""
        self._admit()
        if not self._selection.targets:
            self._want(self.runs.values())
        wanted = [self.runs[output._mlpipe_node] for output in outputs]
        self._want(wanted)
        while True:
            self._advance(lambda: all(run.settled for run in wanted))
            for run in wanted:
                self._raise_if_failed(run)
            try:
                return {output: self._outputs.load(output) for output in outputs}
            except InputLost as lost:
                self._repair(lost)

    def finish(self, raising: bool = True) -> None:
        """Run everything that was traced to its end.

        Args:
            raising: whether failures of steps are raised; not while another error is on its way.

        Raises:
            Exception: the step's own exception; several in an `ExceptionGroup`.
            RunCancelled: the run was cancelled.
        """
        self._admit()
        targets = [run for run in self.runs.values() if self._selection.is_target(run.name)]
        self._selection.refuse_unknown(self.graph)
        self._want(targets)
        self._advance(lambda: False)
        if raising:
            self._raise_failures()

    def load(self, value: Any) -> Any:
        """Return a structure with its outputs loaded; what is lost is made again."""
        while True:
            try:
                return self._outputs.load_all(value)
            except InputLost as lost:
                self._repair(lost)
                self._advance(lambda: False)
                self._raise_failures()

    def references(self, value: Any) -> Any:
        """Return a structure with references in place of its outputs."""
        return self._outputs.inputs(value)

    def abandon(self, state: str, message: str) -> None:
        """Give up everything that still runs or waits; after this nothing is outstanding."""
        self._stopped = self._stopped or message
        for run in list(self._running):
            self._runner.abandon(run, state, message)
            run.error = run.error or RunCancelled(f"Step '{run.name}': {message}")
            self._settle(run, "cancelled")
        for run in self.all_runs():
            if not run.settled and run.wanted:
                self._settle(run, "cancelled")

    def all_runs(self) -> list[StepRun]:
        """Return the runs of all nodes in call order, mapped ones followed by their items."""
        return [
            one
            for run in map(self.runs.__getitem__, self.graph.nodes[: self._admitted])
            for one in (run, *(run.items or ()))
        ]

    # -- from nodes to ready calls --------------------------------------------------------------

    def _admit(self) -> None:
        self._check(self.graph)
        for node in self.graph.nodes[self._admitted :]:
            run = self.runs[node] = StepRun(node)
            for parent in map(self.runs.__getitem__, node.parents):
                run.parents.append(parent)
                if parent.settled:
                    continue
                if not run.links_to(parent):
                    parent.children.append(run)
                elif parent.items is None:
                    parent.expanded_children.append(run)
                else:
                    continue
                run.waiting += 1
        self._admitted = len(self.graph.nodes)

    def _want(self, runs: Iterable[StepRun]) -> None:
        stack = [run for run in runs if not run.wanted]
        newly = []
        while stack:
            run = stack.pop()
            if not run.wanted:
                run.wanted = True
                newly.append(run)
                stack += [parent for parent in run.parents if not parent.wanted]
        # In call order: what a reader of the body expects to start first does.
        newly.sort(key=lambda run: run.node.index)
        self._ready.extend(run for run in newly if run.enqueue())

    def _advance(self, until: Callable[[], bool]) -> None:
        """Start what is ready and take in outcomes until told to stop or nothing is left."""
        while True:
            while self._ready and not until():
                self._start(self._ready.popleft())
            if until() or not self._running:
                return
            self._take(self._next())

    def _next(self) -> Any:
        self._reporter.progress(self.counts, self._running)
        timed = any(run.node.step.options.timeout_seconds is not None for run in self._running)
        while True:
            try:
                return self.outcomes.get(timeout=0.1 if timed else 1.0)
            except Empty:
                self._reporter.progress(self.counts, self._running)
                for run in self._running if timed else ():
                    if run.overdue(TIMEOUT_GRACE_S):
                        return run

    def _start(self, run: StepRun) -> None:
        run.queued = False
        if run.settled or run.waiting or not run.wanted:
            return
        blocker = next((parent for parent in run.parents if parent.failed), None)
        if blocker is not None and run.items is None:
            run.blocked_by = blocker.blocked_by or blocker
            self._settle(run, "skipped")
        elif self._stopped is not None:
            self._settle(run, "cancelled")
        elif run.node.mapped is not None:
            self._expand(run)
        else:
            self._decide(run)

    def _expand(self, run: StepRun) -> None:
        """Turn a mapped node into its items, now that their number is known."""
        if run.items is None:
            try:
                self._adopt_items(run, expand(run, self._outputs))
            except InputLost as lost:
                self._repair(lost, run)
                return
            except Exception as error:
                self._fail(run, error)
                return
        if run.unfinished_items == 0:
            self._settle_mapped(run)

    def _adopt_items(self, run: StepRun, items: list[StepRun]) -> None:
        run.items = items
        run.unfinished_items = len(items)
        run.started = self._clock()
        for item in items:
            self.runs[item.node] = item
            for parent in map(self.runs.__getitem__, item.node.parents):
                item.parents.append(parent)
                if not parent.settled:
                    parent.children.append(item)
                    item.waiting += 1
        self._ready.extend(item for item in items if item.enqueue())
        self._release(run.expanded_children)

    # -- one call -------------------------------------------------------------------------------

    def _decide(self, run: StepRun) -> None:
        step = run.node.step
        try:
            run.files = [(file, fingerprint_state(file)) for file in files_in(run.node.arguments)]
            manifest = self._keyer.manifest(
                step, run.name, run.node.arguments, self._outputs.reference
            )
        except Exception as error:
            self._fail(run, error)
            return
        run.manifest = manifest
        run.key = key = manifest.key()
        cached = step.cached
        if cached and self._follow(run, self._leaders.get(key)):
            return
        record = self._store.read_record(key) if cached else None
        options = Options(
            cached, self._selection.is_refreshed(run.name), step.options.cache_expiration, run.lost
        )
        decision = decide(record, options, self._clock(), lambda: self._changes(run, manifest))
        if isinstance(decision, Reuse):
            self._reuse(run, decision.record)
            return
        run.reasons = decision.reasons
        if cached:
            self._leaders[key] = run
            self._store.write_code(manifest.code, self._keyer.code(step, run.name).code.parts)
        self._submit(run, replace=record is not None)

    def _follow(self, run: StepRun, leader: StepRun | None) -> bool:
        """Let one of two nodes of one key do the work; return whether this one need not."""
        if leader is None or leader is run or run.lost is not None:
            return False
        if not leader.settled:
            leader.followers.append(run)
        elif leader.record is not None:
            run.same_as = leader.name
            self._reuse(run, leader.record)
        else:
            run.error = leader.error
            run.blocked_by = leader.blocked_by
            self._settle(run, leader.state)
        return True

    def _changes(self, run: StepRun, manifest: Manifest) -> list[Reason]:
        parts = dict(self._keyer.code(run.node.step, run.name).code.parts)

        def known(code: str) -> dict[str, str] | None:
            return parts if code == manifest.code else self._store.read_code(code)

        return changes_since(manifest, self._baseline(run), known)

    def _reuse(self, run: StepRun, record: Record) -> None:
        run.record = record
        self._settle(run, "reused")

    def _submit(self, run: StepRun, *, replace: bool, attempt: int = 0) -> None:
        step = run.node.step
        assert run.manifest is not None
        assert run.key is not None
        call = StepCall(
            step,
            {name: self._outputs.inputs(value) for name, value in run.node.arguments.items()},
            self._store,
            run.manifest,
            run.key,
            self._current(run),
            recorded=step.cached,
            replace=replace,
            files=run.files,
            attempt=attempt,
        )
        run.call = call
        run.submission += 1
        run.state = "running"
        run.started = self._clock()
        self._reporter.reading(run)
        if not self._running and not self._ready and step.options.timeout_seconds is None:
            outcome = self._runner.inline(run, call)
            if outcome is not None:
                self._take(outcome)
                return
        self._running[run] = None
        self._count("running", 1)
        self._runner.submit(run, call, self.outcomes)

    # -- what came of it ------------------------------------------------------------------------

    def _take(self, message: Any) -> None:
        if isinstance(message, Cancel):
            self.abandon("Cancelled", message.message)
            raise RunCancelled(message.message)
        if isinstance(message, StepRun):
            self._time_out(message)
            return
        run = message.run
        if run.state != "running" or message.attempt != run.submission:
            return  # it was given up, and somebody else has spoken for it
        if run in self._running:
            del self._running[run]
            self._count("running", -1)
        run.ended = self._clock()
        if message.done is not None:
            self._took(run, message.done)
        elif isinstance(message.error, InputLost):
            self._repair(message.error, run)
        else:
            self._fail(
                run, message.error or StepFailed(f"Step '{run.name}' ended without a result.")
            )

    def _took(self, run: StepRun, done: Done) -> None:
        run.record = done.record
        run.lost = None
        run.adopted = not done.own
        self._settle(run, "ran")

    def _time_out(self, run: StepRun) -> None:
        limit = run.node.step.options.timeout_seconds
        message = (
            f"it ran longer than its {limit:g} s; its thread is abandoned and its result dropped"
        )
        self._runner.abandon(run, "TimedOut", message)
        del self._running[run]
        self._count("running", -1)
        run.ended = self._clock()
        assert run.call is not None
        attempts = run.call.attempt
        if attempts <= run.node.step.options.retries and self._stopped is None:
            self._submit(run, replace=run.call.replace, attempt=attempts)
            return
        self._fail(
            run,
            StepTimedOut(
                f"Step '{run.name}' took longer than its timeout.",
                {"timeout_seconds": limit, "tries": attempts},
                "Raise timeout_seconds on the step, or give it less to do. On a thread a blocking "
                "call cannot be interrupted: it may go on until the process ends.",
            ),
        )

    def _fail(self, run: StepRun, error: BaseException) -> None:
        run.error = error
        self._settle(run, "failed")
        if run.group is None:
            self._stop_for(run)

    def _stop_for(self, run: StepRun) -> None:
        """Note a failure that is not tolerated, and do what `failures` says about the rest."""
        self._failed.append(run)
        if self._failures == "finish":
            return
        self._stopped = self._stopped or f"step '{run.name}' failed and failures={self._failures!r}"
        if self._failures == "cancel":
            self.abandon("Cancelled", self._stopped)

    def _settle(self, run: StepRun, state: str) -> None:
        """Bring a run to its end, tell the reporter, and let its children go on."""
        run.state = state
        self._running.pop(run, None)
        self._count(state, 1)
        self._reporter.settled(run)
        self._release(run.children)
        self._release(run.expanded_children)
        followers, run.followers = run.followers, []
        self._ready.extend(follower for follower in followers if follower.enqueue())
        if run.group is not None:
            run.group.unfinished_items -= 1
            if run.group.unfinished_items == 0:
                self._settle_mapped(run.group)

    def _release(self, children: list[StepRun]) -> None:
        for child in children:
            child.waiting -= 1
            if child.enqueue():
                self._ready.append(child)
        children.clear()

    def _settle_mapped(self, run: StepRun) -> None:
        items = run.items or []
        run.ended = self._clock()
        run.reasons = next((item.reasons for item in items if item.reasons), ())
        failed = [item for item in items if item.state == "failed"]
        # Items below a tolerated failure are gaps; below a real one they bring this node down too.
        blockers = (item.blocked_by for item in items if item.state == "skipped")
        blocker = next((b for b in blockers if b and (b.group is None or b.group.failed)), None)
        if len(failed) > run.allowed_failures():
            run.error = failed[0].error
            self._settle(run, "failed")
            for item in failed:
                self._stop_for(item)
        elif any(item.state == "cancelled" for item in items):
            self._settle(run, "cancelled")
        elif blocker is not None:
            run.blocked_by = blocker
            self._settle(run, "skipped")
        else:
            ran = any(item.state in ("ran", "failed") for item in items)
            self._settle(run, "ran" if ran else "reused")

    def _repair(self, lost: InputLost, consumer: StepRun | None = None) -> None:
        """Have a lost value made again by the step that made it; then the consumer goes on."""
        producer = self._outputs.producer(lost.value)
        if producer is None or producer.repairs >= _REPAIRS:
            if consumer is None:
                raise lost.error
            self._fail(consumer, lost.error)
            return
        self._count(producer.state, -1)
        producer.repairs += 1
        producer.lost = Reason(lost.kind, f"value of '{producer.name}'")
        producer.state = "waiting"
        producer.record = None
        if producer.key is not None:
            self._leaders.pop(producer.key, None)
        if producer.group is not None:
            producer.group.unfinished_items += 1
            producer.group.whole_digest = None
        if producer.enqueue():
            self._ready.append(producer)
        if consumer is not None:
            consumer.state = "waiting"
            consumer.waiting += 1
            producer.children.append(consumer)
            if consumer.key is not None and self._leaders.get(consumer.key) is consumer:
                del self._leaders[consumer.key]

    def _count(self, state: str, change: int) -> None:
        self.counts[state] = self.counts.get(state, 0) + change

    # -- errors ---------------------------------------------------------------------------------

    def _raise_if_failed(self, run: StepRun) -> None:
        if not run.failed:
            return
        cause = run.blocked_by or run
        error = cause.error
        if error is None:
            raise RunCancelled(
                f"Step '{run.name}' did not run: {self._stopped or 'the run was cancelled'}."
            )
        self._raised.append(error)
        raise error

    def _raise_failures(self) -> None:
        errors = [
            run.error
            for run in self._failed
            if run.error is not None and not any(run.error is raised for raised in self._raised)
        ]
        errors = list({id(error): error for error in errors}.values())
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise_group(self.graph.name, errors)


def raise_group(pipeline: str, errors: list[BaseException]) -> None:
    """Raise several errors of one run together."""
    message = f"{len(errors)} steps of pipeline '{pipeline}' failed"
    raise BaseExceptionGroup(message, errors)
