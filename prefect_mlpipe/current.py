"""What a running step can ask and tell: `current`, `log_metrics`, `output_folder`.

Knows nothing of how the step came to run. The state stands in a context variable, so it is right
on any thread and in any worker; outside a step every call is harmless, so that a step can be
tested as the plain function it is.
"""

from __future__ import annotations

import logging
import tempfile
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_mlpipe.core.store import Store

LOG_LINES = 1000

Metric = bool | int | float | str | list[Any] | dict[str, Any] | None


@dataclass(slots=True)
class Current:
    """The step that is running here.

    Attributes:
        run_id: id of the run, empty outside a run.
        run: name of the run.
        pipeline: name of the pipeline.
        step: name of the node: `train`, `clean#2`.
        key: the step's key.
        compute: name of the compute that it runs on.
        metrics: what `log_metrics` has collected so far.
        store: the store of the run, `None` outside a run.
        logs: what was logged so far, at most `LOG_LINES` lines.
    """

    run_id: str = ""
    run: str = ""
    pipeline: str = ""
    step: str = ""
    key: str = ""
    compute: str = ""
    metrics: dict[str, Metric] = field(default_factory=dict)
    store: Store | None = field(default=None, repr=False)
    logs: list[str] = field(default_factory=list, repr=False)
    scratch: list[tempfile.TemporaryDirectory[str]] = field(default_factory=list, repr=False)

    def close(self) -> None:
        """Remove the folders that `output_folder` gave."""
        for folder in self.scratch:
            folder.cleanup()
        self.scratch.clear()


_current: ContextVar[Current | None] = ContextVar("prefect_mlpipe_current", default=None)


def current() -> Current:
    """Return the step that is running here; a blank stand-in outside a step."""
    return _current.get() or Current()


def enter(step: Current) -> None:
    """Make a step the current one in this context."""
    _current.set(step)


class StepLogs(logging.Handler):
    """Keeps what a running step logs, for the run manifest. Nothing is kept outside a step."""

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line to the step that runs in this context."""
        running = _current.get()
        if running is not None and len(running.logs) < LOG_LINES:
            running.logs.append(self.format(record))


def keep_logs() -> None:
    """Have what steps log kept from here on."""
    for name in ("", *_PREFECT_LOGGERS):
        logger = logging.getLogger(name)
        # What Prefect's loggers hand on to the root is kept there, once.
        if logger.propagate and name:
            continue
        if not any(isinstance(handler, StepLogs) for handler in logger.handlers):
            logger.addHandler(_step_logs)


_PREFECT_LOGGERS = ("prefect", "prefect.task_runs", "prefect.flow_runs")
_step_logs = StepLogs()
_step_logs.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


def log_metrics(**metrics: Metric) -> None:
    """Keep metrics in the record of the running step; a reused step still shows them.

    A later call adds to an earlier one and replaces what has the same name. Outside a step nothing
    happens.

    Args:
        metrics: name → number, text, or a list or dict of them. NumPy scalars become Python
            numbers.

    Raises:
        TypeError: a value is none of these.
    """
    plain = {name: _plain(name, value) for name, value in metrics.items()}
    running = _current.get()
    if running is not None:
        running.metrics.update(plain)


def _plain(name: str, value: Any) -> Metric:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _plain(name, value.item())  # a NumPy or torch scalar; `np.float64` is a float too
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(name, item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(name, value.tolist())
    raise TypeError(
        f"Metric '{name}' is a {type(value).__name__}; metrics are numbers, text, or lists and "
        "dicts of them. Return other values from the step."
    )


def output_folder() -> Path:
    """Return an empty folder for files that the step will return as `File` or `Folder`.

    It is removed once the step's outputs are stored. Outside a step it lasts as long as the
    process.
    """
    running = _current.get()
    folder = tempfile.TemporaryDirectory(prefix="mlpipe-")
    (running.scratch if running is not None else _outside).append(folder)
    return Path(folder.name)


_outside: list[tempfile.TemporaryDirectory[str]] = []
