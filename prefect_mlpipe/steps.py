"""`@step`: a plain function that a pipeline body turns into a node.

Called while a body is traced, a step becomes a node of the graph; called anywhere else it is the
function. Knows nothing of how nodes are decided or run. A `Step` is not a Prefect `Task`:
`as_task()` makes one where an ordinary flow wants it, so that a step does not inherit `submit`,
`map` and the rest with a meaning of Prefect's.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from pathlib import PurePath
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    overload,
)

from prefect_mlpipe.active import active_tracer
from prefect_mlpipe.asking import on
from prefect_mlpipe.core.annotations import (
    Fields,
    bare,
    declared_fields,
    resolve_annotations,
    signature_of,
    spelled_annotations,
)
from prefect_mlpipe.core.encoding.parts import label_of_module
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.errors import InvalidStep
from prefect_mlpipe.step_options import Resources, StepOptions, merged

if TYPE_CHECKING:
    from prefect import Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Step(Generic[P, R]):
    """A function that is a step; made by `@step`.

    Statically a call has the function's own return type. In a pipeline body it returns an `Output`
    instead, a promise of that type: a white lie that lets a type checker see the pipeline as the
    plain program that it reads like. The price: a type checker does not stop you from using an
    output as a value; tracing does, with an error that says `resolve`.
    """

    def __init__(
        self,
        fn: Callable[P, Any],
        options: StepOptions,
        scope: Mapping[str, Any] | None = None,
        after: tuple[Any, ...] = (),
    ) -> None:
        self.fn = fn
        self.options = options
        self._after = after
        self._scope = scope
        functools.update_wrapper(self, fn)

    def __repr__(self) -> str:
        return f"<step '{self.name}'>"

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: annotations resolved, not the names around that served to."""
        return {**self.__dict__, "_annotations": self._annotations, "_scope": None}

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, *args: Any, wait_for: Sequence[Any], **kwargs: Any) -> R: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a node to the pipeline that is being traced; elsewhere, call the function."""
        tracer = active_tracer()
        if tracer is None:
            return self.fn(*args, **kwargs)
        return tracer.call(self, args, kwargs)

    def map(self, *args: Any, **kwargs: Any) -> list[R]:
        """Call the step once for each item of the lists among its arguments.

        Lists, tuples, ranges and outputs that turn out to be lists are gone through item by item;
        all else is the same for every item, as is anything in `unmapped(...)`. Each item has its
        own key, reason, retries and timeout. Outside a pipeline body it is a plain loop.

        Args:
            args: arguments of the step, by position.
            kwargs: arguments by name; also `allowed_failures`, a count or (as a float up to 1.0) a
                share of items that may fail, and `drop_failed`, whether a step that takes the list
                gets it without the failed ones.

        Raises:
            InvalidStep: no argument is a list, or their lengths differ.
        """
        tracer = active_tracer()
        if tracer is not None:
            return tracer.map(self, args, kwargs)  # type: ignore[no-any-return]
        return _plain_map(self, args, kwargs)

    def with_options(self, **options: Any) -> Step[P, R]:
        """Return a copy with other options; see `step`."""
        return Step(self.fn, merged(self.options, options), self._scope, self._after)

    def after(self, *earlier: Any) -> Step[P, R]:
        """Return a copy whose call waits for earlier outputs without taking them.

        The order is not in the key: it does not change a value.
        """
        return Step(self.fn, self.options, self._scope, self._after + earlier)

    def as_task(self) -> Task[P, R]:
        """Return the step as a Prefect task, for an ordinary `@flow`; not reused by content.

        Its tags say what it asks for (`prefect_mlpipe.compute.on`): with a `RoutingTaskRunner` it
        runs on its compute, with any other task runner there.
        """
        from prefect import Task
        from prefect.cache_policies import NO_CACHE

        options = {"name": self.name, **self.options.task}
        if asks := on(self.compute, self.options.resources):
            options["tags"] = {*(options.get("tags") or ()), *asks}
        return Task(self.fn, cache_policy=NO_CACHE, persist_result=False, **options)

    @property
    def __mlpipe_function__(self) -> Callable[P, Any]:
        """The function: what a digest of this object is a digest of."""
        return self.fn

    @property
    def __mlpipe_effects__(self) -> list[str]:
        """What the return annotation does: the kind and names of the declared fields."""
        known = getattr(self.fn, "__mlpipe_effects__", None)
        if known is not None:
            return list(known)
        return [] if self.fields is None else [self.fields.kind, *self.fields.names]

    @property
    def name(self) -> str:
        """Name of the step's nodes."""
        return self.options.name

    @functools.cached_property
    def qualified_name(self) -> str:
        """Module-qualified name of the function, the same for a script as when it is imported."""
        names = getattr(inspect.unwrap(self.fn), "__globals__", {"__name__": self.fn.__module__})
        return f"{label_of_module(names)}.{self.fn.__qualname__}"

    @property
    def compute(self) -> str | None:
        """Name of the compute that it asks for."""
        return self.options.compute

    @functools.cached_property
    def signature(self) -> Signature:
        """How calls are bound."""
        return Signature(self.fn, self.name)

    @functools.cached_property
    def _annotations(self) -> dict[str, Any]:
        return resolve_annotations(self.fn, self._scope)

    @functools.cached_property
    def fields(self) -> Fields | None:
        """Declared fields of what it returns."""
        return declared_fields(self.returns)

    @functools.cached_property
    def returns(self) -> Any:
        """Declared type of what it returns; `Any` where it declares none."""
        return self._annotations.get("return", Any)

    def declared_type(self, parameter: str) -> Any:
        """Declared type of a parameter; `Any` where it declares none."""
        return self._annotations.get(parameter, Any)

    @functools.cached_property
    def returns_nothing(self) -> bool:
        """Whether it declares `-> None`: it works outside the store."""
        return "return" in self._annotations and self.returns in (None, type(None))

    @property
    def cached(self) -> bool:
        """Whether it may be reused: what was said, else whether it returns anything."""
        said = self.options.cache
        return not self.returns_nothing if said is None else said


