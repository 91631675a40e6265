"""Faults, and what is to come of each: shared by the tests and by `python -m tests.compute.deaths`.

Each fault meets `doomed.fated` (first → doomed → last) while `doomed` runs. Afterwards the fault is
over and the same pipeline is run once more, on threads.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prefect_mlpipe.compute import Dask, Threads
from prefect_mlpipe.core.store import Store
from tests.compute import doomed
from tests.compute.stage import (
    ROOT,
    SILENT_S,
    Foreign,
    Network,
    Stage,
    children,
    is_alive,
    wait_for,
)

SHOWN_S = 60.0
FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
VALUE = 20


class Place(NamedTuple):
    """Where a fault happens, and what can be struck there."""

    target: Dask
    foreign: Foreign | None = None
    network: Network | None = None
    cluster: Any = None


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: in the table.
        how: what the step does, see `doomed.meet`.
        place: where it runs.
        ran: how often the function of the step is begun.
        says: what the error says, as regular expressions; none if the run ends well.
        state: of the step's task run.
        strike: what is done to the place, given the pid of the worker in which the step runs.
        driver: the signal that ends the driver, a process of its own.
        outlived: whether a worker that nobody hears of may go on, and record the step.
    """

    name: str
    how: str
    place: Callable[[Stage], AbstractContextManager[Place]]
    ran: int = 1
    says: tuple[str, ...] = ()
    state: str = "Crashed"
    strike: Callable[[Place, int], object] | None = None
    driver: signal.Signals | None = None
    outlived: bool = False


@dataclass
class Suffered:
    """What came of a fault.

    Attributes:
        seconds: from the fault, or the start of a run in which it is at once, to the last state.
        ran: name → how often the function was begun.
        states: name → state of the task run in the API.
        again: as `value`, `ran` and `states`, for the run that followed.
        left: processes that were left running.
    """

    fault: Fault
    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    ran: Counter[str] = field(default_factory=Counter)
    states: dict[str, str] = field(default_factory=dict)
    value_again: Any = None
    ran_again: Counter[str] = field(default_factory=Counter)
    states_again: dict[str, str] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)

    def wrong(self) -> list[str]:
        """What is not as it is to be."""
        fault = self.fault
        ends_well = not fault.says and fault.driver is None
        found = [
            f"{what} is {is_!r} and not {expected!r}"
            for what, is_, expected in (
                ("value", self.value, VALUE if ends_well else None),
                ("value of the next run", self.value_again, VALUE),
                ("ran", dict(self.ran), {"first": 1, "doomed": fault.ran, **self._last(ends_well)}),
                ("ran in the next run", dict(self.ran_again), self._to_run(ends_well)),
                ("state of the step", self.states.get("doomed"), fault.state),
                ("state of the step before it", self.states.get("first"), "Completed"),
                ("states of the next run", set(self.states_again.values()), self._again(ends_well)),
                ("processes left running", self.left, set()),
            )
            if is_ != expected
        ]
        said = str(self.error)
        found += [f"{said!r} does not say {each!r}" for each in fault.says if not _says(each, said)]
        if self.seconds > SHOWN_S:
            found.append(f"it took {self.seconds:.0f} s")
        return found

    def _to_run(self, ends_well: bool) -> dict[str, int]:
        if ends_well:
            return {}
        if self.fault.outlived and not self.ran_again["doomed"]:
            return {"last": 1}  # the worker that could not be reached had ended the step by then
        return {"doomed": 1, "last": 1}

    def _last(self, ends_well: bool) -> dict[str, int]:
        return {"last": 1} if ends_well else {}

    def _again(self, ends_well: bool) -> set[str]:
        return {"Cached"} if ends_well else {"Cached", "Completed"}


def _says(what: str, said: str) -> bool:
    return re.search(what, said) is not None


# Places


@contextlib.contextmanager
def given(stage: Stage) -> Iterator[Place]:
    """A cluster that is there, set up as ours are."""
    cluster = stage.given()
    wait_for(lambda: len(cluster.scheduler_info["workers"]) == 2, SHOWN_S, "the return of workers")
    yield Place(Dask(address=cluster.scheduler_address, silent_s=SILENT_S), cluster=cluster)


@contextlib.contextmanager
def given_without_another_try(stage: Stage) -> Iterator[Place]:
    """The same, where a step is not sent to another worker."""
    with given(stage) as place:
        yield Place(place.target.model_copy(update={"allowed_failures": 0}))


@contextlib.contextmanager
def foreign(stage: Stage) -> Iterator[Place]:
    """Somebody's cluster."""
    cluster = stage.foreign()
    yield Place(Dask(address=cluster.address, silent_s=SILENT_S), cluster)


