"""Random changes of a project that is loaded, between two runs in one process: nothing is imported
again, and the next run must see what the first one saw otherwise.

What is remembered of functions and classes from run to run is put to the test here.
"""

from __future__ import annotations

import collections
import enum
import re
import sys
import types
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz.running import PLACE

_SCALARS = (int, float, str, bytes, complex, bool, type(None))
_SEEN_AT_MOST = 400


class Mutation(NamedTuple):
    """A change that can be made.

    Attributes:
        kind: for the counts.
        where: what is changed.
        make: changes it.
    """

    kind: str
    where: str
    make: Callable[[], object]


def mutate(
    random: Random, modules: dict[str, types.ModuleType], reached: frozenset[str]
) -> Mutation | None:
    """Change something that the modules of a project hold; `None` if there is nothing.

    Args:
        reached: the names of what the pipeline reaches; mostly, one of these is changed.
    """
    found: dict[str, list[Mutation]] = {}
    words = reached if random.random() < 0.9 else frozenset()
    for each in _possible(random, modules):
        if words and words.isdisjoint(re.findall(r"\w+", each.where)[1:]):
            continue
        found.setdefault(each.kind, []).append(each)
    if not found:
        return None
    chosen = random.choice(found[random.choice(sorted(found))])
    chosen.make()
    return chosen


def _possible(random: Random, modules: dict[str, types.ModuleType]) -> Iterator[Mutation]:
    mine = {name: each for name, each in modules.items() if name != "support"}
    functions = [
        value
        for module in mine.values()
        for name, value in vars(module).items()
        if isinstance(value, types.FunctionType)
        and value.__module__ == module.__name__
        and name.startswith("f")
    ]
    seen: set[int] = set()
    for module in mine.values():
        for name, value in list(vars(module).items()):
            if name.startswith("__") or name in ("main", "mix") or name in modules:
                continue
            where = f"{module.__name__}.{name}"
            if isinstance(value, _SCALARS):
                yield _set("global set", where, module, name, _other(random, value))
            elif isinstance(value, types.FunctionType) and value in functions:
                other = random.choice(functions)
                yield _set("function replaced", where, module, name, other)
            yield from _inside(random, where, value, seen, functions)


def _inside(
    random: Random,
    where: str,
    value: Any,
    seen: set[int],
    functions: list[types.FunctionType],
) -> Iterator[Mutation]:
    """What can be changed inside a value."""
    if id(value) in seen or len(seen) > _SEEN_AT_MOST or not _is_ours(value):
        return
    seen.add(id(value))
    match value:
        case list() | collections.deque():
            yield Mutation("list grown", where, lambda: value.append(random.randint(2, 99)))
            yield from _items(random, where, value, enumerate(value), seen, functions)
        case dict():
            key = f"key{random.randint(0, 9)}"
            yield Mutation("dict grown", where, lambda: value.__setitem__(key, 7))
            if len(value) > 1:
                yield Mutation("dict turned", where, lambda: _turn(value))
            yield from _items(random, where, value, list(value.items()), seen, functions)
        case set():
            yield Mutation("set grown", where, lambda: value.add(random.randint(2, 99)))
        case np.ndarray() if value.size and value.flags.writeable and value.dtype.kind in "iuf":
            yield Mutation("array item", where, lambda: _raise_first(value))
        case types.FunctionType():
            yield from _of_function(random, where, value, seen, functions)
        case type():
            yield from _of_class(random, where, value, seen, functions)
        case _ if _is_object(value):
            for name, item in list(vars(value).items()):
                inner = f"{where}.{name}"
                if isinstance(item, _SCALARS):
                    yield _set("attribute set", inner, value, name, _other(random, item))
                else:
                    yield from _inside(random, inner, item, seen, functions)


def _is_ours(value: object) -> bool:
    """Whether a value, if it is code, is the project's."""
    if not isinstance(value, types.FunctionType | type):
        return not isinstance(value, types.ModuleType)
    module = sys.modules.get(str(value.__module__))
    return (getattr(module, "__file__", None) or "").startswith(PLACE)


