"""Run a project: as it is, and through the product; in this process or in a fresh one.

Modules are compiled from memory and imported by the import system, so a project behaves as one of
files does. What is compared with the oracle is the product as users call it: `pipeline.local()`,
with a store in a folder; only its parameters, of which there are none, are not validated each time,
and settings are read once. The oracle calls the very function that wires the steps, outside of any
pipeline: there a step is a plain function.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import signal
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from coolname import generate_slug

import prefect_mlpipe.localruns
from prefect_mlpipe import pipeline, pipelines, stores
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.errors import MlpipeError
from prefect_mlpipe.localruns import run_locally
from prefect_mlpipe.settings import Settings
from tests.fuzz.projects import Project

PLACE = "/projects/fuzz"  # where modules say that they lie; there is nothing
_SECONDS = 1.0  # of the processor: an edit may make a loop endless


class TooLong(BaseException):
    """A project does not come to an end."""


class NoContent(Exception):
    """A project returns something that has no content to compare: an address shows in it."""


class Refused(Exception):
    """The product refuses the project, as it says it does: an output is used as a value."""


class Ran(NamedTuple):
    """What came of a run.

    Attributes:
        value: what was returned, as text with its types; `raises …` for an error.
        steps: node → `ran` or `reused`, with the reasons.
    """

    value: str
    steps: dict[str, tuple[str, list[str]]]

    @property
    def executed(self) -> list[str]:
        return [name for name, (state, _) in self.steps.items() if state != "reused"]


def show(value: Any) -> str:
    """A value as text, with the types of all that is in it."""
    kind = type(value).__qualname__
    match value:
        case list() | tuple():
            return f"{kind}[{', '.join(map(show, value))}]"
        case dict():
            return f"{kind}{{{', '.join(f'{show(k)}: {show(v)}' for k, v in value.items())}}}"
        case set() | frozenset():
            return f"{kind}{{{', '.join(sorted(map(show, value)))}}}"
        case np.ndarray():
            return f"{kind} {value.dtype} {value.shape} {value.tolist()!r}"
        case _:
            return f"{kind} {value!r}"


# Modules from memory


class _Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of one project at a time."""

    def __init__(self) -> None:
        self.sources: Mapping[str, str] = {}
        self._compiled: dict[tuple[str, str], types.CodeType] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self.sources:
            return None
        place = self._file(name)
        spec = importlib.util.spec_from_loader(
            name, self, origin=place, is_package=self._is_package(name)
        )
        assert spec is not None
        spec.has_location = True
        return spec

    def exec_module(self, module: types.ModuleType) -> None:
        exec(self._code(module.__name__), vars(module))

    def _is_package(self, name: str) -> bool:
        return any(other.startswith(f"{name}.") for other in self.sources)

    def _file(self, name: str) -> str:
        inner = name.replace(".", "/") + ("/__init__" if self._is_package(name) else "")
        return f"{PLACE}/{inner}.py"

    def _code(self, name: str) -> types.CodeType:
        key = (name, self.sources[name])
        code = self._compiled.get(key)
        if code is None:
            if len(self._compiled) > 200:
                self._compiled.clear()
            code = compile(self.sources[name], self._file(name), "exec", dont_inherit=True)
            self._compiled[key] = code
        return code


_modules = _Modules()
_names: set[str] = set()


def load(project: Project) -> dict[str, types.ModuleType]:
    """Import a project afresh, in place of the one before; name → module."""
    if _modules not in sys.meta_path:
        sys.meta_path.insert(0, _modules)
    for name in [*_names, *project.modules]:
        sys.modules.pop(name, None)
    _names.clear()
    _names.update(project.modules)
    _modules.sources = project.sources()
    with in_time():
        importlib.import_module("main")
    return {name: sys.modules[name] for name in project.modules if name in sys.modules}


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# Runs


def prepare() -> None:
    """Do once what would be done in every run, and import what the first one would import."""
    warnings.simplefilter("ignore")  # of what an edit makes of a project: `"a" is x`
    settings = Settings()
    for module in (pipelines, stores):
        vars(module)["Settings"] = lambda: settings
    prefect_mlpipe.localruns.LogReporter = _Watch  # type: ignore[misc]
    generate_slug(2)
    gc.collect()
    gc.freeze()


def oracle() -> str:
    """What the project that is loaded gives when it is simply called."""
    with in_time():
        value = show(sys.modules["main"].main())
    if " at 0x" in value:
        raise NoContent(value)
    return value


_LOADS = 8  # what depends on an address is often taken modulo a small number


def is_determined(project: Project) -> bool:
    """Whether a project gives the same each time it is loaded; not if an address shows in it."""
    alive, values = [], set()
    for _ in range(_LOADS):
        alive.append(load(project))  # and kept, so that nothing gets an address of it
        values.add(oracle())
    return len(values) == 1


@pipeline
def wired() -> Any:
    return sys.modules["main"].main()


class _Watch(prefect_mlpipe.localruns.LogReporter):
    """Notes what became of each step."""

    steps: ClassVar[dict[str, tuple[str, list[str]]]] = {}

    def settled(self, run: StepRun) -> None:
        _Watch.steps[run.name] = (run.state, [str(reason) for reason in run.reasons])


def product(store: str) -> Ran:
    """What the product gives for the project that is loaded."""
    _Watch.steps = {}
    try:
        value = show(run_locally(wired.with_options(store=store), {}))
    except Exception as error:
        for one in error.exceptions if isinstance(error, ExceptionGroup) else (error,):
            if isinstance(one, MlpipeError):
                raise Refused(f"{type(one).__name__}: {one}") from None
        value = f"raises {type(error).__name__}"
    return Ran(value, _Watch.steps)


# Fresh processes


class FreshProcesses:
    """A process that has never seen a project forks one for each run."""

    def __init__(self) -> None:
        answers_out, answers_in = os.pipe()
        orders_out, orders_in = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(answers_out)
            os.close(orders_in)  # or the end of orders would never be seen
            _serve(orders_out, answers_in)
        os.close(orders_out)
        os.close(answers_in)
        self._reader = os.fdopen(answers_out, "rb")
        self._writer = os.fdopen(orders_in, "wb")

    def product(self, project: Project, store: str) -> Ran:
        pickle.dump((project, store), self._writer)
        self._writer.flush()
        answer = pickle.load(self._reader)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def close(self) -> None:
        self._writer.close()
        self._reader.close()
        os.waitpid(self._pid, 0)


def _serve(orders: int, answers: int) -> None:
    """Fork for each order until there are no more; does not return."""
    status = 1
    try:
        gc.freeze()
        with os.fdopen(orders, "rb") as reader:
            while True:
                try:
                    order = pickle.load(reader)
                except EOFError:
                    break
                process = os.fork()
                if process == 0:
                    _answer(order, answers)
                    os._exit(0)
                os.waitpid(process, 0)
        status = 0
    finally:
        os._exit(status)


def _answer(order: tuple[Project, str], answers: int) -> None:
    project, store = order
    answer: Ran | Exception
    try:
        try:
            load(project)
        except Exception as error:  # as `re.compile(..., -0.0)`, if `re` does not know it as 0
            raise Refused(f"{type(error).__name__} in a fresh process") from None
        answer = product(store)
    except Refused as error:
        answer = error
    except BaseException as error:
        answer = RuntimeError(f"{type(error).__name__}: {error}")
    data = pickle.dumps(answer)
    while data:
        data = data[os.write(answers, data) :]
