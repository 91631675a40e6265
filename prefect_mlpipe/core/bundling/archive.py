"""Source files in one archive: the same files make the same bytes, and so the same digest.

Knows names and bytes. Knows nothing of what the files mean, nor of stores.

    work.py, models/tree.py        the files, sorted, all of one time and with the same rights
    mlpipe-version.json            what is to be known of them

An unpacked archive lies in a folder that is called like its digest. It comes to be there as a
whole: two processes may unpack it at the same time, and either may be killed.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from blake3 import blake3

from prefect_mlpipe.core.places.copies import swap_folder

FACTS: Final = "mlpipe-version.json"
NAME_DIGITS: Final = 12  # of a digest, for a version that nobody has named

_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows
_RIGHTS: Final = (stat.S_IFREG | 0o444) << 16


def pack(files: Mapping[str, bytes], facts: Mapping[str, Any]) -> bytes:
    """Return the archive of some files, and of what is to be known of them."""
    told = orjson.dumps(dict(facts), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in sorted({**files, FACTS: told}.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = _RIGHTS
            entry.create_system = 3  # as on Unix, wherever it is made
            # Not compressed: the bytes would depend on the version of zlib, and the digest on them.
            archive.writestr(entry, data)
    return stream.getvalue()


def digest_of(archive: bytes) -> str:
    """Return the digest of an archive."""
    return blake3(archive).hexdigest()


def files_in(archive: bytes) -> dict[str, bytes]:
    """Return name → content of the files in an archive, without the facts."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist() if name != FACTS}


def facts_in(archive: bytes) -> dict[str, Any]:
    """Return what is to be known of the files in an archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        found: dict[str, Any] = orjson.loads(opened.read(FACTS))
        return found


def unpack(archive: bytes, folder: str | os.PathLike[str]) -> Path:
    """Unpack an archive into the folder of its digest below another; return that.

    What is there already is compared with the archive and, if somebody has changed it, replaced.
    """
    target = Path(folder) / digest_of(archive)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        content = {name: opened.read(name) for name in opened.namelist()}
    if _is_there(target, content):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        write(content, temporary)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.exists():
                raise
            if not _is_there(target, content):  # else another process was faster
                swap_folder(str(temporary), str(target))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _is_there(folder: Path, content: Mapping[str, bytes]) -> bool:
    try:
        return all((folder / name).read_bytes() == data for name, data in content.items())
    except OSError:
        return False


@functools.cache
def facts_beside(file: str) -> dict[str, Any] | None:
    """Return what is to be known of the archive that a source file was unpacked from, if it was."""
    for folder in Path(file).parents:
        if len(folder.name) == 64 and (folder / FACTS).is_file():
            return {**orjson.loads((folder / FACTS).read_bytes()), "digest": folder.name}
    return None
