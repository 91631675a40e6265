"""What classes of a random project look like, each with a function of one whole number on it."""

from __future__ import annotations

from tests.fuzz.projects import Maker


def _class(m: Maker, head: str, *lines: str) -> str:
    """Add a class with these lines; its name stands for `{}` in the head."""
    name = m.fresh("C")
    m.add("\n".join([f"class {name}{head}:", *(f"    {line}" if line else "" for line in lines)]))
    return name


def methods(m: Maker) -> str:
    name = _class(
        m,
        "",
        f"rate = {m.const()}",
        f"other = {m.const()}",
        "",
        f"def __init__(self, a, b={m.const()}):",
        "    self.a = a",
        "    self.b = mix(b, self.rate)",
        "",
        "def work(self, x):",
        f"    return mix(self.a, self.b, self.other, x, {m.const()})",
    )
    return m.function(f"return {name}({m.call()}).work(x)")


def inheritance(m: Maker) -> str:
    base = _class(
        m,
        "",
        f"rate = {m.const()}",
        "",
        "def work(self, x):",
        f"    return mix(x, self.rate, self.more(), {m.const()})",
        "",
        "def more(self):",
        f"    return {m.const()}",
    )
    side = _class(m, "", f"rate = {m.const()}", "", "def more(self):", f"    return {m.const()}")
    order = [base, side]
    m.random.shuffle(order)
    name = _class(
        m,
        f"({', '.join(order)})",
        "def work(self, x):",
        f"    return mix(super().work(x), {m.const()})",
        *(["", "def more(self):", f"    return {m.const()}"] if m.number() > 5 else []),
    )
    return m.function(f"return mix({name}().work(x), {m.call()})")


def metaclass(m: Maker) -> str:
    meta = _class(
        m,
        "(type)",
        f"bonus = {m.const()}",
        "",
        "def __call__(cls, *arguments):",
        "    made = super().__call__(*arguments)",
        f"    made.extra = mix(cls.bonus, {m.const()})",
        "    return made",
        "",
        "@property",
        "def kind(cls):",
        f"    return mix(cls.size, {m.const()})",
    )
    name = _class(m, f"(metaclass={meta})", f"size = {m.const()}")
    return m.function(f"return mix({name}().extra, {name}.kind, x)")


def init_subclass(m: Maker) -> str:
    base = _class(
        m,
        "",
        f"def __init_subclass__(cls, rate={m.const()}, **rest):",
        "    super().__init_subclass__(**rest)",
        f"    cls.rate = mix(rate, {m.const()})",
    )
    one = _class(m, f"({base}, rate={m.const()})", "pass")
    two = _class(m, f"({base})", "pass")
    return m.function(f"return mix({one}.rate, {two}().rate, x)")


def descriptor(m: Maker) -> str:
    kind = _class(
        m,
        "",
        "def __init__(self, rate):",
        "    self.rate = rate",
        "",
        "def __set_name__(self, owner, name):",
        f"    self.name = name + {m.random.choice(('chr(97)', 'chr(98)'))}",
        "",
        "def __get__(self, holder, owner=None):",
        f"    return mix(self.rate, self.name, {m.const()})",
    )
    name = _class(m, "", f"field = {kind}({m.const()})", f"other = {kind}({m.const()})")
    return m.function(f"return mix({name}().field, {name}().other, {m.call()})")


def properties(m: Maker) -> str:
    name = _class(
        m,
        "",
        "@property",
        "def size(self):",
        f"    return mix(getattr(self, '_size', 0), {m.const()})",
        "",
        "@size.setter",
        "def size(self, value):",
        f"    self._size = mix(value, {m.const()})",
        "",
        "@classmethod",
        "def make(cls, value):",
        "    made = cls()",
        "    made.size = value",
        f"    return mix(made.size, {m.const()})",
        "",
        "@staticmethod",
        f"def plain(value, by={m.const()}):",
        f"    return mix(value, by, {m.const()})",
    )
    return m.function(f"return mix({name}.make(x), {name}.plain({m.call()}))")


def operators(m: Maker) -> str:
    name = _class(
        m,
        "",
        "def __init__(self, value):",
        "    self.value = value",
        "",
        "def __add__(self, other):",
        f"    return type(self)(mix(self.value, other.value, {m.const()}))",
        "",
        "def __sub__(self, other):",
        f"    return type(self)(mix(other.value, {m.const()}))",
        "",
        "def __eq__(self, other):",
        f"    return self.value % {m.number(2, 5)} == other.value % {m.number(2, 5)}",
        "",
        "__hash__ = None",
        "",
        "def __len__(self):",
        f"    return {m.number()}",
        "",
        "def __getitem__(self, at):",
        f"    return mix(self.value, at, {m.const()})",
        "",
        "def __repr__(self):",
        f"    return {m.random.choice(('repr', 'str'))}((self.value, {m.const()}))",
    )
    return m.function(
        f"a, b = {name}(x), {name}({m.number()})",
        f"c = a {m.random.choice('+-')} b",
        f"return mix(c, a == b, len(c), c[{m.const()}], {m.const()})",
    )


