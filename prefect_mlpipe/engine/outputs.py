"""From outputs to what stands for them: digests for keys, references for calls, values for readers.

Knows the runs of all nodes and the store. Knows nothing of when anything runs. A value is loaded
only where somebody reads it: a key needs the record alone, a call gets references.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Any

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.formats.base import Unstorable
from prefect_mlpipe.core.graph import Node, Output, replace_outputs
from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.calls import Whole, load
from prefect_mlpipe.engine.references import Reference
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.errors import OutputError, StoreUnavailable, ValueDamaged, ValueMissing

_LISTS = ("list", "tuple", "range", "builtins.list", "builtins.tuple", "builtins.range")


class Outputs:
    """The outputs of one run."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs: dict[Node, StepRun] = {}

    def reference(self, output: Output) -> Reference:
        """Return what is known of an output without loading it."""
        run, field = self.runs[output._mlpipe_node], output._mlpipe_field
        if run.node.mapped is not None:
            return self._mapped_reference(run, field)
        record = _record(run)
        held = () if record.held is None else (record.held,)
        if field is not None:
            value = record.fields[field]
            return Reference(value.digest, value.owners, held)
        if len(record.fields) == 1 and "" in record.fields:
            value = record.fields[""]
            return Reference(value.digest, value.owners, held)
        owned = {owner for value in record.fields.values() for owner in value.owners}
        return Reference(record.digest, tuple(sorted(owned)), held)

    def _mapped_reference(self, run: StepRun, field: str | None) -> Reference:
        items = [self.reference(Output(item.node, field, None)) for item in finished_items(run)]
        owned = {owner for item in items for owner in item.owners}
        held = tuple(each for item in items for each in item.held)
        if field is not None:
            return Reference(digest(items), tuple(sorted(owned)), held)
        if run.whole_digest is None:
            run.whole_digest = digest(items)
        return Reference(run.whole_digest, tuple(sorted(owned)), held)

    def inputs(self, value: Any) -> Any:
        """Return an argument with references in place of its outputs."""
        return replace_outputs(value, self._input)

    def _input(self, output: Output) -> Any:
        run, field = self.runs[output._mlpipe_node], output._mlpipe_field
        if run.node.mapped is not None:
            return [self._input(Output(item.node, field, None)) for item in finished_items(run)]
        record, fields = _record(run), run.node.step.fields
        if field is not None or fields is None:
            return record.fields[field or ""]
        return Whole(fields, tuple(record.fields[name] for name in fields.names))

    def load(self, output: Output) -> Any:
        """Return the value of an output, a copy that is the reader's own."""
        return load(self._input(output), self.store)

    def load_all(self, value: Any) -> Any:
        """Return a structure with its outputs loaded."""
        return replace_outputs(value, self.load)

    def items_of(self, value: Any) -> list[Any] | None:
        """Return the items that a mapped argument stands for, `None` if it is no list."""
        if type(value) is not Output:
            return value if type(value) is list else None
        run = self.runs[value._mlpipe_node]
        if run.items is not None:
            items: list[Any] = [Output(i.node, value._mlpipe_field, None) for i in run.items]
            return items
        stored = self._input(value)
        if type(stored) is StoredValue and stored.type not in _LISTS:
            return None
        if type(stored) is Whole and stored.fields.kind != "tuple":
            return None
        loaded = load(stored, self.store)
        return list(loaded) if type(loaded) in (list, tuple, range) else None

    def problem(self, value: StoredValue) -> str | None:
        """Return `value missing` or `value damaged`, `None` if a stored value is all right."""
        try:
            self.store.check(value)
        except ValueMissing:
            return "value missing"
        except ValueDamaged:
            return "value damaged"
        return None

    def producer(self, value: StoredValue, near: Iterable[StepRun]) -> StepRun | None:
        """Return the run that made a stored value, `None` if no step of this run did.

        Args:
            value: what is looked for.
            near: runs to look at first: another may have made an equal value by chance.
        """
        likely = (one for run in near for one in (run, *(run.items or ())))
        every: Iterable[StepRun] = itertools.chain(likely, self.runs.values())
        for run in every:
            record = run.record or run.lost_with  # it may be about to be made again
            if record is not None and value in record.fields.values():
                return run
        return None


def _record(run: StepRun) -> Record:
    if run.record is None:
        raise OutputError(
            f"Step '{run.name}' has no output: {run.state}.", {}, "See why it did not run."
        )
    return run.record


def finished_items(run: StepRun) -> list[StepRun]:
    """Return the items of a mapped node that a reader of the list gets.

    Raises:
        OutputError: some failed, and `drop_failed` was not asked for.
    """
    items = run.items or []
    finished = [item for item in items if item.record is not None]
    if len(finished) < len(items) and not (run.node.mapped and run.node.mapped.drop_failed):
        missing = [item.name for item in items if item.record is None]
        raise OutputError(
            f"The list of step '{run.name}' has gaps: {len(missing)} of {len(items)} items failed.",
            {"failed": ", ".join(missing[:10]) + (" …" if len(missing) > 10 else "")},
            "Map with drop_failed=True to have the list without them.",
        )
    return finished


_PLACES = {"file": File, "folder": Folder}


def pack(value: Any, store: Store) -> Any:
    """Return what a pipeline returned as plain JSON: stored values by reference, structure as it
    is.

    Lists, tuples and dicts stay; what else was made in the body is stored. Files are named, not
    copied; what cannot be stored is described.
    """
    kind = type(value)
    if kind is StoredValue:
        return {"value": value.to_json()}
    if kind is Whole:
        fields = [part.to_json() for part in value.values]
        return {"fields": dict(zip(value.fields.names, fields, strict=True))}
    if kind is list or isinstance(value, tuple):
        return {"list" if kind is list else "tuple": [pack(item, store) for item in value]}
    if kind is dict:
        return {"dict": [[pack(k, store), pack(item, store)] for k, item in value.items()]}
    if isinstance(value, os.PathLike):
        return {"folder" if kind is Folder else "file": os.fspath(value)}
    try:
        return {"value": store.put(value).to_json()}
    except (Unstorable, Undigestible, StoreUnavailable) as error:
        return {"text": f"{kind.__qualname__}, which cannot be stored: {error}"}


def gather(packed: Any, store: Store) -> Any:
    """Return what `pack` packed, loaded; declared fields come as a dict.

    Raises:
        OutputError: it could not be stored then.
    """
    ((kind, content),) = packed.items()
    match kind:
        case "value":
            return store.get(StoredValue.from_json(content))
        case "fields":
            return {name: store.get(StoredValue.from_json(item)) for name, item in content.items()}
        case "dict":
            return {gather(k, store): gather(item, store) for k, item in content}
        case "file" | "folder":
            return _PLACES[kind](content)
        case "text":
            raise OutputError(f"The pipeline returned a {content}.", {}, "Return plain data.")
        case _:
            items = [gather(item, store) for item in content]
            return tuple(items) if kind == "tuple" else items
