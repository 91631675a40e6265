"""When a run of a pipeline has completed: tell Prefect, for whoever waits for its outputs.

Knows what a run returned, and Prefect's automations. Knows nothing of how runs go.

The driver of the run does it, as the last thing before its flow run is `Completed`: it knows the
digests of the outputs, so nobody else has to watch. A driver that is killed before leaves a run
that is not `Completed`, and its rerun, which reuses everything, tells. One that is killed after the
event is on record, and before it is remembered that these outputs were taken, leaves an event
whose id says what was taken and after what; the rerun sends it again under the same id, and a
Prefect server acts upon it once.

What was taken last is remembered in the store of the run, under the name of whoever took it.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import httpx
from prefect.events import Event
from prefect.logging import get_run_logger
from prefect.logging.loggers import LoggingAdapter
from pydantic import ValidationError

from prefect_mlpipe.conduct import Returned
from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.announcing import put_on_record
from prefect_mlpipe.deploy.completions import EVENT, Completion
from prefect_mlpipe.deploy.listing import listed
from prefect_mlpipe.deploy.outputs import RESULT, parts
from prefect_mlpipe.engine.calls import InputLost, Whole
from prefect_mlpipe.errors import InvalidParameters, PrefectUnavailable
from prefect_mlpipe.keeping import RunInfo
from prefect_mlpipe.parameters import refer

T = TypeVar("T")

PATIENCE_S = 300.0  # a server that is started anew is back by then
PAUSE_S = 2.0

_IDS = uuid.UUID("0b0f8f0e-64f5-4f0c-8d43-3c1c1d9b7a55")


class _Taken(NamedTuple):
    """What somebody takes of a run."""

    digest: str
    parameters: Mapping[str, Any]


def tell_completion(run: RunInfo, returned: Returned) -> None:
    """Start what waits for the outputs of a run, if they are not those that it took last.

    Call it inside the flow run.

    Raises:
        PrefectUnavailable: the API did not answer for some minutes. The rerun tells it.
    """
    for completion, unknown_s in _patiently(run, partial(_waiting, run)):
        taken = _take(completion, returned)
        if taken is not None:
            _tell(run, returned.store, completion, taken, unknown_s)


def _tell(
    run: RunInfo, store: Store, completion: Completion, taken: _Taken, unknown_s: float
) -> None:
    before = store.watches.read(completion.name) or {"generation": 0, "digest": ""}
    if completion.only_if_changed and before["digest"] == taken.digest:
        _logger().debug("%s has taken the same before", completion.name)
        return
    time.sleep(unknown_s)
    generation = before["generation"] if completion.only_if_changed else run.id
    id = uuid.uuid5(_IDS, f"{completion.name} {generation} {taken.digest}")
    _patiently(run, partial(_announce, run, completion, taken, id))
    document = {
        "generation": before["generation"] + 1,
        "digest": taken.digest,
        "pipeline": run.pipeline,
        "run": run.name,
    }
    store.watches.write(completion.name, document)
    store.sync()
    what = " and ".join(map(repr, completion.takes)) or "the outputs"
    _logger().info("Prefect was told of %s, for %s", what, completion.name)


def _waiting(run: RunInfo) -> list[tuple[Completion, float]]:
    """Who waits for outputs of this pipeline, and how long the server may not know of it."""
    found = []
    for automation in listed():
        if not automation.expects(EVENT):
            continue
        try:
            completion = Completion.from_labels(automation.content["trigger"]["match"])
        except ValidationError as error:
            name = automation.content["name"]
            _logger().warning("The automation '%s' waits for no possible output: %s", name, error)
            continue
        if completion.pipeline == run.pipeline:
            found.append((completion, automation.unknown_s))
    return found


def _take(completion: Completion, returned: Returned) -> _Taken | None:
    """What is taken of a run; `None`, and a word in its log, if it cannot be."""
    there = parts(returned.references)
    if missing := set(completion.takes) - there.keys():
        _logger().error(
            "%s waits for '%s', which this pipeline does not return, and is not started. It "
            "returns: %s",
            completion.name,
            min(missing),
            ", ".join(there),
        )
        return None
    try:
        content = {name: _identity(there[name]) for name in completion.takes or (RESULT,)}
        passed = {name: refer(name, there[name], returned.store) for name in completion.takes}
    except (Undigestible, InvalidParameters, InputLost) as error:
        _logger().error("%s cannot be started: %s", completion.name, error)
        return None
    return _Taken(digest(content), passed)


def _identity(part: Any) -> Any:
    """What a returned value counts by: the digest of what is stored, the content of all else."""
    if type(part) is StoredValue:
        return ("stored", part.digest)
    if type(part) is Whole:
        return ("fields", part.fields.names, [each.digest for each in part.values])
    if type(part) is dict:
        return {name: _identity(item) for name, item in part.items()}
    if isinstance(part, list | tuple):
        return (type(part).__name__, [_identity(item) for item in part])
    return ("value", digest(part))


def _announce(run: RunInfo, completion: Completion, taken: _Taken, id: uuid.UUID) -> None:
    event = Event(
        id=id,
        event=EVENT,
        resource=completion.labels(),
        related=[
            {
                "prefect.resource.id": f"prefect.flow-run.{run.id}",
                "prefect.resource.role": "flow-run",
                "prefect.resource.name": run.name,
            }
        ],
        payload={"pipeline": run.pipeline, "run": run.name, "taken": dict(taken.parameters)},
    )
    put_on_record([event])


def _patiently(run: RunInfo, ask: Callable[[], T]) -> T:
    """Ask the API until it answers, for some minutes: a run of hours shall not end in vain."""
    until = time.monotonic() + PATIENCE_S
    told = False
    while True:
        try:
            return ask()
        except (httpx.HTTPError, OSError, PrefectUnavailable) as error:
            if time.monotonic() > until:
                raise PrefectUnavailable(
                    f"The outputs of run '{run.name}' of pipeline '{run.pipeline}' are stored, but "
                    "the Prefect API could not be told, for whoever waits for them.",
                    {"problem": f"{type(error).__name__}: {error}", "tried": f"{PATIENCE_S:.0f} s"},
                    "Run it again: everything is reused, and it is told then.",
                ) from error
            if not told:
                _logger().warning("The API cannot be told of the outputs now: %s", error)
            told = True
            time.sleep(PAUSE_S)


def _logger() -> logging.Logger | LoggingAdapter:
    return get_run_logger()
