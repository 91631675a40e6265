"""Graph, Node and Output: what tracing a pipeline body yields.

Pure data: nodes and edges, names, declared types. Knows no Prefect and no Dask, and nothing of
how a node is decided or run. An `Output` is a promise: everything that would need its value is an
error that names the step, because an `if` on a promise would silently be always true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

import orjson

from prefect_mlpipe.core.annotations import Fields, clash
from prefect_mlpipe.core.nested import items_in, refilled
from prefect_mlpipe.errors import NameClash, TypeClash, UnresolvedOutput


class StepLike(Protocol):
    """What the graph needs to know of a step."""

    @property
    def name(self) -> str:
        """Name of its nodes."""

    @property
    def fn(self) -> Callable[..., Any]:
        """The function."""

    @property
    def fields(self) -> Fields | None:
        """Declared fields of what it returns."""

    @property
    def returns(self) -> Any:
        """Declared type of what it returns."""

    @property
    def compute(self) -> str | None:
        """Name of the compute that it asks for."""

    def declared_type(self, parameter: str) -> Any:
        """Declared type of a parameter."""


class Mapping:
    """How a node is mapped: which parameters go item by item, and how much may fail."""

    __slots__ = ("allowed_failures", "drop_failed", "parameters")

    def __init__(
        self, parameters: tuple[str, ...], allowed_failures: float, drop_failed: bool
    ) -> None:
        self.parameters = parameters
        self.allowed_failures = allowed_failures
        self.drop_failed = drop_failed


class Node:
    """One call of a step in a graph.

    Attributes:
        name: unique in the graph: `clean`, `clean#2`, `prep/clean`.
        step: what is called.
        arguments: parameter → value, outputs of other nodes inside.
        inputs: the outputs inside the arguments, with the parameter that each stands in.
        after: nodes that must be done first although they hand over no data.
        mapped: how it is mapped, `None` for a plain call.
        index: position in call order.
    """

    __slots__ = ("after", "arguments", "index", "inputs", "mapped", "name", "step")

    def __init__(
        self,
        name: str,
        step: Any,
        arguments: dict[str, Any],
        inputs: list[tuple[str, Output]],
        after: tuple[Node, ...],
        mapped: Mapping | None,
        index: int,
    ) -> None:
        self.name = name
        self.step = step
        self.arguments = arguments
        self.inputs = inputs
        self.after = after
        self.mapped = mapped
        self.index = index

    def __repr__(self) -> str:
        return f"Node({self.name!r})"

    @property
    def parents(self) -> list[Node]:
        """The nodes that must be done before this one, each once, in order of the arguments."""
        found = {output._mlpipe_node: None for _, output in self.inputs}
        return [*found, *(node for node in self.after if node not in found)]


# Every operation that would need the value, as Python spells it.
_OPERATIONS = [
    *("bool", "next", "len", "contains", "call", "enter", "exit", "await", "aiter"),
    *("eq", "ne", "lt", "le", "gt", "ge", "hash", "setitem", "delitem", "array", "fspath"),
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("radd", "rsub", "rmul", "rmatmul", "rtruediv", "rfloordiv", "rmod", "rdivmod", "rpow"),
    *("lshift", "rshift", "and", "or", "xor", "rlshift", "rrshift", "rand", "ror", "rxor"),
    *("iadd", "isub", "imul", "neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil"),
    *("int", "float", "complex", "index", "format", "str", "bytes", "reduce_ex"),
]


class Output:
    """A promise of the value that a step call in a pipeline body will return.

    Hand it to other steps, alone or inside lists, tuples and dicts. Declared fields can be
    unpacked, indexed and read by name. To use the value itself, `resolve(output)`.
    """

    __slots__ = ("_mlpipe_field", "_mlpipe_node", "_mlpipe_resolve")

    def __init__(
        self, node: Node, field: str | None, resolve: Callable[[Output], Any] | None
    ) -> None:
        self._mlpipe_node = node
        self._mlpipe_field = field
        self._mlpipe_resolve = resolve

    def __repr__(self) -> str:
        field = f".{self._mlpipe_field}" if self._mlpipe_field else ""
        return f"<output of '{self._mlpipe_node.name}'{field}>"

    def __copy__(self) -> Output:
        return self

    def __deepcopy__(self, memo: object) -> Output:
        return self  # the promise of the same value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # protocols that probe an object get the answer "no"
            raise AttributeError(name)
        fields = self._fields()
        if fields is not None and fields.kind == "namedtuple" and name in fields.names:
            return self._field(name)
        if fields is not None and fields.kind == "typeddict" and name == "keys":
            return lambda: fields.names
        if name == "result":
            return self._result
        _refuse(self, f"attribute '{name}' was read")

    def __getitem__(self, item: Any) -> Any:
        fields = self._fields()
        if fields is not None:
            if fields.kind == "typeddict" and item in fields.names:
                return self._field(item)
            if fields.kind != "typeddict" and isinstance(item, int | slice):
                picked = fields.names[item]  # an index too far is an IndexError, as of a tuple
                if isinstance(picked, str):
                    return self._field(picked)
                return tuple(self._field(name) for name in picked)
        _refuse(self, f"item {item!r} was read")

    def __iter__(self) -> Iterator[Any]:
        fields = self._fields()
        if fields is None:
            _refuse(self, "it was iterated over")
        if fields.kind == "typeddict":
            return iter(fields.names)
        return iter([self._field(name) for name in fields.names])

    def _fields(self) -> Fields | None:
        return None if self._mlpipe_field is not None else self._mlpipe_node.step.fields

    def _field(self, name: str) -> Output:
        return Output(self._mlpipe_node, name, self._mlpipe_resolve)

    def _result(self) -> Any:
        if self._mlpipe_resolve is None:
            _refuse(self, "its result was asked for after the body had ended")
        return self._mlpipe_resolve(self)


def _refuse(output: Output, what: str) -> NoReturn:
    node = output._mlpipe_node
    fields = node.step.fields
    facts = {"output": repr(output), "seen": what}
    if fields is not None:
        facts["fields"] = ", ".join(fields.names)
    raise UnresolvedOutput(
        f"The output of step '{node.name}' was used as a value, but it has not run yet.",
        facts,
        "Pass it to a step, or call resolve(...) on it to have its value here. Fields can be read "
        "where the step's return annotation declares them (NamedTuple, tuple[A, B], TypedDict).",
    )


def _guard(operation: str) -> Callable[..., NoReturn]:
    def guard(self: Output, *_: Any, **__: Any) -> NoReturn:
        _refuse(self, f"__{operation}__ was called on it")

    return guard


for _operation in _OPERATIONS:
    setattr(Output, f"__{_operation}__", _guard(_operation))


def outputs_in(value: Any) -> list[Output]:
    """Return the outputs inside a value: alone, or in lists, tuples and dicts."""
    return [item for item in items_in(value) if type(item) is Output]


def replace_outputs(value: Any, replacement: Callable[[Output], Any]) -> Any:
    """Return a value with every output inside it replaced; without one, the value itself."""
    return _replaced(value, replacement) if outputs_in(value) else value


def _replaced(value: Any, replacement: Callable[[Output], Any]) -> Any:
    kind = type(value)
    if kind is Output:
        return replacement(value)
    if kind is dict:
        return {name: _replaced(item, replacement) for name, item in value.items()}
    if kind is list:
        return [_replaced(item, replacement) for item in value]
    if isinstance(value, tuple):
        return refilled(value, [_replaced(item, replacement) for item in value])
    return value


class Graph:
    """The nodes of one traced pipeline, in call order.

    Attributes:
        name: of the pipeline.
        nodes: in call order; parents always come before children.
        complete: whether the body was traced to its end; `plan()` may have to stop at a barrier.
        stopped_at: the step whose value the body asked for there.
        computes: name → target, as pipelines that were called in this one define them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.complete = True
        self.stopped_at: str | None = None
        self.computes: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._functions: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def unique(self, name: str, function: Any = None) -> str:
        """Return a name for the next node or group: `clean`, then `clean#2`.

        Raises:
            NameClash: another function already stands under the name.
        """
        if function is not None and self._functions.setdefault(name, function) is not function:
            other = self._functions[name]
            raise NameClash(
                f"Two different functions are called '{name}' in pipeline '{self.name}'.",
                {"one": _place(other), "other": _place(function)},
                "Give one call a name of its own: step.with_options(name='...').",
            )
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"

    def add(
        self,
        step: Any,
        group: str,
        arguments: dict[str, Any],
        after: tuple[Node, ...],
        mapped: Mapping | None = None,
    ) -> Node:
        """Add a call; outputs inside the arguments become edges.

        Raises:
            TypeClash: a parent's declared output can never be what the parameter declares.
            UnresolvedOutput: an argument is an output of another run.
        """
        name = self.unique(group + step.name, step.fn)
        inputs: list[tuple[str, Output]] = []
        for parameter, value in arguments.items():
            kind = type(value)
            if kind is Output:
                inputs.append((parameter, value))
            elif kind is list or kind is dict or isinstance(value, tuple):
                inputs += [(parameter, output) for output in outputs_in(value)]
        node = Node(name, step, arguments, inputs, after, mapped, len(self.nodes))
        for parameter, output in inputs:
            self._refuse_foreign(node, parameter, output)
            if arguments[parameter] is output:
                _check_edge(node, parameter, output)
        self.nodes.append(node)
        return node

    def _refuse_foreign(self, node: Node, parameter: str, output: Output) -> None:
        index = output._mlpipe_node.index
        if index >= len(self.nodes) or self.nodes[index] is not output._mlpipe_node:
            raise UnresolvedOutput(
                f"Step '{node.name}' was given an output of another run.",
                {"argument": parameter, "output": repr(output)},
                "An output lives as long as the pipeline body that made it; do not keep it.",
            )

    def to_json(self) -> str:
        """Return nodes, edges, declared types and compute as JSON."""
        return orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2).decode()

    def to_dict(self) -> dict[str, Any]:
        """Return what `to_json` writes, as dicts and lists."""
        nodes = [
            {
                "name": node.name,
                "step": f"{node.step.fn.__module__}.{node.step.fn.__qualname__}",
                "returns": type_name(node.step.returns),
                "parameters": {
                    name: type_name(node.step.declared_type(name)) for name in node.arguments
                },
                "compute": node.step.compute,
                "mapped": list(node.mapped.parameters) if node.mapped else None,
            }
            for node in self.nodes
        ]
        edges = [
            {
                "from": output._mlpipe_node.name,
                "to": node.name,
                "parameter": parameter,
                "field": output._mlpipe_field,
            }
            for node in self.nodes
            for parameter, output in node.inputs
        ]
        order = [
            {"from": earlier.name, "to": node.name} for node in self.nodes for earlier in node.after
        ]
        return {
            "name": self.name,
            "complete": self.complete,
            "nodes": nodes,
            "edges": edges,
            "order": order,
        }

    def to_mermaid(self) -> str:
        """Return a Mermaid flowchart; groups are subgraphs, order without data is dotted."""
        lines = ["flowchart TD"]
        groups: dict[str, list[Node]] = {}
        for node in self.nodes:
            groups.setdefault(node.name.rpartition("/")[0], []).append(node)
        for group, nodes in groups.items():
            indent = "    "
            if group:
                lines.append(f'    subgraph {_identifier("group", group)}["{group}"]')
                indent = "        "
            for node in nodes:
                shape = '[["{}"]]' if node.mapped else '["{}"]'
                label = node.name.rpartition("/")[2]
                lines.append(f"{indent}{_identifier('n', node.name)}{shape.format(label)}")
            if group:
                lines.append("    end")
        for node in self.nodes:
            lines += [f"    {line}" for line in _mermaid_edges(node)]
        if self.stopped_at:
            lines.append(f'    more["… more after {self.stopped_at} has run"]')
        return "\n".join(lines)


