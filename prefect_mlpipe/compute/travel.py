"""What goes to a worker and comes back: a step, a call, an error, as bytes.

Knows steps, calls and the store. Knows neither Prefect nor dask.

A function goes by name wherever the worker can import it, so that classes stay the classes that the
worker's other modules know. The worker then compares the code that it has found with that of the
key; only where they differ the user's modules go by value, as the code that the driver has loaded.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

import cloudpickle

from prefect_mlpipe.compute.errors import stand_in
from prefect_mlpipe.core.code import CodeReader, effects
from prefect_mlpipe.core.digest import code_in
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.environment import user_modules
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.formats.base import Unstorable
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.shipping import ship
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.current import Current
from prefect_mlpipe.engine.calls import StepCall, Whole, refuse_changed
from prefect_mlpipe.errors import CodeMismatch, Unshippable
from prefect_mlpipe.step_options import StepOptions
from prefect_mlpipe.steps import Step

LARGE_BYTES = 64 * 1024  # what is larger goes through the store
_ERROR_BYTES = 256 * 1024


class Order(NamedTuple):
    """One call as it is sent to a worker.

    Attributes:
        run_id: of the flow run.
        ticket: names the call, or the batch, in notices of its progress.
        number: which submission of the call this is; told in notices of its progress.
        task_run_id: what Prefect calls it.
        name: name of the node.
        parents: task runs above it.
        code: digest of the code in the key; empty if it has none.
        function: its label.
        environment: versions in the key.
        step: the step, by `pack_step`.
        call: the call, by `pack_call`; of a batch the calls, by `pack_calls`.
        batch: whether it is a batch of items; then id, name and parents are the mapped step's.
    """

    run_id: str
    ticket: str
    number: int
    task_run_id: UUID
    name: str
    parents: tuple[UUID, ...]
    code: str
    function: str
    environment: Mapping[str, str]
    step: bytes
    call: bytes
    batch: bool = False


# Steps


class _Parcel(NamedTuple):
    """A step on its way: by name, or with its function."""

    name: tuple[str, str] | None
    function: Any
    options: StepOptions
    annotations: dict[str, Any] | None


def pack_step(step: Step[..., Any], *, by_value: bool) -> bytes:
    """Return a step as bytes, its function by name if it has one and that will do.

    Raises:
        Unshippable: it holds something that cannot be pickled.
    """
    options = replace(step.options, reads=())  # count in the key only
    name = None if by_value else _name_of(step)
    if name is not None:
        return pickled(step.name, "its options", _Parcel(name, None, options, None))
    _note_effects(step.fn)
    parcel = _Parcel(None, step.fn, options, step._annotations)
    with _modules_by_value(_user_modules(step) if by_value else set()):
        return pickled(step.name, "its code", parcel)


def unpack_step(data: bytes) -> Step[..., Any]:
    """Return the step that was packed.

    Raises:
        ImportError: its module, or one that it needs, cannot be imported here.
    """
    parcel: _Parcel = pickle.loads(data)
    if parcel.name is not None:
        found = _named(*parcel.name)
        function = found.fn if isinstance(found, Step) else found
        scope = found._scope if isinstance(found, Step) else None
        return Step(function, parcel.options, scope)
    step: Step[..., Any] = Step(parcel.function, parcel.options)
    step.__dict__["_annotations"] = parcel.annotations
    return step


def _name_of(step: Step[..., Any]) -> tuple[str, str] | None:
    module = getattr(step.fn, "__module__", None)
    name = getattr(step.fn, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name or module not in sys.modules:
        return None
    try:
        found = _named(module, name)
    except ImportError:
        return None
    same = found is step.fn or (isinstance(found, Step) and found.fn is step.fn)
    return (module, name) if same else None


def _named(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ImportError(f"module {module!r} has no {name!r}", name=module)
    return found


def _note_effects(function: Any) -> None:
    """Say on the function what its annotations do: a copy cannot resolve them, see `CodeReader`."""
    if isinstance(getattr(function, "__dict__", None), dict):
        function.__dict__.setdefault("__mlpipe_effects__", effects(function))


def _user_modules(step: Step[..., Any]) -> set[str]:
    """Return the user's modules that a step's code reaches."""
    found = {str(getattr(step.fn, "__module__", "__main__"))}
    try:
        labels = [*CodeReader().read(step.fn, ignore=step.options.ignore).parts]
    except Undigestible:  # it is not cached
        labels = []
    return (found | user_modules(labels)) - {"__main__"}  # goes by value anyway


_registry = threading.Lock()


@contextmanager
def _modules_by_value(names: set[str]) -> Iterator[None]:
    """Have cloudpickle take the functions and classes of these modules by value."""
    with _registry:
        known = cloudpickle.list_registry_pickle_by_value()
        added = [sys.modules[name] for name in sorted(names - known) if name in sys.modules]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


def pickled(step: str, what: str, value: Any) -> bytes:
    """Return something of a step as bytes.

    Raises:
        Unshippable: it cannot be pickled.
    """
    try:
        return ship(value)
    except Exception as error:  # objects raise what they like when they are asked to be pickled
        raise Unshippable(
            f"Step '{step}' cannot be sent to a worker: {what} cannot be pickled.",
            {"error": f"{type(error).__name__}: {error}"},
            "Pass plain data and open connections inside the step, or let it run on threads: "
            "compute={'default': Threads()}.",
        ) from error


# Calls

CURRENT = ("run_id", "run", "pipeline", "step", "key", "compute")


def pack_call(call: StepCall, *, remote: bool, by_value: bool) -> bytes:
    """Return a call as bytes, without its step and store; what is large goes into the store.

    Args:
        call: what is packed.
        remote: whether the worker cannot see files of this machine.
        by_value: whether classes of the user's modules go with it.

    Raises:
        Unshippable: an argument can neither be pickled nor stored.
        InputChanged: a file is not what it was when it was digested.
    """
    arguments = arguments_by_reference(call, remote=remote)
    step = call.current.step
    with packing(call.step, arguments, by_value=by_value) as code:
        packed = {name: pack_argument(step, name, v, call.store) for name, v in arguments.items()}
    fields = {
        "manifest": tuple(call.manifest),
        "key": call.key,
        "recorded": call.recorded,
        "replace": call.replace,
        "files": [] if remote else call.files,
        "attempt": call.attempt,
        "current": tuple(getattr(call.current, name) for name in CURRENT),
    }
    return pickled(step, "the call", (packed, fields, code))


def arguments_by_reference(call: StepCall, *, remote: bool) -> dict[str, Any]:
    """Return the arguments of a call, files by reference if the worker cannot see them.

    Raises:
        InputChanged: a file is not what it was when it was digested.
    """
    if not remote:
        return call.arguments
    arguments = {name: _with_stored_files(v, call.store) for name, v in call.arguments.items()}
    refuse_changed(call, call.files)  # the worker reads what has just been stored
    return arguments


@contextmanager
def packing(
    step: Step[..., Any], arguments: Mapping[Any, Any], *, by_value: bool
) -> Iterator[dict[str, str]]:
    """Have user's modules pickled by value if asked; give the user's code in the arguments."""
    code = _code_of(arguments)
    modules = _user_modules(step) | user_modules(code) - {"__main__"} if by_value else set()
    with _modules_by_value(modules):
        yield code


def unpack_call(data: bytes, step: Step[..., Any], store: Store) -> StepCall:
    """Return the call that was packed, with the worker's own step and store.

    Raises:
        ImportError: a class of an argument cannot be imported here.
        CodeMismatch: a class or function among the arguments is another here.
    """
    packed, fields, code = pickle.loads(data)
    arguments = {
        name: pickle.loads(value) if type(value) is bytes else value
        for name, value in packed.items()
    }
    fields["manifest"] = Manifest(*fields["manifest"])
    about = dict(zip(CURRENT, fields["current"], strict=True))
    fields["current"] = Current(**about, store=store)
    if code:
        refuse_other_code(about["step"], code, arguments)
    return StepCall(step, arguments, store, **fields)


def refuse_other_code(step: str, code: Mapping[str, str], arguments: Mapping[Any, Any]) -> None:
    """Refuse arguments whose classes or functions are others here than where they were sent.

    Raises:
        CodeMismatch: with those that differ.
    """
    here = _code_of(arguments)
    if here != code:
        raise CodeMismatch(
            f"Step '{step}' would be given values of other code on a worker than that of its key.",
            {name: difference(code.get(name), here.get(name)) for name in _differing(code, here)},
            "Restart the workers, or bring the user's modules there up to date.",
        )


def _code_of(arguments: Mapping[Any, Any]) -> dict[str, str]:
    """Return the user's code that comes with arguments as they are sent."""
    found: dict[str, str] = {}
    for value in arguments.values():
        if not isinstance(value, StoredValue | Whole | File | Folder):
            with suppress(Undigestible):  # it is left out of the key
                found.update(code_in(value))
    return found


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))[:10]


