"""Run manifests: what every run leaves in the store, and queries over them.

Knows the store and the form of a run manifest. Knows nothing of Prefect: runs of `local()` and
runs as a flow are the same here, and can be asked after the process, and the Prefect server, are
gone.
"""

from __future__ import annotations

import builtins
import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from prefect_mlpipe.core.manifest import Reason
from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.outputs import gather
from prefect_mlpipe.entries import Entries
from prefect_mlpipe.errors import (
    CannotReplay,
    InvalidParameters,
    OutputError,
    RunNotFound,
    ValueMissing,
)
from prefect_mlpipe.explaining import Side, explanation, moment, side_of, side_of_record
from prefect_mlpipe.reporting.summary import seconds_text

Json = Any
Replayer = Callable[..., str]  # run manifest, what is asked → id of the new run

_MAX_REASONS: Final = 10


def plain(value: Any) -> Any:
    """Return a parameter as plain JSON; a short text where it has none."""
    try:
        encoded = orjson.dumps(value, default=str)
    except (TypeError, ValueError):
        return repr(value)[:200]
    return orjson.loads(encoded) if len(encoded) <= 65536 else repr(value)[:200]


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


class ComputeUse(NamedTuple):
    """What a run used of one compute.

    Attributes:
        names: those of the compute; several with equal settings share a cluster.
        kind: `Threads`, `Dask`, `Cuda`.
        spans: when clusters were started and stopped for it; none if nothing had to run there.
        busy_seconds: how long steps ran on it, all of them together, failed tries too.
        worker_seconds: how long workers were there, all of them together; `None` for threads and
            for a cluster that was given by its address.
        saved_seconds: how long the reused steps took when they ran.
        cost: what that cost; `None` without a `cost_per_hour`.
        saved_cost: what the reused steps would have cost; `None` likewise.
    """

    names: tuple[str, ...]
    kind: str
    spans: tuple[tuple[datetime, datetime], ...]
    busy_seconds: float
    worker_seconds: float | None
    saved_seconds: float
    cost: float | None
    saved_cost: float | None


