"""When a stored value was last needed by somebody who made it anew.

Knows names and times. A value that is made again is not written again, so its file stays as old as
it was, and whoever removes what nothing refers to would take it for left behind: its new record is
not yet there. An empty file beside it, `<checksum>.used`, says otherwise. Its own time could be set
instead, were that not what it is known by: all of it would have to be read again.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import Final

from prefect_mlpipe.core.places.backends import LocalBackend

NOTED_FROM_S: Final = 120.0  # a value younger than this is young enough without a word


def note_use(local: LocalBackend, root: str, checksum: str) -> None:
    """Say that a value is needed again if it stands; before it is asked whether it does.

    Args:
        local: where it lies.
        root: name of its file or folder.
        checksum: its own.
    """
    facts = local.stat(root)
    if facts is not None and abs(time.time() - facts.st_mtime) > NOTED_FROM_S:
        local.replace(_used_name(checksum), b"")


def remove_unused(local: LocalBackend, root: str, checksum: str, before: float) -> bool:
    """Remove a value unless somebody needed it after a moment; tell whether it was removed.

    It is put aside first and looked at then: who needs it says so before looking whether it is
    there, so either we see the word or they see that it is gone.

    Args:
        before: seconds since the epoch, by the file system's clock.
    """
    path, aside = local.path(root), local.temporary(root)
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    used = local.stat(_used_name(checksum))
    newest = max(os.stat(aside).st_mtime, used.st_mtime if used else 0.0)
    if newest >= before and not os.path.lexists(path):  # else it was written again meanwhile
        os.rename(aside, path)  # whoever is quicker wrote the same: the name says the content
    if os.path.isdir(aside):
        shutil.rmtree(aside)
    elif os.path.exists(aside):
        os.unlink(aside)
    if newest < before:
        local.delete(_used_name(checksum))
    return newest < before


def _used_name(checksum: str) -> str:
    return f"values/{checksum[:2]}/{checksum}.used"