@contextlib.contextmanager
def foreign_of_its_own(stage: Stage) -> Iterator[Place]:
    """Somebody's cluster, which does not outlive the fault as it was."""
    with closing(Foreign()) as cluster:
        yield Place(Dask(address=cluster.address, silent_s=SILENT_S), cluster)


@contextlib.contextmanager
def far_away(stage: Stage) -> Iterator[Place]:
    """Somebody's cluster behind a network."""
    cluster = stage.foreign()
    with closing(Network(cluster.address)) as network:
        yield Place(Dask(address=network.address, silent_s=SILENT_S), cluster, network)


@contextlib.contextmanager
def ours(stage: Stage) -> Iterator[Place]:
    """A cluster that is started for the run."""
    yield Place(Dask(n_workers=2, threads_per_worker=1, silent_s=SILENT_S))


@contextlib.contextmanager
def closed_in_the_middle(stage: Stage) -> Iterator[Place]:
    """A cluster that is closed by whoever has started it."""
    with closing(Dask(n_workers=1, threads_per_worker=1).start()) as cluster:
        target = Dask(address=cluster.scheduler_address, silent_s=SILENT_S)
        yield Place(target, cluster=cluster)


# Strikes


def stop_worker(place: Place, worker: int) -> None:
    os.kill(worker, signal.SIGSTOP)


def stop_worker_and_nanny(place: Place, worker: int) -> None:
    assert place.foreign is not None
    os.kill(place.foreign.nanny_of(worker), signal.SIGSTOP)
    os.kill(worker, signal.SIGSTOP)


def kill_scheduler(place: Place, worker: int) -> None:
    assert place.foreign is not None
    place.foreign.scheduler.kill()


def close_cluster(place: Place, worker: int) -> None:
    place.cluster.close()


def cut(place: Place, worker: int) -> None:
    assert place.network is not None
    place.network.cut()


def cut_for_a_moment(place: Place, worker: int) -> None:
    assert place.network is not None
    place.network.cut()
    time.sleep(SILENT_S / 2)
    place.network.heal()


def reset(place: Place, worker: int) -> None:
    assert place.network is not None
    place.network.reset()


DIED = ("Step 'doomed' was on a worker that died", r"worker +tcp://", "compute +default")
GONE = ("Step 'doomed'", "scheduler is gone", "worker +tcp://", "compute +default")
alone = given_without_another_try

FAULTS = (
    Fault("worker killed once", "killed once", given, 2, state="Completed"),
    Fault("worker killed always", "killed", given, 3, (*DIED, "died 3 times", "SIGKILL")),
    Fault("out of memory", "memory", alone, 1, (*DIED, "memory limit of 572MiB")),
    Fault("os._exit", "os._exit", alone, 1, (*DIED, "ended with status 3")),
    Fault("segfault", "segfault", alone, 1, (*DIED, "SIGSEGV")),
    Fault("sys.exit", "sys.exit", given, 1, ("Step 'doomed' failed: SystemExit",)),
    Fault("ExitError", "ExitError", given, 1, ("Step 'doomed' failed: ExitError: enough",)),
    Fault("Python's lock held", "lock", given, 1, state="Completed"),
    Fault("stuck with Python's lock", "stuck", alone, 1, (*DIED, "does nothing")),
    Fault(
        "scheduler closed",
        "wait",
        closed_in_the_middle,
        says=GONE,
        strike=close_cluster,
    ),
    Fault(
        "scheduler killed",
        "wait",
        foreign_of_its_own,
        says=GONE,
        strike=kill_scheduler,
        outlived=True,
    ),
    Fault("worker of ours stopped", "wait", ours, 2, state="Completed", strike=stop_worker),
    Fault("worker stopped", "wait", foreign, 2, state="Completed", strike=stop_worker),
    Fault(
        "worker and nanny stopped",
        "wait",
        foreign_of_its_own,
        2,
        state="Completed",
        strike=stop_worker_and_nanny,
    ),
    Fault("network cut", "wait", far_away, says=GONE, strike=cut, outlived=True),
    Fault("network cut for a moment", "wait", far_away, state="Completed", strike=cut_for_a_moment),
    Fault("connection reset", "wait", far_away, 2, state="Completed", strike=reset),
    Fault("driver killed", "wait", foreign, driver=signal.SIGKILL),
    Fault("driver of our cluster killed", "wait", ours, state="Running", driver=signal.SIGKILL),
    Fault("Ctrl-C", "wait", ours, driver=signal.SIGINT),
    Fault("SIGTERM", "wait", ours, driver=signal.SIGTERM),
)