class Signature:
    """Binds calls of one function; a plain loop for the common shape, `inspect` for the rest."""

    def __init__(self, fn: Callable[..., Any], step: str) -> None:
        self.step = step
        self.signature = signature_of(fn)
        parameters = self.signature.parameters.values()
        self.names = [parameter.name for parameter in parameters]
        self.simple = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        named = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
        # A decorator that wraps shows the signature within, but may itself take *args only.
        self.by_name = named and not hasattr(fn, "__wrapped__")
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return parameter → argument with defaults filled in, in the order of the signature.

        Raises:
            InvalidStep: the arguments do not fit.
        """
        if self.simple and len(args) + len(kwargs) == len(self.names):
            bound = dict(zip(self.names, args, strict=False))
            if not kwargs:
                return bound
            bound.update(kwargs)
            if len(bound) == len(self.names) and bound.keys() == set(self.names):
                return bound
        try:
            arguments = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidStep(
                f"Step '{self.step}' was called with arguments that do not fit: {error}.",
                {"signature": f"{self.step}{self.signature}"},
                "Correct the call.",
            ) from None
        arguments.apply_defaults()
        return dict(arguments.arguments)

    def call(self, fn: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Call the function with bound arguments."""
        if self.by_name:
            return fn(**arguments)
        bound = inspect.BoundArguments(self.signature, dict(arguments))
        return fn(*bound.args, **bound.kwargs)


_FILES = {File, Folder}


