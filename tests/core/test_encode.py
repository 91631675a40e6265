"""What holds other values, itself among them; and what has no content."""

from __future__ import annotations

import contextvars
import io
import itertools
import logging
import os
import signal
import socket
import sqlite3
import threading
import time
import weakref
from typing import Any

import pytest

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.encoding.pieces import Buffers


class Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.others: Any = []


def ring(names: str) -> Node:
    nodes = [Node(name) for name in names]
    for one, following in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        one.others.append(following)
    return nodes[0]


def test_a_list_in_itself_has_a_digest() -> None:
    one: list[Any] = [1]
    one.append(one)
    other: list[Any] = [1]
    other.append(other)
    different: list[Any] = [2]
    different.append(different)
    assert digest(one) == digest(other)
    assert digest(one) != digest(different)
    assert digest(one) != digest([1, [1]])


def test_every_member_of_a_cycle_counts() -> None:
    assert digest(ring("abc")) == digest(ring("abc"))
    assert len({digest(ring(names)) for names in ("abc", "abd", "acb", "ab", "abcabc", "bca")}) == 6


def test_where_a_cycle_closes_counts() -> None:
    def tail(back: int) -> Node:
        nodes = [Node("a"), Node("b"), Node("c")]
        nodes[0].others, nodes[1].others, nodes[2].others = [nodes[1]], [nodes[2]], [nodes[back]]
        return nodes[0]

    assert len({digest(tail(back)) for back in range(3)}) == 3


def test_objects_that_all_know_each_other_take_no_time() -> None:
    nodes = [Node(str(at)) for at in range(40)]
    for node in nodes:
        node.others = [other for other in nodes if other is not node]
    before = digest(nodes)
    nodes[7].name = "changed"
    assert digest(nodes) != before


def test_sets_of_objects_that_know_each_other_have_no_order() -> None:
    def graph(order: list[int]) -> Node:
        nodes = {at: Node(str(at)) for at in order}
        for at, node in nodes.items():
            node.others = {nodes[(at + 1) % 6], nodes[(at + 2) % 6]}
        return nodes[0]

    assert digest(graph([0, 1, 2, 3, 4, 5])) == digest(graph([5, 3, 1, 4, 2, 0]))


def test_objects_in_sets_that_cannot_be_told_apart_are_refused() -> None:
    nodes = [Node("same") for _ in range(6)]
    for at, node in enumerate(nodes):
        node.others = {nodes[at - 1], nodes[(at + 1) % 6]}
    with pytest.raises(Undigestible, match="look the same"):
        digest(nodes[0])


def test_a_parent_that_its_children_know_is_a_plain_tree() -> None:
    def tree(leaves: str) -> Node:
        root = Node("root")
        for name in leaves:
            child = Node(name)
            child.others = [root]
            root.others.append(child)
        return root

    assert digest(tree("abc")) == digest(tree("abc"))
    assert digest(tree("abc")) != digest(tree("acb"))


def test_sharing_does_not_count_and_costs_nothing() -> None:
    value: list[Any] = [1]
    for _ in range(60):
        value = [value, value]
    assert digest(value)
    shared = [1, [2]]
    assert digest([shared, shared]) == digest([[1, [2]], [1, [2]]])


def test_a_value_nested_beyond_all_bounds_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Undigestible, match="nested"):
        digest(value)


class Pool:
    def __init__(self) -> None:
        self._lock = threading.RLock()


class Session:
    def __init__(self) -> None:
        self.pool = Pool()


REFUSED: dict[str, tuple[Any, str, str]] = {
    "43a lock": (threading.Lock(), "", "a lock has no content"),
    "lock inside": (Session(), ".pool._lock", "a lock has no content"),
    "at an index": ([1, 2, 3, {"x": threading.Lock()}], "[3]['x']", "a lock has no content"),
    "43b generator": ((x for x in [1]), "", "an iterator would be consumed"),
    "43c connection": (sqlite3.connect(":memory:"), "", "it cannot be taken apart"),
    "iterator": ([iter([1])], "[0]", "an iterator would be consumed"),
    "map": (map(len, []), "", "an iterator would be consumed"),
    "count": (itertools.count(), "", "an iterator would be consumed"),
    "logger": (logging.getLogger("x"), "", "a logger has no content"),
    "context variable": (contextvars.ContextVar("x"), "", "a context variable"),
    "socket": (socket.socket(), "", "a connection has no content"),
    "file": (io.TextIOWrapper(io.BytesIO()), "", "an open file"),
    "weak reference": (weakref.ref(Pool), "", "a weak reference"),
    "thread": (threading.Thread(), "", "a running thread"),
    "view of a dict": ({}.keys(), "", "it cannot be taken apart"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_content_is_refused_with_the_way_to_it(case: str) -> None:
    value, path, why = REFUSED[case]
    with pytest.raises(Undigestible) as refused:
        digest(value)
    assert refused.value.path == path
    assert why in refused.value.why


def test_43d_an_iterator_is_not_consumed() -> None:
    items = (x for x in [1, 2, 3])
    with pytest.raises(Undigestible):
        digest({"items": items})
    assert sum(items) == 6


def test_a_lock_in_an_argument_is_refused_even_if_code_read_it_before() -> None:
    pool = Pool()

    def reads() -> Pool:
        return pool

    assert digest(reads)
    with pytest.raises(Undigestible):
        digest([reads, pool])


def test_content_in_memory_is_no_open_file() -> None:
    assert digest(io.BytesIO(b"a")) != digest(io.BytesIO(b"b"))
    assert digest(io.StringIO("a")) == digest(io.StringIO("a"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_hashes_large_buffers_too() -> None:
    expected = Buffers().hash(bytes(1 << 24))
    child = os.fork()
    if child == 0:
        os._exit(0 if Buffers().hash(bytes(1 << 24)) == expected else 1)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 0
