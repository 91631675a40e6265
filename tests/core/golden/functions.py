"""Code whose digests hold for one Python minor: a bit of everything that the language has."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import dataclasses
import enum
import functools
import json
import math
import operator
import os.path as paths
import re
import types
import typing
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator

from tests.core.golden import recent

NUMBER = 3
WORDS = {"amount", "count", "day"}
TABLE = {"low": [1, 2.5, None], "high": {"nested": ({1, 2}, frozenset("ab"))}}
PATTERN = re.compile(r"\w+", re.IGNORECASE)
OPERATIONS = {"double": lambda x: x * 2, "half": functools.partial(operator.truediv, 2)}
CALLS: list[str] = []


# Expressions and statements


def arithmetic(a, b=2, /, c=-0.0, *rest, d, e=1e300, **options):
    a += (((b - c * d / e // 2 % 3**-b @ a) << 1) >> 2) & 3 | 4 ^ 5
    a = ~a if not b else +c
    return a, -a, 1 < b <= c != d, a is None, b is not c, rest, {**options, "k": a}


def containers(items):
    first, *middle, last = items
    head = [*items, first], (*middle, last), {*items}, {"a": 1, **items}
    del items[0], items[1:2:3]
    items[-1], items[2:] = head[0][1], [...]
    return 1_000_000, 0x10, 1j, b"bytes", "größe!", ("a", ("b", 1.5)), {1, 2, 3}, head, middle


def texts(value, width=10):
    return f"{value!r:>{width}} {value!s} {value:.2f} {{}} {value=} {NUMBER}"


def flow(rows):
    for index, row in enumerate(rows):
        if (index > 3 and row) or not index:
            continue
        elif row == "stop":
            break
        while (size := len(row)) > 2:
            row = row[1:]
            if size % 7 == 0:
                return size
        else:
            pass
    else:
        assert rows, "no rows"
    global NUMBER
    if rows is None:
        NUMBER = 4
        del rows
    return None


def failures(path):
    try:
        with open(path) as file, contextlib.suppress(KeyError):
            return json.load(file)
    except (OSError, ValueError) as error:
        raise RuntimeError(path) from error
    except KeyError:
        raise
    else:
        return 1
    finally:
        CALLS.append(path)


def groups(work):
    try:
        work()
    except* ValueError as errors:
        CALLS.append(str(errors.exceptions))
    except* (TypeError, OSError):
        pass
    return 0


def matches(value):
    match value:
        case 0 | 1 | None:
            return "small"
        case [int(x), 2.5, *rest] if rest:
            return x, rest
        case {"kind": "a", "deep": {"x": x}, **others}:
            return x, others
        case Point(x=0, y=y) | Point(y, 0):
            return y
        case str() as text:
            return text
        case Colour.RED:
            return "red"
        case _:
            return ...


def comprehensions(rows, limit):
    squares = [x * x for x in rows if x < limit for _ in range(x)]
    table = {key: [y for y in squares if y > key] for key in rows}
    return (
        squares,
        table,
        {x % 2 for x in rows},
        sum(x for x in rows),
        [lambda x=x: x for x in rows],
    )


def generator(n: int) -> Iterator[int]:
    got = yield n
    found = yield from range(got or 3)
    return found


async def coroutine(items):
    async with asyncio.Lock() as lock:
        async for item in asynchronous(items):
            await asyncio.sleep(item)
    return [item async for item in asynchronous(items)], lock


async def asynchronous(items) -> AsyncIterator[int]:
    for item in items:
        yield await item


# Names


def imports():
    import collections.abc as shapes
    import xml.dom.minidom
    from math import floor
    from math import sqrt as root

    return floor(root(shapes.__len__())), xml.dom.minidom.parseString


def attributes():
    return paths.join("a", math.pi), typing.Any, recent.SCALE, WORDS, TABLE, PATTERN


def closures(start):
    total = start

    def add(amount):
        nonlocal total
        total += amount
        return total, start, lambda: total

    return add


TWICE = closures(2)


def deleting(thing):
    global CALLS
    kept = thing.kept
    del thing.kept, CALLS
    while thing is not None and "x" not in kept:
        thing = thing.next
    while not thing:
        thing = next(thing)
        if thing is None:
            continue
        del kept
    return lambda: kept


def recursive(n):
    return 1 if n < 2 else n * mutual(n - 1)


def mutual(n):
    return recursive(n) + OPERATIONS["double"](n)


def every_global():
    return globals()["NUMBER"], locals()


def decorated(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def inside(*args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)

    return inside


@decorated
def wrapped(x=(1, 2), *, y=None):
    """Say nothing of importance."""
    return x, y


@functools.lru_cache(maxsize=10)
def cached(x):
    return x + 1


@functools.singledispatch
def dispatched(value):
    return value


@dispatched.register(int)
def _(value):
    return value + 1


# Classes


class Point(typing.NamedTuple):
    x: float
    y: float = 0.0

    def length(self) -> float:
        return math.hypot(*self)


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"

    @property
    def short(self) -> str:
        return self.name[0]


class Access(enum.Flag):
    READ = 1
    WRITE = enum.auto()


class Meta(type):
    def __call__(cls, *args):
        return super().__call__(*args)


class Base(abc.ABC):
    registry: typing.ClassVar[list[type]] = []

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)

    @abc.abstractmethod
    def size(self) -> int: ...


class Derived(Base):
    __slots__ = ("side",)
    unit = "cm"

    def __init__(self, side=1):
        self.side = side

    def size(self) -> int:
        return self.side**2

    @staticmethod
    def fixed():
        return __class__

    @classmethod
    def make(cls):
        return cls(2)

    @functools.cached_property
    def lazy(self):
        return [self.side]

    area = property(size)


class Built(metaclass=Meta):
    def __getattr__(self, name):
        return types.MethodType(operator.itemgetter(0), name)


class Settings(typing.TypedDict, total=False):
    depth: int


def class_inside(number):
    class Inside(OrderedDict):
        """A docstring."""

        kept = number

        def get_it(self):
            return self.kept, defaultdict(list)

    return Inside


@dataclasses.dataclass
class Plain:
    a: int
    b: list[int] = dataclasses.field(default_factory=list, metadata={"unit": 1})


def golden_functions() -> dict[str, object]:
    """Functions and classes, and objects that hold them, by name."""
    here = {
        name: value
        for name, value in globals().items()
        if getattr(value, "__module__", None) == __name__ and name != "golden_functions"
    }
    held = {"TWICE": TWICE, "OPERATIONS": OPERATIONS, "objects": [Point(1), Access.READ]}
    return {**here, **held, **recent.functions()}
