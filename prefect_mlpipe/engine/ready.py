"""Which runs can be decided now: those that are wanted and wait for nothing.

Knows edges and order. Knows nothing of keys, records or where steps run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.engine.steprun import StepRun


class Ready:
    """The queue of runs that wait for nothing; false when it is empty.

    Args:
        runs: node → its run; what is admitted is added.
    """

    def __init__(self, runs: dict[Node, StepRun]) -> None:
        self._runs = runs
        self._queue: deque[StepRun] = deque()  # in place of items their mapped run, once
        self._items: dict[StepRun, list[StepRun]] = {}

    def __bool__(self) -> bool:
        return bool(self._queue)

    def pop(self) -> StepRun | list[StepRun]:
        """Return the next one; of the items of a mapped step all that are ready."""
        run = self._queue.popleft()
        items = self._items.pop(run, None)
        for each in items or (run,):
            each.queued = False
        return items or run

    def put(self, run: StepRun) -> None:
        """Add a run unless it still waits, is not wanted, or is there already."""
        if not run.enqueue():
            return
        if run.group is None:
            self._queue.append(run)
        elif run.group in self._items:
            self._items[run.group].append(run)
        else:
            self._items[run.group] = [run]
            self._queue.append(run.group)

    def admit(self, nodes: Sequence[Node]) -> list[StepRun]:
        """Take in nodes in call order, parents before children."""
        admitted = []
        for node in nodes:
            run = self._runs[node] = StepRun(node)
            run.parents = parents = [self._runs[parent] for parent in node.parents]
            for parent in parents:
                if parent.settled:
                    continue
                if not run.links_to(parent):
                    run.wait_for(parent)
                elif parent.items is None:
                    run.wait_for(parent, "expanded_children")
            admitted.append(run)
        return admitted

    def want(self, runs: Iterable[StepRun]) -> None:
        """Have runs come to their end, and all that they need."""
        stack = [run for run in runs if not run.wanted]
        newly = []
        while stack:
            run = stack.pop()
            if not run.wanted:
                run.wanted = True
                newly.append(run)
                stack += [parent for parent in run.parents if not parent.wanted]
        # In call order: what a reader of the body expects to start first does.
        newly.sort(key=lambda run: run.node.index)
        for run in newly:
            self.put(run)

    def expand(self, run: StepRun, items: list[StepRun]) -> None:
        """Take in the items of a mapped run; mapped ones that are linked to it can expand too."""
        run.items = items
        run.unfinished_items = len(items)
        for item in items:
            self._runs[item.node] = item
            item.parents = [self._runs[parent] for parent in item.node.parents]
            for parent in item.parents:
                if not parent.settled:
                    item.wait_for(parent)
        for item in items:
            self.put(item)
        released, run.expanded_children = run.expanded_children, None
        self._release(released)

    def settle(self, run: StepRun) -> None:
        """Let those that waited for a run go on."""
        for waiting in (run.children, run.expanded_children):
            self._release(waiting)
        for follower in run.followers or ():
            self.put(follower)
        run.children = run.expanded_children = run.followers = None

    def _release(self, waiting: list[StepRun] | None) -> None:
        for run in waiting or ():
            run.waiting -= 1
            self.put(run)
