"""Run manifests by pipeline and start, and which of a pipeline's runs is the last.

Knows documents; what a run manifest says is not its matter. The name of one begins with the time
of its start, so a listing is in order, and the last one is found by two reads without a listing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from prefect_mlpipe.core.storing.documents import LONGEST_NAME, Documents, quoted

FOLDER: Final = "runs"
_LAST: Final = "last.json"


class RunManifests:
    """The run manifests of one store. Cross-thread and cross-process safe."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._names: dict[tuple[str, str], str] = {}

    def write(
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
        folder = _folder(pipeline)
        name = None if started is not None else self._name(pipeline, run_id)
        if name is None:
            began = time.time() if started is None else started
            name = f"{int(began * 1000):013d}-{quoted(run_id)}.json"
        self._names[pipeline, run_id] = name
        self._documents.write(f"{folder}/{name}", document)
        last = self._last(pipeline)
        if last is None or last < name:
            self._documents.write(f"{folder}/{_LAST}", {"name": name})

    def read(self, pipeline: str, run_id: str) -> dict[str, Any] | None:
        """Give the manifest of a run."""
        name = self._name(pipeline, run_id)
        return self._documents.read(f"{_folder(pipeline)}/{name}") if name else None

    def ids(self, pipeline: str) -> list[str]:
        """Give the ids of the runs of a pipeline, newest first."""
        return [unquote(name[14:].removesuffix(".json")) for name in self._listed(pipeline)]

    def pipelines(self) -> list[str]:
        """Give the names of the pipelines that have runs, in alphabetical order."""
        names = (entry.name.split("/") for entry in self._documents.place.reading().list(FOLDER))
        folders = {parts[1] for parts in names if len(parts) == 3 and is_manifest(parts[2])}
        return sorted(filter(None, map(self._pipeline, folders)))

    def _pipeline(self, folder: str) -> str | None:
        """Give the name of the pipeline that a folder is for, which is cut short if it is long."""
        if len(folder) <= LONGEST_NAME:
            return unquote(folder)
        names = (entry.name for entry in self._documents.place.reading().list(f"{FOLDER}/{folder}"))
        found = (self._documents.read(name) for name in names if not name.endswith(_LAST))
        return next((str(run["pipeline"]) for run in found if run is not None), None)

    def last_started(self, pipeline: str) -> float:
        """Give the start, to the millisecond, under which the last run is listed; 0 if none is."""
        stamp = (self._last(pipeline) or "").partition("-")[0]
        return int(stamp) / 1000 if stamp.isdigit() else 0.0

    def last(self, pipeline: str) -> dict[str, Any] | None:
        """Give the manifest of the run that started last; two reads, however many there are."""
        name = self._last(pipeline)
        found = self._documents.read(f"{_folder(pipeline)}/{name}") if name else None
        if found is not None:
            return found
        each = (self._documents.read(f"{_folder(pipeline)}/{n}") for n in self._listed(pipeline))
        return next((run for run in each if run is not None), None)

    def pin(self, pipeline: str, run_id: str, pinned: bool = True) -> None:
        """Have a run stay, with all that it made and used, until this is taken back."""
        name = self._name(pipeline, run_id)
        if name is None:
            return
        pin = pin_name(f"{_folder(pipeline)}/{name}")
        if pinned:
            self._documents.write(pin, {"run": run_id})
        else:
            self._documents.place.writing().delete(pin)

    def is_pinned(self, pipeline: str, run_id: str) -> bool:
        """Tell whether a run is to stay."""
        name = self._name(pipeline, run_id)
        pin = name and pin_name(f"{_folder(pipeline)}/{name}")
        return bool(pin) and self._documents.read(str(pin)) is not None

    def _last(self, pipeline: str) -> str | None:
        pointer = self._documents.read(f"{_folder(pipeline)}/{_LAST}")
        return None if pointer is None else str(pointer.get("name"))

    def _name(self, pipeline: str, run_id: str) -> str | None:
        name = self._names.get((pipeline, run_id))
        if name is None:
            ending = f"-{quoted(run_id)}.json"
            found = [other for other in self._listed(pipeline) if other.endswith(ending)]
            name = found[0] if found else None
        return name

    def _listed(self, pipeline: str) -> list[str]:
        folder = _folder(pipeline)
        entries = self._documents.place.reading().list(folder)
        names = [entry.name.removeprefix(f"{folder}/") for entry in entries]
        return sorted((name for name in names if is_manifest(name)), reverse=True)


def is_manifest(name: str) -> bool:
    """Tell whether a file name is that of a run manifest, and not of the pointer to the last."""
    return name[:13].isdigit() and name[13:14] == "-" and name.endswith(".json")


def pin_name(name: str) -> str:
    """The name of what says that the run of a manifest stays."""
    return f"pins/{name.removeprefix(f'{FOLDER}/')}"


def _folder(pipeline: str) -> str:
    return f"{FOLDER}/{quoted(pipeline)}"