# What happens


def suffer(fault: Fault, stage: Stage, folder: Path) -> Suffered:
    """Let a fault happen, see what comes of it, and run once more."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(str(folder / "store"), cache_folder=str(folder / "cache"))
    suffered = Suffered(fault)
    with fault.place(stage) as place:
        there = children()
        if fault.driver is None:
            _run(suffered, place, folder, store)
        else:
            _run_in_a_process(suffered, place, folder, store)
        if place.target.address is None:  # else the workers that were replaced go on
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: children() <= there, SHOWN_S / 2, "the end of what was started")
            suffered.left = children() - there
    suffered.ran = ran(folder)
    (folder / "spared").touch()
    again = doomed.fated.with_options(store=store, compute={"default": Threads()})
    suffered.value_again = again(str(folder), fault.how)
    suffered.states_again = states(_last_run(store))
    suffered.ran_again = ran(folder)
    return suffered


def _run(suffered: Suffered, place: Place, folder: Path, store: Store) -> None:
    fault = suffered.fault
    struck = [time.monotonic()]
    striker = threading.Thread(target=_strike, args=(fault, place, folder, struck))
    if fault.strike is not None:
        striker.start()
    pipeline = doomed.fated.with_options(store=store, compute={"default": place.target})
    try:
        suffered.value = pipeline(str(folder), fault.how)
    except BaseException as error:
        suffered.error = error
    if fault.strike is not None:
        striker.join()
    suffered.states = states(_last_run(store))
    suffered.seconds = time.monotonic() - struck[0]


def _strike(fault: Fault, place: Place, folder: Path, struck: list[float]) -> None:
    worker = worker_of("doomed", folder)
    struck[0] = time.monotonic()
    assert fault.strike is not None
    fault.strike(place, worker)
    if fault.state == "Completed":  # whoever runs it next is to end soon
        if fault.ran > 1:
            wait_for(lambda: ran_so_far(folder)["doomed"] >= fault.ran, SHOWN_S, "the next try")
        (folder / "spared").touch()


def _run_in_a_process(suffered: Suffered, place: Place, folder: Path, store: Store) -> None:
    fault = suffered.fault
    assert fault.driver is not None
    arguments = [
        str(folder),
        store.url,
        fault.how,
        place.target.model_dump_json(exclude_unset=True),
    ]
    with (folder / "driver.log").open("wb") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.compute.driver", *arguments],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    worker = worker_of("doomed", folder)
    workers = [worker, worker_of("first", folder)]
    run_id = (folder / "run").read_text()
    states(run_id, expected="Running")  # what the worker has to say of it has gone out
    struck = time.monotonic()
    driver.send_signal(fault.driver)
    driver.wait(SHOWN_S)
    if place.target.address is None:
        wait_for(lambda: not any(map(is_alive, workers)), SHOWN_S, "the end of the workers")
    suffered.states = states(run_id, expected=fault.state)
    suffered.seconds = time.monotonic() - struck


def worker_of(step: str, folder: Path) -> int:
    """The process in which a step runs, once it does."""

    def found() -> int | None:
        lines = _lines(folder)
        return next((int(pid) for name, pid in lines if name == step), None)

    pid: int = wait_for(found, SHOWN_S, f"step '{step}'")
    return pid


def _lines(folder: Path) -> list[list[str]]:
    log = folder / "ran.txt"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def ran_so_far(folder: Path) -> Counter[str]:
    """How often each function was begun."""
    return Counter(name for name, _ in _lines(folder))


def ran(folder: Path) -> Counter[str]:
    """How often each function was begun since the last call."""
    found = ran_so_far(folder)
    (folder / "ran.txt").unlink(missing_ok=True)
    return found


def _last_run(store: Store) -> str:
    document = store.runs.last("fated")
    assert document is not None
    return str(document["id"])


def states(run_id: str, expected: str | None = None) -> dict[str, str]:
    """Name → state of the task runs of a run, once all have ended (or one is as expected)."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    where = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    deadline = time.monotonic() + SHOWN_S / 2
    with get_client(sync_client=True) as client:
        while True:
            found = {each.name: each for each in client.read_task_runs(flow_run_filter=where)}
            over = {"first", "doomed"} <= found.keys() and all(
                each.state_name in (expected, "NotReady") or each.state_type in FINAL
                for each in found.values()
            )
            if over or time.monotonic() > deadline:
                return {name: str(each.state_name) for name, each in found.items()}
            time.sleep(0.2)