def held_object(m: Maker) -> str:
    kind = _class(
        m,
        "",
        "def __init__(self, rate, call):",
        "    self.rate, self.call = rate, call",
        "",
        f"def __call__(self, x, by={m.const()}):",
        "    return mix(self.rate, self.call(x), by)",
    )
    held = m.fresh("OBJECT")
    m.add(f"{held} = {kind}({m.const()}, {m.callee()})")
    return m.function(f"return mix({held}(x), {held}.rate)")


def bound_method(m: Maker) -> str:
    kind = _class(
        m,
        "",
        "__slots__ = ('rate',)",
        "",
        "def __init__(self, rate):",
        "    self.rate = rate",
        "",
        "def work(self, x):",
        f"    return mix(self.rate, x, {m.const()})",
    )
    held = m.fresh("bound")
    m.add(f"{held} = {kind}({m.const()}).work")
    return m.function(f"return mix({held}(x), {m.call()})")


def data_class(m: Maker) -> str:
    m.require("import dataclasses")
    name = m.fresh("D")
    flags = m.random.choice(
        ("", "(frozen=True)", "(order=True)", "(slots=True)", "(kw_only=False)")
    )
    m.add(
        f"@dataclasses.dataclass{flags}\n"
        f"class {name}:\n"
        "    a: int\n"
        f"    b: object = {m.const()}\n"
        f"    c: object = dataclasses.field(default={m.const()}, repr={m.number() > 4})\n"
        f"    rows: list = dataclasses.field(default_factory=lambda: [{m.const()}])\n\n"
        "    def work(self, x):\n"
        f"        return mix(self, self.c, x, {m.const()})"
    )
    return m.function(f"return mix({name}(x).work({m.call()}), {name}(x) == {name}(x))")


def post_init(m: Maker) -> str:
    m.require("from dataclasses import dataclass, field")
    base, name = m.fresh("D"), m.fresh("D")
    m.add(
        f"@dataclass\nclass {base}:\n    rate: object = {m.const()}\n    size: int = {m.number()}"
    )
    m.add(
        f"@dataclass\nclass {name}({base}):\n"
        f"    size: int = {m.number()}\n"
        "    full: int = field(init=False, default=0)\n\n"
        "    def __post_init__(self):\n"
        f"        self.full = mix(self.rate, self.size, {m.const()})"
    )
    held = m.fresh("DATA")
    m.add(f"{held} = {name}(size={m.number()})")
    return m.function(f"return mix({held}, {name}({m.const()}), {held}.full, x)")


def enumeration(m: Maker) -> str:
    m.require("import enum")
    kind = m.random.choice(("Enum", "IntEnum", "Flag"))
    value = m.const if kind == "Enum" else lambda: str(2 ** m.number(0, 9))
    name = m.fresh("E")
    m.add(
        f"class {name}(enum.{kind}):\n"
        f"    LOW = {value()}\n"
        f"    HIGH = {value()}\n"
        f"    TOP = {value()}\n\n"
        "    def work(self, x):\n"
        f"        return mix(self.name, self.value, x, {m.const()})"
    )
    return m.function(f"return mix({name}.LOW.work(x), {name}['HIGH'].value, list({name}), x)")


def named_tuple(m: Maker) -> str:
    m.require("from typing import NamedTuple")
    name = m.fresh("N")
    m.add(
        f"class {name}(NamedTuple):\n"
        "    first: int\n"
        f"    second: object = {m.const()}\n\n"
        "    def work(self):\n"
        f"        return mix(self.second, {m.const()}, *self)"
    )
    return m.function(f"return {name}(x).work()")


def held_row(m: Maker) -> str:
    m.require("import collections")
    name, held = m.fresh("N"), m.fresh("ROW")
    m.add(f'{name} = collections.namedtuple("{name}", "first second", defaults=[{m.const()}])')
    m.add(f"{held} = {name}({m.const()})")
    return m.function(f"return mix({held}, {held}.first, {name}(x))")


def fields_read(m: Maker) -> str:
    """Defaults that stand nowhere but in what `dataclasses` keeps of the fields."""
    m.require("import dataclasses")
    name = m.fresh("D")
    m.add(
        "@dataclasses.dataclass(init=False, slots=True)\n"
        f"class {name}:\n"
        f"    a: object = {m.const()}\n"
        f"    b: object = dataclasses.field(default={m.const()})"
    )
    return m.function(f"return mix([each.default for each in dataclasses.fields({name})], x)")


