"""Where an edit is made: one statement of a project, as a tree that can be changed in place."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from tests.fuzz.projects import Project


class Place(NamedTuple):
    """A statement at the top level of a module, as a tree that is to be changed."""

    random: Random
    project: Project
    module: str
    at: int
    tree: ast.Module

    def nodes(self, *kinds: type[Any]) -> list[Any]:
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]

    def one(self, nodes: Sequence[Any]) -> Any:
        return self.random.choice(nodes) if nodes else None

    def names(self) -> list[str]:
        """The names of all functions at the top level of the module."""
        return defined(self.project, self.module)


def defined(project: Project, module: str, word: str = "def") -> list[str]:
    return re.findall(rf"^{word} (\w+)", project.source(module), re.M)


Change = Callable[[Place], bool]


def of_a(
    *kinds: type[Any], that: Callable[[Any], object] = bool
) -> Callable[[Callable[[Place, Any], bool | None]], Change]:
    """Make a change of a place from one of a node: of any of these kinds for which `that` is true.

    What is decorated may return `False`, to say that it came to nothing.
    """

    def decorate(change: Callable[[Place, Any], bool | None]) -> Change:
        @functools.wraps(change)
        def changed(place: Place) -> bool:
            node = place.one([each for each in place.nodes(*kinds) if that(each)])
            return node is not None and change(place, node) is not False

        return changed

    return decorate
