"""A pipeline as a Prefect flow run.

`call_flow` is what a Python call does around the flow; `run_in_flow` is what the flow does
inside, also where Prefect started it: from a deployment, by REST, on a schedule. Knows Prefect's
flow run context; the engine below does not.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from prefect_mlpipe.compute.flow import parent_ids
from prefect_mlpipe.compute.routes import RoutingRunner
from prefect_mlpipe.conduct import Conduct, Returned
from prefect_mlpipe.core.manifest import Reason, sentences
from prefect_mlpipe.current import keep_logs
from prefect_mlpipe.engine.engine import Engine
from prefect_mlpipe.engine.loglines import line
from prefect_mlpipe.engine.protocols import Cancel
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.entries import Entries
from prefect_mlpipe.errors import ComputeError, InvalidPipeline, RunCancelled
from prefect_mlpipe.keeping import RunInfo
from prefect_mlpipe.reporting.api import ensure_api
from prefect_mlpipe.reporting.artifacts import artifact_key, create_summary
from prefect_mlpipe.reporting.map_progress import MapCount, ProgressArtifacts
from prefect_mlpipe.reporting.posting import ended_task_runs
from prefect_mlpipe.reporting.summary import StepRow, cost_text, counts_text, metrics_text
from prefect_mlpipe.reporting.task_runs import BulkReporter, TaskRunReport, task_run_ids
from prefect_mlpipe.reporting.terminal import Progress, say, summary_text
from prefect_mlpipe.reporting.watch import RunWatch, without_prefect_heartbeat
from prefect_mlpipe.settings import Settings

LOGGED_REUSES = 50  # each line is a row in Prefect's database
# Task runs for items of one mapped step: of so many each one has one, of more the first ones and
# those that failed.
SHOWN_ITEMS = 20
SAMPLE = 10
SHOWN_FAILURES = 200


class Call:
    """A Python call that waits for the values of a run; the flow's state has references only."""

    def __init__(self) -> None:
        self.returned = False
        self.values: Any = None


_call: ContextVar[Call | None] = ContextVar("prefect_mlpipe_call", default=None)


