"""Sleep until something may have changed.

Knows nothing of what changed: a look finds that out. Being woken for nothing costs a look, and
never to be woken costs `every`; so whatever goes wrong here loses nothing.

With `watchfiles` installed a local place wakes its watcher at once. Without it, and everywhere
else, it is looked at every so often.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from prefect_mlpipe.deploy.watches import Watch

STEP_MS = 500  # how soon a waiting thread sees that it shall stop


class Waker:
    """Sleeps for one watcher. For one thread only; `stop` may be set by any."""

    def __init__(self, watch: Watch, stop: threading.Event) -> None:
        self._watch = watch
        self._stop = stop
        self._notices: Iterator[Any] | None = None

    def prepare(self) -> None:
        """From now on notice changes, where that is possible; call it before the first look."""
        place = self._watch.uri
        if "://" in place or importlib.util.find_spec("watchfiles") is None:
            return
        if not os.path.exists(place):
            return
        self._notices = importlib.import_module("watchfiles").watch(
            place,
            watch_filter=None,
            debounce=100,
            rust_timeout=STEP_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            stop_event=self._stop,
            recursive=self._watch.recursive,
        )
        next(self._notices, None)  # it begins with the first

    def sleep(self, seconds: float) -> None:
        """Sleep for so long, or until something may have changed, or until `stop`."""
        if self._notices is None:
            self._stop.wait(seconds)
            self.prepare()  # the place may be there by now
            return
        until = time.monotonic() + seconds
        for changes in self._notices:
            if changes or time.monotonic() >= until:
                return
        self._notices = None  # ended: stopped, or the place is gone

    def pause(self, seconds: float) -> None:
        """Sleep for so long, or until `stop`."""
        self._stop.wait(seconds)
