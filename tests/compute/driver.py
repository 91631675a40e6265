"""A driver in a process of its own, to be ended: python -m tests.compute.driver FOLDER STORE HOW
TARGET."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from prefect_mlpipe.compute import Dask
from tests.compute import doomed


def note_run(flow: Any, flow_run: Any, state: Any) -> None:
    """Write down which run it is."""
    Path(sys.argv[1], "run").write_text(str(flow_run.id))


if __name__ == "__main__":
    # Started in the background of a shell it would have inherited that Ctrl-C does nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, store, how, target = sys.argv[1:]
    pipeline = doomed.fated.with_options(
        store=store,
        compute={"default": Dask.model_validate_json(target)},
        on_running=[note_run],
    )
    pipeline(folder, how)