def adopt_files(step: Step[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Turn strings and paths of parameters that are declared `File` or `Folder` into these.

    Raises:
        InvalidStep: an argument is `unmapped`, which only `map` understands.
    """
    for name, value in arguments.items():
        if isinstance(value, str | PurePath):
            declared = _declared_file(step.declared_type(name))
            if declared is not None:
                arguments[name] = declared(value)
        elif type(value) is unmapped:
            raise InvalidStep(
                f"Step '{step.name}' was called with unmapped(...), which is for map.",
                {"argument": name},
                "Pass the value itself.",
            )
    return arguments


def _declared_file(annotation: Any) -> Any:
    """Return `File` or `Folder` if a parameter is declared as that, or as that or nothing."""
    annotation = bare(annotation)
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        annotation = bare(members[0]) if len(members) == 1 else None
    return annotation if annotation in _FILES else None


class unmapped(Generic[T]):
    """Marks an argument of `map` that is the same for every item, though it is a list."""

    def __new__(cls, value: T) -> T:  # type: ignore[misc]
        """Wrap the value; statically it keeps its type."""
        wrapped = object.__new__(cls)
        wrapped.value = value
        return wrapped  # type: ignore[return-value]

    value: T


def _plain_map(step: Step[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[R]:
    kwargs = {k: v for k, v in kwargs.items() if k not in ("allowed_failures", "drop_failed")}
    bound = step.signature.bind(args, kwargs)
    lists = {name: value for name, value in bound.items() if type(value) in (list, tuple, range)}
    count = common_length(step.name, {name: len(value) for name, value in lists.items()})
    fixed = {
        name: value.value if isinstance(value, unmapped) else value for name, value in bound.items()
    }
    items = (
        {**fixed, **{name: value[index] for name, value in lists.items()}} for index in range(count)
    )
    return [step.signature.call(step.fn, item) for item in items]


def common_length(step: str, lengths: Mapping[str, int]) -> int:
    """Return the one length of all lists that a step is mapped over.

    Raises:
        InvalidStep: there is no list, or the lengths differ.
    """
    if not lengths:
        raise InvalidStep(
            f"Step '{step}' was mapped, but none of its arguments is a list.",
            {},
            "Pass a list, a tuple, a range or the output of a step that returns a list.",
        )
    if len(set(lengths.values())) > 1:
        raise InvalidStep(
            f"Step '{step}' was mapped over lists of different lengths.",
            lengths,
            "Make them equally long, or wrap what is the same for every item in unmapped(...).",
        )
    return next(iter(lengths.values()))


class _Decorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    version: str | int | None = None,
    cache: bool | None = None,
    cache_expiration: timedelta | None = None,
    reads: Sequence[Any] | None = None,
    ignore: Sequence[str] = (),
    compute: str | None = None,
    resources: Resources | None = None,
    **task_options: Any,
) -> _Decorator: ...
def step(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a step of pipelines.

    Args:
        fn: the function; sync or `async def`.
        name: name of its nodes; default the function's.
        version: part of the key; change it to make the step run again.
        cache: whether it may be reused. Default: yes, unless it is annotated `-> None`.
        cache_expiration: how old a record may be to be reused.
        reads: what the code reaches only at run time, part of the key: `EnvVar("LANG")`,
            `File("vocab.txt")`, other functions. An empty list says that there is nothing, and
            `plan()` does not warn of this step.
        ignore: parameters, or globals by qualified name, that are left out of the key; also what
            `plan()` is not to warn of, as `time.time`.
        compute: name of the compute that it runs on.
        resources: what one call occupies there.
        task_options: options of Prefect's tasks: `retries`, `retry_delay_seconds`,
            `timeout_seconds`, `tags`, `log_prints`, hooks, ...

    Raises:
        InvalidStep: the function or an option cannot be a step's, with the way out.
    """
    if fn is None:

        def decorate(fn: Callable[..., Any]) -> Step[..., Any]:
            return _make(fn, options, local_names(fn, 2))

        return decorate
    return _make(fn, options, local_names(fn, 2))


def _make(
    fn: Callable[..., Any], options: dict[str, Any], scope: Mapping[str, Any] | None
) -> Step[..., Any]:
    _refuse_function(fn)
    defaults = StepOptions(name=getattr(fn, "__name__", type(fn).__name__))
    return Step(fn, merged(defaults, {k: v for k, v in options.items() if v is not None}), scope)


def local_names(fn: Any, depth: int) -> Mapping[str, Any] | None:
    """Return the names around a function inside another that its annotations use."""
    if "<locals>" not in getattr(fn, "__qualname__", ""):
        return None
    spelled = [text for text in spelled_annotations(fn).values() if isinstance(text, str)]
    used = set(re.findall(r"\w+", " ".join(spelled)))
    return {n: value for n, value in sys._getframe(depth).f_locals.items() if n in used}


def _refuse_function(fn: Any) -> None:
    name = getattr(fn, "__name__", repr(fn))
    found = _not_a_function(fn, name)
    if found is None and "wait_for" in signature_of(fn).parameters:
        found = "given a parameter called 'wait_for', which Prefect reserves", "Rename it."
    if found is not None:
        raise InvalidStep(f"Step '{name}' is {found[0]}.", {}, found[1])


def _not_a_function(fn: Any, name: str) -> tuple[str, str] | None:
    """Return what something is instead of a plain function, and the way out."""
    if isinstance(fn, Step):
        return "a step already", "Use with_options(...) for a copy."
    around = getattr(fn, "__qualname__", "").rpartition(".")[0]
    in_class = bool(around) and not around.endswith("<locals>")
    if isinstance(fn, staticmethod | classmethod | property) or inspect.ismethod(fn) or in_class:
        return "a method", "Make it a plain function that takes what it needs as arguments."
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        return "a generator", "Return a list; to go through it item by item, use map."
    if not callable(fn) or isinstance(fn, type) or not hasattr(fn, "__qualname__"):
        return f"a {type(fn).__name__}", "Decorate a function."
    return None


def run_function(step: Step[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a step's function with bound arguments; an `async def` runs in a loop of its own."""
    result = step.signature.call(step.fn, arguments)
    return _finished(result) if inspect.isawaitable(result) else result


def _finished(awaitable: Any) -> Any:
    async def wait() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    # This thread's loop is running already, as in a notebook: the step gets a thread for its own.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, wait()).result()
