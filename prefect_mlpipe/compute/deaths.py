"""Why workers die, as far as that can be known, and what is said of it.

Knows dask's nannies, the processes that start workers and outlive them. What is sent to them goes
by value: a nanny need not import this package, and with it Prefect.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

from distributed.diagnostics.plugin import SchedulerPlugin

from prefect_mlpipe.compute.offers import Offer, size
from prefect_mlpipe.compute.ticket import Ticket
from prefect_mlpipe.errors import WorkerLost

# The topic under which dask's nannies tell of workers that they end for their memory.
MEMORY_TOPIC = "worker-restart-memory"

_MEMORY_ADVICE = "Raise memory_limit of compute '{compute}', or memory in the step's Resources."


class Cause(NamedTuple):
    """Why a worker died.

    Attributes:
        because: what was seen.
        advice: what to do; `{compute}` stands for the compute's name.
    """

    because: str
    advice: str


UNKNOWN = Cause(
    "its process ended",
    "The step may have used more memory than there is, or have ended its process. "
    + _MEMORY_ADVICE,
)
DISCONNECTED = Cause(
    "the connection to the scheduler was lost",
    "Run again: what has ended is reused.",
)


def telling_exits(topic: str) -> Any:
    """Return a function that has a nanny tell how its worker's process ended, each time.

    No plugin: dask takes those to the nannies of workers that are there, and to nannies that start,
    but not to one whose worker is just being replaced.

    Args:
        topic: under which it is told.
    """

    def tell_exits(dask_worker: Any) -> None:
        nanny = dask_worker
        topics = vars(nanny).get("mlpipe_topics")
        if topics is not None:
            topics.add(topic)
            return
        topics = vars(nanny)["mlpipe_topics"] = {topic}
        go_on = nanny._on_worker_exit_sync

        def tell(status: int) -> None:
            if topics and nanny.status.name == "running":
                event = {"worker": nanny.worker_address, "status": status}
                nanny.log_event(sorted(topics), event)
            go_on(status)

        nanny._on_worker_exit_sync = tell  # for the process that it may be about to start
        if nanny.process is not None:
            nanny.process.on_exit = tell

    return tell_exits


def telling_no_exits(topic: str) -> Any:
    """Return a function that has a nanny tell nothing more under a topic."""

    def tell_no_exits(dask_worker: Any) -> None:
        vars(dask_worker).get("mlpipe_topics", set()).discard(topic)

    return tell_no_exits


def exit_topic(run_id: str) -> str:
    """Return the topic under which a run is told how workers ended."""
    return f"mlpipe-exits-{run_id}"


def count_ourselves(client_id: str) -> SchedulerPlugin:
    """Return a plugin that has a scheduler tell of a death at once, instead of sending again.

    A scheduler sends what was on a worker that died to the next one, `allowed-failures` times, and
    nobody hears of it. A step has its own number of tries, and of some it must be only one.

    Args:
        client_id: whose tasks these are; those of others go as they did.
    """

    class CountOurselves(SchedulerPlugin):
        name = f"mlpipe-deaths-{client_id}"

        def update_graph(self, scheduler: Any, *, client: str, keys: Any, **kwargs: Any) -> None:
            if client == client_id:
                for key in keys:
                    scheduler.tasks[key].suspicious = scheduler.allowed_failures

    return CountOurselves()


def pulse() -> Any:
    """Return a function that a nanny runs to say whether its worker's process does anything.

    It answers `stopped` (by a signal, as SIGSTOP), `works` (it takes CPU time, or waits for a
    disk), `still` or `ended`.
    """

    async def look(dask_worker: Any) -> str:
        import asyncio

        import psutil

        if dask_worker.pid is None:
            return "ended"
        try:
            process = psutil.Process(dask_worker.pid)
            before = sum(process.cpu_times()[:2])
            for _ in range(20):
                if process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
                    return "stopped"
                if process.status() == psutil.STATUS_DISK_SLEEP:
                    return "works"
                await asyncio.sleep(0.1)
                if sum(process.cpu_times()[:2]) - before > 0.05:
                    return "works"
            return "still"
        except psutil.NoSuchProcess:
            return "ended"

    return look


def of_memory(event: Mapping[str, Any], offer: Offer | None) -> Cause:
    """Return the cause that a nanny tells of under `MEMORY_TOPIC`."""
    limit = f" of {size(offer.memory)}" if offer is not None else ""
    return Cause(
        f"it came too close to its memory limit{limit} (it had {size(event['rss'])}), and its "
        "nanny ended it",
        _MEMORY_ADVICE,
    )


def of_exit(status: int) -> Cause:
    """Return the cause for a process that ended with a status, as `Process.exitcode` counts."""
    if status >= 0:
        return Cause(
            f"its process ended with status {status}",
            "The step, or a library that it calls, ends the process (os._exit). Let it raise "
            "instead, or run that part in a process of its own.",
        )
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    because = f"its process was killed by signal {-status} ({name})"
    if name == "SIGKILL":
        return Cause(
            because,
            "The kernel does so when the machine's memory runs out. " + _MEMORY_ADVICE,
        )
    if name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"):
        return Cause(
            because,
            "A library that the step calls has crashed. Run the step alone with "
            "PYTHONFAULTHANDLER=1 to see where.",
        )
    return Cause(because, UNKNOWN.advice)


def of_silence(seconds: float, found: str | None) -> Cause:
    """Return the cause for a worker that was not heard of.

    Args:
        seconds: for how long.
        found: what `pulse` says; `None` if its nanny does not answer, or it has none.
    """
    states = {"stopped": "its process was stopped", "still": "its process does nothing"}
    said = states.get(found or "", "nor does a nanny answer for it")
    return Cause(
        f"it was not heard of for {seconds:.0f} s, {said}",
        "See whether its machine can be reached. A step that waits in C code for longer than "
        "silent_s of compute '{compute}' and holds Python's lock looks the same: raise it.",
    )


def worker_lost(ticket: Ticket, compute: str, cause: Cause) -> WorkerLost:
    """Return the error for a step whose worker died, and that is not sent again."""
    died = ticket.deaths + ticket.unlucky
    times = f"{died} times" if died > 1 else "once"
    return WorkerLost(
        f"Step '{ticket.name}' was on a worker that died {times}.",
        {
            "compute": compute,
            "worker": ticket.worker or "unknown",
            "tries": ticket.call.attempt,
            "because": cause.because,
        },
        cause.advice.format(compute=compute),
    )


def scheduler_lost(ticket: Ticket, compute: str, scheduler: str, why: str) -> WorkerLost:
    """Return the error for a step whose cluster cannot be reached any more."""
    worker = {"worker": ticket.worker} if ticket.worker else {}
    return WorkerLost(
        f"Step '{ticket.name}' was on a cluster whose scheduler is gone.",
        {"compute": compute, "scheduler": scheduler, **worker, "because": why},
        "See whether the scheduler runs and can be reached. Run again: what has ended is reused.",
    )