def grown(m: Maker) -> str:
    """A list or a table of a class of its own, in a global."""
    text, base = m.random.choice(
        ((f"[{m.const()}, {m.const()}]", "list"), (f'{{"a": {m.const()}, 2: {m.const()}}}', "dict"))
    )
    name = _class(
        m, f"({base})", "def work(self, x):", f"    return mix(x, list(self), {m.const()})"
    )
    held = m.hold("GROWN", f"{name}({text})")
    return m.function(f"return mix({held}.work(x), {held})")


def cached(m: Maker) -> str:
    m.require("import functools")
    name = _class(
        m,
        "",
        f"rate = {m.const()}",
        "",
        "@functools.cached_property",
        "def full(self):",
        f"    return mix(self.rate, {m.const()})",
        "",
        "def by(self, x, rate):",
        f"    return mix(x, rate, self.full, {m.const()})",
        "",
        f"part = functools.partialmethod(by, rate={m.const()})",
    )
    return m.function(f"return mix({name}().part(x), {m.call()})")


def attribute_hooks(m: Maker) -> str:
    name = _class(
        m,
        "",
        f"known = {m.const()}",
        "",
        "def __getattr__(self, name):",
        "    if name.startswith('__'):",
        "        raise AttributeError(name)",
        f"    return mix(name, {m.const()})",
        "",
        "def __contains__(self, x):",
        f"    return x % {m.number(2, 5)} == {m.number(0, 2)}",
        "",
        "def __iter__(self):",
        f"    return iter([{m.const()}, {m.const()}])",
    )
    return m.function(
        f"a = {name}()", f"return mix(a.known, a.{m.fresh('any')}, x in a, list(a), x)"
    )


def abstract(m: Maker) -> str:
    m.require("import abc")
    base = _class(
        m,
        "(abc.ABC)",
        "@abc.abstractmethod",
        "def work(self, x):",
        f"    return mix(x, {m.const()})",
        "",
        "def whole(self, x):",
        f"    return mix(self.work(x), {m.const()})",
    )
    name = _class(
        m,
        f"({base})",
        "def work(self, x):",
        f"    return {m.random.choice(('mix', 'max'))}(super().work(x), {m.number()})",
        "",
        "class Inner:",
        f"    depth = {m.const()}",
    )
    return m.function(f"return mix({name}().whole(x), {name}.Inner.depth)")


def manager(m: Maker) -> str:
    name = _class(
        m,
        "",
        "def __enter__(self):",
        f"    return mix({m.const()})",
        "",
        "def __exit__(self, kind, error, trace):",
        f"    return kind is {m.random.choice(('ValueError', 'KeyError'))}",
    )
    return m.function(
        f"y = {m.const()}",
        f"with {name}() as z:",
        "    y = mix(z, x)",
        "    if x is None:",
        "        raise ValueError",
        f"    y = mix(y, {m.const()})",
        "return mix(y)",
    )


def class_decorator(m: Maker) -> str:
    name, deco = m.fresh("K"), m.fresh("mark")
    m.add(
        f"def {deco}(cls):\n"
        f"    cls.mark = mix(cls.size, {m.const()})\n"
        f"    cls.more = lambda self, x: mix(x, self.mark, {m.const()})\n"
        "    return cls"
    )
    m.add(f"@{deco}\nclass {name}:\n    size = {m.const()}\n    rows = [{m.const()}, {m.const()}]")
    return m.function(f"return mix({name}().more(x), {name}.rows)")


def made_inside(m: Maker) -> str:
    return m.function(
        "class Inner:",
        f"    rate = {m.const()}",
        "",
        "    def work(self, y):",
        f"        return mix(x, y, self.rate, {m.const()})",
        f"return Inner().work({m.call()})",
    )


def created(m: Maker) -> str:
    name = _class(
        m,
        "(int)",
        f"def __new__(cls, value, by={m.number()}):",
        f"    return super().__new__(cls, value % {m.number(20, 99)} + by)",
        "",
        "def __hash__(self):",
        f"    return {m.number()}",
    )
    held = m.fresh("NUMBER")
    m.add(f"{held} = {name}({m.number(20, 99)})")
    return m.function(f"return mix({name}(x), {held} + {m.number()}, hash({held}))")


SHAPES = (
    methods,
    methods,
    inheritance,
    inheritance,
    metaclass,
    metaclass,
    init_subclass,
    descriptor,
    properties,
    operators,
    held_object,
    bound_method,
    data_class,
    post_init,
    enumeration,
    enumeration,
    enumeration,
    named_tuple,
    named_tuple,
    held_row,
    fields_read,
    fields_read,
    grown,
    grown,
    cached,
    attribute_hooks,
    abstract,
    manager,
    class_decorator,
    made_inside,
    created,
)
