"""`@pipeline`: a function that wires steps, and a Prefect flow.

A `Pipeline` is a `Flow`: it is called, served and deployed as any flow, and its runs are flow
runs. What is ours is what happens inside one: the body is traced and the engine drives it. Knows
nothing of keys and decisions.

Prefect runs `fn`, a generated function with the body's signature that closes over nothing but the
body: `serve` pickles it, and what it reached besides would have to be pickled too.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow
from prefect.utilities.hashing import file_hash

from prefect_mlpipe import active
from prefect_mlpipe.baseline import Baseline
from prefect_mlpipe.compute.named import named_computes
from prefect_mlpipe.compute.targets import DEFAULT, Target, Threads, adopt_computes
from prefect_mlpipe.core.annotations import resolve_annotations, signature_of
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.graph import Graph, outputs_in
from prefect_mlpipe.core.shipping import Shipped
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deployable import Deployable
from prefect_mlpipe.engine.deciding import Decider
from prefect_mlpipe.engine.keying import Keyer
from prefect_mlpipe.engine.outputs import Outputs
from prefect_mlpipe.engine.selection import Selection
from prefect_mlpipe.errors import InvalidParameters, InvalidPipeline
from prefect_mlpipe.parameters import refused_in_silence, restore, show
from prefect_mlpipe.pipeline_options import (
    OURS,
    PipelineOptions,
    merged,
    refuse_options,
    run_options,
    with_runner,
)
from prefect_mlpipe.planning import Barrier, Planner
from prefect_mlpipe.plans import Plan
from prefect_mlpipe.runs import Runs
from prefect_mlpipe.settings import Failures, Settings
from prefect_mlpipe.steps import Step, local_names
from prefect_mlpipe.stores import open_store
from prefect_mlpipe.tracing import Tracer, refuse_iterators

P = ParamSpec("P")
R = TypeVar("R")


class Pipeline(Shipped, Deployable[P, R], Generic[P, R]):
    """A function that wires steps; made by `@pipeline`. It is a Prefect `Flow`.

    Called, it runs as a flow run and returns the values. `local()` runs it without Prefect,
    `plan()` says what would run, `graph()` gives nodes and edges, `runs` the runs that are over.
    """

    body: Callable[P, R]
    options: PipelineOptions

    def __init__(
        self,
        body: Callable[P, R],
        options: PipelineOptions,
        scope: Mapping[str, Any] | None = None,
        **flow_options: Any,
    ) -> None:
        self.body = body
        self.options = options
        super().__init__(_runner(body, scope), persist_result=False, **flow_options)
        # Prefect takes the file of the function that it runs, which is this one.
        self.version = flow_options.get("version") or _file_version(body)

    def __repr__(self) -> str:
        return f"<pipeline '{self.name}'>"

    def __copy__(self) -> Pipeline[P, R]:
        """Return a copy; the pickled form, which `copy` would take, holds the code by value."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    # -- calls ----------------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
        """Run as a Prefect flow run and return the values; in another pipeline's body, become a
        group.

        Raises:
            InvalidParameters: a parameter has a wrong type or an unknown name; nothing ran.
            PrefectUnavailable: the Prefect API does not answer.
            Exception: a step's own exception; several in an `ExceptionGroup`.
        """
        tracer = active.active_tracer()
        if tracer is not None:
            return tracer.inline(self, args, dict(kwargs))  # type: ignore[no-any-return]
        from prefect_mlpipe.flowruns import call_flow

        return call_flow(self, super().__call__, args, dict(kwargs))  # type: ignore[no-any-return]

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on threads of this process, without Prefect, and return the values.

        Same graph, keys, store and validation: what was made here is reused by a flow run and the
        other way round. For tests and notebooks. What needs a task run of Prefect in a step
        (`get_run_logger`, artifacts) has none here; Python's `logging` works in both.
        """
        from prefect_mlpipe.localruns import run_locally

        return run_locally(self, self.bind(args, dict(kwargs)))  # type: ignore[no-any-return]

    def plan(self, *args: Any, verify: bool = False, **kwargs: Any) -> Plan:
        """Return what a call with these parameters would run or reuse, and why. Executes nothing.

        Args:
            args: parameters by position.
            verify: look whether the stored values that would be read are there and undamaged.
            kwargs: parameters by name.
        """
        graph, planner = self.trace_plan(self.bind(args, kwargs))
        adopt_computes(graph, list(graph), *self.computes())
        return planner.plan(verify)

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """Return nodes, edges and declared types of a call with these parameters. Executes nothing.

        A value at a `resolve` is taken from the records if its step would be reused; otherwise
        the graph ends there and `complete` is false.
        """
        return self.trace_plan(self.bind(args, kwargs))[0]

    def trace_plan(
        self,
        arguments: dict[str, Any],
        run: Mapping[str, Any] | None = None,
        stand_ins: Mapping[str, File | Folder] = MappingProxyType({}),
    ) -> tuple[Graph, Planner]:
        """Trace the body without executing anything.

        Args:
            arguments: validated parameters.
            run: manifest of the run that is compared with; default: the last.
            stand_ins: path of a file → what steps would be given in its place.
        """
        store = self.open_store()
        graph = Graph(self.name)
        selection = self.selection(arguments)
        baseline = Baseline(store, self.name, run)
        decider = Decider(store, Keyer(), selection, baseline, time.time)
        planner = Planner(graph, Outputs(store), decider, baseline)
        with contextlib.suppress(Barrier):  # the graph says where it ended
            Tracer(graph, planner.resolve, stand_ins).run(self, self.body, arguments)
        return graph, planner

    @property
    def runs(self) -> Runs:
        """The finished runs of this pipeline in its store."""
        return Runs(self.open_store(), self.name, signature_of(self.body).parameters, self._replay)

    def _replay(self, document: Mapping[str, Any], **asked: Any) -> str:
        from prefect_mlpipe.deploy.replaying import replay

        return replay(self, document, **asked)

    def visualize(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: Prefect's picture knows tasks only.

        Raises:
            InvalidPipeline: always, with what to call instead.
        """
        raise InvalidPipeline(
            f"Pipeline '{self.name}' cannot be drawn by Prefect's visualize: it knows tasks only.",
            {},
            "Use .graph().to_mermaid(), or look at a run in the Prefect UI.",
        )

    # -- options --------------------------------------------------------------------------------

    def with_options(self, **options: Any) -> Pipeline[P, R]:
        """Return a copy with other options.

        Args:
            options: `store`, `compute` (name → target, added to what is there), `refresh` (true or
                names), `targets` (names), `failures` (`finish`, `stop`, `cancel`),
                `keep_inputs`, or options of Prefect's flows (`name`, `retries`,
                `timeout_seconds`, hooks, ...); as `task_runner` a `RoutingTaskRunner`, whose
                computes are taken over.
        """
        options = with_runner(options)
        ours = {name: options.pop(name) for name in OURS if name in options}
        refuse_options(self.name, options)
        changed = copy.copy(self)
        if options:
            changed.__dict__.update(super().with_options(**options).__dict__)
        changed.options = merged(self.name, self.options, ours)
        return changed

    def computes(self) -> tuple[dict[str, Target], dict[str, Target]]:
        """Return name → target as the call and the pipeline say, and as the settings say.

        `default` is among the former always.
        """
        settings = Settings()
        named = named_computes(settings)
        default = named.get(DEFAULT) or Threads(max_workers=settings.max_workers)
        return {DEFAULT: default, **self.options.compute}, named

    def open_store(self) -> Store:
        """Return the store: of the call, the pipeline, or the settings."""
        return open_store(self.options.store)

    def selection(self, arguments: Mapping[str, Any]) -> Selection:
        """Return what is asked of a run, by options or by a `RunOptions` among its parameters."""
        run = run_options(arguments)
        return Selection(run.refresh or self.options.refresh, run.targets or self.options.targets)

    def failures(self, arguments: Mapping[str, Any]) -> Failures:
        """Return what happens to the rest of a run when a step fails."""
        return run_options(arguments).failures or self.options.failures or Settings().failures

    # -- parameters -----------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return parameter → validated value, defaults filled in.

        Raises:
            InvalidParameters: they do not fit the signature or its types.
            InvalidPipeline: one is an iterator.
        """
        bound = self._bind(args, kwargs)
        refuse_iterators(self.name, bound)
        return self.validate_parameters(bound)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        signature = signature_of(self.body)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidParameters(
                f"Pipeline '{self.name}' was called with parameters that do not fit.",
                {"signature": f"{self.body.__name__}{signature}", "problem": str(error)},
                "Correct the call; nothing ran.",
            ) from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def bind_inline(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of a call in another body, validated if none is a promise."""
        bound = self._bind(args, kwargs)
        known = {name: value for name, value in bound.items() if not outputs_in(value)}
        if len(known) == len(bound):
            return self.validate_parameters(bound)
        return bound

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return parameters as their declared types, stored ones loaded.

        Raises:
            InvalidParameters: one is not of its type, or its name is unknown.
        """
        unknown = sorted(set(parameters) - set(signature_of(self.body).parameters))
        if unknown:
            raise InvalidParameters(
                f"Pipeline '{self.name}' has no parameter '{unknown[0]}'.",
                {"parameters": ", ".join(signature_of(self.body).parameters)},
                "Correct the name; nothing ran.",
            )
        parameters = restore(parameters, self.open_store)
        try:
            with refused_in_silence():
                return super().validate_parameters(parameters)
        except ParameterTypeError as error:
            raise InvalidParameters(
                f"Pipeline '{self.name}' was called with a parameter of a wrong type.",
                {"problem": str(error)},
                "Correct the call; nothing ran.",
            ) from None

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return parameters as Prefect shows them; what is large or no plain JSON, by reference."""
        plain = {name: show(name, value, self.open_store) for name, value in parameters.items()}
        return super().serialize_parameters(plain)

    @property
    def group_name(self) -> str:
        """Name of its group in another pipeline."""
        return self.body.__name__

    @property
    def __mlpipe_function__(self) -> Callable[P, R]:
        """The function: what a digest of this object is a digest of."""
        return self.body

    def refuse_run_options(self) -> None:
        """Refuse options that only a run of its own could follow.

        Raises:
            InvalidPipeline: the pipeline is called in another and has such an option.
        """
        said = [name for name in OURS if name != "compute" and getattr(self.options, name)]
        if said:
            raise InvalidPipeline(
                f"Pipeline '{self.name}' is called in another pipeline, but has options of a run.",
                {name: getattr(self.options, name) for name in said},
                "Set them on the pipeline that is run: in it this one is only a group of steps.",
            )