def difference(driver: str | None, worker: str | None) -> str:
    """Return how a thing that differs is shown in an error."""
    return f"driver {(driver or 'none')[:8]}, worker {(worker or 'none')[:8]}"


def pack_argument(step: str, name: str, value: Any, store: Store) -> Any:
    """Return an argument as bytes, or as what stands for it in the store."""
    if type(value) is StoredValue or type(value) is Whole:
        return value
    if _pickles_within(value, LARGE_BYTES) is False and not _refers(value):
        try:
            return store.put(value)
        except Unstorable:
            pass  # it is left out of the key, as a connection is; perhaps it can be pickled
    return pickled(step, f"argument '{name}'", value)


def _refers(value: Any) -> bool:
    """Whether there are references to stored values in it."""
    if isinstance(value, list | tuple):
        return type(value) is Whole or any(map(_refers, value))
    if isinstance(value, dict):
        return any(map(_refers, value.values()))
    return type(value) is StoredValue


def _with_stored_files(value: Any, store: Store) -> Any:
    kind = type(value)
    if kind is File or kind is Folder:
        return store.put(value)
    if kind is list or kind is tuple:
        return kind(_with_stored_files(item, store) for item in value)
    if kind is dict:
        return {name: _with_stored_files(item, store) for name, item in value.items()}
    return value


