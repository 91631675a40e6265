"""Show steps as task runs of a flow run without Prefect's engine running them.

Knows a queue and the thread that empties it. Knows nothing of steps, stores or why a step was
reused, nor what the API is told (`reporting.events`) and how (`reporting.posting`).

Prefect's engine spends 3 ms of CPU and three messages on a task run even where there is nothing to
run. Here a report costs some microseconds, and hundreds of them go in one request from a thread of
our own. Prefect's own events thread is not used: it sends each event by itself and says nothing of
those that do not arrive.

A flow run does not wait for a server that records slowly: what is left is sent while the process
lives on, and waited for when it exits.
"""

from __future__ import annotations

import atexit
import contextvars
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from prefect_mlpipe.reporting.events import (
    FINAL_TYPES,
    STATE_TYPES,
    Closing,
    TaskRunReport,
    task_run_ids,
)
from prefect_mlpipe.reporting.posting import Entry, NotNow, Sender

__all__ = ["BulkReporter", "TaskRunReport", "task_run_ids"]

BATCH = 500  # reports in one request
GATHER_S = 1.0  # how long the first report of a batch waits for company
AFTER_S = 0.25  # how long what a flow run leaves behind waits for its last state to go first
PATIENCE_S = 3.0  # how long a flow run's end waits for a server that works but is slow
EXIT_S = 60.0  # how long the process's end waits for it
TROUBLE_S = 10.0  # how long it waits for one that does not answer
BACK_OFF_S = (0.25, 0.5, 1.0, 2.0, 4.0)
REQUEST_S = 15.0


