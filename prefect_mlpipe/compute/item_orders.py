"""A batch of items on its way to a worker and back, as bytes and plain tuples.

Knows calls and the store; what travels how is `compute.travel`'s. What all items share goes once,
and of a record only what its driver does not know.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from prefect_mlpipe.compute.items import Ended
from prefect_mlpipe.compute.travel import (
    CURRENT,
    arguments_by_reference,
    pack_argument,
    pack_error,
    packing,
    pickled,
    refuse_other_code,
    unpack_error,
)
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.current import Current
from prefect_mlpipe.engine.calls import PLAIN, Done, InputLost, StepCall
from prefect_mlpipe.steps import Step

# What came of an item: which, what kind of end, content, tries, log lines. Kinds: `done` (record
# without its manifest, own), `lost` (value, kind, error of an `InputLost`), `failed` (an error, by
# `pack_error`).
Row: TypeAlias = tuple[int, str, Any, int, list[str]]


def pack_calls(calls: Sequence[StepCall], *, remote: bool, by_value: bool) -> bytes:
    """Return calls of one step as bytes, without step and store; what is large goes into the store.

    Raises:
        Unshippable: an argument can neither be pickled nor stored.
        InputChanged: a file is not what it was when it was digested.
    """
    step = calls[0].current.step
    given = [arguments_by_reference(call, remote=remote) for call in calls]
    shared = {
        name: value
        for name, value in given[0].items()
        if type(value) not in PLAIN and all(each[name] is value for each in given)
    }
    own = [{name: v for name, v in each.items() if name not in shared} for each in given]
    rich = [v for each in (*own, shared) for v in each.values() if type(v) not in PLAIN]
    store = calls[0].store
    with packing(calls[0].step, dict(enumerate(rich)), by_value=by_value) as code:
        together = {n: pack_argument(step, n, value, store) for n, value in shared.items()}
        rows = [
            (
                {
                    n: v if type(v) in PLAIN else pack_argument(step, n, v, store)
                    for n, v in each.items()
                },
                tuple(call.manifest),
                call.key,
                call.replace,
                [] if remote else call.files,
                call.attempt,
                call.current.step,
            )
            for each, call in zip(own, calls, strict=True)
        ]
    about = tuple(getattr(calls[0].current, name) for name in CURRENT)
    return pickled(step, "the items", (together, rows, about, code))


def unpack_calls(data: bytes, step: Step[..., Any], store: Store) -> list[StepCall]:
    """Return the calls that were packed, with the worker's own step and store.

    Raises:
        ImportError: a class of an argument cannot be imported here.
        CodeMismatch: a class or function among the arguments is another here.
    """
    together, rows, about, code = pickle.loads(data)
    shared = _unpacked(together)
    calls = []
    for own, manifest, key, replace, files, attempt, name in rows:
        current = Current(**dict(zip(CURRENT, about, strict=True)), store=store)
        current.step, current.key = name, key
        call = StepCall(
            step,
            {**_unpacked(own), **shared},
            store,
            Manifest(*manifest),
            key,
            current,
            recorded=True,
            replace=replace,
            files=files,
            attempt=attempt,
        )
        calls.append(call)
    if code:
        values = [v for call in calls for v in call.arguments.values() if type(v) not in PLAIN]
        refuse_other_code(calls[0].current.step, code, dict(enumerate(values)))
    return calls


def _unpacked(packed: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: pickle.loads(value) if type(value) is bytes else value
        for name, value in packed.items()
    }


def pack_rows(ended: Iterable[Ended], calls: Sequence[StepCall]) -> list[Row]:
    """Return what came of items as plain tuples."""
    return [_row(number, done, error, calls[number]) for number, done, error in ended]


def _row(number: int, done: Done | None, error: BaseException | None, call: StepCall) -> Row:
    kind: str
    content: Any
    if done is not None:
        kind, content = "done", (done.record._replace(manifest={}), done.own)
    elif isinstance(error, InputLost):
        kind, content = "lost", (error.value, error.kind, error.error)
    else:
        assert error is not None
        kind, content = "failed", pack_error(error, call.current.step)
    return (number, kind, content, call.attempt, call.current.logs)


def unpack_rows(rows: Iterable[Row], calls: Sequence[StepCall]) -> list[Ended]:
    """Return what came of items, with the driver's own manifests; note tries and logs there."""
    ended: list[Ended] = []
    for number, kind, content, attempts, logs in rows:
        call = calls[number]
        call.attempt, call.current.logs = attempts, logs
        if kind == "done":
            record, own = content
            call.current.metrics = dict(record.metrics)
            ended.append((number, Done(_whole(record, call), own), None))
        elif kind == "lost":
            ended.append((number, None, InputLost(*content)))
        else:
            data, text = content
            ended.append((number, None, unpack_error(data, text, call.current.step)))
    return ended


def _whole(record: Record, call: StepCall) -> Record:
    return record._replace(manifest=call.manifest.to_json())
