"""Steps of a run that is over: what they came to, why, and what they returned.

Knows the store and the form of a run manifest. Knows nothing of runs as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from prefect_mlpipe.core.manifest import Reason
from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.telling.describing import seconds_text
from prefect_mlpipe.errors import OutputError, ValueMissing
from prefect_mlpipe.explaining import Side, explanation, moment, side_of, side_of_record

Json = Any

_MAX_REASONS: Final = 10


class StoredOutput:
    """The output of a step in a finished run."""

    def __init__(
        self, store: Store, entry: Mapping[str, Json], items: Sequence[StepResult]
    ) -> None:
        self._store = store
        self._entry = entry
        self._items = items

    def __repr__(self) -> str:
        return f"<output of '{self._entry['name']}'>"

    @property
    def values(self) -> dict[str, StoredValue]:
        """Field → reference; one field named '' for an undivided output."""
        fields = self._entry["fields"]
        record = None if fields or not self._entry["key"] else self._record()
        if record is not None:
            return dict(record.fields)
        if fields is None:
            raise OutputError(
                f"Step '{self._entry['name']}' left no output: {self._entry['state']}.",
                {},
                "Look at its .error and .logs.",
            )
        return {name: StoredValue.from_json(value) for name, value in fields.items()}

    def _record(self) -> Record:
        """Return the record of an item, which the run manifest only names.

        Raises:
            ValueMissing: it was pruned.
        """
        found = self._store.records.read(self._entry["key"])
        if found is None:
            raise ValueMissing(
                f"What '{self._entry['name']}' returned is not in the store any more.",
                {"store": self._store.url, "key": self._entry["key"]},
                "Run the pipeline again to have it made again.",
            )
        return found

    def load(self) -> Any:
        """Return the value. Declared fields come as a dict: field → value.

        Of a mapped step it is the list of what its items returned, without those that failed.

        Raises:
            ValueMissing: it was pruned; run the pipeline again to have it made again.
            OutputError: the step left none.
        """
        if self._entry["items"] is not None and self._entry["state"] in ("ran", "reused"):
            return [item.output.load() for item in self._items if item.state in ("ran", "reused")]
        loaded = {name: self._store.get(value) for name, value in self.values.items()}
        return loaded[""] if set(loaded) == {""} else loaded

    def path(self, field: str = "") -> str | None:
        """Return the stored file, for other programs to open; `docs/formats.md` says which.

        It belongs to the store and must not be changed. `None` for what is small: it stands in the
        record of the step.

        Args:
            field: of a step that declares fields, the one that is meant.

        Raises:
            ValueMissing: it was pruned; run the pipeline again to have it made again.
            OutputError: the step left none.
        """
        return self._store.local_path(self.values[field])


class StepResult:
    """One step of a finished run: `run["train"]`; of a mapped one `run["score[3]"]` is an item."""

    def __init__(
        self,
        store: Store,
        document: Mapping[str, Json],
        entry: Mapping[str, Json],
        items: Sequence[StepResult] = (),
    ) -> None:
        self._store = store
        self._document = document
        self._entry = entry
        self.items = items

    def __repr__(self) -> str:
        return f"<step '{self.name}': {self.state}>"

    @property
    def name(self) -> str:
        """Name of the node."""
        return str(self._entry["name"])

    @property
    def state(self) -> str:
        """`ran`, `reused`, `failed`, `skipped` or `cancelled`."""
        return str(self._entry["state"])

    @property
    def key(self) -> str | None:
        """Digest of everything that counts; `None` if it never came so far."""
        key: str | None = self._entry["key"]
        return key

    @property
    def output(self) -> StoredOutput:
        """What it returned."""
        return StoredOutput(self._store, self._entry, self.items)

    @property
    def reasons(self) -> list[Reason]:
        """Why it ran; empty if it was reused, but for that it had to wait for another run."""
        return [Reason(*reason) for reason in self._entry["reasons"]]

    @property
    def reused_from(self) -> str | None:
        """Name of the run that had computed it; `None` if it ran here."""
        run: str | None = self._entry["reused_from"]
        return run

    @property
    def duration(self) -> float:
        """Seconds that its function ran, here or, if reused, then; of all items together."""
        return sum((item.duration for item in self.items), float(self._entry["duration_s"] or 0))

    @property
    def metrics(self) -> dict[str, Any]:
        """What it gave to `log_metrics`, also if it was reused."""
        return dict(self._entry["metrics"])

    @property
    def logs(self) -> list[str]:
        """What it logged in this run."""
        return list(self._entry["logs"])

    @property
    def error(self) -> str | None:
        """Type and message of its error, with the traceback."""
        error: str | None = self._entry["error"]
        return error

    @property
    def cause(self) -> str | None:
        """Type of its error, and the first line of its message."""
        cause: str | None = self._entry["cause"]
        return cause

    def explain(self) -> str:
        """Return why it ran or was reused, with what was compared: old and new, as text.

        For code that changed it has a diff of the sources, for tables columns, types and lengths.
        Values that are compared are loaded here. What is not known any more is said to be so.
        """
        lines = [f"{self.name}: {self._headline()}"]
        if self._entry["items"] is not None:
            lines += self._explain_items()
        elif self.state != "reused":
            lines += explanation(self.reasons, self._before(), self._now(), self._store)
        if self.error:
            lines += ["", *(f"  {line}" for line in self.error.splitlines())]
        return "\n".join(lines)

    def _headline(self) -> str:
        if self._entry["items"] is not None:
            states = Counter(item.state for item in self.items)
            counts = ", ".join(f"{count:,} {state}" for state, count in states.items())
            return f"{self.state} ({counts or 'no items'})"
        took = seconds_text(self.duration)
        if self.state == "skipped":
            return "skipped, because a step above it has no output"
        if self.state != "reused":
            return f"ran in {took}" if self.state == "ran" else self.state
        record = self._store.records.read(self.key) if self.key else None
        made = f", made {moment(record.created)} in {took}" if record is not None else ""
        source = f" from run {self.reused_from}" if self.reused_from else ""
        source += ", which was waited for" if self.reasons else ""
        return f"reused{source}{made}; nothing that counts has changed"

    def _explain_items(self) -> list[str]:
        """Return which items ran for which reasons, and the whole story of the first of them."""
        why: dict[str, list[str]] = {}
        for item in self.items:
            for reason in item.reasons:
                why.setdefault(str(reason), []).append(item.name)
        lines = []
        for sentence, names in islice(why.items(), _MAX_REASONS):
            rest = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            lines.append(f"  {sentence}: {', '.join(names[:3])}{rest}")
        if len(why) > _MAX_REASONS:
            lines.append(f"  … and {len(why) - _MAX_REASONS:,} more reasons")
        told = next((item for item in self.items if item.reasons), None)
        if told is not None:
            lines += ["", *(f"  {line}".rstrip() for line in told.explain().splitlines())]
        return lines

    def _before(self) -> Side | None:
        earlier = self._entry["earlier_key"]
        record = self._store.records.read(earlier) if earlier else None
        return None if record is None else side_of_record(self._store, record)

    def _now(self) -> Side | None:
        record = self._store.records.read(self.key) if self.key else None
        found = self._entry["manifest"] if record is None else record.manifest
        return None if found is None else side_of(self._store, found, self._document)
