"""One run from start to end: trace, drive the engine, leave the run manifest, whatever happens.

The same for `local()` and for a flow: they differ in the runner and the reporter that they pass.
Knows neither Prefect nor threads.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prefect_mlpipe.baseline import Baseline
from prefect_mlpipe.compute.targets import Target, adopt_computes, compute_of
from prefect_mlpipe.compute.usage import Span, Work, total, usage
from prefect_mlpipe.core.graph import Graph, Node, Output, replace_outputs
from prefect_mlpipe.core.heap import settled_heap
from prefect_mlpipe.core.nested import items_in
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.telling.errors import in_one_line, whole, with_traceback
from prefect_mlpipe.current import Current, current
from prefect_mlpipe.engine.calls import load
from prefect_mlpipe.engine.deciding import Decider
from prefect_mlpipe.engine.engine import Engine
from prefect_mlpipe.engine.keying import Keyer
from prefect_mlpipe.engine.lint import code_warnings
from prefect_mlpipe.engine.outputs import Outputs, pack
from prefect_mlpipe.engine.protocols import Reporter, Runner
from prefect_mlpipe.engine.selection import Selection
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.entries import columns, is_plain
from prefect_mlpipe.errors import (
    MissingFile,
    RunCancelled,
    StoreUnavailable,
    UnresolvedOutput,
)
from prefect_mlpipe.keeping import RunInfo, kept_for_replay
from prefect_mlpipe.parameters import stored_in
from prefect_mlpipe.replays import Replay, path_of, taken_up
from prefect_mlpipe.runs import plain
from prefect_mlpipe.settings import Failures
from prefect_mlpipe.tracing import Tracer


class RunReporter(Reporter, Protocol):
    """A reporter that is also told how the run ended."""

    def was_cancelled(self) -> bool:
        """Return whether somebody has cancelled the run whose process is being ended."""

    def ended(self, document: Mapping[str, Any]) -> None:
        """The run manifest is written: everything is known now."""

    def close(self) -> None:
        """Nothing more will come."""


class RunRunner(Runner, Protocol):
    """A runner that also knows how long it had clusters open."""

    def spans(self) -> list[Span]:
        """Return one for each cluster."""


class Returned:
    """What a pipeline returned, by reference: what the state of its flow run holds.

    Not a dataclass: Prefect walks through those, looking for futures, 90 µs for each reference.

    Attributes:
        references: the structure, with `StoredValue` for each value.
        store: where the values are.
    """

    def __init__(self, references: Any, store: Store) -> None:
        self.references = references
        self.store = store

    def __repr__(self) -> str:
        return f"Returned({self.references!r})"

    def load(self) -> Any:
        """Return the values."""
        return load(self.references, self.store)


@dataclass(frozen=True)
class Conduct:
    """Everything that one run needs."""

    pipeline: Any
    arguments: Mapping[str, Any]
    info: RunInfo
    store: Store
    runner: RunRunner
    reporter: RunReporter
    selection: Selection
    failures: Failures
    computes: dict[str, Target]
    named: Mapping[str, Target]  # computes of the settings
    stops: tuple[type[BaseException], ...] = ()  # what ends the run where it stands
    loading: bool = True  # whether anybody waits for the values that the body returns

    def run(
        self, on_engine: Callable[[Engine], None] = lambda engine: None
    ) -> tuple[Any, Returned]:
        """Run the pipeline; return what its body returned, loaded and by reference.

        Args:
            on_engine: is given the engine before anything runs, to cancel from another thread.
        """
        with settled_heap():
            return self._run(on_engine)

    def _run(self, on_engine: Callable[[Engine], None]) -> tuple[Any, Returned]:
        started, watch = time.time(), time.perf_counter()
        self.store.prepare()
        # Later than the last run, whatever the clock says: one that was ahead may have been set.
        order = max(started, self.store.runs.last_started(self.info.pipeline) + 0.002)
        graph = Graph(self.info.pipeline)
        keyer = Keyer(self.info.id)
        baseline = Baseline(self.store, self.info.pipeline)
        leases = self.store.leases(self.info.name, self.info.pipeline)
        active = self.store.active(self.info.id)
        engine = Engine(
            graph,
            outputs=Outputs(self.store),
            runner=self.runner,
            reporter=self.reporter,
            decider=Decider(self.store, keyer, self.selection, baseline, time.time, active.uses),
            leases=leases,
            patient=not current().run_id,  # else a step waits here, and its worker with it
            failures=self.failures,
            current=self._current,
            check=lambda nodes: self._check(graph, nodes),
        )
        on_engine(engine)
        replay = taken_up(self.info.id)
        state, error, packed = "completed", None, {"value": None}
        try:
            value, references = self._trace(graph, engine, replay)
            packed = pack(references, self.store)
            return value, Returned(references, self.store)
        except BaseException as raised:
            state, error = self._state_of(raised), raised
            raise
        finally:
            leases.close()
            self.runner.close()
            _warn_of_changed_code(engine, keyer)
            _warn_of_undeclared(engine, keyer)
            seconds = time.perf_counter() - watch
            ending = Ending(self.info, started, seconds, state, error, packed)
            used = usage(self.computes, self.runner.spans(), _work(engine))
            document = ending.document(graph, engine, baseline, used)
            self._leave(document, engine, order, replay)
            active.close()

    def _check(self, graph: Graph, nodes: Sequence[Node]) -> None:
        adopt_computes(graph, nodes, self.computes, self.named)
        self.runner.check(nodes)

    def _trace(self, graph: Graph, engine: Engine, replay: Replay | None) -> tuple[Any, Any]:
        tracer = Tracer(graph, engine.resolve, {} if replay is None else replay.stand_ins)
        stops: tuple[type[BaseException], ...] = (RunCancelled, *self.stops)
        try:
            returned = self._body(tracer, engine)
            engine.finish()
            kept = replace_outputs(returned, lambda output: _reached(engine, output))
            value = engine.load(kept) if self.loading else None
            return value, engine.references(kept)
        except stops:
            engine.abandon("Cancelled", "the run was cancelled")
            raise
        except Exception as error:  # nothing stays running, and it is raised again
            engine.abandon("Cancelled", "the run failed")
            if isinstance(error, MissingFile):
                raise self._of_parameter(error) from error
            raise
        except BaseException as error:
            if self._was_cancelled(error):
                engine.abandon("Cancelled", "the run was cancelled")
            else:
                engine.abandon("Crashed", f"the run was ended by {type(error).__name__}")
            raise

    def _body(self, tracer: Tracer, engine: Engine) -> Any:
        stops: tuple[type[BaseException], ...] = (RunCancelled, StoreUnavailable, *self.stops)
        try:
            return tracer.run(self.pipeline, self.pipeline.body, self.arguments)
        except stops:
            raise
        except Exception as error:
            engine.wind_down(error)
            if isinstance(error.__cause__, UnresolvedOutput):
                # A Prefect task was handed an output; Prefect's own words would hide what is wrong.
                raise error.__cause__ from None
            raise

    def _state_of(self, error: BaseException) -> str:
        if isinstance(error, RunCancelled | KeyboardInterrupt) or self._was_cancelled(error):
            return "cancelled"
        return "failed" if isinstance(error, Exception) else "crashed"

    def _was_cancelled(self, error: BaseException) -> bool:
        """Return whether it is for a cancellation that somebody ends this process by a signal."""
        by_signal = not isinstance(error, Exception | KeyboardInterrupt)
        return by_signal and self.reporter.was_cancelled()

    def _of_parameter(self, error: MissingFile) -> MissingFile:
        """Name the parameter that the path of a missing file came by, and the machine."""
        path = str(error.facts.get("path"))
        for name, value in self.arguments.items():
            if path in map(path_of, items_in(value, fields=True)):
                facts = {"parameter": name, **error.facts, "machine": platform.node()}
                return MissingFile(error.sentence, facts, error.advice)
        return error

    def _current(self, run: StepRun) -> Current:
        return Current(
            self.info.id,
            self.info.name,
            self.info.pipeline,
            run.name,
            run.key or "",
            run.node.step.compute or "default",
            store=self.store,
        )

    def _leave(
        self, document: dict[str, Any], engine: Engine, order: float, replay: Replay | None
    ) -> None:
        try:
            self._write(document, engine, order, replay)
            self.reporter.ended(document)
        finally:
            self.reporter.close()

    def _write(
        self, document: dict[str, Any], engine: Engine, order: float, replay: Replay | None
    ) -> None:
        """Write the run manifest. A run does not fail for want of it: what its steps made is there,
        and what ended it says more."""
        try:
            document |= kept_for_replay(self.pipeline, self.info, engine, self.store, replay)
            document["segment"] = self._segment(engine)
            self.store.runs.write(self.info.pipeline, self.info.id, document, started=order)
            for function, latest in _latest(engine).items():
                self.store.latest.write(function, latest)
            self.store.sync()
        except StoreUnavailable as error:
            facts = ", ".join(f"{name}: {value}" for name, value in error.facts.items())
            engine.warn(
                f"The manifest of this run could not be kept ({facts}): the run may be missing "
                f"among the runs of pipeline '{self.info.pipeline}'. What its steps have recorded "
                f"is not touched by that. {error.advice}"
            )

    def _segment(self, engine: Engine) -> str | None:
        """Keep the records of this run together where each costs a request of its own."""
        self.store.records.tidy()
        if self.store.is_local:
            return None
        records = [
            run.record
            for run in engine.all_runs()
            if run.record is not None
            and run.node.step.cached
            and not self.store.records.is_packed(run.record.key)
        ]
        return self.store.segments.write(records)


def _reached(engine: Engine, output: Output) -> Any:
    """Leave out what was not asked for: with `targets` a returned output may not have run."""
    run = engine.runs[output._mlpipe_node]
    engine.raise_if_failed(run)
    return output if run.settled else None


def _warn_of_changed_code(engine: Engine, keyer: Keyer) -> None:
    """Say which steps read a global that was changed while the run went on."""
    if not engine.counts.get("ran"):
        return
    for step, labels in keyer.codes.changed():
        engine.warn(
            f"What step '{step}' reads has changed since the run began: {', '.join(labels[:5])}. "
            "This run's keys say what it was then; the next run sees it as it is. Pass between "
            "steps what they share."
        )


_NEW_CODE = frozenset({"first run", "code changed"})


def _warn_of_undeclared(engine: Engine, keyer: Keyer) -> None:
    """Say what is certainly missing in the key of a step, when its code runs for the first time."""
    looked_at = set()
    for run in engine.all_runs():
        step = run.node.step
        if step in looked_at or run.state != "ran":
            continue
        if any(reason.kind in _NEW_CODE for reason in run.reasons):
            looked_at.add(step)
            for text in code_warnings(step, keyer.codes.of(step, run.name).code, certain=True):
                engine.warn(text)


def _work(engine: Engine) -> Iterator[Work]:
    """Go through what ran, also in vain, and what was reused."""
    for run in engine.all_runs():
        compute = compute_of(run.node)
        if run.state in ("ran", "reused") and run.record is not None:
            yield Work(compute, run.record.duration_s, run.state == "reused")
        if run.call is not None:
            run.call.failed()  # the run has ended, whatever still goes on in a thread
            yield Work(compute, run.call.failed_s, False)


def _latest(engine: Engine) -> dict[str, dict[str, str]]:
    return {
        run.manifest.function: {"key": run.key}
        for run in engine.all_runs()
        if run.state == "ran" and run.manifest is not None and run.key and run.node.step.cached
    }


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    info: RunInfo
    started: float
    seconds: float
    state: str
    error: BaseException | None
    returned: Any

    def document(
        self, graph: Graph, engine: Engine, baseline: Baseline, used: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the run manifest.

        Args:
            graph: all nodes.
            engine: what became of them.
            baseline: what they were compared with.
            used: what was used of each compute, by `usage`.
        """
        runs = engine.all_runs()
        reused = [run.record for run in runs if run.state == "reused" and run.record is not None]
        return {
            "id": self.info.id,
            "name": self.info.name,
            "pipeline": self.info.pipeline,
            "state": self.state,
            "error": with_traceback(self.error),
            "cause": whole(self.error),
            "started": self.started,
            "ended": self.started + self.seconds,
            "parameters": {name: plain(value) for name, value in self.info.parameters.items()},
            "stored_parameters": stored_in(self.info.shown),
            "returned": self.returned,
            "warnings": engine.warnings,
            "saved_s": sum(record.duration_s for record in reused),
            "saved_bytes": sum(record.size for record in reused),
            "compute": used,
            "cost": total(used, "cost"),
            "saved_cost": total(used, "saved_cost"),
            "graph": graph.to_dict(),
            "nodes": [
                _entry(run, self.info.name, baseline)
                for run in runs
                if run.wanted and (run.group is None or not is_plain(run))
            ],
            "items": {
                run.name: columns(run.items, [baseline.earlier_key(i.name) for i in run.items])
                for run in runs
                if run.wanted and run.items
            },
        }


