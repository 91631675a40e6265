"""Run manifests: what every run leaves in the store, and queries over them.

Knows the store and the form of a run manifest. Knows nothing of Prefect: runs of `local()` and
runs as a flow are the same here, and can be asked after the process, and the Prefect server, are
gone.
"""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.engine.outputs import gather
from prefect_mlpipe.entries import Entries
from prefect_mlpipe.errors import (
    CannotReplay,
    InvalidParameters,
    RunNotFound,
)
from prefect_mlpipe.step_results import StepResult

Json = Any
Replayer = Callable[..., str]  # run manifest, what is asked → id of the new run
NO_MANIFEST: Final = (
    "A run that goes on, or whose process was killed, has left nothing there: what is known of it "
    "is on its page in Prefect."
)


def plain(value: Any) -> Any:
    """Return a parameter as plain JSON; a short text where it has none."""
    try:
        encoded = orjson.dumps(value, default=str)
    except (TypeError, ValueError):
        return repr(value)[:200]
    return orjson.loads(encoded) if len(encoded) <= 65536 else repr(value)[:200]


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
        """What ended it, with the traceback; `None` if it is completed."""
        error: str | None = self._document["error"]
        return error

    @property
    def cause(self) -> str | None:
        """Type and message of what ended it; `None` if it is completed."""
        # the manifests of earlier releases have the traceback only
        cause: str | None = self._document.get("cause", self.error)
        return cause

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
            f"See .runs.list(). {NO_MANIFEST}",
        )
