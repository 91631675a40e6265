"""Spread campaigns over processes, each of which starts as this one is now.

What comes of them does not depend on how many run at a time: work is cut into blocks, each of which
has a seed of its own.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, NoReturn

from tests.fuzz.campaign import Campaign, Counts
from tests.fuzz.running import FreshProcesses

_BLOCK = 500  # edits


def campaign(seed: str, edits: int, *, hunting: bool = False) -> Counts:
    """Run a campaign in this process; if it is interrupted, return what was counted so far."""
    fresh = FreshProcesses()
    found = Campaign(seed, fresh, hunting=hunting)
    try:
        found.run(edits)
    except KeyboardInterrupt:
        print("interrupted: these are the counts so far", file=sys.stderr)
    finally:
        fresh.close()
    return found.counts


def in_blocks(seed: int, edits: int, processes: int) -> Counts:
    """Run campaigns of so many edits together."""
    whole = Counts()
    sizes = [min(_BLOCK, edits - start) for start in range(0, edits, _BLOCK)]
    jobs = [lambda n=n, size=size: campaign(f"{seed}:{n}", size) for n, size in enumerate(sizes)]
    for counts in Workers(processes).each(jobs):
        whole.add(counts)
    return whole


class Workers:
    """Processes that do one job each; an interruption ends those at work, and no other begins."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count)
        self._at_work: set[int] = set()
        self._interrupted = False

    def each(self, jobs: Iterable[Callable[[], Counts]]) -> Iterator[Counts]:
        """Yield what came of each job, in their order."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            with self._threads:
                yield from self._threads.map(self._done, jobs)
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: object) -> None:
        self._interrupted = True
        for process in [*self._at_work]:
            os.kill(process, signal.SIGINT)

    def _done(self, job: Callable[[], Counts]) -> Counts:
        with tempfile.TemporaryFile() as stream:
            if self._interrupted:
                return Counts()
            process = os.fork()
            if process == 0:
                _work(job, stream)
            self._at_work.add(process)
            _, status = os.waitpid(process, 0)
            self._at_work.discard(process)
            if status:
                raise RuntimeError("a process of the fuzz died")
            stream.seek(0)
            counts: Counts = pickle.load(stream)
        return counts


def _work(job: Callable[[], Counts], stream: IO[bytes]) -> NoReturn:
    """Do a job in a process that was forked for it, and end."""
    status = 1
    try:
        os.setpgid(0, 0)  # who interrupts is asked, and passes it on once
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pickle.dump(job(), stream)
        stream.flush()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