def _mermaid_edges(node: Node) -> Iterator[str]:
    here = _identifier("n", node.name)
    drawn = set()
    for _, output in node.inputs:
        edge = (output._mlpipe_node.name, output._mlpipe_field)
        if edge not in drawn:
            drawn.add(edge)
            label = f"|{output._mlpipe_field}|" if output._mlpipe_field else ""
            yield f"{_identifier('n', edge[0])} -->{label} {here}"
    for earlier in node.after:
        yield f"{_identifier('n', earlier.name)} -.-> {here}"


def _identifier(kind: str, name: str) -> str:
    return f"{kind}_" + re.sub(r"\W", lambda match: f"_{ord(match[0]):x}_", name)


def _place(function: Any) -> str:
    code = getattr(function, "__code__", None)
    where = f"  ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return f"{function.__module__}.{function.__qualname__}{where}"


def type_name(annotation: Any) -> str:
    """Return a type as a person would write it."""
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        module = annotation.__module__
        return (
            annotation.__qualname__
            if module == "builtins"
            else f"{module}.{annotation.__qualname__}"
        )
    return str(annotation).replace("typing.", "")


def _check_edge(node: Node, parameter: str, output: Output) -> None:
    produced = _produced(node, parameter, output)
    declared = node.step.declared_type(parameter)
    if clash(produced, declared):
        raise TypeClash(
            f"Step '{node.name}' can never accept what step '{output._mlpipe_node.name}' returns.",
            {
                "argument": parameter,
                "declares": type_name(declared),
                "receives": f"{type_name(produced)} from {output!r}",
            },
            "Pass another output, or correct the annotation that is wrong.",
        )


def _produced(node: Node, parameter: str, output: Output) -> Any:
    """Return the type that arrives at a parameter, as far as it is declared."""
    producer, field = output._mlpipe_node, output._mlpipe_field
    by_item = node.mapped is not None and parameter in node.mapped.parameters
    if by_item and producer.mapped is None:
        return Any  # what the items of a list are is not looked into
    if producer.mapped is not None and not by_item:
        return list
    fields = producer.step.fields
    return producer.step.returns if field is None else fields.type_of(field)