def _is_object(value: object) -> bool:
    return isinstance(value, types.SimpleNamespace) or (
        hasattr(value, "__dict__") and _is_ours(type(value))
    )


def _items(
    random: Random, where: str, holder: Any, items: Any, seen: set[int], functions: Any
) -> Iterator[Mutation]:
    for key, item in list(items):
        inner = f"{where}[{key!r}]"
        if isinstance(item, _SCALARS):
            other = _other(random, item)
            yield Mutation("item set", inner, lambda k=key, o=other: holder.__setitem__(k, o))  # type: ignore[misc]
        else:
            yield from _inside(random, inner, item, seen, functions)


def _turn(table: dict[Any, Any]) -> None:
    items = list(table.items())
    table.clear()
    table.update(reversed(items))


def _raise_first(array: Any) -> None:
    array.flat[0] += 1


def _of_function(
    random: Random,
    where: str,
    function: types.FunctionType,
    seen: set[int],
    functions: list[types.FunctionType],
) -> Iterator[Mutation]:
    if function.__defaults__:
        given = tuple(
            _other(random, each) if isinstance(each, _SCALARS) else each
            for each in function.__defaults__
        )
        yield _set("defaults set", where, function, "__defaults__", given)
        for each in function.__defaults__:
            yield from _inside(random, f"{where}.__defaults__", each, seen, functions)
    if function.__kwdefaults__:
        named = {name: random.randint(2, 99) for name in function.__kwdefaults__}
        yield _set("keyword defaults set", where, function, "__kwdefaults__", named)
    for name, item in list(vars(function).items()):
        if isinstance(item, _SCALARS):
            other = _other(random, item)
            yield _set("function attribute set", f"{where}.{name}", function, name, other)
        else:
            yield from _inside(random, f"{where}.{name}", item, seen, functions)
    for cell in function.__closure__ or ():
        yield from _of_cell(random, where, cell, seen, functions)
    code = function.__code__
    for other in functions:
        same = other.__code__.co_freevars == code.co_freevars
        if other is not function and same and other.__code__.co_argcount == code.co_argcount:
            yield _set("code set", where, function, "__code__", other.__code__)
            break


def _of_cell(
    random: Random, where: str, cell: types.CellType, seen: set[int], functions: Any
) -> Iterator[Mutation]:
    try:
        content = cell.cell_contents
    except ValueError:  # filled later, or never
        return
    if isinstance(content, _SCALARS):
        yield _set("cell set", where, cell, "cell_contents", _other(random, content))
    else:
        yield from _inside(random, f"{where}.<cell>", content, seen, functions)


def _of_class(
    random: Random,
    where: str,
    cls: type,
    seen: set[int],
    functions: list[types.FunctionType],
) -> Iterator[Mutation]:
    if issubclass(cls, (tuple, int, enum.Enum)):
        return
    for name, item in list(vars(cls).items()):
        inner = f"{where}.{name}"
        if name.startswith("_") and not isinstance(item, types.FunctionType):
            continue
        if isinstance(item, types.FunctionType):
            yield from _inside(random, inner, item, seen, functions)
        elif isinstance(item, _SCALARS):
            yield _set("class attribute set", inner, cls, name, _other(random, item))
        else:
            yield from _inside(random, inner, item, seen, functions)
    if "rate" not in vars(cls):
        yield _set("class attribute added", where, cls, "rate", random.randint(2, 99))
    if type(cls) is not type:
        yield from _inside(random, f"type({where})", type(cls), seen, functions)
    for base in cls.__bases__:
        yield from _inside(random, f"{where}.{base.__name__}", base, seen, functions)


def _set(kind: str, where: str, holder: Any, name: str, value: object) -> Mutation:
    return Mutation(kind, where, lambda: setattr(holder, name, value))


def _other(random: Random, value: object) -> object:
    match value:
        case bool():
            return random.choice((not value, int(value), float(value)))
        case int() | float():
            # An instance of a class of the project may have any `__repr__`.
            return random.choice((value + 1, value - 1, float(value), str(float(value))))
        case complex():
            return value + 1
        case str():
            return value + random.choice("xyz")
        case bytes():
            return value + b"x"
        case _:
            return random.choice((0, False, "None"))
