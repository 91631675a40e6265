"""What is known of a call when it is decided: its key, its record, what changed.

The thin caller of `core.decide`: it does the reading. A run and a plan both decide through it, so
a plan cannot differ from the run but where a fact has changed in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import orjson
from blake3 import blake3

from prefect_mlpipe.core.decide import Decision, Options, Reuse, changes_since, decide
from prefect_mlpipe.core.files import use_stat_index
from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.core.held import Made, changes, made_by
from prefect_mlpipe.core.manifest import Manifest, Reason
from prefect_mlpipe.core.record import HeldCode, Record
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.telling.kept_code import KeptCode, kept
from prefect_mlpipe.engine.item_keying import ItemKeyer, Keyed
from prefect_mlpipe.engine.keying import Keyer
from prefect_mlpipe.engine.outputs import Outputs
from prefect_mlpipe.engine.selection import Selection

_SORTED: Final = orjson.OPT_SORT_KEYS
_FRESH_S: Final = 60.0  # how long what was asked for beforehand is believed


class BaselineLike(Protocol):
    """What a step is compared with to say what changed."""

    def key(self, node: str) -> str | None:
        """Return the key that a node had when it last succeeded."""

    def manifest(self, node: Node) -> Manifest | None:
        """Return the manifest to compare a node with."""

    def records(self) -> dict[str, Record]:
        """Return the records of the last run by key, if they can be had more cheaply together."""


class Decided(NamedTuple):
    """A decision on a node.

    Attributes:
        decision: whether it runs.
        key: under which its record stands, or will.
        record: what stands there now.
    """

    decision: Decision
    key: str
    record: Record | None


class Decider:
    """Makes manifests and decisions, for a run or for a plan."""

    def __init__(
        self,
        store: Store,
        keyer: Keyer,
        selection: Selection,
        baseline: BaselineLike,
        clock: Callable[[], float],
        uses: Callable[[str], None] = lambda key: None,
    ) -> None:
        use_stat_index(store.stat_index)  # a large file that did not change is not read again
        self.keyer = keyer
        self._items = ItemKeyer(keyer)
        self.selection = selection
        self._store = store
        self._baseline = baseline
        self._clock = clock
        self._uses = uses
        self._beforehand: dict[str, Record | None] | None = None
        self._asked = 0.0

    def manifest(self, node: Node, outputs: Outputs) -> Manifest:
        """Return everything that the key of a node is made of; see `Keyer.manifest`."""
        return self.keyer.manifest(node.step, node.name, node.arguments, outputs.reference)

    def keyed(self, node: Node, group: Node | None, outputs: Outputs) -> Keyed:
        """Return the manifest of a node, or of an item of a mapped one, its key, and its files."""
        return self._items.keyed(node, group, outputs.reference)

    def decide(
        self, node: Node, manifest: Manifest, key: str, lost: Reason | None = None
    ) -> Decided:
        """Return the decision on a node, its key, and the record that stands under that.

        Where the output of that key has other code in it than would be made now, as a function with
        another docstring, there is a second key: both outputs may stand, and be reused.
        """
        step = node.step
        record = self._record(key, lost is None) if step.cached else None
        outdated = self.outdated(node, manifest, record)
        if outdated:
            assert record is not None
            key = self._second_key(node, manifest, record)
            record = self._record(key, lost is None)
            if record is not None:
                outdated = self.outdated(node, manifest, record)
        options = Options(
            step.cached,
            self.selection.is_refreshed(node.name),
            step.options.cache_expiration,
            lost,
            outdated,
        )
        decision = decide(
            record, options, self._clock(), lambda: self._changes(node, manifest, key)
        )
        if isinstance(decision, Reuse):
            self._uses(key)
        return Decided(decision, key, record)

    def outdated(self, node: Node, manifest: Manifest, record: Record | None) -> tuple[Reason, ...]:
        """Return why the code in a recorded output is not as the step would make it now."""
        if record is None or record.held is None:
            return ()
        reasons = [
            Reason("code changed", name.replace(":", "."))
            for name in self.keyer.names.changed(record.held)
        ]
        if record.held.made:
            made = self._made(node, record.held)
            reasons += (Reason("code changed", each) for each in changes(made, record.held.made))
            given = self._given(node, manifest)
            reasons += given.given_otherwise(record.manifest.get("given", {}))
        return tuple(reasons)

    def _made(self, node: Node, held: HeldCode) -> Made:
        return made_by(self.keyer.codes.of(node.step, node.name).code, held.made)

    def _given(self, node: Node, manifest: Manifest) -> Manifest:
        given = {**self.keyer.given(node.step, node.name), **manifest.given}
        return manifest._replace(given=given) if given else manifest

    def _second_key(self, node: Node, manifest: Manifest, record: Record) -> str:
        assert record.held is not None
        given = self._given(node, manifest).given
        shows = [self._made(node, record.held), dict(given), self.keyer.names.now(record.held)]
        return blake3(orjson.dumps([manifest.key(), *shows], option=_SORTED)).hexdigest()

    def look_up(self, keys: Sequence[str]) -> None:
        """Ask for the records of several keys in one call, before they are decided on."""
        known = self._known()
        unknown = [key for key in keys if key not in known]
        if len(unknown) > 1:
            found = self._store.records.read_many(unknown)
            known.update((key, found.get(key)) for key in unknown)

    def _record(self, key: str, first: bool) -> Record | None:
        """Give the record of a key; asked again, it is looked for anew: others may write too."""
        known = self._known()
        if key in known:
            record = known.pop(key)
            if first:
                return record
        return self._store.records.read(key)

    def _known(self) -> dict[str, Record | None]:
        now = time.monotonic()
        if self._beforehand is None:
            self._beforehand = {**self._baseline.records()}
            self._asked = now
        elif now - self._asked > _FRESH_S:
            self._beforehand.clear()  # a body may take hours, and others move keys meanwhile
            self._asked = now
        return self._beforehand

    def _changes(self, node: Node, manifest: Manifest, key: str) -> list[Reason]:
        refused = self._store.records.refused(key)
        if refused is not None:
            what = "its record" if refused == "damaged" else f"its record is {refused}"
            return [Reason("value damaged", what)]
        if key == self._baseline.key(node.name):
            return [Reason("value missing", "its record")]
        return self.changes(node, manifest, self._baseline.manifest(node))

    def changes(self, node: Node, manifest: Manifest, before: Manifest | None) -> list[Reason]:
        """Return what changed since an earlier manifest of a node."""
        if before is not None:
            manifest = self._described(node, manifest)
        return changes_since(manifest, before, self._pieces)

    def _described(self, node: Node, manifest: Manifest) -> Manifest:
        facts = self.keyer.described(node.step, node.arguments)
        return manifest._replace(described=facts) if facts else manifest

    def _pieces(self, code: str) -> Mapping[str, str] | None:
        """Return the pieces of code that this run has read, else of what the store kept."""
        known = self.keyer.codes.known(code)
        if known is not None:
            return known.parts
        document = self._store.codes.read(code)
        return None if document is None else KeptCode.from_json(document).parts

    def kept(self, node: Node, manifest: Manifest) -> Manifest:
        """Return the manifest of a step that is to run, with what a later explanation needs.

        The code is kept in the store while it is what was just read; its files may change.
        """
        codes = {"": manifest.code, **manifest.brought} if manifest.code else manifest.brought
        new = {place: each for place, each in codes.items() if not self._store.codes.has(each)}
        before = self._baseline.manifest(node) if new else None
        for place, each in new.items():
            read = self.keyer.codes.known(each)
            assert read is not None  # for this manifest
            earlier = None
            if before is not None:
                earlier = before.brought.get(place) if place else before.code
            document = kept(read, earlier, self._store.codes.read)
            self._store.codes.write(each, document.to_json())
        return self._described(node, self._given(node, manifest))
