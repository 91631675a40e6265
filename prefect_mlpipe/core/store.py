"""A store: values, records and run manifests under one URL.

Knows nothing of Prefect, of what a key is made of, or of when a record is good enough to be reused.

    format, CACHEDIR.TAG                       the version of this layout
    values/3f/3f9c….npy                        a stored value; small ones stand in their record
    values/3f/3f9c…/digits.csv                 a stored file or folder
    records/41/41d0a2…                         what the step with this key left
    code/7a/7ab3…                              the parts of some code, to explain changes
    latest/helpers.clean.json                  the latest manifest of a function
    published/digits/versions/…, aliases/…     published values by name
    runs/digits/1767225600000-<id>.json, last  run manifests, and which one is the last
    watches/<name>.json                        what a watcher of data has seen
    leases/41d0a2…, leases/holders/<token>     which run computes a key just now, and that it lives

A record is written with its own checksum before it, so that a torn one is never believed; that is
why records are created in place, without a temporary file, at half the cost. The first record of a
key stands unless it is replaced on purpose.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import orjson
from blake3 import blake3

from prefect_mlpipe.core.digest import Buffers
from prefect_mlpipe.core.leases.leases import Leases, LocalLeases
from prefect_mlpipe.core.leases.remote_leases import RemoteLeases
from prefect_mlpipe.core.places import copies
from prefect_mlpipe.core.places.backends import Backend, LocalBackend
from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.core.places.stat_index import StatIndex
from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.storing import documents
from prefect_mlpipe.core.storing.soundness import Soundness
from prefect_mlpipe.core.storing.stored_values import Values
from prefect_mlpipe.errors import StoreUnavailable

logger = logging.getLogger(__name__)

LAYOUT = 1
CACHEDIR_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# A prefect_mlpipe store: stored values and records, all of which can be computed again.
"""
TORN_ATTEMPTS = 5
TORN_WAIT_S = 0.002
LONGEST_NAME = 120

_RUN_NAME = re.compile(r"\d+-[^/\0]+\.json")
_HEAD = b'{"checksum":"'
_BODY = b'","record":'
_BODY_AT = len(_HEAD) + 64 + len(_BODY)