def _runner(body: Callable[..., Any], scope: Mapping[str, Any] | None) -> Callable[..., Any]:
    """Return the function that Prefect runs: the body's signature, the engine's work."""

    @functools.wraps(body)
    def run_pipeline(*args: Any, **kwargs: Any) -> Any:
        from prefect_mlpipe.deploy.completing import tell_completion
        from prefect_mlpipe.deploy.outputs import show_outputs
        from prefect_mlpipe.flowruns import run_in_flow

        return run_in_flow(args, kwargs, (show_outputs, tell_completion))

    # Prefect and pydantic would look up spelled annotations in this module, not in the body's.
    types = resolve_annotations(body, scope)
    signature = signature_of(body)
    parameters = [
        parameter.replace(annotation=types.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    run_pipeline.__annotations__ = types
    run_pipeline.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=types.get("return", signature.return_annotation)
    )
    return run_pipeline


def _file_version(body: Callable[..., Any]) -> str | None:
    """Return a hash of the file of a pipeline, as Prefect has of other flows, if there is one."""
    file = inspect.unwrap(body).__code__.co_filename
    return file_hash(file) if os.path.isfile(file) else None


def _refuse_body(body: Any) -> None:
    name = getattr(body, "__name__", repr(body))
    if isinstance(body, Flow | Step):
        kind = "a step" if isinstance(body, Step) else "a flow already"
        advice = "Decorate a plain function that calls steps."
    elif inspect.iscoroutinefunction(body):
        kind = "async"
        advice = "Write the body as a plain function: it only wires steps. Steps may be async."
    elif inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        kind, advice = "a generator", "Return the outputs, in a list if there are several."
    elif isinstance(body, staticmethod | classmethod) or inspect.ismethod(body):
        kind, advice = "a method", "Make it a plain function."
    elif not inspect.isfunction(body):
        kind, advice = f"a {type(body).__name__}", "Decorate a function."
    elif unnamed := _unnamed(body):
        kind, advice = f"a function with {unnamed}", "Give each parameter a name: the form has it."
    else:
        return
    raise InvalidPipeline(f"Pipeline '{name}' is {kind}.", {}, advice)


def _unnamed(body: Callable[..., Any]) -> str:
    kinds = {parameter.kind for parameter in signature_of(body).parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return "*args or **kwargs"
    return "positional-only parameters" if inspect.Parameter.POSITIONAL_ONLY in kinds else ""


@overload
def pipeline(body: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(
    *,
    name: str | None = None,
    store: str | Store | None = None,
    compute: Mapping[str, Target] | None = None,
    refresh: bool | Sequence[str] = (),
    targets: Sequence[str] = (),
    failures: Failures | None = None,
    keep_inputs: bool = False,
    **flow_options: Any,
) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(body: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function that wires steps a pipeline.

    Args:
        body: the function. It is run to find out what the steps are; keep work out of it.
        name: of the flow; default the function's.
        store: a path or fsspec URL, or a `Store`; default the settings'.
        compute: name → target, for steps that ask for one; `default` for all others.
        refresh: `True`, or names of steps or groups that run although they could be reused.
        targets: names of steps or groups that are wanted, with what they need.
        failures: `finish`, `stop` or `cancel` the rest when a step fails.
        keep_inputs: store the files that are given to steps, so that a run can be replayed after
            they have changed.
        flow_options: options of Prefect's flows: `description`, `retries`, `timeout_seconds`,
            hooks.

    Raises:
        InvalidPipeline: the function or an option cannot be a pipeline's, with the way out.
    """
    if body is None:

        def decorate(body: Callable[..., Any]) -> Pipeline[..., Any]:
            made = _make(body, local_names(body, 2))
            return made.with_options(**options) if options else made

        return decorate
    return _make(body, local_names(body, 2))


def _make(body: Callable[..., Any], scope: Mapping[str, Any] | None) -> Pipeline[..., Any]:
    _refuse_body(body)
    return Pipeline(body, PipelineOptions(), scope)
