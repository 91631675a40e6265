"""`pipeline.local()`: a run without Prefect.

Knows the engine and the local runner. The only difference to a run as a flow is who runs the
calls and who is told.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from coolname import generate_slug, replace_random  # Prefect names its runs with it, too

from prefect_mlpipe.compute.local import LocalRunner
from prefect_mlpipe.conduct import Conduct
from prefect_mlpipe.current import keep_logs
from prefect_mlpipe.engine.loglines import line
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.keeping import RunInfo

logger = logging.getLogger("prefect_mlpipe")


class LogReporter:
    """Writes one line a step to the log `prefect_mlpipe`."""

    def was_cancelled(self) -> bool:
        """Nobody knows of the run who could have."""
        return False

    def reading(self, run: StepRun) -> None:
        """Say nothing before the end."""

    def began(self, run: StepRun) -> None:
        """Say nothing before the end."""

    def behind(self, run: StepRun, holder: str) -> None:
        """Log for whom a step waits; loud, for nothing else would say why nothing happens."""
        logger.warning("%s: waits for %s", run.name, holder)

    def settled(self, run: StepRun) -> None:
        """Log what became of a step."""
        if logger.isEnabledFor(logging.INFO):
            logger.info(line(run))

    def progress(self, runs: Mapping[str, int], running: Iterable[StepRun]) -> None:
        """Show nothing: the terminal is the caller's."""

    def warned(self, text: str) -> None:
        """Log a warning."""
        logger.warning(text)

    def ended(self, document: Mapping[str, Any]) -> None:
        """Say nothing: the run manifest says it."""

    def close(self) -> None:
        """Nothing is held."""


replace_random(random.Random())  # a name for a run must not use up the chance that steps draw from


def run_locally(pipeline: Any, arguments: Mapping[str, Any], run_id: str | None = None) -> Any:
    """Run a pipeline on this process's threads and return the values.

    Args:
        pipeline: a `Pipeline`.
        arguments: its parameters, validated.
        run_id: for who wants to find the run afterwards; default: one of its own.
    """
    keep_logs()
    computes, named = pipeline.computes()
    conduct = Conduct(
        pipeline,
        arguments,
        RunInfo(
            run_id or secrets.token_hex(16), generate_slug(2), pipeline.name, arguments, local=True
        ),
        pipeline.open_store(),
        LocalRunner(computes),
        LogReporter(),
        pipeline.selection(arguments),
        pipeline.failures(arguments),
        computes,
        named,
    )
    return conduct.run()[0]
