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
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.fuzz.campaign import Campaign, Counts
from tests.fuzz.running import FreshProcesses

_BLOCK = 500  # edits
_forks = threading.Lock()


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
    for counts in each_in_a_process(jobs, processes):
        whole.add(counts)
    return whole


def each_in_a_process(jobs: Iterable[Callable[[], Counts]], processes: int) -> Iterator[Counts]:
    """Yield what came of each job, in their order. An interruption is for those who work."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ThreadPoolExecutor(processes) as threads:
            yield from threads.map(_in_a_process, jobs)
    finally:
        signal.signal(signal.SIGINT, before)


def _in_a_process(job: Callable[[], Counts]) -> Counts:
    with tempfile.TemporaryFile() as stream:
        with _forks:
            process = os.fork()
        if process == 0:
            status = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                pickle.dump(job(), stream)
                stream.flush()
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(process, 0)
        if status:
            raise RuntimeError("a process of the fuzz died")
        stream.seek(0)
        counts: Counts = pickle.load(stream)
    return counts
