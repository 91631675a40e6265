"""From a mapped node to its items, once their number is known.

Knows runs and outputs. Knows nothing of when an item runs: an item is a run as any other.
"""

from __future__ import annotations

from typing import Any

from prefect_mlpipe.core.graph import Node, Output
from prefect_mlpipe.engine.outputs import Outputs
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.steps import adopt_files, common_length


def expand(run: StepRun, outputs: Outputs) -> list[StepRun]:
    """Return one run for each item of a mapped node.

    Items of chained maps are linked one by one: item 3 waits for item 3 above, not for the whole
    list.
    """
    node = run.node
    assert node.mapped is not None
    lists = {name: outputs.items_of(node.arguments[name]) for name in node.mapped.parameters}
    found = {name: items for name, items in lists.items() if items is not None}
    count = common_length(node.name, {name: len(items) for name, items in found.items()})
    return [_item(run, found, index) for index in range(count)]


def _item(run: StepRun, lists: dict[str, list[Any]], index: int) -> StepRun:
    node = run.node
    arguments = dict(node.arguments)
    for name, items in lists.items():
        arguments[name] = items[index]
    arguments = adopt_files(node.step, arguments)
    inputs = [(name, value) for name, value in arguments.items() if type(value) is Output]
    inputs += [
        (name, output)
        for name, output in node.inputs
        if type(arguments[name]) is not Output and name not in lists
    ]
    item = StepRun(
        Node(f"{node.name}[{index}]", node.step, arguments, inputs, (), None, node.index), run
    )
    item.wanted = True
    return item
