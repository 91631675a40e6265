"""Runs the checks, all at once, and waits for none of them for ever.

Knows which checks there are and what they need. Knows nothing of what they look at.
"""

from __future__ import annotations

import contextvars
import inspect
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Timeout
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from prefect_mlpipe.compute.threads import DaemonPool
from prefect_mlpipe.doctor.automations import triggers
from prefect_mlpipe.doctor.computes import computes, gpu
from prefect_mlpipe.doctor.deployments import (
    data_watchers,
    late_runs,
    schedules,
    serving,
    work_pools,
)
from prefect_mlpipe.doctor.findings import STATES, Check, Finding, Look, State, from_error
from prefect_mlpipe.doctor.here import cache, installed, settings
from prefect_mlpipe.doctor.secrets import without_secrets
from prefect_mlpipe.doctor.server import (
    authentication,
    event_recorder,
    prefect_api,
    server_version,
    ui,
)
from prefect_mlpipe.doctor.stores import signing_key, store

TIMEOUT_S: Final = 30.0

# In the order in which they are told of.
FIRST: Final[Sequence[Check]] = (installed, settings, prefect_api)
OF_THE_SETTINGS: Final[Sequence[Check]] = (store, signing_key, cache, computes, gpu)
OF_THE_SERVER: Final[Sequence[Check]] = (
    server_version,
    authentication,
    ui,
    event_recorder,
    schedules,
    late_runs,
    serving,
    work_pools,
    data_watchers,
    triggers,
)


class Examined(NamedTuple):
    """A check and what it has found.

    Attributes:
        name: of the check.
        about: what it looks at.
    """

    name: str
    about: str
    finding: Finding


@dataclass(frozen=True)
class Report:
    """All that was found. `bool()` says whether there is no problem; warnings are none."""

    checks: tuple[Examined, ...]

    @property
    def state(self) -> State:
        """The worst state of all; what was skipped is no worse than what is well."""
        found = {check.finding.state for check in self.checks} - {"skipped"}
        return max(found, key=STATES.index, default="ok")

    def __bool__(self) -> bool:
        return self.state != "problem"


def examine(look: Look | None = None, timeout_s: float = TIMEOUT_S) -> Report:
    """Look at everything, and change nothing.

    Args:
        look: at what.
        timeout_s: how long one check may take.
    """
    look = look or Look()
    pool = DaemonPool(len((*FIRST, *OF_THE_SETTINGS, *OF_THE_SERVER)), "mlpipe-doctor")
    try:
        first = _ended(_started(pool, FIRST, look), timeout_s)
        known = {each.name: each.finding.state for each in first}
        settings_hold = known[settings.__name__] != "problem"
        api_answers = known[prefect_api.__name__] == "ok"
        later = [
            *_unless(settings_hold, "the settings are not valid", OF_THE_SETTINGS),
            *_unless(api_answers and settings_hold, "there is no API server to ask", OF_THE_SERVER),
        ]
        return Report((*first, *_ended(_started(pool, later, look), timeout_s)))
    finally:
        pool.close()


def _unless(possible: bool, why: str, checks: Sequence[Check]) -> Sequence[Check]:
    return checks if possible else [_skipping(check, why) for check in checks]


def _skipping(check: Check, why: str) -> Check:
    def skip(look: Look) -> Finding:
        return Finding("skipped", {"because": why})

    skip.__name__, skip.__doc__ = check.__name__, check.__doc__
    return skip


def _started(
    pool: DaemonPool, checks: Sequence[Check], look: Look
) -> list[tuple[Check, Future[Finding]]]:
    return [(check, pool.submit(_in_context(partial(asked, check, look)))) for check in checks]


def _in_context(call: Callable[[], Finding]) -> Callable[[], Finding]:
    """Let the thread have the caller's Prefect settings."""
    return partial(contextvars.copy_context().run, call)


def asked(check: Check, look: Look) -> Finding:
    """Return what a check finds; an error of whatever it looks at is a problem."""
    try:
        return check(look)
    except Exception as error:  # of any library
        return from_error(error)


def _ended(started: Sequence[tuple[Check, Future[Finding]]], timeout_s: float) -> list[Examined]:
    until = time.monotonic() + timeout_s
    found = []
    for check, future in started:
        try:
            finding = future.result(max(0.0, until - time.monotonic()))
        except Timeout:
            finding = Finding(
                "problem",
                {"found": f"no answer within {timeout_s:g} s"},
                "Look why it does not answer; --timeout lets the check wait longer.",
            )
        about = inspect.cleandoc(check.__doc__ or "").partition("\n")[0]
        found.append(Examined(check.__name__, about, without_secrets(finding)))
    return found
