"""Checks of the store: whether it can be used from here, and who is believed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.telling.describing import seconds_text, size_text
from prefect_mlpipe.core.upkeep.probing import Probe
from prefect_mlpipe.doctor.findings import Finding, Look, Notes
from prefect_mlpipe.doctor.here import nearest
from prefect_mlpipe.settings import Settings
from prefect_mlpipe.stores import open_store

SKEW_S: Final = 30.0
LITTLE_ROOM: Final = 1 << 30
_KEY: Final = "PREFECT_MLPIPE_SIGNING_KEY"


def store(look: Look) -> Finding:
    """The store: something small is written, read and removed."""
    notes = Notes()
    opened = open_store(look.store)
    notes.fact("store", opened.url)
    probe = opened.probe()
    if opened.is_local:
        _room(notes, opened)
    if not probe.there:
        _not_there(notes, opened)
        return notes.finding()
    notes.fact("writes, reads, removes", f"in {seconds_text(probe.seconds)}")
    _told(notes, probe)
    return notes.finding()


def _told(notes: Notes, probe: Probe) -> None:
    notes.fact("create-once", "honoured" if probe.honours_create else "ignored")
    if not probe.honours_create:
        notes.warn(
            "Two runs that need the same step at the same time may both compute it here; a server "
            "that honours If-None-Match spares that."
        )
    notes.fact("its clock", _clock(probe.clock_ahead_s))
    if abs(probe.clock_ahead_s) > SKEW_S:
        notes.warn("Set the clocks of this machine and of the store by the same time server.")
    if probe.refused:
        notes.fact("not believed", f"{probe.refused} of the {probe.looked_at} newest runs")
        notes.problem(
            "They are damaged, or not signed with the signing key of the settings: correct the "
            "key; `mlpipe store verify` tells what is damaged; if you trust all that is there, "
            "open_store().sign() signs it."
        )


def _clock(ahead_s: float) -> str:
    if abs(ahead_s) < 1:
        return "as ours"
    return f"{seconds_text(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} ours"


def _room(notes: Notes, opened: Store) -> None:
    free = shutil.disk_usage(_near(opened)).free
    notes.fact("free space", size_text(free))
    if free < LITTLE_ROOM:
        notes.warn("Free some space there: `mlpipe store prune` says what may go.")


def _not_there(notes: Notes, opened: Store) -> None:
    notes.fact("there", "not yet: the first run makes it")
    if not opened.is_local:
        return
    near = _near(opened)
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        notes.problem(f"It cannot be made: {near} is no folder that you may write.")


def _near(opened: Store) -> Path:
    return nearest(Path(opened.url.partition("://")[2] or opened.url).expanduser())


def signing_key(look: Look) -> Finding:
    """Whose values are believed when they are read."""
    notes = Notes()
    has_key = Settings().signing_key is not None
    notes.fact("signing key", "set" if has_key else "none")
    if has_key and _KEY not in os.environ:
        notes.problem(f"It stands in pyproject.toml, for all to read: set {_KEY} instead.")
    if not has_key and not open_store(look.store).is_local:
        notes.warn(
            f"Whoever can write into this store can run code wherever it is read: set {_KEY}, or "
            "see that only those can write there whom you trust."
        )
    return notes.finding()