def _compute_use(entry: Mapping[str, Json], ended: float) -> ComputeUse:
    clusters = entry["clusters"]
    counted = [each["worker_s"] for each in clusters if each["worker_s"] is not None]
    return ComputeUse(
        tuple(entry["names"]),
        entry["kind"],
        tuple((_moment(each["started"]), _moment(each["stopped"] or ended)) for each in clusters),
        entry["busy_s"],
        sum(counted) if counted else None,
        entry["saved_s"],
        entry["cost"],
        entry["saved_cost"],
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class Run:
    """One finished run of a pipeline."""

    def __init__(
        self, store: Store, document: Mapping[str, Json], replay: Replayer | None = None
    ) -> None:
        self._store = store
        self._document = document
        self._entries = Entries(document)
        self._replay = replay

    def __repr__(self) -> str:
        return f"<run '{self.name}' of '{self.pipeline}': {self.state}>"

    def __getitem__(self, step: str) -> StepResult:
        if step not in self._entries:
            raise KeyError(f"run '{self.name}' has no step '{step}'; see .graph")
        entry = self._entries[step]
        items = [self[name] for name in self._entries.items_of(step)]
        return StepResult(self._store, self._document, entry, items)

    def __iter__(self) -> Iterator[StepResult]:
        return (self[name] for name in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def id(self) -> str:
        """The id; of a run as a flow it is the flow run's."""
        return str(self._document["id"])

    @property
    def name(self) -> str:
        """The name; of a run as a flow it is the flow run's."""
        return str(self._document["name"])

    @property
    def pipeline(self) -> str:
        """Name of the pipeline."""
        return str(self._document["pipeline"])

    @property
    def state(self) -> str:
        """`completed`, `failed`, `cancelled` or `crashed`."""
        return str(self._document["state"])

    @property
    def error(self) -> str | None:
        """Type and message of what ended it."""
        error: str | None = self._document["error"]
        return error

    @property
    def version(self) -> str | None:
        """Name of the frozen version that it was a run of; `None` for one of the working copy."""
        version: str | None = self._document.get("version")
        return version

    @property
    def replays(self) -> str | None:
        """Id of the run that it runs again; `None` for most."""
        run: str | None = self._document.get("replays")
        return run

    def replay(self, *, refresh: bool = False, **secrets: Any) -> Run:
        """Run this again with the same code and the same parameters; return the new run.

        What is in the store is reused, as in any run. A run of a frozen version is run again from
        the code in the store, in a process of its own; one of the working copy in this process, if
        the working copy is still what it was.

        Args:
            refresh: run all steps, to see whether they return the same again.
            secrets: parameters that are secrets: these are kept nowhere.

        Raises:
            CannotReplay: something that counts has changed since, or was not kept; it says what.
            VersionNotFound: the version is not in the store any more.
            Exception: a step's own exception.
        """
        if self._replay is None:
            raise CannotReplay(
                f"Run '{self.name}' was read without its pipeline.",
                {"pipeline": self.pipeline},
                "Take it from the pipeline: pipeline.runs.get(id).replay().",
            )
        made = self._replay(self._document, refresh=refresh, secrets=secrets)
        return Runs(self._store, self.pipeline, (), self._replay).get(made)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters; what has no plain JSON is shown as text."""
        return dict(self._document["parameters"])

    @property
    def graph(self) -> dict[str, Any]:
        """Nodes, edges, declared types, compute: what `pipeline.graph().to_dict()` gave."""
        return dict(self._document["graph"])

    @property
    def metrics(self) -> dict[str, Any]:
        """All steps' metrics as `step.metric`, those of reused steps too."""
        return {
            f"{step.name}.{metric}": value
            for step in self
            for metric, value in step.metrics.items()
        }

    @property
    def warnings(self) -> list[str]:
        """What was not as one may have thought, though the run went on."""
        return list(self._document["warnings"])

    @property
    def started(self) -> datetime:
        """When it started."""
        return datetime.fromtimestamp(self._document["started"], UTC)

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return float(self._document["ended"] - self._document["started"])

    @property
    def saved_seconds(self) -> float:
        """Seconds that the reused steps took when they ran."""
        return float(self._document["saved_s"])

    @property
    def saved_bytes(self) -> int:
        """Bytes that the reused steps did not have to make again."""
        return int(self._document["saved_bytes"])

    @property
    def compute(self) -> dict[str, ComputeUse]:
        """What it used of each compute, by name; only those that were used or spared are there."""
        used = [
            _compute_use(each, self._document["ended"])
            for each in self._document.get("compute", ())
        ]
        return {name: use for use in used for name in use.names}

    @property
    def cost(self) -> float | None:
        """What it cost, on computes that have a `cost_per_hour`; `None` if none has."""
        cost: float | None = self._document.get("cost")
        return cost

    @property
    def saved_cost(self) -> float | None:
        """What the reused steps would have cost, likewise."""
        cost: float | None = self._document.get("saved_cost")
        return cost

    @property
    def pinned(self) -> bool:
        """Whether it stays, with all that it made and used, whatever is pruned."""
        return self._store.runs.is_pinned(self.pipeline, self.id)

    def pin(self) -> None:
        """Have it stay, with all that it made and used, whatever is pruned from the store."""
        self._store.runs.pin(self.pipeline, self.id)

    def unpin(self) -> None:
        """Let it be pruned again."""
        self._store.runs.pin(self.pipeline, self.id, pinned=False)

    @property
    def output(self) -> Any:
        """What the pipeline returned, loaded."""
        return gather(self._document["returned"], self._store)


class Runs:
    """The finished runs of a pipeline in a store, newest first."""

    def __init__(
        self,
        store: Store,
        pipeline: str,
        parameters: Iterable[str] = (),
        replay: Replayer | None = None,
    ) -> None:
        self._store = store
        self._replay = replay
        self._pipeline = pipeline
        self._parameters = frozenset(parameters)

    def __iter__(self) -> Iterator[Run]:
        for run_id in self._store.runs.ids(self._pipeline):
            document = self._store.runs.read(self._pipeline, run_id)
            if document is not None:
                yield Run(self._store, document, self._replay)

    def list(self, limit: int = 20) -> list[Run]:
        """Return the newest runs."""
        return [run for run, _ in zip(self, range(limit), strict=False)]

    def filter(
        self, *, state: str | None = None, limit: int = 20, **params: Any
    ) -> builtins.list[Run]:
        """Return the newest runs with a state, or with certain values of parameters.

        Raises:
            InvalidParameters: neither the pipeline nor any of its runs has such a parameter.
        """
        found: builtins.list[Run] = []
        known = set(self._parameters)
        asked = [(name, plain(value)) for name, value in params.items()]
        for run in self:
            known |= run.params.keys()
            fits = state is None or run.state == state
            if fits and all(run.params.get(name) == value for name, value in asked):
                found.append(run)
                if len(found) >= limit:
                    break
        for name in params.keys() - known if known else ():
            near = difflib.get_close_matches(name, {*known, "state", "limit"})
            raise InvalidParameters(
                f"Pipeline '{self._pipeline}' has no parameter '{name}' to look for in its runs.",
                {"parameters": ", ".join(sorted(known))},
                f"Did you mean {' or '.join(map(repr, near))}?" if near else "Correct the name.",
            )
        return found

    def last(self) -> Run:
        """Return the newest run.

        Raises:
            RunNotFound: there is none in this store.
        """
        document = self._store.runs.last(self._pipeline)
        if document is None:
            raise RunNotFound(
                f"Pipeline '{self._pipeline}' has no run in this store.",
                {"store": self._store.url},
                "Run it, or look in the store that it ran with.",
            )
        return Run(self._store, document, self._replay)

    def get(self, run_id: object) -> Run:
        """Return a run by id or name.

        Raises:
            RunNotFound: there is no such run in this store.
        """
        document = self._store.runs.read(self._pipeline, str(run_id))
        if document is not None:
            return Run(self._store, document, self._replay)
        for run in self:
            if run.name == str(run_id):
                return run
        raise RunNotFound(
            f"Pipeline '{self._pipeline}' has no run '{run_id}' in this store.",
            {"store": self._store.url},
            "See .runs.list().",
        )
