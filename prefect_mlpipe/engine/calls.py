"""Run one step where it was sent: load its inputs, call the function, store what it returns,
record it.

Knows a store and one call; nothing of graphs, of decisions, or of how the call came here. In this
order: bytes, then the record, so that a record never points at what was not written.

What a step gets is its own: values come fresh from the store, literals are copied. So a step that
changes its argument changes nothing that anyone else sees, on any compute.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias

from prefect_mlpipe import active
from prefect_mlpipe.core.annotations import Fields
from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.core.digest import Buffers, digest
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.files import File, Folder, fingerprint_state
from prefect_mlpipe.core.formats.base import Unstorable
from prefect_mlpipe.core.held import held_code
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.nested import items_in, refilled
from prefect_mlpipe.core.record import HeldCode, Record, StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.storing.devices import for_step
from prefect_mlpipe.core.storing.own_copies import own_copy
from prefect_mlpipe.core.telling.describing import seconds_text
from prefect_mlpipe.current import Current, enter
from prefect_mlpipe.errors import (
    InputChanged,
    MissingFile,
    NoDevice,
    RunCancelled,
    StoreUnavailable,
    UnstorableOutput,
    ValueDamaged,
    ValueMissing,
)
from prefect_mlpipe.steps import Step, run_function

_HOST = socket.gethostname()
PLAIN = frozenset({int, float, bool, str, type(None), StoredValue})


Check: TypeAlias = "Callable[[StoredValue, Any], object]"
# Writes the record of a call, or sees to it that it is written.
Keep: TypeAlias = "Callable[[StepCall, Record], Done]"


class Whole(NamedTuple):
    """Stands for an output that is stored field by field and was passed whole."""

    fields: Fields
    values: tuple[StoredValue, ...]


_REFERENCES = frozenset({StoredValue, Whole})


class StepCall:
    """Everything that is needed to run one step somewhere.

    Not a dataclass: Prefect looks into those for futures, item by item.

    Attributes:
        step: what is called.
        arguments: parameter → argument; `StoredValue` and `Whole` stand for outputs, also inside
            lists, tuples and dicts.
        store: where values and the record go.
        manifest: what the key is made of.
        key: digest of the manifest.
        current: what the step can ask about itself.
        recorded: whether the record is to be written; false once nobody waits for it any more.
        replace: whether it takes the place of one that stands there.
        files: files among the arguments, with their state before they were digested.
        attempt: counts calls of the function, retries included.
        attempt_started: when the current one started, by the monotonic clock; 0 between them.
        failed_s: seconds of those that failed.
    """

    __slots__ = (
        "arguments",
        "attempt",
        "attempt_started",
        "current",
        "failed_s",
        "files",
        "key",
        "manifest",
        "recorded",
        "replace",
        "step",
        "store",
    )

    def __init__(
        self,
        step: Step[..., Any],
        arguments: dict[str, Any],
        store: Store,
        manifest: Manifest,
        key: str,
        current: Current,
        *,
        recorded: bool,
        replace: bool,
        files: list[tuple[File | Folder, object]],
        attempt: int = 0,
    ) -> None:
        self.step = step
        self.arguments = arguments
        self.store = store
        self.manifest = manifest
        self.key = key
        self.current = current
        self.recorded = recorded
        self.replace = replace
        self.files = files
        self.attempt = attempt
        self.attempt_started = self.failed_s = 0.0

    def failed(self) -> None:
        """Take in that the current try has failed."""
        if self.attempt_started:
            self.failed_s += time.monotonic() - self.attempt_started
        self.attempt_started = 0.0


class InputLost(Exception):
    """A stored input is gone or damaged; whoever sent the call has it made again."""

    def __init__(self, value: StoredValue, kind: str, error: Exception) -> None:
        super().__init__(f"{kind}: {error}")
        self.value = value
        self.kind = kind
        self.error = error


class Done(NamedTuple):
    """What came of a call: the record that stands, and whether it is this call's own."""

    record: Record
    own: bool


def keep_now(call: StepCall, record: Record) -> Done:
    """Write the record of a call; return the one that stands."""
    standing = call.store.records.write(record, replace=call.replace)
    return Done(standing, standing is record or standing == record)


def execute(call: StepCall, check: Check | None = None, keep: Keep = keep_now) -> Done:
    """Run a call and return its record.

    Args:
        call: what is run.
        check: is shown each stored value that is loaded, and may raise.
        keep: writes the record, or sees to it that it is written.

    Raises:
        InputLost: an input is gone or damaged; nothing ran.
        NoDevice: an input lives on a GPU, and there is none here; nothing ran.
        RunCancelled: the call was given up before it began.
        InputChanged: a file changed while the step ran; nothing was recorded.
        StoreUnavailable: an input cannot be read, or what the step returned cannot be written.
        UnstorableOutput: what it returned cannot be stored.
        Exception: whatever the function raised.
    """
    if not call.recorded:
        raise RunCancelled(f"Step '{call.current.step}' was given up.")
    call.attempt += 1
    call.attempt_started = time.monotonic()
    # A context of its own: no step may see the tracer of the body, or another step's current().
    try:
        done = copy_context().run(_execute, call, check, keep)
    except BaseException:
        call.failed()
        raise
    call.attempt_started = 0.0
    return done