class Store:
    """Where stored values, records and run manifests live.

    Store("/data/mlpipe")             # a folder; also file:///data/mlpipe
    Store("s3://ml/store", key=...)   # any fsspec URL; options go to fsspec

    Making one touches nothing. Pickles of it carry the URL and the options.

    Args:
        url: a folder or an fsspec URL.
        cache_folder: where copies of remote values are kept on this machine.
        stat_index: where it is remembered which files were checked; default: within the cache.
        storage_options: given to fsspec as they are; never printed.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        cache_folder: str | None = None,
        stat_index: StatIndex | None = None,
        **storage_options: Any,
    ) -> None:
        self.url = os.fspath(url)
        self._options = storage_options
        self._cache_folder = cache_folder or default_cache_folder()
        self._given_index = stat_index
        self.stat_index = stat_index or StatIndex(self._cache_folder)
        folder = _local_folder(self.url)
        if folder is not None:
            local = LocalBackend(folder, self.url)
            self._attach(local, local, None)
        else:
            remote = RemoteBackend(self.url, **storage_options)
            self._attach(remote, LocalBackend(os.path.join(self._cache_folder, "copies")), remote)

    def _attach(self, backend: Backend, local: LocalBackend, remote: RemoteBackend | None) -> None:
        self._backend = backend
        self._values = Values(local, remote, Soundness(self.stat_index))
        self._lock = threading.Lock()
        self._opened = self._begun = False
        self._codes: set[str] = set()
        self._damaged: set[str] = set()
        self._run_names: dict[tuple[str, str], str] = {}

    @property
    def is_local(self) -> bool:
        """Tell whether this store is a folder of this machine."""
        return isinstance(self._backend, LocalBackend)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        options = {**self._options, "cache_folder": self._cache_folder}
        return _restored, (self.url, options, self._given_index)

    # --- values -------------------------------------------------------------------------------

    def put(
        self, value: object, *, buffers: Buffers | None = None, inline: bool = True
    ) -> StoredValue:
        """Store a value and give the reference to it. Stored twice, it is written once.

        Args:
            buffers: hashes of large buffers, if their value was digested before.
            inline: whether a small value may stand in its reference instead of the store.

        Raises:
            Unstorable: it cannot be read back as what it is; says where and why.
            StoreUnavailable: the store cannot be written.
        """
        self._begin()
        return self._values.put(value, buffers, inline)

    def get(self, value: StoredValue) -> Any:
        """Load a value. Each call gives an own one: changing it changes nothing for anyone else.

        Raises:
            ValueMissing: its bytes are gone.
            ValueDamaged: its bytes do not match the checksum, or cannot be read back here.
        """
        return self._values.get(value)

    def has(self, value: StoredValue) -> bool:
        """Tell whether the bytes are there, without reading them."""
        return self._values.has(value)

    def verify(self, value: StoredValue) -> None:
        """Read the bytes again and compare the checksum, whatever is remembered of them.

        Raises:
            ValueMissing: they are gone.
            ValueDamaged: they do not match.
        """
        self._values.verify(value)

    def local_path(self, value: StoredValue) -> str | None:
        """The file or folder on this machine, fetched if need be; `None` for an inline value.

        It is read-only and belongs to the store. Open it, but do not change it.
        """
        return self._values.local_path(value)

    # --- records ------------------------------------------------------------------------------

    def read_record(self, key: str) -> Record | None:
        """Give the record of a key, `None` where there is none that can be believed."""
        self._open()
        name = _record_name(key)
        data = self._backend.read(name)
        return None if data is None else self._believed(key, data)

    def read_records(self, keys: Sequence[str]) -> dict[str, Record]:
        """Give the records that there are; of a remote store, all in one call."""
        self._open()
        names = {_record_name(key): key for key in keys}
        found = {
            names[name]: self._believed(names[name], data)
            for name, data in self._backend.read_many(list(names)).items()
        }
        return {key: record for key, record in found.items() if record is not None}

    def write_record(self, record: Record, *, replace: bool = False) -> Record:
        """Write a record, and give the one that stands: the first of a key, unless `replace`."""
        self._begin()
        name, data = _record_name(record.key), _sealed(record)
        if replace:
            self._backend.replace(name, data)
            return record
        if self._backend.create(name, data):
            return record
        standing = self._standing(record.key)
        if standing is None:  # torn by a writer that was killed
            self._backend.replace(name, data)
        return standing or record

    def _standing(self, key: str) -> Record | None:
        """Read a record that another writer may be about to finish."""
        for attempt in range(TORN_ATTEMPTS):
            if attempt:
                time.sleep(TORN_WAIT_S)
            data = self._backend.read(_record_name(key))
            record = data and _unsealed(key, data)
            if record:
                return record
        return None

    def _believed(self, key: str, data: bytes) -> Record | None:
        record = _unsealed(key, data) or self._standing(key)
        if record is None and key not in self._damaged:
            logger.warning("the record of key %s in %s is damaged and not used", key, self.url)
            self._damaged.add(key)
        return record

    def was_damaged(self, key: str) -> bool:
        """Tell whether the record of a key was read here and found to be damaged."""
        return key in self._damaged

    def leases(self, run: str, pipeline: str) -> Leases:
        """Give the leases of a run, none of which is taken yet; close them when it has ended.

        Args:
            run: name of the run, for whoever waits for it.
            pipeline: name of the pipeline.
        """
        if isinstance(self._backend, LocalBackend):
            return LocalLeases(self._backend.folder, run, pipeline)
        assert isinstance(self._backend, RemoteBackend)
        return RemoteLeases(self._backend, run, pipeline)

    # --- code, and the latest manifest of a function --------------------------------------------

    def has_code(self, code_digest: str) -> bool:
        """Tell whether there is something that `write_code` kept."""
        if code_digest in self._codes:
            return True
        self._open()
        name = _code_name(code_digest)
        if name not in self._damaged and self._backend.exists(name):
            self._codes.add(code_digest)
            return True
        return False

    def write_code(self, code_digest: str, parts: Mapping[str, Any]) -> None:
        """Keep the parts of some code, digests and looks, once."""
        if code_digest in self._codes:
            return
        self._begin()
        name = _code_name(code_digest)
        if not (self.is_local and name not in self._damaged and self._backend.exists(name)):
            self._backend.replace(name, orjson.dumps(dict(parts)))
        self._codes.add(code_digest)

    def read_code(self, code_digest: str) -> dict[str, Any] | None:
        """Give what `write_code` kept."""
        return self._document(_code_name(code_digest), documents.Code)

    def write_latest(self, function: str, document: Mapping[str, Any]) -> None:
        """Keep the latest manifest of a function, in place of the one before."""
        self._begin()
        self._backend.replace(f"latest/{_quoted(function)}.json", orjson.dumps(dict(document)))

    def read_latest(self, function: str) -> dict[str, Any] | None:
        """Give the latest manifest of a function."""
        return self._document(f"latest/{_quoted(function)}.json", documents.Latest)

    # --- what a watcher of data has seen ---------------------------------------------------------

    def write_watch(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep what a watcher has seen, in place of what it had seen before."""
        self._begin()
        self._backend.replace(f"watches/{_quoted(name)}.json", orjson.dumps(dict(document)))

    def read_watch(self, name: str) -> dict[str, Any] | None:
        """Give what `write_watch` kept."""
        return self._document(f"watches/{_quoted(name)}.json", documents.Watch)

    # --- published values ------------------------------------------------------------------------

    def write_published(
        self, name: str, version: str, document: Mapping[str, Any], alias: str | None = None
    ) -> None:
        """Keep a version of a published value, once, and let an alias point to it."""
        self._begin()
        folder = f"published/{_quoted(name)}"
        place = f"{folder}/versions/{version}.json"
        if self._document(place, documents.Published) is None:
            self._backend.replace(place, orjson.dumps(dict(document)))
        for pointer in {"latest", alias or "latest"}:
            self._backend.replace(f"{folder}/aliases/{_quoted(pointer)}", version.encode())

    def read_published(self, name: str, version: str) -> dict[str, Any] | None:
        """Give a version of a published value, by version or alias."""
        self._open()
        folder = f"published/{_quoted(name)}"
        found = self._backend.read(f"{folder}/aliases/{_quoted(version)}")
        version = found.decode(errors="replace") if found is not None else version
        return self._document(f"{folder}/versions/{_quoted(version)}.json", documents.Published)

    # --- runs ---------------------------------------------------------------------------------

    def write_run(
        self,
        pipeline: str,
        run_id: str,
        document: Mapping[str, Any],
        *,
        started: float | None = None,
    ) -> None:
        """Write the manifest of a run; written again, it is replaced.

        Args:
            started: when the run started, in seconds since the epoch; runs are listed by it. Give
                the same at every write of a run. Default: the time of the first write, which has
                to be looked for.
        """
        self._begin()
        folder = f"runs/{_quoted(pipeline)}"
        name = None if started is not None else self._run_name(pipeline, run_id)
        if name is None:
            began = time.time() if started is None else started
            name = f"{int(began * 1000):013d}-{_quoted(run_id)}.json"
        self._run_names[pipeline, run_id] = name
        self._backend.replace(f"{folder}/{name}", orjson.dumps(dict(document)))
        last = self._backend.read(f"{folder}/last")
        if last is None or last < name.encode():
            self._backend.replace(f"{folder}/last", name.encode())

    def read_run(self, pipeline: str, run_id: str) -> dict[str, Any] | None:
        """Give the manifest of a run."""
        name = self._run_name(pipeline, run_id)
        return self._run(pipeline, name) if name else None

    def list_runs(self, pipeline: str) -> list[str]:
        """Give the ids of the runs of a pipeline, newest first."""
        return [_run_id(name) for name in self._listed_runs(pipeline)]

    def last_run(self, pipeline: str) -> dict[str, Any] | None:
        """Give the manifest of the run that started last; two reads, however many there are."""
        self._open()
        pointer = self._backend.read(f"runs/{_quoted(pipeline)}/last") or b""
        name = pointer.decode(errors="replace")
        found = self._run(pipeline, name) if _RUN_NAME.fullmatch(name) else None
        if found:
            return found
        each = (self._run(pipeline, name) for name in self._listed_runs(pipeline))
        return next((run for run in each if run is not None), None)

    def _run(self, pipeline: str, name: str) -> dict[str, Any] | None:
        return self._document(f"runs/{_quoted(pipeline)}/{name}", documents.Run)

    def _run_name(self, pipeline: str, run_id: str) -> str | None:
        name = self._run_names.get((pipeline, run_id))
        if name is None:
            ending = f"-{_quoted(run_id)}.json"
            found = [other for other in self._listed_runs(pipeline) if other.endswith(ending)]
            name = found[0] if found else None
        return name

    def _listed_runs(self, pipeline: str) -> list[str]:
        self._open()
        folder = f"runs/{_quoted(pipeline)}"
        entries = self._backend.list(folder)
        names = [entry.name.removeprefix(f"{folder}/") for entry in entries]
        return sorted((name for name in names if name.endswith(".json")), reverse=True)

    # --- the place itself ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the store where there is none, and say now, not later, if it cannot be written.

        Raises:
            StoreUnavailable: with the URL and what to do.
        """
        self._begin()
        folder = _local_folder(self.url)
        if folder is not None and not os.access(folder, os.W_OK):
            raise StoreUnavailable(
                f"The store {self.url} cannot be written.",
                {"store": self.url, "folder": os.path.abspath(folder)},
                "Allow writing there, or choose another place with `store=`.",
            )

    def sync(self) -> None:
        """Make what was written so far survive a power cut. Nothing is wrong without it: what was
        lost is computed again."""
        self._backend.sync()

    def _document(self, name: str, shape: type[Any]) -> dict[str, Any] | None:
        """Read what can be relied on; what cannot is reported once, and is as if it were gone."""
        self._open()
        data = self._backend.read(name)
        if data is None:
            return None
        try:
            return documents.read(data, shape)
        except ValueError:
            if name not in self._damaged:
                logger.warning("%s in %s is damaged and not used", name, self.url)
                self._damaged.add(name)
            return None

    def _open(self) -> None:
        """Look at the layout's version, once."""
        if not self._opened:
            found = self._backend.read("format")
            if found is not None:
                self._check_layout(found)
            self._opened = True

    def _begin(self) -> None:
        """Make the store where there is none, once."""
        if self._begun:
            return
        with self._lock:
            self._open()
            if not self._backend.exists("format"):
                self._backend.replace("CACHEDIR.TAG", CACHEDIR_TAG)
                self._backend.replace("format", f"prefect-mlpipe store {LAYOUT}\n".encode())
            self._begun = True

    def _check_layout(self, found: bytes) -> None:
        words = found.split()
        if len(words) == 3 and words[:2] == [b"prefect-mlpipe", b"store"] and words[2].isdigit():
            if int(words[2]) <= LAYOUT:
                return
            advice = "Upgrade prefect_mlpipe, or choose another place with `store=`."
        else:
            advice = "Something else lies there: choose another place with `store=`."
        raise StoreUnavailable(
            f"the store {self.url} has a layout that this prefect_mlpipe does not know.",
            {"store": self.url, "layout": found[:40].decode(errors="replace").strip()},
            advice,
        )


