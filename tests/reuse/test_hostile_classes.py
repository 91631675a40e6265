"""Cases that a hostile reader adds: classes, what libraries make of them, and their instances."""

from __future__ import annotations

import sys

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import rerun, reuse, work

DESCRIPTOR = """
class Scaled:
    def __init__(self, by):
        self.by = by
    def __set_name__(self, owner, name):
        self.name = name + "_raw"
    def __get__(self, instance, owner=None):
        return vars(instance)[self.name] * self.by
    def __set__(self, instance, value):
        vars(instance)[self.name] = value + 1

class Thing:
    size = Scaled(3)

def clean(x):
    thing = Thing()
    thing.size = x
    return thing.size, sorted(vars(thing))
"""
OWN_PROPERTY = """
class shown(property):
    suffix = "!"
    def __get__(self, instance, owner=None):
        return f"{super().__get__(instance, owner)}{self.suffix}"

class Thing:
    @shown
    def name(self):
        return "thing"
"""
CLASS_DECORATOR = """
def plugin(**options):
    def decorate(cls):
        cls.options = options
        cls.run = lambda self, x: x * self.options["by"] + self.base
        return cls
    return decorate

@plugin(by=3)
class Thing:
    base = 1
"""
METHODS = """
import functools

class Thing:
    by = 2
    def scale(self, x, by):
        return x * by
    double = functools.partialmethod(scale, by=2)
    @functools.cached_property
    def table(self):
        return [1, self.by]
    @property
    def half(self):
        return self._half
    @half.setter
    def half(self, value):
        self._half = value / 2
    @classmethod
    def make(cls):
        return cls.by + 10
    @staticmethod
    def plain(x):
        return x - 1
    @functools.singledispatchmethod
    def show(self, x):
        return "any"
    @show.register
    def _(self, x: int):
        return "int"

def halved(x):
    thing = Thing()
    thing.half = x
    return thing.half
"""
GENERIC = """
import typing
T = typing.TypeVar("T")

class Box(typing.Generic[T]):
    def kind(self):
        return typing.get_args(type(self).__orig_bases__[0])[0].__name__

class Number(Box[int]):
    pass
"""
PROTOCOL = """
import typing

@typing.runtime_checkable
class Sized(typing.Protocol):
    size: int
    def doubled(self):
        return self.size * 2

class Thing(Sized):
    def __init__(self):
        self.size = 4

class Other:
    size = 3
    def doubled(self):
        return 6
"""
DATACLASS = """
from dataclasses import InitVar, dataclass, field, fields

def some(): return [1, 2]

@dataclass(frozen=True, slots=True)
class Point:
    x: int
    tags: list = field(default_factory=some, metadata={"unit": "m"})
    scale: InitVar[int] = 2
    def __post_init__(self, scale):
        object.__setattr__(self, "x", self.x * scale)

def units(cls): return [each.metadata.get("unit") for each in fields(cls)]
"""
PYDANTIC = """
from typing import Annotated
from pydantic import (
    AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, computed_field,
    field_serializer, field_validator, model_validator,
)
from pydantic.dataclasses import dataclass

def check(value): return value + 1

class Item(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    size: int = Field(default=3, ge=0)
    name: str = "  a "
    tags: list[str] = Field(default_factory=lambda: ["x"])
    count: Annotated[int, AfterValidator(check)] = 1
    _secret: int = PrivateAttr(default=7)
    @field_validator("size")
    @classmethod
    def larger(cls, value): return value * 10
    @model_validator(mode="after")
    def both(self):
        self._secret += 1
        return self
    @computed_field
    @property
    def area(self) -> int: return self.size * 2
    @field_serializer("size")
    def shown(self, value): return f"{value} m"

@dataclass(config=ConfigDict(str_to_upper=False))
class Plain:
    name: str
    size: Annotated[int, Field(gt=-5)] = 1

def fails(cls, **values):
    try:
        return cls(**values)
    except ValidationError as error:
        return error.error_count()
"""
ATTRS = """
import attrs

def positive(instance, attribute, value):
    if value < 0: raise ValueError("no")

@attrs.define
class Item:
    size: int = attrs.field(default=1, validator=positive, converter=lambda value: value * 2)
    tags: list = attrs.field(factory=lambda: ["a"], metadata={"unit": "m"})
    half: float = attrs.field(init=False)
    @half.default
    def _(self): return self.size / 2
"""
ABSTRACT = """
import abc

class Base(abc.ABC):
    @abc.abstractmethod
    def size(self): ...
    def area(self): return self.size() * 2

class Square(Base):
    def size(self): return 3

class Round:
    def size(self): return 4

Base.register(Round)
"""
HOOKS = """
class Meta(type):
    @classmethod
    def __prepare__(meta, name, bases, **options):
        return {"order": 1}
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.late = 5
        return made
    def __instancecheck__(cls, value):
        return value > 3

class Thing(metaclass=Meta):
    registry = {}
    def __init_subclass__(cls, by=1, **options):
        cls.registry[cls.__name__] = by
    def __class_getitem__(cls, item):
        return item * 2
    def __getattr__(self, name):
        return name + "?"

class Sub(Thing, by=4):
    pass
"""
OPERATORS = """
class Amount:
    __slots__ = ("value", "unit")
    def __init__(self, value, unit="m"):
        self.value, self.unit = value, unit
    def __radd__(self, other): return other + self.value
    def __contains__(self, item): return item < self.value
    def __iter__(self): return iter([self.value, self.unit])
    def __bool__(self): return self.value > 1
    def __format__(self, spec): return f"{self.value}{spec}{self.unit}"
    def __lt__(self, other): return self.value < other.value
    def __index__(self): return self.value

class Fallback(dict):
    def __missing__(self, key): return key * 3

AMOUNT = Amount(2)
"""
MIXINS = """
class Base:
    def size(self): return [1]

class Left(Base):
    def size(self): return [2, *super().size()]

class Right(Base):
    def size(self): return [3, *super().size()]

class Both(Left, Right):
    pass
"""
ENUMS = """
import enum, typing

class Colour(enum.Enum):
    RED = 1
    BLUE = 2
    CRIMSON = 1
    def shown(self): return self.name.lower()
    @classmethod
    def _missing_(cls, value): return cls.RED

class Mode(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    BOTH = READ | WRITE

class Pair(typing.NamedTuple):
    first: int
    second: int = 2
    def total(self): return self.first + self.second
"""
INERT = """
import contextvars, threading, weakref

LEVEL = contextvars.ContextVar("LEVEL", default=2)

class Settings(threading.local):
    factor = 3

SETTINGS = Settings()
KINDS = weakref.WeakValueDictionary()

class Kind:
    def __init_subclass__(cls):
        KINDS[cls.__name__] = cls

class Tree(Kind):
    def size(self): return 7
"""
NAMED = """
class Registry:
    def __init__(self, by): self.by = by
    def __reduce__(self): return "REGISTRY"

REGISTRY = Registry(3)
"""
BODY = """
import sys

class Thing:
    if sys.version_info >= (3, 0):
        size = 4
    else:
        size = 5
    tables = {name: len(name) for name in ("a", "bb")}
    for each in range(3):
        last = each
"""

