"""What a run manifest keeps so that the run can be run again: parameters, files, its version.

Knows the form of a run manifest. Knows nothing of how a run goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_mlpipe.core.bundling.archive import NAME_DIGITS, facts_beside
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.nested import items_in
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.engine import Engine
from prefect_mlpipe.engine.paths import as_file
from prefect_mlpipe.errors import InputChanged, MissingFile
from prefect_mlpipe.parameters import kept, references_in
from prefect_mlpipe.replays import Replay, path_of


@dataclass(frozen=True)
class RunInfo:
    """Which run this is.

    Attributes:
        shown: parameters as Prefect has them, some only by reference.
        local: whether it is none of Prefect's.
    """

    id: str
    name: str
    pipeline: str
    parameters: Mapping[str, Any]
    shown: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False


def version_of(pipeline: Any) -> str | None:
    """Return the name of the version that the code of a pipeline was unpacked from, if it was."""
    facts = facts_beside(pipeline.body.__code__.co_filename)
    if facts is None or facts["pipeline"] != pipeline.name:
        return None
    return facts["name"] or str(facts["digest"][:NAME_DIGITS])


def kept_for_replay(
    pipeline: Any, info: RunInfo, engine: Engine, store: Store, replay: Replay | None
) -> dict[str, Any]:
    """Return what it takes to run a run again, besides the code of the working copy.

    Args:
        pipeline: what was run.
        info: which run it is.
        engine: what it has run.
        store: where parameters and files go.
        replay: of another run, if it is one.

    Raises:
        StoreUnavailable: something has to be stored and cannot be.
    """
    originals = {} if replay is None else replay.originals()
    keep = pipeline.options.keep_inputs or bool(originals)
    known = references_in(info.shown)
    rest = {name: value for name, value in info.parameters.items() if name not in known}
    large = keep or not info.local  # as Prefect has them
    return {
        "version": version_of(pipeline),
        "replays": None if replay is None else replay.run_id,
        "local": info.local,
        "arguments": {**kept(rest, lambda: store, large=large), **known},
        "inputs": _kept_files(engine, store, originals) if keep else {},
    }


def _kept_files(engine: Engine, store: Store, originals: Mapping[str, str]) -> dict[str, Any]:
    """Store the files that steps were given: path → reference."""
    found: dict[str, Any] = {}
    for node in engine.graph:
        for item in items_in(list(node.arguments.values()), fields=True):
            at = path_of(item)
            path = at and originals.get(at, at)
            if path is None or path in found:
                continue
            try:
                place = item if isinstance(item, File | Folder) else as_file(item)
                found[path] = store.put(place).to_json()
            except (MissingFile, InputChanged) as error:
                engine.warn(f"An input file could not be kept: {error.sentence}")
    return found
