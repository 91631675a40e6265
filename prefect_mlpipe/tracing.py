"""A pipeline body becomes a graph.

Runs the body once with step calls recorded instead of executed. Knows nothing of how nodes are
decided or
run: at a barrier it asks the `resolver` that it was given, which may run things (the engine) or
look them up (the planner).

Tracing a real call of the body, rather than reading its source, means that any Python may stand
in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from types import MappingProxyType
from typing import Any, TypeVar, cast

from prefect.futures import PrefectFuture

from prefect_mlpipe import active
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.graph import (
    Graph,
    Node,
    Output,
    outputs_in,
    replace_outputs,
)
from prefect_mlpipe.core.graph import Mapping as NodeMapping
from prefect_mlpipe.errors import InvalidPipeline, InvalidStep, PipelineCircle
from prefect_mlpipe.replays import with_stand_ins
from prefect_mlpipe.steps import Step, adopt_files, common_length, unmapped

T = TypeVar("T")
Resolver = Callable[[Sequence[Output]], Sequence[Any]]

# A Prefect task that is handed an output takes it for one of its own futures, asks it for its
# state, and so gets the error that says `resolve`, instead of running with a promise.
PrefectFuture.register(Output)


def resolve(value: T) -> T:
    """Return what an output stands for, running what it needs now; then tracing goes on.

    Everything traced so far starts; only what the value needs is waited for. Takes one output, or
    lists, tuples and dicts of them. Outside a pipeline body it returns its argument, so that a
    body is also plain Python.

    Raises:
        Exception: the step failed; it is the step's own exception, and the body may catch it.
    """
    tracer = active.active_tracer()
    return value if tracer is None else cast(T, tracer.resolve(value))


class Tracer:
    """Records the step calls of one pipeline body into a graph.

    Args:
        graph: where nodes are added.
        resolver: returns the values of outputs at a barrier, in their order.
        stand_ins: path of a file → what steps are given in its place.
    """

    def __init__(
        self,
        graph: Graph,
        resolver: Resolver,
        stand_ins: Mapping[str, File | Folder] = MappingProxyType({}),
    ) -> None:
        self.graph = graph
        self.thread = get_ident()
        self._resolver = resolver
        self._stand_ins = stand_ins
        self._group = ""
        self._after: tuple[Any, ...] = ()
        self._bodies: list[Any] = []

    def run(self, pipeline: Any, body: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Call the body and return what it returned, outputs inside."""
        self._bodies.append(pipeline)
        token = active.start(self)
        try:
            return body(**arguments)
        finally:
            active.stop(token)
            self._bodies.pop()

    def call(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Output:
        """Add a node for a call and return the promise of its value."""
        after = self._after + step._after
        if "wait_for" in kwargs:
            kwargs = dict(kwargs)
            after += _several(kwargs.pop("wait_for"))
        arguments = adopt_files(step, self._bound(step, args, kwargs))
        node = self.graph.add(step, self._group, arguments, _nodes(step.name, after))
        return Output(node, None, self.resolve)

    def map(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Output:
        """Add a mapped node and return the promise of its list."""
        kwargs = dict(kwargs)
        allowed, drop = kwargs.pop("allowed_failures", 0), kwargs.pop("drop_failed", False)
        _refuse_allowed(step, allowed)
        after = self._after + step._after + _several(kwargs.pop("wait_for", None))
        bound = self._bound(step, args, kwargs)
        lists = [n for n, v in bound.items() if type(v) in (list, tuple, range, Output)]
        sizes = {n: len(bound[n]) for n in lists if type(bound[n]) is not Output}
        if sizes or not lists:
            common_length(step.name, sizes)
        arguments = {n: v.value if isinstance(v, unmapped) else v for n, v in bound.items()}
        for name in sizes:
            arguments[name] = list(arguments[name])
        mapped = NodeMapping(tuple(lists), allowed, drop)
        node = self.graph.add(step, self._group, arguments, _nodes(step.name, after), mapped)
        return Output(node, None, self.resolve)

    def _bound(
        self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        bound = step.signature.bind(args, kwargs)
        if not self._stand_ins:
            return bound
        # Strings of parameters that are declared files are such only from here on.
        files = adopt_files(step, {n: v for n, v in bound.items() if type(v) is not unmapped})
        return {
            name: with_stand_ins(files.get(name, value), self._stand_ins)
            for name, value in bound.items()
        }

    def inline(self, pipeline: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Trace another pipeline's body as a group of this graph.

        Raises:
            PipelineCircle: the pipeline is among those that led here.
        """
        if any(body.body is pipeline.body for body in self._bodies):
            circle = " → ".join(
                [*(body.body.__name__ for body in self._bodies), pipeline.body.__name__]
            )
            raise PipelineCircle(
                f"Pipeline '{pipeline.body.__name__}' reaches itself.",
                {"circle": circle},
                "Break the circle: a pipeline can only contain others.",
            )
        pipeline.refuse_run_options()
        before = self._group, self._after
        name = self.graph.unique(self._group + pipeline.group_name, pipeline.body)
        after = _several(kwargs.pop("wait_for", None))
        arguments = pipeline.bind_inline(args, kwargs)
        self.graph.computes = {**pipeline.options.compute, **self.graph.computes}
        self._group, self._after = name + "/", self._after + after
        try:
            return self.run(pipeline, pipeline.body, arguments)
        finally:
            self._group, self._after = before

    def resolve(self, value: Any) -> Any:
        """Return a value with its outputs replaced by what they stand for."""
        outputs = outputs_in(value)
        if not outputs:
            return value
        values = iter(self._resolver(outputs))
        return replace_outputs(value, lambda _: next(values))  # it meets them in the same order


def _several(earlier: Any) -> tuple[Any, ...]:
    """Return what stands in `wait_for`: one output, or several in a list."""
    if earlier is None:
        return ()
    return tuple(earlier) if type(earlier) in (list, tuple) else (earlier,)


def _refuse_allowed(step: Step[..., Any], allowed: Any) -> None:
    is_count = isinstance(allowed, int) and allowed >= 0
    if is_count or (isinstance(allowed, float) and 0 <= allowed <= 1):
        return
    raise InvalidStep(
        f"Step '{step.name}' was mapped with allowed_failures={allowed!r}.",
        {},
        "Give how many items may fail, as an int, or which share of them, as a float up to 1.0.",
    )


def _nodes(step: str, after: Sequence[Any]) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for earlier in after:
        outputs = outputs_in(earlier)
        if not outputs:
            raise InvalidStep(
                f"Step '{step}' is to run after something that is not an output of a step.",
                {"found": f"{type(earlier).__name__} {earlier!r}"[:120]},
                "Pass what a step call returned in this pipeline body.",
            )
        nodes += [output._mlpipe_node for output in outputs]
    return tuple(dict.fromkeys(nodes)) if nodes else ()


def refuse_iterators(pipeline: str, arguments: Mapping[str, Any]) -> None:
    """Refuse iterators among the parameters, before anything can consume them.

    Raises:
        InvalidPipeline: a parameter is an iterator.
    """
    for name, value in arguments.items():
        if hasattr(value, "__next__"):
            raise InvalidPipeline(
                f"Pipeline '{pipeline}' was given an iterator as parameter '{name}'.",
                {"type": type(value).__name__},
                "Pass a list: an iterator can be read only once, and by one reader.",
            )