def default_cache_folder() -> str:
    """Where copies of remote values are kept unless the settings say otherwise."""
    return copies.folder()


def _restored(url: str, options: dict[str, Any], stat_index: StatIndex | None) -> Store:
    return Store(url, stat_index=stat_index, **options)


def _local_folder(url: str) -> str | None:
    """The folder that a URL names, `None` if it lies elsewhere."""
    if url.startswith("file://"):
        return url.removeprefix("file://")
    return None if "://" in url else os.path.expanduser(url)


def _code_name(code_digest: str) -> str:
    return f"code/{code_digest[:2]}/{code_digest}"


def _record_name(key: str) -> str:
    return f"records/{key[:2]}/{key}"


def _quoted(name: str) -> str:
    """A name as one file name, the same for the same name and for no other."""
    safe = quote(name, safe=" ()+,=@#[]{}").replace("*", "%2A")
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    safe = safe or "%"
    if len(safe) <= LONGEST_NAME:
        return safe
    return f"{safe[:LONGEST_NAME]}~{blake3(name.encode()).hexdigest()[:16]}"


def _run_id(name: str) -> str:
    return unquote(name.removesuffix(".json").partition("-")[2])


def _sealed(record: Record) -> bytes:
    body = orjson.dumps(record.to_json())
    checksum = blake3(body).hexdigest().encode()
    return b"".join((_HEAD, checksum, _BODY, body, b"}"))


def _unsealed(key: str, data: bytes) -> Record | None:
    """Give the record if its checksum is right and it is that of the key."""
    body = data[_BODY_AT:-1]
    if data[len(_HEAD) : len(_HEAD) + 64] != blake3(body).hexdigest().encode():
        return None
    try:
        record = Record.from_json(orjson.loads(body))
        # No more than this, for speed: its checksum was right, so one of us has written it.
        documents.check_manifest(record.manifest)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return record if record.key == key and type(record.digest) is str else None