def _entry(run: StepRun, run_name: str, baseline: Baseline) -> dict[str, Any]:
    record = run.record
    origin = record.provenance.get("run") if record is not None else None
    return {
        "name": run.name,
        "group": run.group.name if run.group is not None else None,
        "items": None if run.items is None else len(run.items),
        "state": run.state,
        "reasons": [list(reason) for reason in run.reasons],
        "key": run.key if record is not None else None,
        "earlier_key": None if run.state == "reused" else baseline.earlier_key(run.name),
        # A record has it; what failed has left none.
        "manifest": run.manifest.to_json() if record is None and run.manifest else None,
        "fields": None
        if record is None
        else {name: value.to_json() for name, value in record.fields.items()},
        "reused_from": origin if run.state == "reused" or run.adopted else None,
        "duration_s": None if record is None else record.duration_s,
        "bytes": 0 if record is None else record.size,
        "started": run.started,
        "ended": run.ended,
        "metrics": _metrics(run),
        "logs": run.call.current.logs if run.call is not None else [],
        "error": with_traceback(run.error),
        "cause": in_one_line(run.error),
        "compute": run.node.step.compute or "default",
        "task_run_id": None if run.task_run_id is None else str(run.task_run_id),
    }


def _metrics(run: StepRun) -> Mapping[str, Any]:
    if run.record is not None:
        return run.record.metrics
    return run.call.current.metrics if run.call is not None else {}  # partial, of a failed step
