"""Bytes under names on any fsspec file system: S3, memory, another machine.

Knows nothing of values or records. Objects are written whole and many are read in one call; nothing
is asked whether it exists before it is read, which on S3 would cost two requests for each.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import copy
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import override

from prefect_mlpipe.core.places import transfers
from prefect_mlpipe.core.places.backends import Backend, Bytes, Entry
from prefect_mlpipe.core.places.remote_errors import is_absent, remote_unavailable, shown
from prefect_mlpipe.errors import StoreUnavailable

_PROBE = "leases/create-once"


class RemoteBackend(Backend):
    """Any fsspec file system.

    Options go to fsspec as they are, and are neither printed nor written anywhere.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = url.rstrip("/") if not url.endswith("://") else url
        self.url = shown(self._url)
        self._options = options
        self._lock = threading.Lock()
        self._opened: tuple[int, Any, str] | None = None
        self._honours_create: bool | None = None

    @property
    def files(self) -> Any:
        """The fsspec file system, made at first use."""
        return self._open()[1]

    def path(self, name: str) -> str:
        """Give the name of the object for the file system."""
        return self._open()[2] + name

    @override
    def read(self, name: str) -> bytes | None:
        try:
            return transfers.read(self.files, self.path(name))
        except Exception as error:
            if is_absent(error):
                return None
            raise remote_unavailable(self._url, f"reading {name}", error) from error

    @override
    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        if not names:
            return {}
        paths = {self.path(name): name for name in names}
        try:
            answers = transfers.read_many(self.files, list(paths))
        except Exception as error:
            raise remote_unavailable(self._url, f"reading {len(names)} names", error) from error
        found = {}
        for path, answer in answers.items():
            if isinstance(answer, BaseException):
                if is_absent(answer):
                    continue
                raise remote_unavailable(self._url, f"reading {paths[path]}", answer) from answer
            found[paths[path]] = bytes(answer)
        return found

    def create(self, name: str, data: bytes) -> bool:
        """As in `Backend` where the server honours create-once; some S3 servers do not.

        There the name is looked for first: of two that write at the same time the last one stands.
        """
        if self.honours_create():
            return self._create_once(name, data)
        if self.exists(name):
            return False
        self.replace(name, data)
        return True

    def honours_create(self) -> bool:
        """Find out, once, whether of several that create a name only the first one succeeds."""
        if self._honours_create is None:  # where the probe stands already, one request tells
            self._honours_create = _has_create_mode(self.files) and not all(
                self._create_once(_PROBE, b"") for _ in range(2)
            )
        return self._honours_create

    def _create_once(self, name: str, data: bytes) -> bool:
        try:
            self._make_parent(name)
            self.files.pipe_file(self.path(name), data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            raise remote_unavailable(self._url, f"writing {name}", error) from error
        return True

    @override
    def replace(self, name: str, data: Bytes) -> None:
        try:
            self._make_parent(name)
            self.files.pipe_file(self.path(name), bytes(data))
        except Exception as error:
            raise remote_unavailable(self._url, f"writing {name}", error) from error

    def upload(self, name: str, size: int, pieces: Callable[[], Iterable[Bytes]]) -> None:
        """Write a large value from pieces that come in order. The object is seen when it is whole.

        Args:
            name: where to.
            size: of all pieces together.
            pieces: gives them, once.
        """
        try:
            self._make_parent(name)
            transfers.upload(self.files, self.path(name), size, pieces)
        except Exception as error:
            raise remote_unavailable(self._url, f"writing {name}", error) from error

    def upload_file(self, path: str, name: str) -> None:
        """Copy a file of this machine to a name. The object is seen when it is whole."""
        try:
            self._make_parent(name)
            transfers.upload_file(self.files, self.path(name), path)
        except Exception as error:
            raise remote_unavailable(self._url, f"writing {name}", error) from error

    def download(self, name: str, path: str) -> bool:
        """Copy an object to a file of this machine; `False` where there is none."""
        try:
            transfers.download(self.files, self.path(name), path)
        except Exception as error:
            if is_absent(error):
                return False
            raise remote_unavailable(self._url, f"copying {name} to here", error) from error
        return True

    @override
    def exists(self, name: str) -> bool:
        try:
            return transfers.exists(self.files, self.path(name))
        except Exception as error:
            raise remote_unavailable(self._url, f"looking for {name}", error) from error

    @override
    def delete(self, name: str) -> None:
        try:
            self.files.rm_file(self.path(name))
        except Exception as error:
            if not is_absent(error):
                raise remote_unavailable(self._url, f"deleting {name}", error) from error

    @override
    def list(self, folder: str) -> Iterator[Entry]:
        root = self.path("")
        try:
            self.files.invalidate_cache()
            found = self.files.find(self.path(folder.strip("/")), detail=True)
        except Exception as error:
            if is_absent(error):
                return
            raise remote_unavailable(self._url, f"listing {folder}", error) from error
        for path, facts in found.items():
            yield Entry(path.removeprefix(root), int(facts.get("size") or 0), _modified(facts))

    def sync(self) -> None:
        """Nothing to do: an object that was accepted is the server's to keep."""

    def _make_parent(self, name: str) -> None:
        # Object stores have no folders; file systems behind fsspec do, and want them made.
        if not _is_object_store(self.files):
            self.files.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)

    def _open(self) -> tuple[int, Any, str]:
        # Connections and the thread that serves them do not cross a fork.
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            with self._lock:
                opened = self._opened
                if opened is None or opened[0] != os.getpid():
                    opened = self._opened = (os.getpid(), *self._connect())
        return opened

    def _connect(self) -> tuple[Any, str]:
        _refuse_unfit(self._url)
        try:
            files, root = opened(self._url, self._options)
        except Exception as error:
            raise remote_unavailable(self._url, "opening it", error) from error
        return files, root.rstrip("/") + "/"


