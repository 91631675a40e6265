"""Nodes, edges and promises."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pytest

from prefect_mlpipe.core.annotations import Fields, declared_fields, resolve_annotations
from prefect_mlpipe.core.graph import Graph, Mapping, Output
from prefect_mlpipe.errors import NameClash, TypeClash, UnresolvedOutput


class Split(NamedTuple):
    train: int
    keys: str


class Parts(TypedDict):
    left: int
    right: str


class FakeStep:
    """What the graph needs of a step, and nothing else."""

    compute = None

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.name = fn.__name__
        self._types = resolve_annotations(fn)
        self.returns = self._types.get("return", Any)
        self.fields: Fields | None = declared_fields(self.returns)

    def declared_type(self, parameter: str) -> Any:
        return self._types.get(parameter, Any)


def number() -> int: ...
def pair() -> Split: ...
def two() -> tuple[int, str]: ...
def parts() -> Parts: ...
def takes_int(x: int) -> None: ...
def takes_str(x: str) -> None: ...
def takes_any(x) -> None: ...  # type: ignore[no-untyped-def]
def takes_list(x: list[int]) -> None: ...


def call(graph: Graph, fn: Callable[..., Any], **arguments: Any) -> Output:
    return Output(graph.add(FakeStep(fn), "", arguments, ()), None, None)


@pytest.fixture
def graph() -> Graph:
    return Graph("p")


USES: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "if": lambda o: 1 if o else 2,
    "and": lambda o: o and 1,
    "not": lambda o: not o,
    "iter": iter,
    "for": lambda o: [x for x in o],
    "next": next,
    "len": len,
    "list": list,
    "in": lambda o: 1 in o,
    "inside a list": lambda o: o in [1, 2],
    "inside a set": lambda o: o in {1, 2},
    "as a key": lambda o: {o: 1},
    "hash": hash,
    "==": lambda o: o == 1,
    "== reflected": lambda o: o == 1,
    "!=": lambda o: o != 1,
    "<": lambda o: o < 1,
    ">=": lambda o: o >= 1,
    "sorted": lambda o: sorted([o, 1]),
    "max": lambda o: max(o, 1),
    "sum": lambda o: sum([o, o]),
    "+": lambda o: o + 1,
    "+ reflected": lambda o: 1 + o,
    "-": lambda o: o - 1,
    "*": lambda o: 2 * o,
    "@": lambda o: o @ o,
    "/": lambda o: o / 2,
    "//": lambda o: 7 // o,
    "%": lambda o: o % 2,
    "text %": lambda o: "%s" % o,  # noqa: UP031
    "divmod": lambda o: divmod(o, 2),
    "**": lambda o: o**2,
    "<<": lambda o: o << 1,
    "&": lambda o: o & 1,
    "|": lambda o: 1 | o,
    "^": lambda o: o ^ 1,
    "unary -": lambda o: -o,
    "unary +": lambda o: +o,
    "~": lambda o: ~o,
    "abs": abs,
    "round": round,
    "floor": math.floor,
    "sqrt": math.sqrt,
    "int": int,
    "float": float,
    "complex": complex,
    "index": lambda o: [1, 2][o],
    "range": range,
    "str": str,
    "f-string": lambda o: f"{o}",
    "format": lambda o: "{:.2f}".format(o),  # noqa: UP032
    "bytes": bytes,
    "call": lambda o: o(),
    "attribute": lambda o: o.shape,
    "hasattr": lambda o: hasattr(o, "shape"),
    "item": lambda o: o["x"],
    "set item": lambda o: o.__setitem__(0, 1),
    "with": lambda o: o.__enter__(),
    "fspath": os.fspath,
    "open": open,
    "np.asarray": np.asarray,
    "np.add": lambda o: np.add(o, 1),
    "np.sum": np.sum,
    "in an array": lambda o: np.array([o, 1.0]),
    "array + output": lambda o: np.ones(2) + o,
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("use", USES)
def test_every_use_of_a_promise_as_a_value_names_the_step_and_the_way_out(
    graph: Graph, use: str
) -> None:
    output = call(graph, number)
    with pytest.raises(UnresolvedOutput, match=r"(?s)'number'.*resolve"):
        USES[use](output)


def test_augmented_assignment_is_a_use(graph: Graph) -> None:
    output = call(graph, number)
    with pytest.raises(UnresolvedOutput):
        output += 1  # type: ignore[operator]


def test_looking_at_a_promise_is_not_a_use(graph: Graph) -> None:
    output = call(graph, number)
    assert repr(output) == "<output of 'number'>"
    assert isinstance(output, Output)
    assert copy.copy(output) is output
    assert copy.deepcopy([output])[0] is output


def fields_of(output: Any) -> list[str | None]:
    return [one._mlpipe_field for one in output]


def test_fields_of_a_named_tuple_are_read_by_name_by_index_and_unpacked(graph: Graph) -> None:
    output: Any = call(graph, pair)
    assert output.train._mlpipe_field == "train"
    assert output.keys._mlpipe_field == "keys"
    assert output[1]._mlpipe_field == "keys"
    assert output[-1]._mlpipe_field == "keys"
    assert fields_of(output) == fields_of(output[:]) == ["train", "keys"]
    with pytest.raises(IndexError):
        output[2]
    with pytest.raises(UnresolvedOutput, match=r"(?s)'pair'.*fields +train, keys"):
        output.other  # noqa: B018


def test_fields_of_a_tuple_are_unpacked(graph: Graph) -> None:
    one, other = call(graph, two)
    assert (one._mlpipe_field, other._mlpipe_field) == ("0", "1")


def test_fields_of_a_typed_dict_are_read_by_key(graph: Graph) -> None:
    output: Any = call(graph, parts)
    assert output["left"]._mlpipe_field == "left"
    assert list(output) == ["left", "right"]
    assert {name: one._mlpipe_field for name, one in dict(**output).items()} == {
        "left": "left",
        "right": "right",
    }
    with pytest.raises(UnresolvedOutput):
        output["middle"]


def test_a_field_has_no_fields(graph: Graph) -> None:
    output: Any = call(graph, pair)
    with pytest.raises(UnresolvedOutput):
        output.train.train  # noqa: B018


def test_names_count_calls(graph: Graph) -> None:
    for _ in range(3):
        call(graph, number)
    assert [node.name for node in graph] == ["number", "number#2", "number#3"]


def test_two_functions_of_one_name_clash(graph: Graph) -> None:
    def other_number() -> int: ...

    other_number.__name__ = "number"
    call(graph, number)
    with pytest.raises(NameClash, match=r"(?s)'number'.*test_graph\.py.*with_options\(name="):
        call(graph, other_number)


def test_outputs_inside_containers_become_edges(graph: Graph) -> None:
    one, other = call(graph, number), call(graph, pair)
    node = graph.add(FakeStep(takes_any), "", {"x": {"a": [one, (other.keys, 1)]}}, ())  # type: ignore[attr-defined]
    assert [parent.name for parent in node.parents] == ["number", "pair"]


def test_a_provable_clash_names_both_steps_and_the_argument(graph: Graph) -> None:
    output = call(graph, number)
    with pytest.raises(TypeClash) as raised:
        call(graph, takes_str, x=output)
    text = str(raised.value)
    assert "'takes_str'" in text
    assert "'number'" in text
    assert "argument  x" in text
    assert "declares  str" in text
    assert "receives  int" in text


def test_a_field_is_checked_by_its_own_type(graph: Graph) -> None:
    output: Any = call(graph, pair)
    call(graph, takes_int, x=output.train)
    with pytest.raises(TypeClash):
        call(graph, takes_int, x=output.keys)


def test_a_mapped_output_is_a_list(graph: Graph) -> None:
    mapped = Mapping(("x",), 0, False)
    items = Output(graph.add(FakeStep(number), "", {}, (), mapped), None, None)
    call(graph, takes_list, x=items)
    graph.add(FakeStep(takes_int), "", {"x": items}, (), mapped)
    with pytest.raises(TypeClash):
        call(graph, takes_int, x=items)
    with pytest.raises(TypeClash):
        graph.add(FakeStep(takes_str), "", {"x": items}, (), mapped)


def test_an_output_of_another_run_is_refused(graph: Graph) -> None:
    stranger = call(Graph("other"), number)
    with pytest.raises(UnresolvedOutput, match=r"(?s)'takes_any'.*argument +x"):
        call(graph, takes_any, x=[stranger])


def test_json_has_nodes_edges_types_and_order(graph: Graph) -> None:
    output: Any = call(graph, pair)
    first = graph["pair"]
    graph.add(FakeStep(takes_any), "prep/", {"x": output.train}, (first,))
    document = json.loads(graph.to_json())
    assert [node["name"] for node in document["nodes"]] == ["pair", "prep/takes_any"]
    assert document["nodes"][0]["returns"] == "tests.core.test_graph.Split"
    assert document["edges"] == [
        {"from": "pair", "to": "prep/takes_any", "parameter": "x", "field": "train"}
    ]
    assert document["order"] == [{"from": "pair", "to": "prep/takes_any"}]


def test_mermaid_has_groups_fields_and_dotted_order(graph: Graph) -> None:
    output: Any = call(graph, pair)
    graph.add(FakeStep(takes_any), "prep/", {"x": output.train}, ())
    graph.add(FakeStep(number), "", {}, (graph["pair"],), Mapping((), 0, False))
    graph.stopped_at = "pair"
    assert graph.to_mermaid().splitlines() == [
        "flowchart TD",
        '    n_pair["pair"]',
        '    n_number[["number"]]',
        '    subgraph group_prep["prep"]',
        '        n_prep_2f_takes_any["takes_any"]',
        "    end",
        "    n_pair -->|train| n_prep_2f_takes_any",
        "    n_pair -.-> n_number",
        '    more["… more after pair has run"]',
    ]
