"""Values of Python itself, and objects of the user's own, that are easily taken for one another."""

from __future__ import annotations

from tests.reuse.values import each_case_of, other, same

SCALARS_SETUP = """
import array, collections, datetime, decimal, enum, fractions, math, re, struct, types, uuid
import numpy as np
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from zoneinfo import ZoneInfo

UTC = datetime.timezone.utc
NOON = datetime.datetime(2024, 7, 1, 12, 0)
AUTUMN = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"))

def hours(n, *name):
    return datetime.timezone(datetime.timedelta(hours=n), *name)

def nan(bits):
    return struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000000 | bits))[0]

class Text(str): pass
class Number(int): pass
class Real(float): pass

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

class Word(enum.StrEnum):
    A = "a"

class Mode(enum.Flag):
    READ = 1
    WRITE = 2
"""

SCALARS = [
    other("int and bool", "[1]", "[True]"),
    other("int and IntEnum", "1", "Level.LOW"),
    other("str and StrEnum", "'a'", "Word.A"),
    other("int and a class of one's own", "7", "Number(7)"),
    other("str and a class of one's own", "'a'", "Text('a')"),
    other("float and a class of one's own", "1.5", "Real(1.5)"),
    other("int and numpy int", "3", "np.int64(3)"),
    other("float and numpy float", "[1.5]", "[np.float64(1.5)]"),
    other("two widths of numpy float", "np.float32(1.5)", "np.float64(1.5)"),
    other("bool and numpy bool", "True", "np.True_"),
    other("signed zeros", "{'a': 0.0}", "{'a': -0.0}"),
    other("signed zeros of a complex number", "complex(0.0, 0.0)", "complex(0.0, -0.0)"),
    other("what a NaN carries", "nan(1)", "nan(2)"),
    other("signs of NaN", "math.nan", "-math.nan"),
    same("one NaN and another", "[math.nan]", "[float('nan')]"),
    other("huge ints", "10**400", "10**400 + 1"),
    same("huge ints made in two ways", "2**4000", "1 << 4000"),
    other("int and float of one value", "2**53", "float(2**53)"),
    other("zeros after the point of a Decimal", "Decimal('1.0')", "Decimal('1.00')"),
    other("signed zeros of a Decimal", "Decimal('0')", "Decimal('-0')"),
    same("Decimal from text and from a tuple", "Decimal('1.0')", "Decimal((0, (1, 0), -1))"),
    same("a Fraction that was cancelled", "Fraction(2, 4)", "Fraction(1, 2)"),
    other("Fraction and int", "Fraction(2)", "2"),
    same(
        "UUID from text and from bytes", "uuid.UUID(int=5)", "uuid.UUID(bytes=bytes(15) + b'\\5')"
    ),
    other("UUID and its text", "uuid.UUID(int=5)", "str(uuid.UUID(int=5))"),
    other(
        "paths of two systems",
        "types.SimpleNamespace(at=PurePosixPath('a/b'))",
        "types.SimpleNamespace(at=PureWindowsPath('a/b'))",
        "input",
    ),
    same(
        "one path spelled in two ways",
        "types.SimpleNamespace(at=PurePosixPath('a//b/.'))",
        "types.SimpleNamespace(at=PurePosixPath('a', 'b'))",
        "input",
    ),
    other(
        "a zone and its offset",
        "NOON.replace(tzinfo=ZoneInfo('Europe/Paris'))",
        "NOON.replace(tzinfo=hours(2))",
    ),
    other(
        "UTC as offset and as zone",
        "NOON.replace(tzinfo=UTC)",
        "NOON.replace(tzinfo=ZoneInfo('UTC'))",
    ),
    other(
        "two names of an offset",
        "NOON.replace(tzinfo=hours(1, 'CET'))",
        "NOON.replace(tzinfo=hours(1))",
    ),
    same(
        "a zone that was loaded twice",
        "NOON.replace(tzinfo=ZoneInfo('Europe/Paris'))",
        "NOON.replace(tzinfo=ZoneInfo.no_cache('Europe/Paris'))",
    ),
    other("one hour twice in autumn", "AUTUMN", "AUTUMN.replace(fold=1)"),
    other("date and midnight", "NOON.date()", "datetime.datetime(2024, 7, 1)"),
    other("time with and without zone", "datetime.time(1, 2)", "datetime.time(1, 2, tzinfo=UTC)"),
    same("a day and 24 hours", "datetime.timedelta(1)", "datetime.timedelta(hours=24)"),
    other("bytes and bytearray", "b'ab'", "bytearray(b'ab')"),
    other("types of array.array", "array.array('i', [1, 2])", "array.array('l', [1, 2])"),
    same(
        "array.array made in two ways",
        "array.array('d', [1, 2])",
        "array.array('d', struct.pack('2d', 1, 2))",
    ),
    other(
        "memoryviews of two shapes",
        "memoryview(bytes(6)).cast('B', (2, 3))",
        "memoryview(bytes(6)).cast('B', (3, 2))",
        "input",
    ),
    other(
        "memoryviews of two byte orders",
        "memoryview(np.array([1], '>i4'))",
        "memoryview(np.array([1], '<i4'))",
        "input",
    ),
    other("members of a Flag", "Mode.READ", "Mode.READ | Mode.WRITE"),
    same(
        "members of a Flag joined in two orders", "Mode.READ | Mode.WRITE", "Mode.WRITE | Mode.READ"
    ),
    other("lone surrogates", "'\\ud800'", "'\\ud801'"),
    other("Unicode normal forms", "'caf\\u00e9'", "'cafe\\u0301'"),
    other("strings in a list, cut elsewhere", "['ab', 'c']", "['a', 'bc']"),
    other("units of datetime64", "np.datetime64(1, 'D')", "np.datetime64(24, 'h')"),
    other("units of timedelta64", "np.timedelta64(1, 's')", "np.timedelta64(1000, 'ms')"),
    other("NaT of two units", "np.datetime64('NaT', 's')", "np.datetime64('NaT', 'ns')"),
    other("numpy and Python complex", "1 + 2j", "np.complex128(1 + 2j)"),
    other("flags of a pattern", "re.compile('a')", "re.compile('a', re.I)"),
    other("Ellipsis and NotImplemented", "[...]", "[NotImplemented]"),
    other("range and what it gives", "range(3)", "[0, 1, 2]"),
    other("end of a slice", "slice(1)", "slice(0, 1)"),
    other("a type and its name", "int", "'int'"),
    other("arguments of a generic alias", "list[int]", "list[str]"),
    other("order of a union", "int | str", "str | int"),
]

