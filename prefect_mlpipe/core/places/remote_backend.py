"""Bytes under names on any fsspec file system: S3, memory, another machine.

Knows nothing of values or records. Objects are written whole and many are read in one call; nothing
is asked whether it exists before it is read, which on S3 would cost two requests for each.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from typing_extensions import override

from prefect_mlpipe.core.places.backends import Backend, Bytes, Entry, unavailable


class RemoteBackend(Backend):
    """Any fsspec file system.

    Options go to fsspec as they are, and are neither printed nor written anywhere.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url.rstrip("/") if not url.endswith("://") else url
        self._options = options
        self._lock = threading.Lock()
        self._opened: tuple[Any, str] | None = None
        self._honours_create: bool | None = None

    @property
    def files(self) -> Any:
        """The fsspec file system, made at first use."""
        return self._open()[0]

    def path(self, name: str) -> str:
        """Give the name of the object for the file system."""
        return self._open()[1] + name

    @override
    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self.files.cat_file(self.path(name)))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise unavailable(self.url, f"reading {name}", error) from error

    @override
    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        if not names:
            return {}
        paths = {self.path(name): name for name in names}
        try:
            answers = self.files.cat(list(paths), on_error="return")
        except Exception as error:
            raise unavailable(self.url, f"reading {len(names)} names", error) from error
        found = {}
        for path, answer in answers.items():
            if isinstance(answer, FileNotFoundError):
                continue
            if isinstance(answer, BaseException):
                raise unavailable(self.url, f"reading {paths[path]}", answer) from answer
            found[paths[path]] = bytes(answer)
        return found

    def create(self, name: str, data: bytes) -> bool:
        """As in `Backend`, where the server honours create-once; some S3 servers do not."""
        try:
            if _creates_once(self.files):
                self._make_parent(name)
                self.files.pipe_file(self.path(name), data, mode="create")
                return True
            if self.files.exists(self.path(name)):
                return False
        except FileExistsError:
            return False
        except Exception as error:
            raise unavailable(self.url, f"writing {name}", error) from error
        self.replace(name, data)
        return True

    def honours_create(self, name: str) -> bool:
        """Find out, once, whether of several that create a name only the first one succeeds.

        Args:
            name: something to create; where it stands already, one request tells.
        """
        if self._honours_create is None:
            self._honours_create = not all(self.create(name, b"") for _ in range(2))
        return self._honours_create

    @override
    def replace(self, name: str, data: Bytes) -> None:
        try:
            self._make_parent(name)
            self.files.pipe_file(self.path(name), bytes(data))
        except Exception as error:
            raise unavailable(self.url, f"writing {name}", error) from error

    def upload(self, path: str, name: str) -> None:
        """Copy a file of this machine to a name. The object is seen when it is whole."""
        try:
            self._make_parent(name)
            self.files.put_file(path, self.path(name))
        except Exception as error:
            raise unavailable(self.url, f"writing {name}", error) from error

    def download(self, name: str, path: str) -> bool:
        """Copy an object to a file of this machine; `False` where there is none."""
        try:
            self.files.get_file(self.path(name), path)
        except FileNotFoundError:
            return False
        except Exception as error:
            raise unavailable(self.url, f"reading {name}", error) from error
        return True

    @override
    def exists(self, name: str) -> bool:
        try:
            return bool(self.files.exists(self.path(name)))
        except Exception as error:
            raise unavailable(self.url, f"looking for {name}", error) from error

    @override
    def delete(self, name: str) -> None:
        try:
            self.files.rm_file(self.path(name))
        except FileNotFoundError:
            return
        except Exception as error:
            raise unavailable(self.url, f"deleting {name}", error) from error

    @override
    def list(self, folder: str) -> Iterator[Entry]:
        root = self.path("")
        try:
            self.files.invalidate_cache()
            found = self.files.find(self.path(folder.strip("/")), detail=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise unavailable(self.url, f"listing {folder}", error) from error
        for path, facts in found.items():
            yield Entry(path.removeprefix(root), int(facts.get("size") or 0), _modified(facts))

    def sync(self) -> None:
        """Nothing to do: an object that was accepted is the server's to keep."""

    def _make_parent(self, name: str) -> None:
        # Object stores have no folders; file systems behind fsspec do, and want them made.
        if not _is_object_store(self.files):
            self.files.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)

    def _open(self) -> tuple[Any, str]:
        opened = self._opened
        if opened is None:
            with self._lock:
                opened = self._opened = self._opened or self._connect()
        return opened

    def _connect(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # only for remote stores

        try:
            files, root = url_to_fs(self.url, **{**default_options(self.url), **self._options})
        except Exception as error:
            raise unavailable(self.url, "opening it", error) from error
        return files, root.rstrip("/") + "/"


def default_options(url: str) -> dict[str, Any]:
    """Options that other people's S3 servers need; what the user gives goes over them.

    By default boto checks a checksum of the whole object on every range read, which fails.
    """
    if not url.startswith(("s3://", "s3a://")):
        return {}
    when = "when_required"
    checks = {"request_checksum_calculation": when, "response_checksum_validation": when}
    return {"config_kwargs": checks, "use_listings_cache": False}


def _creates_once(files: Any) -> bool:
    writer = getattr(files, "_pipe_file", None) or files.pipe_file
    return "mode" in inspect.signature(writer).parameters


def _is_object_store(files: Any) -> bool:
    protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
    return bool(protocols & {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})


def _modified(facts: dict[str, Any]) -> float:
    for name in ("LastModified", "mtime", "last_modified", "created", "updated"):
        when = facts.get(name)
        if when is not None:
            return float(when.timestamp() if hasattr(when, "timestamp") else when)
    return 0.0
