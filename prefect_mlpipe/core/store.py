"""A store: values, records and run manifests under one URL.

Knows nothing of Prefect, of what a key is made of, or of when a record is good enough to be reused.

    format, CACHEDIR.TAG                       the version of this layout
    values/3f/3f9c….npy                        a stored value; small ones stand in their record
    values/3f/3f9c…/digits.csv                 a stored file or folder
    records/41/41d0a2…                         what the step with this key left
    packs/…, pack-keys/…                       records of a mapped step's items, many together
    segments/<digest>.jsonl                    copies of a run's records in one object (remote
                                               stores only)
    moved/<key>                                which records in packs and segments do not stand any
                                               more
    code/7a/7ab3…                              the parts of some code, to explain changes
    latest/helpers.clean.json                  the latest manifest of a function
    published/digits/versions/…, aliases/…     published values by name
    versions/digits/names/…, deployed.json     frozen versions, and which was deployed when
    runs/digits/1767225600000-<id>.json, last  run manifests, and which one is the last
    pins/digits/1767225600000-<id>.json        which runs are to stay, whatever is pruned
    parameters/<checksum>.json                 a parameter that Prefect has only by reference
    active/<id>.json                           what a run in progress has reused
    watches/<name>.json                        what a watcher of data has seen, or a completion
                                               trigger has taken
    leases/41d0a2…, leases/holders/<token>     which run computes a key just now, and that it lives

All but values, keys of packs, segments and leases are sealed documents (`core.storing.seals`).

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Final

import orjson
from pydantic import ByteSize, TypeAdapter

from prefect_mlpipe.core.digest import Buffers
from prefect_mlpipe.core.leases.leases import Leases
from prefect_mlpipe.core.leases.local_leases import LocalLeases
from prefect_mlpipe.core.leases.remote_leases import RemoteLeases
from prefect_mlpipe.core.places import copies
from prefect_mlpipe.core.places.backends import Backend, LocalBackend
from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.core.places.remote_errors import shown
from prefect_mlpipe.core.places.stat_index import StatIndex
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.storing.active import Active
from prefect_mlpipe.core.storing.codes import Codes
from prefect_mlpipe.core.storing.documents import Documents, Drawer
from prefect_mlpipe.core.storing.moves import Moves
from prefect_mlpipe.core.storing.packs import Packs
from prefect_mlpipe.core.storing.place import Place
from prefect_mlpipe.core.storing.published_values import Published
from prefect_mlpipe.core.storing.records import Records
from prefect_mlpipe.core.storing.run_manifests import RunManifests
from prefect_mlpipe.core.storing.seals import Seal
from prefect_mlpipe.core.storing.segments import Segments
from prefect_mlpipe.core.storing.soundness import Soundness
from prefect_mlpipe.core.storing.stored_values import Values
from prefect_mlpipe.core.storing.versions import FrozenVersions
from prefect_mlpipe.core.upkeep.marking import Rules
from prefect_mlpipe.core.upkeep.probing import Probe, probe
from prefect_mlpipe.core.upkeep.pruning import SHORTEST_GRACE, Pruned, prune
from prefect_mlpipe.core.upkeep.usage import Usage, usage
from prefect_mlpipe.core.upkeep.verifying import Verified, verify

SIGNED: Final = (
    "records",
    "packs",
    "runs",
    "active",
    "published",
    "versions",
    "parameters",
    "pins",
    "code",
    "latest",
    "watches",
)

TRIAL_BYTES: Final = 4096  # a block: a full disk often takes an empty file

_TRIAL: Final = "leases/writable"
_BYTES: Final = TypeAdapter(ByteSize)


class Store:
    """Where stored values, records and run manifests live.

    Store("/data/mlpipe")             # a folder; also file:///data/mlpipe
    Store("s3://ml/store", key=...)   # any fsspec URL; options go to fsspec

    Making one touches nothing. Pickles of it carry the URL, the options and the signing key.

    Args:
        url: a folder or an fsspec URL.
        cache_folder: where copies of remote values are kept on this machine.
        stat_index: where it is remembered which files were checked; default: within the cache.
        signing_key: a secret of 16 characters or more, the same for all who use the store. With
            one, whatever has no signature of it is not believed, and nothing is unpickled that
            such a document refers to.
        storage_options: given to fsspec as they are; never printed.

    Attributes:
        url: as it was given, without a password.
        records: what executed steps left, by key.
        runs: run manifests.
        published: published values.
        versions: frozen versions of pipelines.
        codes: what is kept of code, by digest.
        latest: the latest manifest of a function.
        watches: what watchers of data have seen, and completion triggers have taken.
        parameters: references to parameters that Prefect has not but by reference.
        packs: records that lie together.
        segments: copies of records, for reruns on a remote store.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        cache_folder: str | None = None,
        stat_index: StatIndex | None = None,
        signing_key: str | None = None,
        **storage_options: Any,
    ) -> None:
        self._url = os.fspath(url)
        self.url = shown(self._url)
        self._options = storage_options
        self._signing_key = signing_key
        self._cache_folder = cache_folder or default_cache_folder()
        self._given_index = stat_index
        self.stat_index = stat_index or StatIndex(self._cache_folder)
        folder = _local_folder(self._url)
        if folder is not None:
            local = LocalBackend(folder, self.url)
            self._attach(local, local, None)
        else:
            remote = RemoteBackend(self._url, **storage_options)
            self._attach(remote, LocalBackend(os.path.join(self._cache_folder, "copies")), remote)

    def _attach(self, backend: Backend, local: LocalBackend, remote: RemoteBackend | None) -> None:
        self._backend = backend
        self._place = Place(backend)
        self._values = Values(local, remote, Soundness(self.stat_index))
        self._documents = documents = Documents(self._place, Seal(self._signing_key))
        moves = Moves(self._place)
        self.packs = Packs(documents, moves)
        self.segments = Segments(documents, moves)
        self.records = Records(documents, self.packs, moves)
        self.runs = RunManifests(documents)
        self.published = Published(documents)
        self.versions = FrozenVersions(documents)
        self.codes = Codes(documents)
        self.latest = Drawer(documents, "latest")
        self.watches = Drawer(documents, "watches")
        self.parameters = Drawer(documents, "parameters")

    def signing(self, key: str) -> Store:
        """Give this store with a signing key, unless it has one."""
        if self._signing_key is not None:
            return self
        options = {**self._options, "cache_folder": self._cache_folder, "signing_key": key}
        return _restored(self._url, options, self._given_index)

    @property
    def is_local(self) -> bool:
        """Tell whether this store is a folder of this machine."""
        return isinstance(self._backend, LocalBackend)

    def is_made(self) -> bool:
        """Look whether there is a store; the first write makes one.

        Raises:
            StoreUnavailable: something else lies there, or it cannot be read.
        """
        self._place.reading()
        return self._place.is_made

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        options = {
            **self._options,
            "cache_folder": self._cache_folder,
            "signing_key": self._signing_key,
        }
        return _restored, (self._url, options, self._given_index)

    # --- values -------------------------------------------------------------------------------

    def put(
        self,
        value: object,
        *,
        buffers: Buffers | None = None,
        inline: bool = True,
        reach: list[Any] | None = None,
    ) -> StoredValue:
        """Store a value and give the reference to it. Stored twice, it is written once.

        Args:
            buffers: hashes of large buffers, if their value was digested before.
            inline: whether a small value may stand in its reference instead of the store.
            reach: takes in what the value reaches, for `core.held`.

        Raises:
            Unstorable: it cannot be read back as what it is; says where and why.
            StoreUnavailable: the store cannot be written.
        """
        self._place.writing()
        return self._values.put(value, buffers, inline, reach)

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

    def check(self, value: StoredValue) -> None:
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

    def url_of(self, value: StoredValue) -> str | None:
        """The URL of its file or folder in this store; `None` for an inline value."""
        return None if value.inline is not None else f"{self.url}/{self._values.name(value)}"

    # --- the place itself ------------------------------------------------------------------------

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

    def prepare(self) -> None:
        """Make the store where there is none. One that stands may be read-only or full: what is in
        it can be reused all the same.

        Raises:
            StoreUnavailable: there is none and none can be made, or it cannot be read.
        """
        self._place.writing()

    def require_writable(self) -> None:
        """Write something small and remove it: to know before work is done that it can be kept.

        Raises:
            StoreUnavailable: nothing can be written now.
        """
        backend = self._place.writing()
        backend.replace(_TRIAL, bytes(TRIAL_BYTES))
        backend.delete(_TRIAL)

    def active(self, run_id: str) -> Active:
        """Give the word of a run for what it reuses; close it when the run has ended."""
        return Active(self._documents, run_id)

    # --- upkeep ----------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Say how much room values, records, runs and the rest take; `str()` is a table."""
        return usage(self._documents)

    def probe(self) -> Probe:
        """Say whether it can be read and written from here; makes none where there is none.

        Raises:
            StoreUnavailable: it cannot, with what to do.
        """
        return probe(self._documents)

    def verify(self, *, repair: bool = False) -> Verified:
        """Read everything and compare it with its checksums and signatures.

        Args:
            repair: remove records, values and kept code that are damaged: they are made again when
                they are needed. What is only not signed with our key stays, and so does what no
                step makes again: run manifests, published values, pins.
        """
        return verify(self._documents, self._values.reads, self.check, self._values.name, repair)

    def prune(
        self,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        max_bytes: int | str | None = None,
        grace: timedelta = timedelta(hours=1),
        dry_run: bool = False,
    ) -> Pruned:
        """Remove what nothing refers to, and runs and records that may go, with their values.

        It looks twice, some seconds apart, so that it sees what runs in progress use. A step whose
        record or value was removed simply runs again when it is needed. Pinned runs and published
        values stay, with all that they refer to. Safe while runs write.

        Args:
            keep_last: runs may go, but for so many of the newest of each pipeline.
            older_than: runs may go that started longer ago; with `keep_last`, both must hold.
            max_bytes: then values go, those first that were not used for longest, until no more
                than this is left: bytes, or as `"500 GB"`.
            grace: what is younger stays, by the store's own clock; ten minutes at least.
            dry_run: remove nothing, only say what would go.

        Raises:
            ValueError: a number is negative, or the grace too short.
            StoreUnavailable: there are documents that are not signed with our key; nothing is
                removed, since what they refer to is not known.
        """
        if keep_last is not None and keep_last < 0:
            raise ValueError(f"keep_last={keep_last}: a number of runs, 0 or more")
        if grace < SHORTEST_GRACE:
            raise ValueError(f"grace={grace}: {SHORTEST_GRACE} at least, else runs lose their work")
        limit = None if max_bytes is None else _BYTES.validate_python(max_bytes)
        return prune(
            self._documents, self.packs, Rules(keep_last, older_than, limit, grace), dry_run
        )

    def signature(self, value: StoredValue) -> str | None:
        """Sign a reference that is to leave the store, `None` without a signing key."""
        return self._documents.seal.signature("reference", orjson.dumps(value.to_json()))

    def sign(self) -> int:
        """Sign whatever is whole and has no signature of our key; trusts all that is there.

        Returns:
            How many documents were signed.

        Raises:
            ValueError: the store was opened without a signing key.
        """
        if self._signing_key is None:
            raise ValueError(f"{self!r} has no signing key: give one, or set it in the settings")
        return sum(self._documents.sign(folder) for folder in SIGNED)

    def sync(self) -> None:
        """Make what was written so far survive a power cut. Nothing is wrong without it: what was
        lost is computed again."""
        self._backend.sync()


def default_cache_folder() -> str:
    """Where copies of remote values are kept unless the settings say otherwise."""
    return copies.folder()


def _restored(url: str, options: dict[str, Any], stat_index: StatIndex | None) -> Store:
    return Store(url, stat_index=stat_index, **options)


def _local_folder(url: str) -> str | None:
    """The folder that a URL names, `None` if it lies elsewhere."""
    for protocol in ("file://", "local://"):
        if url.startswith(protocol):
            return url.removeprefix(protocol)
    return None if "://" in url else os.path.expanduser(url)