class _TooLarge(Exception):
    """Ends the pickling of what is too large."""


class _Limit:
    """A file that keeps nothing and ends what writes too much."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise _TooLarge
        return size


def _pickles_within(value: Any, limit: int) -> bool | None:
    """Return whether a pickle is at most so large; `None` if there is none."""
    try:
        cloudpickle.Pickler(_Limit(limit), protocol=5).dump(value)
    except _TooLarge:
        return False
    except Exception:  # objects raise what they like when they are asked to be pickled
        return None
    return True


# Errors


class WorkerTraceback(Exception):
    """The cause of an error that came from a worker: its traceback there, as text."""

    def __str__(self) -> str:
        return "\n\n" + str(self.args[0])


def pack_error(error: BaseException, step: str) -> tuple[bytes, str]:
    """Return an error as bytes that can be read again, and its traceback as text."""
    stand = stand_in(error, step, "the exception cannot travel from a worker")
    if _pickles_within(error, _ERROR_BYTES):
        data = cloudpickle.dumps(error, protocol=5)
        try:
            if type(pickle.loads(data)) is type(error):
                return data, stand.advice
        except Exception:  # its __init__ takes other arguments than those that were pickled
            pass
    return pickle.dumps(stand), ""


def unpack_error(data: bytes, text: str, step: str) -> BaseException:
    """Return the error that was packed; its cause shows the traceback on the worker."""
    try:
        error: BaseException = pickle.loads(data)
    except Exception as unreadable:  # its class cannot be imported here
        return stand_in(WorkerTraceback(text), step, f"it cannot be read here: {unreadable!r}")
    if text:
        error.__cause__ = WorkerTraceback(text)
    return error


def with_parts(error: CodeMismatch, step: Step[..., Any]) -> CodeMismatch:
    """Name the parts of the code that differ, instead of listing all those of the worker."""
    facts = dict(error.facts)
    there: Any = facts.pop("parts here", {})
    here = CodeReader().read(step.fn, ignore=step.options.ignore).parts
    if there:
        differing = _differing(here, there)
        facts["differs"] = ", ".join(differing) or "how the parts are put together"
        facts.update({name: difference(here.get(name), there.get(name)) for name in differing})
    return CodeMismatch(error.sentence, facts, error.advice)
