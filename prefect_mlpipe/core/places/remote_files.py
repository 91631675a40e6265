"""Files and folders behind fsspec URLs: their state, and copies of them on this machine.

Knows nothing of `File`, of digests or of stores.

A copy is kept under the object's version, so a new version is another copy and no copy is ever
changed in place.
"""

from __future__ import annotations

import os
from typing import Any

from blake3 import blake3

from prefect_mlpipe.core.places import copies, transfers
from prefect_mlpipe.core.places.remote_backend import opened
from prefect_mlpipe.errors import MissingFile


def file_state(url: str) -> str:
    """What identifies the present version of a remote file; one request."""
    files, path = opened(url)
    try:
        facts = files.info(path)
    except FileNotFoundError as error:
        raise _missing(url, "file") from error
    if facts.get("type") == "directory":
        raise _missing(url, "file")
    return f"{url} {_version(facts)}"


def folder_states(url: str) -> dict[str, str]:
    """Relative names below a remote folder, sorted, with the version of each; one listing."""
    files, path = opened(url)
    files.invalidate_cache()
    root = path.rstrip("/") + "/"
    found = files.find(path, detail=True)
    states = {
        name.removeprefix(root): f"{url.rstrip('/')}/{name.removeprefix(root)} {_version(facts)}"
        for name, facts in sorted(found.items())
        if name.startswith(root) and name != root
    }
    if not states:
        raise _missing(url, "folder")
    return states


def fetched_file(url: str) -> str:
    """Copy a remote file to this machine, unless this version is there; gives the path."""
    files, path = opened(url)
    target = os.path.join(_copy_of(file_state(url)), url.rstrip("/").rpartition("/")[2])
    if not copies.give(target):
        copies.install(target, lambda temporary: transfers.download(files, path, temporary))
    return target


def fetched_folder(url: str) -> str:
    """Copy a remote folder to this machine, unless these versions are there; gives the path."""
    files, path = opened(url)
    states = folder_states(url)
    target = os.path.join(_copy_of("\n".join(states.values())), _final_name(url))

    def fill(temporary: str) -> None:
        for name in states:
            inside = os.path.join(temporary, name)
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            transfers.download(files, f"{path.rstrip('/')}/{name}", inside)

    if not copies.give(target):
        copies.install(target, fill)
    return target


def _final_name(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2] or "folder"


def _copy_of(state: str) -> str:
    version = blake3(state.encode()).hexdigest()
    return copies.path("urls", version[:2], version)


def _version(facts: dict[str, Any]) -> str:
    """A version id where the server keeps versions, else all that changes with the content."""
    version = facts.get("VersionId") or facts.get("version_id") or facts.get("generation")
    if version and version != "null":
        return f"version {version}"
    names = ("ETag", "etag", "md5Hash", "size", "LastModified", "mtime", "created", "last_modified")
    return "state " + " ".join(f"{name}={facts[name]}" for name in names if facts.get(name))


def _missing(url: str, kind: str) -> MissingFile:
    return MissingFile(
        f"there is no {kind} '{url}'.",
        {"url": url},
        f"Pass the URL of a {kind} that exists, or str(url) if the name is all that is meant.",
    )
