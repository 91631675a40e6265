"""`run.replay()`: run a run again, or say what it was made from that has changed.

Knows run manifests, versions, and how a pipeline is traced without running it. Knows nothing of how
a run goes.

A run of a version is run again from its code, in a process of its own: this one may have loaded
other modules of the same names. `python -m prefect_mlpipe.deploy.replaying` is that process.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect.flows import load_flow_from_entrypoint
from prefect.settings import get_current_settings

from prefect_mlpipe.compute.travel import pack_error, unpack_error
from prefect_mlpipe.core.bundling.archive import facts_in
from prefect_mlpipe.core.environment import python_environment, versions
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.graph import Graph, Node, outputs_in
from prefect_mlpipe.core.manifest import Manifest, Parts, Reason
from prefect_mlpipe.core.nested import items_in
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.frozen import packed, unpacked
from prefect_mlpipe.engine.keying import Keyer
from prefect_mlpipe.entries import Entries
from prefect_mlpipe.errors import CannotReplay, MissingFile
from prefect_mlpipe.keeping import version_of
from prefect_mlpipe.replays import Replay, path_of, replaying

_SHOWN = 10


def replay(
    pipeline: Any, document: Mapping[str, Any], refresh: bool, secrets: Mapping[str, Any]
) -> str:
    """Run a run again and return the id of the new run.

    Args:
        pipeline: of which it is a run.
        document: its manifest.
        refresh: run all steps.
        secrets: parameters that were kept nowhere.

    Raises:
        CannotReplay: something that counts has changed, or was not kept.
        VersionNotFound: its code is not in the store any more.
    """
    version = document.get("version")
    if version is not None and version != version_of(pipeline):
        return _elsewhere(pipeline.open_store(), document, refresh, secrets)
    return _here(pipeline, document, refresh, secrets)


def _here(
    pipeline: Any, document: Mapping[str, Any], refresh: bool, secrets: Mapping[str, Any]
) -> str:
    store = pipeline.open_store()
    again = Replay(str(document["id"]), _stand_ins(store, document))
    arguments = _arguments(pipeline, document, secrets)
    _refuse_changes(pipeline, document, arguments, again)
    run = pipeline.with_options(refresh=True) if refresh else pipeline
    with replaying(again):
        (run.local if document["local"] else run)(**arguments)
    return again.made


def _stand_ins(store: Store, document: Mapping[str, Any]) -> dict[str, File | Folder]:
    kept = document.get("inputs", {})
    return {path: store.get(StoredValue.from_json(value)) for path, value in kept.items()}


def _arguments(
    pipeline: Any, document: Mapping[str, Any], secrets: Mapping[str, Any]
) -> dict[str, Any]:
    found = {**document.get("arguments", {}), **secrets}
    for name in document["parameters"]:
        if name not in found:
            raise CannotReplay(
                f"Run '{document['name']}' cannot be run again: parameter '{name}' was not kept.",
                {"parameter": name, "shown as": document["parameters"][name]},
                "A secret is given again: replay(password=...). Of large values, and such without "
                "plain JSON, a run of .local() keeps none but with @pipeline(keep_inputs=True).",
            )
    arguments: dict[str, Any] = pipeline.bind((), found)
    return arguments


# What has changed


def _refuse_changes(
    pipeline: Any, document: Mapping[str, Any], arguments: dict[str, Any], again: Replay
) -> None:
    try:
        graph, _ = pipeline.trace_plan(arguments, document, again.stand_ins)
        changes = dict(_changes(graph, document, pipeline.open_store()))
    except MissingFile as error:
        changes = {"file": f"{error.facts.get('path')}: {error.sentence}"}
    if changes:
        shown = dict(list(changes.items())[:_SHOWN])
        if len(changes) > _SHOWN:
            shown["and"] = f"{len(changes) - _SHOWN} more"
        raise CannotReplay(
            f"Run '{document['name']}' of pipeline '{document['pipeline']}' cannot be run again: "
            "what it was made from has changed.",
            shown,
            "Bring that back, or run the pipeline anew. Runs of a deployment keep their code, and "
            "runs with @pipeline(keep_inputs=True) their input files.",
        )


def _changes(graph: Graph, document: Mapping[str, Any], store: Store) -> Iterator[tuple[str, str]]:
    """Yield what is not as it was when a run was made: what, and how it has changed."""
    entries, keyer = Entries(document), Keyer()
    known = {entry["name"] for entry in document["nodes"] if entry["group"] is None}
    traced = {node.name for node in graph}
    gone = known - traced if graph.complete else set()
    for name in sorted((traced - known) | gone):
        yield f"step {name}", "gone from the pipeline" if name in gone else "new in the pipeline"
    for node in graph:
        for name, arguments in _calls(node) if node.name in known else ():
            before = _manifest(store, entries, name)
            if before is not None:
                yield from _changes_of(node, arguments, before, keyer, store)


def _calls(node: Node) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each call of a node, with those arguments that no step makes."""
    given = {name: value for name, value in node.arguments.items() if not outputs_in(value)}
    if node.mapped is None:
        yield node.name, given
        return
    lists = {name: given.pop(name) for name in node.mapped.parameters if name in given}
    if len(lists) < len(node.mapped.parameters):  # how many there are only the run has known
        yield f"{node.name}[0]", given
        return
    for at in range(min(map(len, lists.values()))):
        yield f"{node.name}[{at}]", {**given, **{name: each[at] for name, each in lists.items()}}