def _execute(call: StepCall, check: Check | None, keep: Keep) -> Done:
    active.leave()
    here = call.current
    here.metrics = {}
    enter(here)
    try:
        arguments = _loaded(call, check)
        loaded = [(file, fingerprint_state(file)) for file in files_in(arguments)]
        created = time.time()
        started = time.perf_counter()
        value = run_function(call.step, arguments)
        duration = time.perf_counter() - started
        refuse_changed(call, [*call.files, *loaded])
        try:
            return _record(call, value, created, duration, keep)
        except StoreUnavailable as error:
            raise not_kept(call, duration, error) from error
    finally:
        here.close()


def _loaded(call: StepCall, check: Check | None) -> dict[str, Any]:
    try:
        return {name: load(value, call.store, check) for name, value in call.arguments.items()}
    except NoDevice as error:
        raise for_step(call.current.step, error) from error


def not_kept(call: StepCall, duration: float, error: StoreUnavailable) -> StoreUnavailable:
    """Return the error of a call that ran, and whose outputs the store did not take."""
    return StoreUnavailable(
        f"Step '{call.current.step}' ran, but the store could not take what it returned: that is "
        "lost, and the step will run again.",
        {**error.facts, "ran for": seconds_text(duration)},
        error.advice,
    )


def _record(call: StepCall, value: Any, created: float, duration: float, keep: Keep) -> Done:
    buffers = Buffers()
    fields = call.step.fields
    parts = {"": value} if fields is None else fields.split(value, call.current.step)
    reach: list[Any] = []
    stored = {name: _put(call, name, part, buffers, reach) for name, part in parts.items()}
    # Of the whole as its readers get it: a subclass of what is declared arrives as the declared.
    whole = stored[""].digest if fields is None else digest(fields.join(parts), buffers=buffers)
    here = call.current
    record = Record(
        call.key,
        call.manifest.to_json(),
        whole,
        stored,
        created,
        duration,
        here.metrics,
        {
            "run_id": here.run_id,
            "run": here.run,
            "pipeline": here.pipeline,
            "step": here.step,
            "compute": here.compute,
            "host": _HOST,
            "pid": os.getpid(),
        },
        _held(call, reach),
    )
    if not call.recorded:  # given up while it ran: what it made is dropped
        return Done(record, True)
    return keep(call, record)


def _held(call: StepCall, reach: list[Any]) -> HeldCode | None:
    """Return the user's code in what a step returned, and what shows of it in the step's own."""
    if not reach:  # as of plain data
        return None
    read = partial(CodeReader().read, call.step, ignore=call.step.options.ignore)
    return held_code(reach, read if call.step.cached else None)


def _put(call: StepCall, name: str, value: Any, buffers: Buffers, reach: list[Any]) -> StoredValue:
    try:
        return call.store.put(value, buffers=buffers, reach=reach)
    except MissingFile as error:
        raise MissingFile(
            f"Step '{call.current.step}' returned a path that does not exist.",
            {"output": name or "return value", "because": error.sentence, **error.facts},
            "Return it after it is written; output_folder() gives an empty place for it.",
        ) from error
    except (Unstorable, Undigestible) as error:
        raise UnstorableOutput(
            f"Step '{call.current.step}' returned something that cannot be stored.",
            {
                "output": name or "return value",
                "at": f"{name or 'value'}{error.path}",
                "type": error.type,
                "because": error.why,
            },
            "Return plain data: arrays, tables, models, File(path), or lists and dicts of them;\n"
            "of an iterator, list(it). Make a lock or a connection, and get a secret, in the step\n"
            "that uses it.",
        ) from error


def load(value: Any, store: Store, check: Check | None = None) -> Any:
    """Return an argument as the step gets it: outputs loaded, literals copied.

    Raises:
        InputLost: a stored value is gone or damaged.
    """
    kind = type(value)
    if kind is StoredValue:
        return load_value(value, store, check)
    if kind is Whole:
        parts = [load_value(part, store, check) for part in value.values]
        return value.fields.join(dict(zip(value.fields.names, parts, strict=True)))
    if not any(type(item) in _REFERENCES for item in items_in(value)):
        return own_copy(value)  # of the whole: it may hold itself, or one thing twice
    if kind is list:
        return [load(item, store, check) for item in value]
    if kind is dict:
        return {name: load(item, store, check) for name, item in value.items()}
    return refilled(value, [load(item, store, check) for item in value])


def load_value(value: StoredValue, store: Store, check: Check | None = None) -> Any:
    """Return one stored value, or say that it is lost."""
    try:
        found = store.get(value)
    except ValueMissing as error:
        raise InputLost(value, "value missing", error) from error
    except ValueDamaged as error:
        raise InputLost(value, "value damaged", error) from error
    if check is not None:
        check(value, found)
    return found


def files_in(arguments: Mapping[str, Any]) -> list[File | Folder]:
    """Return the files among arguments, also inside lists, tuples, dicts and dataclasses."""
    found: list[File | Folder] = []
    for value in arguments.values():
        if type(value) in PLAIN:
            continue
        for item in items_in(value, fields=True):
            if type(item) is File or type(item) is Folder:
                found.append(item)
            elif isinstance(item, PurePath):
                found.append(Folder(item) if os.path.isdir(item) else File(item))
    return found


def refuse_changed(call: StepCall, files: Sequence[tuple[File | Folder, object]]) -> None:
    """Refuse to go on if a file is not what it was.

    Raises:
        InputChanged: it may have another content now than that of the key.
    """
    for file, before in files:
        after = fingerprint_state(file)
        if after != before:
            raise InputChanged(
                f"Step '{call.current.step}' read a file that has changed; nothing is recorded.",
                {"file": str(file), "before": before, "after": after},
                "Run again. If it goes on, something writes to the file: let the step write "
                "elsewhere, or give it a copy.",
            )
