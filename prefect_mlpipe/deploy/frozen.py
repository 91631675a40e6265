"""Prefect's side of a version: where the code of a deployment is, and the pull step that brings it.

Knows Prefect's protocol of a storage. Knows nothing of how a version is made.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run

from prefect_mlpipe.core.bundling import archive
from prefect_mlpipe.core.environment import versions
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import StoreError, VersionNotFound
from prefect_mlpipe.settings import Settings
from prefect_mlpipe.stores import open_store

RESTORE: Final = "prefect_mlpipe.deploy.frozen.restore"
_STORE: Final = "PREFECT_MLPIPE_STORE"


@dataclass(frozen=True)
class FrozenCode:
    """The code of a version as a storage of Prefect's.

    Attributes:
        pipeline: its name.
        version: name of the version.
        entrypoint: how the pipeline is found in it.
        store: the URL of the store where it is kept.
    """

    pipeline: str
    version: str
    entrypoint: str
    store: str
    _base: list[Path] = field(default_factory=list, compare=False, repr=False)

    def set_base_path(self, path: Path) -> None:
        """Take note of where Prefect would have it; it is unpacked in the cache instead."""
        self._base[:] = [path]

    @property
    def pull_interval(self) -> int | None:
        """Never: a version does not change."""
        return None

    @property
    def destination(self) -> Path:
        """Where the code is."""
        return unpacked(open_store(self.store), self.pipeline, self.version)

    async def pull_code(self) -> None:
        """Bring the code to this machine."""
        unpacked(open_store(self.store), self.pipeline, self.version)

    def to_pull_step(self) -> dict[str, Any]:
        """Return the step that brings the code to a worker."""
        said = {"pipeline": self.pipeline, "version": self.version, "store": self.store}
        return {RESTORE: said}


def packed(store: Store, pipeline: str, version: str) -> bytes:
    """Return the archive of a version, after it was checked.

    Raises:
        VersionNotFound: there is no such version in the store, or its archive is not whole.
    """
    found = store.versions.read(pipeline, version)
    if found is None:
        raise VersionNotFound(
            f"Pipeline '{pipeline}' has no version '{version}' in this store.",
            {"store": store.url},
            "See .versions.list(), or look in the store that it was deployed with.",
        )
    try:
        path = store.get(StoredValue.from_json(found["archive"]))
        data = Path(path).read_bytes()
    except StoreError as error:
        raise VersionNotFound(
            f"The code of version '{version}' of pipeline '{pipeline}' is not whole any more.",
            {"store": store.url, "problem": error.sentence},
            "Deploy it again from that commit, or roll back to another version.",
        ) from error
    if archive.digest_of(data) != found["digest"]:
        raise VersionNotFound(
            f"The code of version '{version}' of pipeline '{pipeline}' is not that of its digest.",
            {"store": store.url, "digest": found["digest"], "found": archive.digest_of(data)},
            "Deploy it again from that commit, or roll back to another version.",
        )
    return data


def unpacked(store: Store, pipeline: str, version: str) -> Path:
    """Return the folder on this machine that holds the code of a version.

    Raises:
        VersionNotFound: it is not in the store.
    """
    return archive.unpack(packed(store, pipeline, version), Path(Settings().cache) / "code")


def restore(pipeline: str, version: str, store: str, **_: Any) -> dict[str, str]:
    """Bring the code of a version to this worker; a pull step of Prefect's.

    A run that waited while its deployment went on to another version gets the code that it was
    made for.

    Args:
        pipeline: its name.
        version: that of the deployment now.
        store: URL of the store.
    """
    opened = open_store(store)
    run = _this_run()
    wanted = _made_for(run, opened, pipeline) or version
    folder = str(unpacked(opened, pipeline, wanted))
    if run is not None:
        _tell(run, opened, pipeline, wanted)
    sys.path.insert(0, folder)
    os.environ.setdefault(_STORE, store)  # the run's own store, unless its environment says
    return {"directory": folder}


def _this_run() -> FlowRun | None:
    """Return the flow run that this process was started for, if it was."""
    if flow_run.id is None:
        return None
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(str(flow_run.id)))


def _made_for(run: FlowRun | None, store: Store, pipeline: str) -> str | None:
    """Return the version that a flow run was made for, if it is one of ours.

    Prefect notes on each flow run which version its deployment had when the run was made.
    """
    version = run.deployment_version if run is not None else None
    known = version is not None and store.versions.read(pipeline, version) is not None
    return version if known else None


def _tell(run: FlowRun, store: Store, pipeline: str, version: str) -> None:
    """Say in the log of a run which version it is of, and which packages are others here."""
    flow_run_logger(run).info("Version '%s' of pipeline '%s'", version, pipeline)
    document = store.versions.read(pipeline, version)
    assert document is not None, "it was unpacked just now"
    before = {"python": document["python"], **document["packages"]}
    here = {"python": platform.python_version(), **versions(document["packages"])}
    others = [f"{n} {was} → {here[n] or 'absent'}" for n, was in before.items() if here[n] != was]
    if others:
        flow_run_logger(run).warning(
            "Version '%s' of pipeline '%s' was deployed with other packages than this worker has: "
            "%s. Its steps run with those that are here.",
            version,
            pipeline,
            ", ".join(others),
        )
