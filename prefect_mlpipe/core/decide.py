"""Decide whether a step must run.

Knows manifests and records. Knows nothing of Prefect, Dask, stores or where a step executes: the
same decision is made in a test, in `plan()` and in a run.

A step is keyed on the *content* of its inputs, not on the keys of the steps that made them. If a
step above runs again and makes the same value, everything below is reused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

from prefect_mlpipe.core.manifest import Manifest, Pieces, Reason
from prefect_mlpipe.core.record import Record


class Options(NamedTuple):
    """What bears on the decision but not on the key.

    Attributes:
        cache: whether the step may be reused at all.
        refresh: whether the user asked for it to run.
        expiration: how old a record may be, `None` for no limit.
        lost: why a stored value that is needed cannot be had, if so.
        outdated: why an output of the same key has code in it that is not as it would be made now,
            if that is all there is.
    """

    cache: bool = True
    refresh: bool = False
    expiration: timedelta | None = None
    lost: Reason | None = None
    outdated: tuple[Reason, ...] = ()


class Reuse(NamedTuple):
    """The step does not run: this record stands for it."""

    record: Record


class Run(NamedTuple):
    """The step runs, for these reasons."""

    reasons: tuple[Reason, ...]


Decision = Reuse | Run


def decide(
    record: Record | None,
    options: Options,
    now: float,
    changes: Callable[[], Sequence[Reason]],
) -> Decision:
    """Return `Reuse` or `Run`, with the reason a person would give.

    Pure but for `changes`, which is asked only where it is needed.

    Args:
        record: what stands under the key of the step, if anything does.
        options: what bears on the decision but not on the key.
        now: seconds since the epoch.
        changes: says what changed since the last time; used when there is no record.
    """
    if not options.cache:
        return Run((Reason("cache off"),))
    if options.refresh:
        return Run((Reason("refresh asked"),))
    if options.lost is not None:  # whether its record is gone too or not
        return Run((options.lost,))
    if options.outdated:
        return Run(options.outdated)
    if record is None:
        return Run(tuple(changes()) or (Reason("value missing", "its record"),))
    if options.expiration is not None:
        # One from the future too: made by a clock that was years ahead, it would last for years.
        limit_s, age_s = options.expiration.total_seconds(), now - record.created
        if age_s >= limit_s:
            return Run((Reason("expired", f"older than {options.expiration}"),))
        if age_s < -limit_s:
            return Run((Reason("expired", f"made by a clock {options.expiration} ahead or more"),))
    return Reuse(record)


def changes_since(
    manifest: Manifest,
    before: Manifest | None,
    pieces: Pieces,
) -> list[Reason]:
    """Return the reasons that a new key has, compared with an earlier manifest of the same step.

    Args:
        manifest: of the step as it is now.
        before: of the same node in the last run, or the latest of the same function; `None` if
            never.
        pieces: the pieces of some code by its digest, as far as they are known.
    """
    if before is None:
        return [Reason("first run")]
    return manifest.diff(before, pieces)