def _manifest(store: Store, entries: Entries, name: str) -> Manifest | None:
    """Return what a step was made from; `None` if it never came so far.

    Raises:
        CannotReplay: it was pruned.
    """
    entry = entries.get(name)
    if entry is None or (entry["key"] is None and entry["manifest"] is None):
        return None
    record = store.records.read(entry["key"]) if entry["key"] else None
    found = entry["manifest"] if record is None else record.manifest
    if found is None:
        raise CannotReplay(
            f"What step '{name}' was made from is not known any more.",
            {"store": store.url, "record": entry["key"]},
            "Its record was pruned: pin a run that is to be replayed.",
        )
    return Manifest.from_json(found)


def _changes_of(
    node: Node, arguments: Mapping[str, Any], before: Manifest, keyer: Keyer, store: Store
) -> Iterator[tuple[str, str]]:
    now = keyer.manifest(node.step, node.name, arguments, _no_output)
    inputs = {name: before.inputs[name] for name in now.inputs if name in before.inputs}
    same = before._replace(inputs=inputs, environment=now.environment)

    def pieces(code: str) -> Parts | None:
        known, kept = keyer.codes.known(code), store.codes.read(code)
        return known.parts if known is not None else kept and kept["parts"]

    for reason in now.diff(same, pieces):
        yield from _told(node, arguments, reason)
    environment = {**versions(before.environment), **python_environment()}
    for name, version in before.environment.items():
        if environment.get(name) != version:
            yield f"package {name}", f"{version} → {environment.get(name) or 'absent'}"


def _no_output(output: object) -> Any:
    raise AssertionError("only what no step makes is digested here")


def _told(node: Node, arguments: Mapping[str, Any], reason: Reason) -> Iterator[tuple[str, str]]:
    files = [*filter(None, map(path_of, items_in(arguments.get(reason.name), fields=True)))]
    if reason.kind == "code changed":
        yield f"code of {reason.name}", f"changed (step '{node.name}')"
    elif reason.name in arguments and files:
        yield f"file {', '.join(files[:3])}", f"changed (step '{node.name}', input '{reason.name}')"
    else:
        yield f"step {node.name}", str(reason)


# In a process of its own


def _elsewhere(
    store: Store, document: Mapping[str, Any], refresh: bool, secrets: Mapping[str, Any]
) -> str:
    pipeline, version = document["pipeline"], document["version"]
    folder = unpacked(store, pipeline, version)
    entrypoint = facts_in(packed(store, pipeline, version))["entrypoint"]
    with tempfile.TemporaryDirectory(prefix="mlpipe-") as place:
        answer = Path(place) / "answer"
        done = subprocess.run(
            [sys.executable, "-m", "prefect_mlpipe.deploy.replaying", str(answer)],
            input=pickle.dumps((store, entrypoint, dict(document), refresh, dict(secrets))),
            cwd=folder,
            env=_environment(folder),
        )
        if not answer.is_file():
            raise CannotReplay(
                f"Run '{document['name']}' was not run again: the process that should do it ended.",
                {"version": version, "exit status": done.returncode},
                "Look at what it printed.",
            )
        made, error = pickle.loads(answer.read_bytes())
    if error is not None:
        data, text = error
        raise unpack_error(data, text, str(document["name"]))
    return str(made)


def _environment(folder: Path) -> dict[str, str]:
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    return {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(paths)}


def main(answer: str) -> None:
    """Run a run again that is told on the standard input; write down its id or the error."""
    store, entrypoint, document, refresh, secrets = pickle.loads(sys.stdin.buffer.read())
    made, error = None, None
    try:
        pipeline: Any = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
        made = _here(pipeline.with_options(store=store), document, refresh, secrets)
    except Exception as raised:  # whatever it is, it is raised where the replay was asked for
        error = pack_error(raised, document["name"])
    Path(answer).write_bytes(pickle.dumps((made, error)))


if __name__ == "__main__":
    main(sys.argv[1])