def call_flow(
    pipeline: Any, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a pipeline as a flow run and return its values, or its state if that is asked for."""
    return_state = kwargs.pop("return_state", False)
    prefects = {name: kwargs.pop(name) for name in ("wait_for",) if name in kwargs}
    refuse_spawning(pipeline.name)
    parameters = pipeline.bind(args, kwargs)
    ensure_api()
    call = Call()
    token = _call.set(call)
    try:
        with without_prefect_heartbeat():
            result = run(**prefects, **parameters, return_state=return_state)
    except CancelledRun as cancelled:
        raise RunCancelled(str(cancelled)) from None
    finally:
        _call.reset(token)
    return result if return_state or not call.returned else call.values


def refuse_spawning(pipeline: str) -> None:
    """Refuse to run while a worker process that starts reads the script that is being run.

    It would start the same run again, and its workers again, without end.

    Raises:
        InvalidPipeline: the call is not below `if __name__ == "__main__"`.
    """
    # What multiprocessing itself looks at to refuse new processes from such an import.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InvalidPipeline(
            f"Pipeline '{pipeline}' is called while a worker process imports its script.",
            {"script": getattr(sys.modules.get("__main__"), "__file__", "unknown")},
            'Call it below `if __name__ == "__main__":`; workers import the script for its steps.',
        )


def run_in_flow(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    completed: Sequence[Callable[[RunInfo, Returned], None]],
) -> Any:
    """Run a pipeline inside its flow run; return references to its values.

    Args:
        args: parameters by position.
        kwargs: parameters by name.
        completed: are called when all has come to a good end, and nothing was left out.
    """
    context = FlowRunContext.get()
    assert context is not None, "Prefect runs this inside a flow run"
    # Started over the API it has only the parameters that were given: defaults are filled in, and
    # all are validated, so that its keys are those of a Python call.
    arguments = context.flow.bind(args, kwargs)  # type: ignore[union-attr]
    call = _call.get()
    token = _call.set(None)  # a pipeline that a step calls has no caller of ours
    try:
        keep_logs()
        info = _info(context, arguments)
        value, returned = _conduct(context, info, loading=call is not None)
        if not context.flow.selection(arguments).targets:  # type: ignore[union-attr]
            for call_back in completed:
                call_back(info, returned)
    except StoppedByPrefect as cancelled:
        return Cancelled(message=str(cancelled))
    finally:
        _call.reset(token)
    if call is not None:
        call.returned, call.values = True, value
    return returned


def _info(context: FlowRunContext, arguments: dict[str, Any]) -> RunInfo:
    assert context.flow is not None
    assert context.flow_run is not None
    return RunInfo(
        str(context.flow_run.id),
        context.flow_run.name,
        context.flow.name,
        arguments,
        context.flow_run.parameters,
    )


def _conduct(context: FlowRunContext, info: RunInfo, *, loading: bool) -> tuple[Any, Returned]:
    assert context.flow_run is not None
    pipeline: Any = context.flow
    arguments = info.parameters
    computes, named = pipeline.computes()
    store = pipeline.open_store()
    reporter = FlowReporter(context.flow_run.id, pipeline.name)
    conduct = Conduct(
        pipeline,
        arguments,
        info,
        store,
        RoutingRunner(context, computes, reporter.closing, store),
        reporter,
        pipeline.selection(arguments),
        pipeline.failures(arguments),
        computes,
        named,
        stops=(asyncio.CancelledError,),  # as which a flow's timeout comes to its body
        loading=loading,
    )
    try:
        return conduct.run(reporter.start)
    except RunCancelled as cancelled:
        if reporter.cancelled:
            raise StoppedByPrefect(str(cancelled)) from None
        raise


class StoppedByPrefect(Exception):
    """The flow run was cancelled in Prefect."""


class FlowReporter:
    """Tells Prefect of what Prefect's engine did not do itself: reuse, skips, ends by force."""

    def __init__(self, flow_run_id: Any, pipeline: str) -> None:
        self._settings = Settings()
        self._progress = Progress(pipeline, enabled=self._settings.progress)
        self.cancelled = False
        self._asked_at_the_end = False
        self._logger = get_run_logger()
        self._tasks = BulkReporter(flow_run_id, native=self._settings.report_natively)
        self._watch = RunWatch(flow_run_id, self._cancel)
        self._engine: Engine | None = None
        self._reused = 0
        self._behind: dict[StepRun, str] = {}
        self._maps: dict[StepRun, tuple[float, int]] = {}  # since when, and how many were done
        self._artifacts = ProgressArtifacts(flow_run_id)
        self._orderly = False

    def start(self, engine: Engine) -> None:
        """Begin to report; from here on a cancellation reaches the engine."""
        self._engine = engine
        self._tasks.__enter__()
        self._watch.__enter__()
        self._progress.__enter__()

    def _cancel(self) -> None:
        self.cancelled = True
        if self._engine is not None:
            self._engine.outcomes.put(Cancel("The run was cancelled in Prefect."))

    def was_cancelled(self) -> bool:
        """Return whether the run is cancelled in Prefect, which tells what it serves by SIGTERM.

        Asked once: whoever is being ended has no time to wait twice for an API that is gone.
        """
        if not self._asked_at_the_end:
            self._asked_at_the_end = True
            self.cancelled = self.cancelled or self._watch.is_cancelled()
        return self.cancelled

    def reading(self, run: StepRun) -> None:
        """Log why a step runs; its task run is Prefect's own."""
        if run.group is None:
            self._logger.debug("%s: runs (%s)", run.name, "; ".join(map(str, run.reasons)))

    def began(self, run: StepRun) -> None:
        """Show that the items of a mapped step run; they share one task run, which is ours."""
        done = len(run.items or ()) - run.unfinished_items
        self._maps[run] = (time.monotonic(), done)
        self._report(run, "Running", f"{len(run.items or ()):,} items")

    def behind(self, run: StepRun, holder: str) -> None:
        """Log for whom a step waits, and show it on the terminal."""
        self._behind[run] = holder
        self._logger.info("%s: waits for %s", run.name, holder)

    def closing(self, task_run_id: UUID, state: str, message: str) -> None:
        """End a task run that Prefect's engine will not end.

        One that has ended well may be unknown to the API: its worker died before it told of it.
        """
        runs = self._engine.all_runs() if self._engine is not None else ()
        run = next((each for each in runs if each.task_run_id == task_run_id), None)
        if state in ("Completed", "Failed") and run is not None:
            self._report(run, *_state(run), again=True)
        else:
            self._tasks.report_existing(task_run_id, state, message)

    def settled(self, run: StepRun) -> None:
        """Report what became of a step."""
        self._log(run)
        ended = run.state in ("ran", "failed", "cancelled")
        if run.task_run_id is not None and ended and not run.batched:
            if isinstance(run.error, ComputeError):  # the worker that died may have told of nothing
                self._report(run, *_state(run), again=True)
            return  # Prefect's engine has told of it, or it was closed
        if run.group is None or self._is_shown(run, run.group):
            self._report(run, *_state(run), again=run.batched)

    def _is_shown(self, item: StepRun, group: StepRun) -> bool:
        """Return whether an item of a mapped step is shown: of many some, and those that failed."""
        items = group.items or ()
        if item.state == "failed":
            return len(group.failed_items) <= SHOWN_FAILURES
        return len(items) <= SHOWN_ITEMS or item in items[:SAMPLE]

    def _report(self, run: StepRun, state: str, message: str, *, again: bool = False) -> None:
        """Report a step; once more under the same id, if that is known already."""
        if run.task_run_id is None or not again:
            (run.task_run_id,) = task_run_ids(1)
        task_run_id = run.task_run_id
        now = datetime.now(UTC)
        self._tasks.report(
            TaskRunReport(
                task_run_id,
                run.name,
                run.node.step.qualified_name,
                str(task_run_id),
                state,
                message,
                tuple(parent_ids(run)),
                now if run.started is None else datetime.fromtimestamp(run.started, UTC),
                now if run.ended is None else datetime.fromtimestamp(run.ended, UTC),
            )
        )

    def _log(self, run: StepRun) -> None:
        if run.group is not None:
            return
        if run.state == "reused":
            self._reused += 1
            if self._reused > LOGGED_REUSES:
                return
        self._logger.info(line(run))

    def progress(self, runs: Mapping[str, int], running: Iterable[StepRun]) -> None:
        """Show on the terminal what goes on."""
        done = runs.get("reused", 0), runs.get("ran", 0), runs.get("failed", 0)
        total = len(self._engine.graph) if self._engine is not None else sum(runs.values())
        alone = (run for run in running if run.group not in self._maps)
        names = [run.name for run in itertools.islice(alone, 8)]
        names += [
            f"{run.name} (waits for {holder})"
            for run, holder in self._behind.items()
            if run.state == "behind"
        ]
        maps = [
            MapCount(
                run.name,
                run.task_run_id,
                len(run.items or ()) - run.unfinished_items,
                len(run.items or ()),
                *began,
            )
            for run, began in self._maps.items()
        ]
        going_on = [count for count in maps if count.done < count.total]
        self._progress.update(max(total, sum(done)), *done, names, going_on)
        self._artifacts.update(maps)

    def warned(self, text: str) -> None:
        """Log a warning."""
        self._logger.warning(text)

    def ended(self, document: Mapping[str, Any]) -> None:
        """Say what the run did: on the terminal, and on a page in Prefect."""
        self._orderly = document["state"] in ("completed", "failed")
        self._progress.__exit__(None, None, None)
        if self._watch.lost_sight:
            self._report_unseen()
        if self._reused > LOGGED_REUSES:
            self._logger.info("… and %d more reused", self._reused - LOGGED_REUSES)
        rows = summary_rows(document)
        seconds = document["ended"] - document["started"]
        name = document["pipeline"]
        cost = cost_text(document["cost"], document["saved_cost"])
        if self._settings.progress:
            say(summary_text(name, rows, seconds, cost))
        title = f"{name}: {document['state']}"
        create_summary(rows, title, f"Run {document['name']}", key=artifact_key(name), cost=cost)

    def _report_unseen(self) -> None:
        """Report what Prefect's engine told of while nobody listened."""
        runs = self._engine.all_runs() if self._engine is not None else ()
        told = {
            run.task_run_id: run
            for run in runs
            if run.task_run_id is not None and run.state in ("ran", "failed", "cancelled")
        }
        for task_run_id in told.keys() - ended_task_runs(list(told)):
            self._report(told[task_run_id], *_state(told[task_run_id]), again=True)

    def close(self) -> None:
        """Send what is left."""
        self._watch.close()
        self._artifacts.close()
        if self._orderly:
            self._tasks.hand_over()
        else:  # the process may be killed before it comes to its exit
            self._tasks.close()


def summary_rows(document: Mapping[str, Any]) -> list[StepRow]:
    """Return the rows of a summary from a run manifest; items count in their mapped node."""
    entries = Entries(document)
    rows = []
    for name in (entry["name"] for entry in document["nodes"] if entry["group"] is None):
        row = _row(entries[name])
        items = [entries[item] for item in entries.items_of(name)]
        members = [_row(item) for item in items]
        if members:
            row = replace(
                row,
                why="; ".join(filter(None, [row.why, counts_text(members)])),
                seconds=sum(member.seconds for member in members),
                size_bytes=sum(member.size_bytes for member in members),
                saved_seconds=sum(member.saved_seconds for member in members),
                metrics=metrics_text(item["metrics"] for item in items),
            )
        rows.append(row)
    return rows


def _row(entry: Mapping[str, Any]) -> StepRow:
    state, reused = entry["state"], entry["state"] == "reused"
    why = "; ".join(sentences([Reason(*reason) for reason in entry["reasons"]], 3))
    if entry["reused_from"]:
        why = f"from run {entry['reused_from']}{', which was waited for' if why else ''}"
    elif state == "failed":
        why = entry["cause"] or why
    size = entry["bytes"]
    seconds = entry["duration_s"] or 0.0
    return StepRow(
        entry["name"],
        state,
        why,
        0.0 if reused else seconds,
        size,
        seconds if reused else 0.0,
        metrics_text([entry["metrics"]]),
    )


def _state(run: StepRun) -> tuple[str, str]:
    match run.state:
        case "reused":
            return "Cached", line(run)
        case "ran":
            return "Completed", line(run)
        case "skipped":
            return "NotReady", line(run)
        case "cancelled":
            return "Cancelled", str(run.error or "the run was stopped")
        case _:
            crashed = isinstance(run.error, ComputeError)
            return "Crashed" if crashed else "Failed", str(run.error)