class BulkReporter:
    """Reports the task runs of one flow run from a thread of its own.

    Safe to call from any thread. Nothing is sent, and no thread started, before the first report.
    Of several reports of one task run that wait to be sent only the last is sent. What in the end
    could not be shown is said in one warning of the flow run's log; it never fails the run.

    Args:
        flow_run_id: the flow run that the task runs belong to.
        native: True for one request for each report, False for events in bulk, None to ask the API
            once which of them it takes.
    """

    def __init__(self, flow_run_id: UUID, *, native: bool | None = None) -> None:
        self._flow_run_id = flow_run_id
        self._native = native
        self._context = contextvars.copy_context()  # settings, client and log of the flow run
        self._logger = _run_logger()
        self._changed = threading.Condition()
        self._pending: dict[UUID, Entry] = {}
        self._in_flight: dict[UUID, Entry] = {}
        self._reported = 0
        self._lost: Counter[str] = Counter()
        self._trouble = "the API did not answer in time"
        self._failures = 0
        self._works = False  # the API answered the last request
        self._due = self._not_before = 0.0
        self._flushing = 0
        self._closed = self._stopped = self._told = False
        self._thread: threading.Thread | None = None

    def report(self, report: TaskRunReport) -> None:
        """Show `report` soon. Never waits for the API."""
        if report.state not in STATE_TYPES:
            raise ValueError(f"No state {report.state!r}; there are {', '.join(STATE_TYPES)}.")
        self._add(report)

    def report_existing(self, task_run_id: UUID, state: str, message: str) -> None:
        """Close a task run that Prefect's engine has left open. One that has ended stays as it is.

        Only for runs that began: one that the API never hears of is waited for (`UNKNOWN_S`) and
        then counted among those that could not be shown.
        """
        if STATE_TYPES[state].value not in FINAL_TYPES:
            raise ValueError(f"{state!r} does not close a task run.")
        self._add(Closing(task_run_id, state, message))

    def flush(self, timeout_s: float) -> bool:
        """Send what was reported so far; False if the API has not taken all of it in time.

        Taken is not yet visible: the server puts it on record within seconds.
        """
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                sent = self._changed.wait_for(self._is_idle, timeout_s)
            finally:
                self._flushing -= 1
            return sent and not self._lost

    def close(self, timeout_s: float = 10.0) -> None:
        """Flush, and warn of what could not be shown.

        An API that is in trouble is waited for until the time is up. One that works but is slow
        gets the rest later, in `EXIT_S` after the end of the program at the latest.
        """
        if self._closed:
            return
        self.flush(min(PATIENCE_S, timeout_s))
        if not self._works:
            self.flush(timeout_s - PATIENCE_S)
        with self._changed:
            self._closed = True
            left = len(self._pending) + len(self._in_flight)
            self._changed.notify_all()
        if left and self._works:
            self._logger.info("%s task runs will be shown in Prefect a little later.", left)
            atexit.register(self._end, EXIT_S)  # a temporary server, started before, ends after
        else:
            self._end(0.0)

    def hand_over(self) -> None:
        """Wait for nothing: what is left is sent after the flow run's last state.

        That state is a request to the same server, and would wait there while hundreds of task
        runs are put on record.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._not_before = max(self._not_before, time.monotonic() + AFTER_S)
            left = not self._is_idle()
            self._changed.notify_all()
        if left:
            atexit.register(self._end, EXIT_S)
        else:
            self._end(0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _end(self, timeout_s: float) -> None:
        self.flush(min(TROUBLE_S, timeout_s))
        if self._works:
            self.flush(timeout_s - TROUBLE_S)
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(1.0)  # one that hangs in a request is a daemon: left behind
        self._tell()

    def _is_idle(self) -> bool:
        return not self._pending and not self._in_flight

    def _add(self, entry: Entry) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("This reporter is closed.")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._context.copy().run, args=(self._work,), name="mlpipe-task-runs"
                )
                self._thread.daemon = True
                self._thread.start()
            self._reported += entry.id not in self._pending
            if not self._pending:
                self._due = time.monotonic() + GATHER_S
                self._changed.notify_all()
            self._pending[entry.id] = entry
            if len(self._pending) == BATCH:
                self._changed.notify_all()

    def _tell(self) -> None:
        """Warn, once, of what could not be shown."""
        with self._changed:
            if self._told:
                return
            self._told = True
            lost = self._lost + Counter({self._trouble: len({**self._in_flight, **self._pending})})
        if total := lost.total():
            reasons = "; ".join(f"{count}: {why}" for why, count in lost.items())
            self._logger.warning(
                "%s of %s task runs could not be shown in Prefect (%s). "
                "What ran, and what is stored, is not affected.",
                total,
                self._reported,
                reasons,
            )

    # --- on the thread

    def _work(self) -> None:
        try:
            # its own retries would sleep for a minute, deaf to `close`
            with (
                temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
                get_client(httpx_settings={"timeout": REQUEST_S}, sync_client=True) as client,
            ):
                sender = Sender(client, self._flow_run_id, self._native, self._lost)
                while (batch := self._take()) is not None:
                    self._send(sender, batch)
            if self._closed:
                self._tell()
                atexit.unregister(self._end)
        except Exception as error:  # the run goes on; `close` says what is missing, and why
            self._give_up(error)

    def _take(self) -> dict[UUID, Entry] | None:
        """Wait for a batch that is due."""
        with self._changed:
            while not self._stopped:
                if not self._pending:
                    if self._closed:
                        return None
                    self._changed.wait()
                    continue
                hurry = self._flushing or self._closed
                due = self._not_before if hurry else max(self._not_before, self._due)
                if (wait_s := due - time.monotonic()) <= 0:
                    keys = list(self._pending)[:BATCH]
                    self._in_flight = {key: self._pending.pop(key) for key in keys}
                    return dict(self._in_flight)
                self._changed.wait(wait_s)
        return None

    def _send(self, sender: Sender, batch: dict[UUID, Entry]) -> None:
        pause_s = 0.0
        try:
            sender.send(batch)
            self._failures, self._works = 0, True
        except NotNow as later:
            self._trouble, self._works = str(later), later.pause_s is not None
            if later.pause_s is None:
                pause_s = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
                self._failures += 1
            else:
                pause_s = later.pause_s
        with self._changed:
            self._pending = {**batch, **self._pending}  # what was reported meanwhile wins
            self._in_flight = {}
            self._not_before = time.monotonic() + pause_s
            self._changed.notify_all()

    def _give_up(self, error: Exception) -> None:
        get_logger("mlpipe").debug("Reporting of task runs ended", exc_info=error)
        with self._changed:
            entries = {**self._in_flight, **self._pending}
            self._lost[_why(error)] += len(entries)
            self._in_flight, self._pending = {}, {}
            self._thread = None  # a later report tries again
            self._changed.notify_all()
        if self._closed:
            self._tell()


def _run_logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("mlpipe")


def _why(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"the API answered {error.response.status_code}"
    return f"{type(error).__name__}: {error}"