ROWS = [
    rerun(
        "__get__ of a descriptor changes",
        work("clean(x)", DESCRIPTOR),
        "* self.by",
        "+ self.by",
        "code changed: main.Scaled.__get__",
    ),
    rerun(
        "__set__ of a data descriptor changes",
        work("clean(x)", DESCRIPTOR),
        "value + 1",
        "value + 2",
        "code changed: main.Scaled.__set__",
    ),
    rerun(
        "__set_name__ changes",
        work("clean(x)", DESCRIPTOR),
        '"_raw"',
        '"_cooked"',
        ("code changed: main.Scaled.__set_name__", "code changed: main.Thing"),
    ),
    rerun(
        "the state of a descriptor changes",
        work("clean(x)", DESCRIPTOR),
        "Scaled(3)",
        "Scaled(4)",
        "code changed: main.Thing",
    ),
    rerun(
        "a property of one's own kind changes its class",
        work("Thing().name", OWN_PROPERTY),
        '"!"',
        '"?"',
        "code changed: main.shown",
    ),
    rerun(
        "a property of one's own kind changes its getter",
        work("Thing().name", OWN_PROPERTY),
        '"thing"',
        '"thong"',
        "code changed: main.Thing.name",
    ),
    rerun(
        "the argument of a class decorator changes",
        work("Thing().run(x)", CLASS_DECORATOR),
        "by=3",
        "by=4",
        "code changed: main.Thing",
    ),
    rerun(
        "a method that a class decorator adds changes",
        work("Thing().run(x)", CLASS_DECORATOR),
        "+ self.base",
        "- self.base",
        "code changed: main.plugin.<locals>.decorate.<locals>.<lambda>",
    ),
    rerun(
        "a partialmethod changes its argument",
        work("Thing().double(x)", METHODS),
        "scale, by=2",
        "scale, by=3",
        "code changed: main.Thing",
    ),
    rerun(
        "a cached property changes",
        work("Thing().table", METHODS),
        "[1, self.by]",
        "[2, self.by]",
        "code changed: main.Thing.table",
    ),
    rerun(
        "a setter of a property changes",
        work("halved(x)", METHODS),
        "value / 2",
        "value / 4",
        "code changed: main.Thing.half",
    ),
    rerun(
        "a class method changes",
        work("Thing.make()", METHODS),
        "+ 10",
        "+ 11",
        "code changed: main.Thing.make",
    ),
    rerun(
        "a static method changes",
        work("Thing.plain(x)", METHODS),
        "x - 1",
        "x - 2",
        "code changed: main.Thing.plain",
    ),
    rerun(
        "a registered method changes",
        work("Thing().show(x)", METHODS),
        '"int"',
        '"whole"',
        "code changed: main.Thing._",
    ),
    rerun(
        "a registered method changes the type that it is for",
        work("Thing().show(x)", METHODS),
        "x: int):\n        return",
        "x: str):\n        return",
        "code changed: main.Thing.show",
    ),
    reuse(
        "methods change their order and docstrings",
        work("Thing.plain(x)", METHODS),
        "    by = 2\n    def scale(self, x, by):\n        return x * by\n",
        '    def scale(self, x, by):\n        "Scale."\n        return x * by\n    by = 2\n',
    ),
    rerun(
        "the argument of a generic base changes",
        work("Number().kind()", GENERIC),
        "Box[int]",
        "Box[str]",
        "code changed: main.Number",
    ),
    rerun(
        "a default method of a Protocol changes",
        work("Thing().doubled()", PROTOCOL),
        "* 2",
        "* 3",
        "code changed: main.Sized.doubled",
    ),
    rerun(
        "the members of a runtime Protocol change",
        work("isinstance(Other(), Sized)", PROTOCOL),
        "    size: int\n",
        "    length: int\n",
        "code changed: main.Sized",
    ),
    rerun(
        "a factory of a dataclass changes",
        work("Point(x).tags", DATACLASS),
        "[1, 2]",
        "[1, 3]",
        "code changed: main.some",
    ),
    rerun(
        "__post_init__ of a dataclass changes",
        work("Point(x).x", DATACLASS),
        "self.x * scale",
        "self.x + scale",
        "code changed: main.Point.__post_init__",
    ),
    rerun(
        "metadata of a dataclass field changes",
        work("units(Point)", DATACLASS),
        '"m"',
        '"km"',
        "code changed: main.Point",
    ),
    rerun(
        "a frozen dataclass thaws",
        work("Point.__hash__ is None", DATACLASS),
        "frozen=True, ",
        "",
        "code changed: main.Point",
    ),
    rerun(
        "a dataclass takes its fields by keyword only",
        work("str(Point.__match_args__)", DATACLASS),
        "slots=True",
        "slots=True, kw_only=True",
        "code changed: main.Point",
    ),
    rerun(
        "a constraint of a pydantic field changes",
        work("fails(Item, size=-1)", PYDANTIC),
        "ge=0",
        "ge=-9",
        "code changed: main.Item",
    ),
    rerun(
        "a validator of a pydantic field changes",
        work("Item(size=2).size", PYDANTIC),
        "value * 10",
        "value * 20",
        "code changed: main.Item.larger",
    ),
    rerun(
        "a validator in an annotation changes",
        work("Item(count=2).count", PYDANTIC),
        "value + 1",
        "value + 2",
        "code changed: main.check",
    ),
    rerun(
        "a validator of a pydantic model changes",
        work("Item()._secret", PYDANTIC),
        "+= 1",
        "+= 2",
        "code changed: main.Item.both",
    ),
    rerun(
        "a computed field changes",
        work("Item(size=2).model_dump()", PYDANTIC),
        "self.size * 2",
        "self.size * 3",
        "code changed: main.Item.area",
    ),
    rerun(
        "a serializer of a pydantic field changes",
        work("Item(size=2).model_dump_json()", PYDANTIC),
        "{value} m",
        "{value} km",
        "code changed: main.Item.shown",
    ),
    rerun(
        "the configuration of a pydantic model changes",
        work("Item(name=' b ').name", PYDANTIC),
        "str_strip_whitespace=True",
        "str_strip_whitespace=False",
        "code changed: main.Item",
    ),
    rerun(
        "a default factory of a pydantic model changes",
        work("Item().tags", PYDANTIC),
        '["x"]',
        '["y"]',
        "code changed: main.Item.<lambda>",
    ),
    rerun(
        "a private attribute of a pydantic model changes",
        work("Item()._secret", PYDANTIC),
        "default=7",
        "default=8",
        "code changed: main.Item",
    ),
    rerun(
        "the configuration of a pydantic dataclass changes",
        work("Plain('a').name", PYDANTIC),
        "str_to_upper=False",
        "str_to_upper=True",
        "code changed: main.Plain",
    ),
    rerun(
        "a constraint of a pydantic dataclass changes",
        work("fails(Plain, name='a', size=-1)", PYDANTIC),
        "gt=-5",
        "gt=5",
        "code changed: main.Plain",
    ),
    reuse(
        "a pydantic model gets a docstring",
        work("Item().size", PYDANTIC),
        "class Item(BaseModel):\n",
        'class Item(BaseModel):\n    "An item."\n',
    ),
    rerun(
        "an attrs converter changes",
        work("Item(2).size", ATTRS),
        "value * 2",
        "value * 3",
        "code changed: main.Item.<lambda>",
    ),
    rerun(
        "an attrs validator changes",
        work("Item(2).size", ATTRS),
        "if value < 0",
        "if value < -1",
        "code changed: main.positive",
        same_value=True,
    ),
    rerun(
        "an attrs default made by a method changes",
        work("Item(2).half", ATTRS),
        "self.size / 2",
        "self.size / 4",
        "code changed: main.Item._",
    ),
    rerun(
        "metadata of an attrs field changes",
        work("attrs.fields(Item).tags.metadata['unit']", ATTRS),
        '"m"',
        '"km"',
        "code changed: main.Item",
    ),
    rerun(
        "a method of an abstract base changes",
        work("Square().area()", ABSTRACT),
        "* 2",
        "* 3",
        "code changed: main.Base.area",
    ),
    rerun(
        "a class is no longer registered with an abstract base",
        work("isinstance(Round(), Base)", ABSTRACT),
        "Base.register(Round)",
        "",
        "code changed: main.Base",
    ),
    rerun(
        "__prepare__ of a metaclass changes",
        work("Thing.order", HOOKS),
        '"order": 1',
        '"order": 2',
        ("code changed: main.Meta.__prepare__", "code changed: main.Thing"),
    ),
    rerun(
        "__call__ of a metaclass changes",
        work("Thing().late", HOOKS),
        "late = 5",
        "late = 6",
        "code changed: main.Meta.__call__",
    ),
    rerun(
        "__instancecheck__ of a metaclass changes",
        work("isinstance(x, Thing)", HOOKS),
        "value > 3",
        "value > 0",
        "code changed: main.Meta.__instancecheck__",
    ),
    rerun(
        "what a subclass tells __init_subclass__ changes",
        work("Sub.registry['Sub']", HOOKS),
        "by=4",
        "by=5",
        "code changed: main.Thing",
    ),
    rerun(
        "__class_getitem__ changes",
        work("Thing[x]", HOOKS),
        "item * 2",
        "item * 3",
        "code changed: main.Thing.__class_getitem__",
    ),
    rerun(
        "__getattr__ of a class changes",
        work("Thing().anything", HOOKS),
        '"?"',
        '"!"',
        "code changed: main.Thing.__getattr__",
    ),
    rerun(
        "a reflected operator changes",
        work("x + AMOUNT", OPERATORS),
        "other + self.value",
        "other - self.value",
        "code changed: main.Amount.__radd__",
    ),
    rerun(
        "__contains__ changes",
        work("x in AMOUNT", OPERATORS),
        "item < self",
        "item > self",
        "code changed: main.Amount.__contains__",
    ),
    rerun(
        "__iter__ changes",
        work("[*AMOUNT]", OPERATORS),
        "[self.value, self.unit]",
        "[self.unit, self.value]",
        "code changed: main.Amount.__iter__",
    ),
    rerun(
        "__bool__ changes",
        work("not AMOUNT", OPERATORS),
        "self.value > 1",
        "self.value > 2",
        "code changed: main.Amount.__bool__",
    ),
    rerun(
        "__format__ changes",
        work("f'{AMOUNT: }'", OPERATORS),
        "{spec}{self.unit}",
        "{spec}{spec}{self.unit}",
        "code changed: main.Amount.__format__",
    ),
    rerun(
        "what sorted compares by changes",
        work("[each.value for each in sorted([Amount(x), Amount(2)])]", OPERATORS),
        "self.value < other.value",
        "self.value > other.value",
        "code changed: main.Amount.__lt__",
    ),
    rerun(
        "a slot of a global instance changes",
        work("AMOUNT.value", OPERATORS),
        "Amount(2)",
        "Amount(3)",
        "code changed: main.AMOUNT",
    ),
    rerun(
        "__missing__ changes",
        work("Fallback()[x]", OPERATORS),
        "key * 3",
        "key * 4",
        "code changed: main.Fallback.__missing__",
    ),
    rerun(
        "the order of base classes changes",
        work("Both().size()", MIXINS),
        "Both(Left, Right)",
        "Both(Right, Left)",
        "code changed: main.Both",
    ),
    rerun(
        "the last of a chain of super() changes",
        work("Both().size()", MIXINS),
        "return [1]",
        "return [0]",
        "code changed: main.Base.size",
    ),
    rerun(
        "a method of an enum changes",
        work("Colour.RED.shown()", ENUMS),
        "lower",
        "upper",
        "code changed: main.Colour.shown",
    ),
    rerun(
        "an alias of an enum moves to another member",
        work("Colour.CRIMSON.name", ENUMS),
        "CRIMSON = 1",
        "CRIMSON = 2",
        "code changed: main.Colour",
    ),
    rerun(
        "_missing_ of an enum changes",
        work("Colour(x + 8).name", ENUMS),
        "cls.RED",
        "cls.BLUE",
        "code changed: main.Colour._missing_",
    ),
    rerun(
        "members of a flag change their order",
        work("Mode.WRITE.value", ENUMS),
        "READ = enum.auto()\n    WRITE = enum.auto()",
        "WRITE = enum.auto()\n    READ = enum.auto()",
        "code changed: main.Mode",
    ),
    rerun(
        "a method of a named tuple changes",
        work("Pair(x).total()", ENUMS),
        "self.first + self.second",
        "self.first - self.second",
        "code changed: main.Pair.total",
    ),
    rerun(
        "a default of a named tuple changes",
        work("Pair(x).second", ENUMS),
        "second: int = 2",
        "second: int = 3",
        "code changed: main.Pair",
    ),
    rerun(
        "the default of a context variable changes",
        work("LEVEL.get()", INERT),
        "default=2",
        "default=3",
        "code changed: main.LEVEL",
    ),
    rerun(
        "a class of thread-local settings changes",
        work("SETTINGS.factor", INERT),
        "factor = 3",
        "factor = 4",
        "code changed: main.Settings",
    ),
    rerun(
        "a class in a registry of weak references changes",
        work("KINDS['Tree']().size()", INERT),
        "return 7",
        "return 8",
        "code changed: main.Tree.size",
    ),
    rerun(
        "an object that is pickled by name changes its state",
        work("REGISTRY.by", NAMED),
        "Registry(3)",
        "Registry(4)",
        "code changed: main.REGISTRY",
    ),
    rerun(
        "a class body takes another branch",
        work("Thing.size", BODY),
        "(3, 0)",
        "(9, 0)",
        "code changed: main.Thing",
    ),
    reuse(
        "the branch of a class body that is not taken changes",
        work("Thing.size", BODY),
        "size = 5",
        "size = 6",
    ),
]
NEWER = [
    rerun(
        "a method of a class with type parameters changes",
        work("Box().show(x)", "class Box[T]:\n    def show(self, x: T) -> T: return x + 1"),
        "x + 1",
        "x + 2",
        "code changed: main.Box.show",
    ),
    rerun(
        "a type alias that a model reads changes",
        work(
            "Item(size='1').size",
            "from pydantic import BaseModel\ntype Size = int\n"
            "class Item(BaseModel):\n    size: Size",
        ),
        "Size = int",
        "Size = str",
        "code changed: main.Item",
    ),
    reuse(
        "a type parameter is renamed",
        work("clean(x)", "def clean[T](x: T) -> T: return x + 1"),
        "[T](x: T) -> T",
        "[Any](x: Any) -> Any",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_classes(lab: Lab, row: Row) -> None:
    check(lab, row)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695")
@pytest.mark.parametrize("row", NEWER, ids=lambda row: row.name)
def test_classes_of_python_3_12(lab: Lab, row: Row) -> None:
    check(lab, row)
