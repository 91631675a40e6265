"""`pipeline.versions`: the frozen versions of a pipeline, compared, and which one deployments run.

Knows what a version says in the store, and Prefect's deployments. Knows nothing of how one is made.
"""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from prefect_mlpipe.core.bundling import archive
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.deployments import move_deployments
from prefect_mlpipe.deploy.frozen import packed
from prefect_mlpipe.errors import VersionNotFound

_SHOWN = 10


@dataclass(frozen=True)
class Version:
    """A frozen version of a pipeline: the code that it reaches, as it was deployed.

    Attributes:
        name: what Prefect shows as the version of the deployment.
        digest: of everything in it.
        created: when it was first deployed.
        commit: the git commit of the working copy, if it was one.
        dirty: whether the working copy had changes that were not committed.
        python: version of Python.
        packages: installed distribution → version, of those that its code imports.
        functions: label of a function, class or global that the pipeline reaches → digest.
        entrypoint: how a worker finds the pipeline in it.
        lock: name and digest of the lock file, if there was one.
    """

    name: str
    digest: str
    created: datetime
    commit: str | None
    dirty: bool
    python: str
    packages: Mapping[str, str]
    functions: Mapping[str, str] = field(repr=False)
    entrypoint: str
    lock: Mapping[str, str] | None
    _store: Store = field(repr=False, compare=False)
    _pipeline: str = field(repr=False)

    @classmethod
    def from_document(cls, store: Store, document: Mapping[str, Any]) -> Version:
        """Read what `freeze` kept."""
        return cls(
            document["name"],
            document["digest"],
            datetime.fromtimestamp(document["created"], UTC),
            document["commit"],
            document["dirty"],
            document["python"],
            document["packages"],
            document["functions"],
            document["entrypoint"],
            document["lock"],
            store,
            document["pipeline"],
        )

    def __str__(self) -> str:
        commit = f"commit {self.commit[:8]}" if self.commit else "no commit"
        changed = ", with changes" if self.dirty else ""
        return f"{self.name}  {self.created:%Y-%m-%d %H:%M} UTC  {commit}{changed}"

    @cached_property
    def files(self) -> Mapping[str, str]:
        """Name → text of the source files.

        Raises:
            VersionNotFound: they are not whole any more.
        """
        found = archive.files_in(packed(self._store, self._pipeline, self.name))
        return {name: data.decode(errors="replace") for name, data in found.items()}


@dataclass(frozen=True)
class Comparison:
    """How two versions differ. `str()` tells it; `diff()` has the sources, side by side.

    Attributes:
        before: one version.
        after: the other.
    """

    before: Version
    after: Version

    @property
    def functions(self) -> list[str]:
        """What a run would call changed code: functions, classes and globals that are reached."""
        return _differing(self.before.functions, self.after.functions)

    @property
    def files(self) -> list[str]:
        """Source files that differ, also where nothing does that the pipeline reaches."""
        return _differing(self.before.files, self.after.files)

    @property
    def packages(self) -> list[tuple[str, str | None, str | None]]:
        """Distributions and Python itself that differ: name, before, after."""
        before = {"python": self.before.python, **self.before.packages}
        after = {"python": self.after.python, **self.after.packages}
        return [(n, before.get(n), after.get(n)) for n in _differing(before, after)]

    def diff(self) -> str:
        """Return the differences of the source files as a unified diff."""
        return "\n".join(
            line
            for name in self.files
            for line in difflib.unified_diff(
                self.before.files.get(name, "").splitlines(),
                self.after.files.get(name, "").splitlines(),
                f"{name}, {self.before.name}",
                f"{name}, {self.after.name}",
                lineterm="",
            )
        )

    def __str__(self) -> str:
        told = {
            "code": self.functions,
            "files": self.files,
            "packages": [f"{n} {b or 'absent'} → {a or 'absent'}" for n, b, a in self.packages],
        }
        lines = [f"{self.before.name} → {self.after.name}"]
        lines += [f"  {what:<9}{_listed(names)}" for what, names in told.items() if names]
        return "\n".join(lines if len(lines) > 1 else [*lines, "  no difference"])


class Versions:
    """The frozen versions of a pipeline in a store, the newest first."""

    def __init__(self, store: Store, pipeline: str) -> None:
        self._store = store
        self._pipeline = pipeline

    def __iter__(self) -> Iterator[Version]:
        found = self._store.versions.all(self._pipeline)
        for document in sorted(found, key=lambda each: each["created"], reverse=True):
            yield Version.from_document(self._store, document)

    def list(self) -> builtins.list[Version]:
        """Return all versions."""
        return [*self]

    def get(self, name: str) -> Version:
        """Return a version by its name, or by the beginning of its digest.

        Raises:
            VersionNotFound: there is none, or several begin so.
        """
        document = self._store.versions.read(self._pipeline, name)
        if document is not None:
            return Version.from_document(self._store, document)
        found = [each for each in self if name and each.digest.startswith(name)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(each.name for each in self)
        raise VersionNotFound(
            f"Pipeline '{self._pipeline}' has no version '{name}' in this store.",
            {"store": self._store.url, "versions": known or "none: deploy the pipeline first"},
            "See .versions.list().",
        )

    def compare(self, before: str, after: str) -> Comparison:
        """Return how two versions differ: in code that is reached, in files, in packages."""
        return Comparison(self.get(before), self.get(after))

    @property
    def default(self) -> Version | None:
        """The version that deployments run: the last one deployed or rolled back to."""
        deployed = self._store.versions.deployed(self._pipeline)
        return self.get(deployed[-1]) if deployed else None

    def rollback(self, name: str | None = None) -> Version:
        """Have the deployments of this pipeline run an earlier version again; return it.

        Runs that wait go on with the version that they were made for; those that a schedule has
        made are made anew by Prefect.

        Args:
            name: of the version; default: the one that was deployed before the present default.

        Raises:
            VersionNotFound: there is no such version, or nothing was deployed before.
        """
        deployed = self._store.versions.deployed(self._pipeline)
        wanted = self.get(name).name if name is not None else None
        if wanted is None:
            if len(deployed) < 2:
                raise VersionNotFound(
                    f"Pipeline '{self._pipeline}' has no version before the present one.",
                    {"store": self._store.url, "deployed": ", ".join(deployed) or "none"},
                    "Name the version that deployments shall run.",
                )
            deployed.pop()
        else:
            deployed.append(wanted)
        version = self.get(deployed[-1])
        packed(self._store, self._pipeline, version.name)  # before anything relies on it
        move_deployments(self._store, self._pipeline, version.name)
        self._store.versions.deploy(self._pipeline, deployed)
        return version


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
