"""A pool of daemon threads.

`concurrent.futures` joins its threads when the interpreter ends, so one step that hangs past its
timeout would keep the process from ending. These threads are daemons, and one that was given up is
replaced. Knows nothing of steps.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from prefect_mlpipe.compute.targets import Target, Threads

_Work = tuple[Future[Any], Callable[[], Any]] | None


class DaemonPool:
    """Runs callables on up to `max_workers` daemon threads. Thread-safe."""

    def __init__(self, max_workers: int | None, name: str) -> None:
        self.max_workers = max_workers or min(32, (os.cpu_count() or 1) + 4)
        self._name = name
        self._work: SimpleQueue[_Work] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._closed = False
        self._busy: dict[Future[Any], threading.Thread] = {}

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Start a call as soon as a thread is free."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self.max_workers:
                self._start()
            self._work.put((future, call))
        return future

    def _start(self) -> None:
        self._threads += 1
        thread = threading.Thread(
            target=self._run, name=f"{self._name}-{self._threads}", daemon=True
        )
        thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            if future.set_running_or_notify_cancel():
                self._busy[future] = threading.current_thread()
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                abandoned = self._busy.pop(future, None) is None
                del future, call, work
                if abandoned:  # its place was given to another thread
                    return
            with self._lock:
                if self._work.qsize() == 0:
                    self._idle += 1

    def abandon(self, future: Future[Any]) -> bool:
        """Give up a call: cancel it if it waits, else let another thread take its place.

        Returns:
            Whether it had begun.
        """
        if future.cancel():
            return False
        with self._lock:
            if self._busy.pop(future, None) is not None and not self._closed:
                self._start()
        return True

    def close(self) -> None:
        """End the threads that are idle; others end with what they are doing. Does not wait."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._work.put(None)


class Pools:
    """One pool for each compute, started when it is first asked for."""

    def __init__(self, computes: Mapping[str, Target]) -> None:
        self._computes = computes
        self._pools: dict[str, DaemonPool] = {}

    def of(self, compute: str) -> DaemonPool:
        """Return the pool of a compute."""
        if compute not in self._pools:
            target = self._computes.get(compute)
            workers = target.max_workers if isinstance(target, Threads) else None
            self._pools[compute] = DaemonPool(workers, f"mlpipe-{compute}")
        return self._pools[compute]

    def close(self) -> None:
        """Let all threads end. Does not wait."""
        for pool in self._pools.values():
            pool.close()
