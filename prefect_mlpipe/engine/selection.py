"""Which nodes a user means: names, calls of a step, groups.

`clean` means all calls of it, `clean#2` one; `prep` all nodes of that group. Knows names only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from prefect_mlpipe.errors import InvalidPipeline

_CALL = re.compile(r"#\d+")
_ITEM = re.compile(r"\[\d+\]$")


class Selection:
    """What was asked of a run: nodes to refresh, nodes to run at all.

    Args:
        refresh: `True` for all, or names.
        targets: names of the nodes that are wanted, with what they need; empty for all.
    """

    def __init__(self, refresh: bool | Iterable[str] = (), targets: Sequence[str] = ()) -> None:
        self.all = refresh is True
        self.refresh = frozenset() if isinstance(refresh, bool) else frozenset(refresh)
        self.targets = frozenset(targets)

    def is_refreshed(self, name: str) -> bool:
        """Return whether a node is to run although it could be reused."""
        return self.all or bool(self.refresh and not self.refresh.isdisjoint(names_of(name)))

    def is_target(self, name: str) -> bool:
        """Return whether a node is wanted for itself."""
        return not self.targets or not self.targets.isdisjoint(names_of(name))

    def refuse_unknown(self, graph: Any) -> None:
        """Refuse names that mean no node.

        Raises:
            InvalidPipeline: with the names that are nearest.
        """
        asked = self.refresh | self.targets
        if not asked:
            return
        known = {name for node in graph for name in names_of(node.name)}
        for name in sorted(asked - known):
            near = difflib.get_close_matches(name, known)
            raise InvalidPipeline(
                f"Pipeline '{graph.name}' has no step called '{name}'.",
                {"steps": ", ".join(node.name for node in graph)[:400]},
                f"Did you mean {' or '.join(map(repr, near))}?" if near else "Correct the name.",
            )


def names_of(name: str) -> set[str]:
    """Return all names that mean a node: its own, its step's, those of its groups."""
    name = _ITEM.sub("", name)
    found = {name, _CALL.sub("", name)}
    parts = name.split("/")
    found |= {parts[-1], _CALL.sub("", parts[-1])}
    for end in range(1, len(parts)):
        group = "/".join(parts[:end])
        found |= {group, _CALL.sub("", group)}
    return found