def opened(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The file system of a URL and the path in it, with what other people's S3 servers need.

    By default boto checks a checksum of the whole object on every range read, which fails. It tries
    an address that does not answer for minutes. And it hashes what it sends, which takes longer
    than sending it; values have checksums of their own.

    Args:
        url: any that fsspec knows.
        options: of the user, which go over ours.
    """
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # only for remote places

    given = dict(options or {})
    if url.startswith(("s3://", "s3a://")):
        config = copy.deepcopy(
            {**_S3_CONFIG, **given.pop("config_kwargs", {})}
        )  # boto writes in it
        given = {"use_listings_cache": False, **given, "config_kwargs": config}
    files, path = url_to_fs(url, **given)
    if transfers.is_s3(files):
        files.retries = 1  # boto tries again already; five times each would be twenty
    return files, path


_S3_CONFIG = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
    "connect_timeout": 5,
    "read_timeout": 60,
    "retries": {"mode": "standard", "total_max_attempts": 4},
    "s3": {"payload_signing_enabled": False},
}


def _refuse_unfit(url: str) -> None:
    """Refuse what would work by half."""
    if "::" in url:
        raise StoreUnavailable(
            f"{shown(url)} cannot be a store.",
            {"reason": "writing there is not safe"},
            "Name the place itself: what is read is kept on this machine anyway.",
        )


def _has_create_mode(files: Any) -> bool:
    writer = getattr(files, "_pipe_file", None) or files.pipe_file
    return "mode" in inspect.signature(writer).parameters


def _is_object_store(files: Any) -> bool:
    return bool(
        transfers.protocols(files) & {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"}
    )


def _modified(facts: dict[str, Any]) -> float:
    for name in ("LastModified", "mtime", "last_modified", "created", "updated"):
        when = facts.get(name)
        if when is not None:
            return float(when.timestamp() if hasattr(when, "timestamp") else when)
    return 0.0