CONTAINERS_SETUP = """
import collections, dataclasses, functools, itertools, operator, types, typing
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque

Point = collections.namedtuple("Point", "x y")
Place = collections.namedtuple("Place", "x y")

class Typed(typing.NamedTuple):
    x: int
    y: int

class Bag(dict): pass
class Row(list): pass
class Kinds(set): pass

class Node:
    def __init__(self, name, *others):
        self.name, self.others = name, list(others)

@dataclasses.dataclass
class Tree:
    name: str
    children: list = dataclasses.field(default_factory=list)
    parent: "Tree | None" = None

    def add(self, name):
        self.children.append(Tree(name, parent=self))
        return self

def deep(levels, core):
    value = core
    for _ in range(levels):
        value = [value]
    return value

def looped(*items):
    value = list(items)
    value.append(value)
    return value

def looped_dict(**items):
    value = dict(items)
    value["self"] = [value]
    return value

def ring(names):
    nodes = [Node(name) for name in names]
    for at, node in enumerate(nodes):
        node.others = [nodes[(at + 1) % len(nodes)]]
    return nodes[0]

def shared(item):
    return [item, item]

def bag(kind, *pairs):
    value = kind()
    for key, item in pairs:
        value[key] = item
    return value
"""

CONTAINERS = [
    other("list and tuple", "[1, (2, 3)]", "[1, [2, 3]]"),
    other("set and frozenset", "{1, 2}", "frozenset({1, 2})"),
    same("a set filled in two orders", "set(range(20))", "set(reversed(range(20)))"),
    same("a set of strings", "set('abcdefgh')", "set('hgfedcba')"),
    other("order of a dict", "{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
    other("order of an OrderedDict", "OrderedDict(a=1, b=2)", "OrderedDict(b=2, a=1)"),
    other("dict and OrderedDict", "{'a': 1}", "OrderedDict(a=1)"),
    other("factory of a defaultdict", "defaultdict(list, a=1)", "defaultdict(set, a=1)"),
    other("dict and Counter", "{'a': 2}", "Counter('aa')"),
    other("a zero in a Counter", "Counter(a=1, b=0)", "Counter(a=1)"),
    same("a Counter counted in two ways", "Counter('aab')", "Counter(a=2, b=1)"),
    other("length of a deque", "deque([1, 2], maxlen=2)", "deque([1, 2], maxlen=3)"),
    same("a deque that dropped items", "deque([0, 1, 2], maxlen=2)", "deque([1, 2], maxlen=2)"),
    other("maps of a ChainMap", "ChainMap({'a': 1}, {'b': 2})", "ChainMap({'a': 1, 'b': 2})"),
    other("two namedtuples", "Point(1, 2)", "Place(1, 2)"),
    other("namedtuple and tuple", "Typed(1, 2)", "(1, 2)"),
    other("types of fields", "Typed(1, 2)", "Typed(1, 2.0)"),
    other(
        "read-only view of a dict",
        "types.MappingProxyType({'a': 1})",
        "types.MappingProxyType({'a': 2})",
        "input",
    ),
    other("a namespace", "types.SimpleNamespace(a=1)", "types.SimpleNamespace(a=1, b=None)"),
    same(
        "order in which a namespace was filled",
        "types.SimpleNamespace(a=1, b=2)",
        "types.SimpleNamespace(b=2, a=1)",
    ),
    other("a dict of one's own", "Bag(a=1)", "{'a': 1}"),
    other("items of a dict of one's own", "Bag(a=1)", "Bag(a=2)"),
    other("a list of one's own", "Row([1])", "[1]"),
    same("a set of one's own", "Kinds('abc')", "Kinds('cba')"),
    other("UserDict and dict", "UserDict(a=1)", "{'a': 1}"),
    other("a list in itself", "looped(1)", "looped(2)"),
    same("a list in itself, unrolled once", "looped(1, 2)", "looped(*[1, 2])"),
    other("a dict in itself", "looped_dict(a=1)", "looped_dict(a=True)"),
    other("a ring of objects", "ring('abc')", "ring('abd')"),
    other("a ring that is longer", "ring('ab')", "ring('abab')"),
    same("shared and equal items", "shared([1])", "[[1], [1]]"),
    other(
        "a tree that knows its parents",
        "Tree('a').add('b').add('c')",
        "Tree('a').add('c').add('b')",
    ),
    other("keys of two types", "{1: 'a'}", "{True: 'a'}"),
    other("keys that are tuples", "{(1, 2): 'a'}", "{(1, 2.0): 'a'}"),
    other("an empty list and nothing", "{'a': []}", "{'a': None}"),
    other("what is in a frozenset in a set", "{frozenset({1})}", "{frozenset({True})}"),
    other(
        "a default that was added by looking",
        "bag(Bag, ('a', 1))",
        "bag(Bag, ('a', 1), ('b', None))",
    ),
]

OBJECTS_SETUP = """
import dataclasses, enum, functools, operator, types, typing, weakref
import attrs, pydantic

class Plain:
    def __init__(self, **names):
        for name, item in names.items():
            setattr(self, name, item)

class Twin:
    def __init__(self, **names):
        self.__dict__.update(names)

class Slotted:
    __slots__ = ("x", "y")
    def __init__(self, x, y=None):
        self.x = x
        if y is not None:
            self.y = y

class Both(Slotted):
    def __init__(self, *slots, **names):
        super().__init__(*slots)
        for name, item in names.items():
            setattr(self, name, item)

class Liar:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return True
    def __hash__(self): return 1

class Raiser:
    def __init__(self, x): self.x = x
    def __eq__(self, other): raise RuntimeError("not comparable")
    def __hash__(self): raise RuntimeError("not hashable")
    def __bool__(self): raise RuntimeError("neither")

class Reduced:
    def __init__(self, x): self.x = x
    def __reduce__(self): return Reduced, (self.x,)

class Stateful:
    def __init__(self, x): self.x, self.cache = x, None
    def look(self):
        self.cache = object()
        return self
    def __getstate__(self): return {"x": self.x}
    def __setstate__(self, state): self.__init__(state["x"])

class Copied:
    def __init__(self, x): self.x = x
    def __deepcopy__(self, memo): return Copied(self.x + 1)

class Lazy:
    def __init__(self, x): self.x = x
    @functools.cached_property
    def double(self): return 2 * self.x
    def filled(self):
        self.double
        return self

class SlottedLazy(Slotted):
    @functools.cached_property
    def double(self): return 2 * self.x
    def filled(self):
        self.double
        return self

class LazyModel(pydantic.BaseModel):
    x: int
    @functools.cached_property
    def double(self): return 2 * self.x
    def filled(self):
        self.double
        return self

@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object
    y: object = None

@dataclasses.dataclass(slots=True)
class Narrow:
    x: object
    hidden: object = dataclasses.field(default=0, compare=False, repr=False)

@dataclasses.dataclass
class Recursive:
    x: object
    next: "Recursive | None" = None

def chain(*items):
    first = last = Recursive(items[0])
    for item in items[1:]:
        last.next = Recursive(item)
        last = last.next
    last.next = first
    return first

class Model(pydantic.BaseModel):
    x: int = 1
    y: float | None = None

class Private(pydantic.BaseModel):
    x: int = 1
    _secret: int = pydantic.PrivateAttr(default=0)
    def hide(self, n):
        self._secret = n
        return self

class Open(pydantic.BaseModel, extra="allow"):
    x: int = 1

@attrs.define
class Defined:
    x: object
    y: object = attrs.field(default=0, eq=False, repr=False)

@attrs.frozen(cache_hash=True)
class Hashed:
    name: str
    def used(self):
        hash(self)
        return self

@attrs.define(slots=False)
class Loose:
    x: object

class Colour(enum.Enum):
    RED = 1
    ROUGE = 1
    BLUE = 2

class Named:
    def __init__(self, name, value):
        self.name, self.value = name, value
    def __reduce__(self):
        return self.name

LIMIT = Named("LIMIT", 5)

def changed(constant, value):
    constant.value = value
    return constant

def caused(error, cause=None, context=None, *notes):
    error.__cause__ = cause
    error.__context__ = context
    for note in notes:
        error.add_note(note)
    return error

class Refusal(Exception):
    def __init__(self, code, *, why=""):
        super().__init__(code)
        self.why = why

def tagged(value, **names):
    value.__dict__.update(names)
    return value

def looked(value):
    vars(value)
    return value

def scaled(factor):
    def scale(x): return factor * x
    return scale

def plain(x): return x + 1
"""

OBJECTS = [
    other("attributes of one name in two classes", "Plain(x=1)", "Twin(x=1)"),
    same("attributes set in two orders", "Plain(a=1, b=2)", "Plain(b=2, a=1)"),
    other("an attribute that is None and one that is not there", "Plain(a=None)", "Plain()"),
    other("slots", "Slotted(1)", "Slotted(1.0)"),
    other("a slot that is empty", "Slotted(1)", "Slotted(1, 2)"),
    other("slots and attributes", "Both(1, a=1)", "Both(1, a=2)"),
    same("slots, and attributes set in two orders", "Both(1, a=1, b=2)", "Both(1, b=2, a=1)"),
    other("objects that say they are equal", "Liar(1)", "Liar(2)"),
    other("objects that say they are equal, in a dict", "{'a': [Liar(1)]}", "{'a': [Liar(2)]}"),
    other("objects that cannot be compared", "Raiser(1)", "Raiser(2)"),
    same("objects that cannot be compared, again", "[Raiser(1)]", "list([Raiser(1)])"),
    other("objects with __reduce__", "Reduced(1)", "Reduced(2)"),
    other("objects with __getstate__", "Stateful(1)", "Stateful(2)"),
    other("objects with a __deepcopy__ that changes them", "Copied(1)", "Copied(2)"),
    same("a cached property that was asked for", "Lazy(1)", "Lazy(1).filled()"),
    same("a cached property beside slots", "SlottedLazy(1)", "SlottedLazy(1).filled()"),
    same("a cached property of a pydantic model", "LazyModel(x=1)", "LazyModel(x=1).filled()"),
    other("frozen dataclasses", "Frozen(1)", "Frozen(True)"),
    other("dataclasses with slots, by a field not compared", "Narrow(1)", "Narrow(1, 2)"),
    other("recursive dataclasses", "chain(1, 2, 3)", "chain(1, 3, 2)"),
    same("recursive dataclasses again", "chain(1, 2, 3)", "chain(*range(1, 4))"),
    other("fields that were set in a pydantic model", "Model()", "Model(x=1)"),
    same("a pydantic model from a dict", "Model(x=1)", "Model.model_validate({'x': '1'})"),
    other("private attributes of a pydantic model", "Private().hide(1)", "Private().hide(2)"),
    other("extras of a pydantic model", "Open(a=1)", "Open(a=2)"),
    other("an unvalidated pydantic model", "Model(x=1)", "Model.model_construct(x=1.0)"),
    other("attrs, by a field not compared", "Defined(1)", "Defined(1, 2)"),
    same("attrs with a hash that was asked for", "Hashed('a')", "Hashed('a').used()"),
    other("attrs without slots", "Loose(1)", "Loose('1')"),
    other("what a constant of one's own is", "LIMIT", "changed(LIMIT, 6)", "input"),
    other("members of an Enum", "Colour.RED", "Colour.BLUE"),
    same("an alias of a member", "Colour.RED", "Colour.ROUGE"),
    other("arguments of an exception", "ValueError('a')", "ValueError('a', 1)"),
    other("types of an exception", "ValueError('a')", "KeyError('a')"),
    other(
        "notes of an exception",
        "caused(ValueError('a'), None, None, 'one')",
        "caused(ValueError('a'), None, None, 'two')",
    ),
    other("attributes of an exception", "Refusal(1, why='a')", "Refusal(1, why='b')"),
    other(
        "cause of an exception",
        "caused(ValueError('a'), KeyError('b'))",
        "caused(ValueError('a'), KeyError('c'))",
    ),
    other(
        "context of an exception",
        "caused(ValueError('a'), None, KeyError('b'))",
        "caused(ValueError('a'))",
    ),
    other(
        "members of an ExceptionGroup",
        "ExceptionGroup('a', [ValueError(1), KeyError(2)])",
        "ExceptionGroup('a', [KeyError(2), ValueError(1)])",
    ),
    other("what a closure holds", "scaled(2)", "scaled(3)"),
    same("a function again", "scaled(2)", "scaled(1 + 1)"),
    other("arguments of a partial", "functools.partial(plain, 1)", "functools.partial(plain, x=1)"),
    other(
        "attributes of a function", "tagged(scaled(2), unit='m')", "tagged(scaled(2), unit='km')"
    ),
    other(
        "attributes of a partial",
        "tagged(functools.partial(plain), unit='m')",
        "tagged(functools.partial(plain), unit='km')",
    ),
    same(
        "a partial whose attributes were asked for",
        "functools.partial(plain, 1)",
        "looked(functools.partial(plain, 1))",
    ),
    same("an exception whose attributes were asked for", "ValueError(1)", "looked(ValueError(1))"),
    same("an object without attributes", "Twin()", "looked(Twin())"),
    other("lambdas", "lambda x: x + 1", "lambda x: x + 2"),
    other("bound methods", "Lazy(1).filled", "Lazy(2).filled"),
    other("getters", "operator.itemgetter(0)", "operator.itemgetter(0, 1)"),
    other("classes", "Plain", "Twin"),
    other("functions of a library", "len", "max"),
]

# Alone: Python's limit of recursion is one for all threads.
DEEP = [other("10,000 levels", "deep(10_000, 1)", "deep(10_000, 2)", "output")]

GROUPS = {
    "deep": (CONTAINERS_SETUP, DEEP),
    "scalars": (SCALARS_SETUP, SCALARS),
    "containers": (CONTAINERS_SETUP, CONTAINERS),
    "objects": (OBJECTS_SETUP, OBJECTS),
}

test_a_value_is_taken_for_what_it_is = each_case_of(GROUPS)
