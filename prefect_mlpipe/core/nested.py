"""Look into lists, tuples, dicts and dataclasses, however deep, even if they hold themselves.

Knows containers only. Each container is looked into once, without recursion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Final

_PLAIN: Final = frozenset({int, float, bool, str, bytes, complex, type(None)})


def items_in(value: Any, *, fields: bool = False) -> Iterator[Any]:
    """Give a value and what is inside it, in order; plain scalars are left out.

    Args:
        fields: whether to look into dataclasses too.
    """
    opened: dict[int, Any] = {}  # keeps what it names, so that no other comes to have its address
    waiting: list[Iterator[Any]] = [iter((value,))]
    while waiting:
        for item in waiting[-1]:
            if type(item) in _PLAIN:
                continue
            yield item
            children = _children(item, fields)
            if children is not None and id(item) not in opened:
                opened[id(item)] = item
                waiting.append(iter(children))
                break
        else:
            waiting.pop()


def _children(value: Any, fields: bool) -> Iterable[Any] | None:
    kind = type(value)
    if kind is dict:
        return value.values()  # type: ignore[no-any-return]
    if kind is list or isinstance(value, tuple):
        return value  # type: ignore[no-any-return]
    if fields and not isinstance(value, type) and dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return None


def refilled(value: tuple[Any, ...], items: Iterable[Any]) -> Any:
    """Give a tuple of the same class with other items; its `__new__` is not asked again."""
    made = tuple.__new__(type(value), items)
    if type(value) is not tuple and hasattr(value, "__dict__"):
        vars(made).update(vars(value))
    return made
