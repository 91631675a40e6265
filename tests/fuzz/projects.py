"""Random small projects: a few modules, a package, and steps that reach all of it.

Knows how a project is put together, and how one function may reach another. Knows nothing of edits
or of how projects are run. What the functions look like is said in `tests.fuzz.functions`,
`classes` and `values`: each gives a function of one whole number that returns another, made by
`mix` of all that it read. So nearly every change of anything changes what the project returns.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

SUPPORT = """\
import zlib


def mix(*parts):
    text = repr(parts)
    if " at 0x" in text:  # of something without content; another in every process
        raise TypeError(text)
    return zlib.crc32(text.encode())
"""

_COSTLY = 40  # calls below one call


@dataclass(frozen=True)
class Project:
    """The sources of a project.

    Attributes:
        modules: name → its statements at the top level, in the order in which they import.
    """

    modules: Mapping[str, tuple[str, ...]]

    def source(self, name: str) -> str:
        return "\n\n".join(self.modules[name]) + "\n"

    def sources(self) -> dict[str, str]:
        return {name: self.source(name) for name in self.modules}

    def with_module(self, name: str, statements: tuple[str, ...]) -> Project:
        return Project({**self.modules, name: statements})

    def reached(self) -> frozenset[str]:
        """The words of all statements that the pipeline reaches; a name is one thing only."""
        defining: dict[str, list[str]] = {}
        for name in self.modules:
            for statement in self.modules[name]:
                for word in _defined(statement):
                    defining.setdefault(word, []).append(statement)
        found: set[str] = set()
        waiting = {"main"}
        while waiting:
            found |= waiting
            statements = (each for word in waiting for each in defining.get(word, ()))
            waiting = {name for each in statements for name in _words(each)} - found
        return frozenset(found)

    def is_reached(self, statement: str, words: frozenset[str]) -> bool:
        return not words.isdisjoint(_defined(statement))

    def text(self) -> str:
        """The project, for people to read."""
        names = (name for name in self.modules if name != "support")
        return "\n".join(f"#### {name}\n{self.source(name)}" for name in names)


@functools.lru_cache(4096)
def _words(statement: str) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_]\w*", statement))


@functools.lru_cache(4096)
def _defined(statement: str) -> tuple[str, ...]:
    """The names that a statement gives a meaning: those of a function, class, value or import."""
    if statement.startswith(("import ", "from ")):
        return tuple(re.findall(r"\w+", statement.partition("import")[2]))
    names = re.findall(r"^\s*(?:async )?(?:def|class) (\w+)", statement, re.M)
    return (*names, *re.findall(r"^(\w+)\b.*?[^=!<>]=[^=]", statement, re.M))


@dataclass(frozen=True)
class Callee:
    """A function that others may call."""

    module: str
    name: str
    cost: int


class Maker:
    """Puts a project together.

    Attributes:
        random: where all chance comes from.
        statements: of the module that is being made.
        module: its name.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.modules: dict[str, list[str]] = {"support": [SUPPORT]}
        self.module = ""
        self.statements: list[str] = []
        self.callees: list[Callee] = []
        self.values: list[Callee] = []
        self.reexported: dict[str, list[str]] = {}  # package → names that it passes on
        self._heads = 0
        self._called: set[str] = set()
        self._inside: list[str] = []
        self._cost = 0
        self._count = 0

    def begin(self, module: str) -> None:
        self.module, self.statements = module, self.modules.setdefault(module, [])
        self._heads = 0
        self.require("from support import mix")

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def require(self, statement: str) -> None:
        """Have a statement at the head of the module, once."""
        if statement not in self.statements:
            self.statements.insert(self._heads, statement)
            self._heads += 1

    def add(self, statement: str) -> None:
        self.statements.append(statement)

    def const(self) -> str:
        """A literal, of any kind."""
        number = self.random.randint(2, 99)
        word = self.random.choice(["red", "blue", "green", "tall", "wide"])
        kinds = (
            str(number),
            str(number),
            f"{number}.5",
            f"{number}.0",
            f'"{word}"',
            f'b"{word}"',
            f'("{word}", {number})',
            "True",
            "None",
            f"-{number}",
            f"{number}j",
            f'f"{word}-{{{number}}}"',
        )
        return self.random.choice(kinds)

    def number(self, low: int = 2, high: int = 9) -> int:
        return self.random.randint(low, high)

    def function(
        self,
        *lines: str,
        arguments: str = "x",
        name: str = "",
        decorators: tuple[str, ...] = (),
        awaited: bool = False,
    ) -> str:
        """Add a function with these lines; what they call is imported at the head or inside."""
        name = name or self.fresh("f")
        head = [*(f"@{each}" for each in decorators)]
        head.append(f"{'async ' if awaited else ''}def {name}({arguments}):")
        body = [*self._inside, *lines]
        self.add("\n".join([*head, *(f"    {line}" for line in body)]))
        self._inside = []
        return name

    def offer(self, name: str) -> None:
        """Have a function of one number found by those that are made later."""
        self.callees.append(Callee(self.module, name, self._cost + 1))
        self.end()

    def end(self) -> None:
        """Begin to count calls anew, for the next function."""
        self._cost, self._inside = 0, []

    def call(self, argument: str = "x") -> str:
        """An expression that calls what was made before, for lines of `function`."""
        callee = self._choose()
        if callee is None:
            return f"mix({argument}, {self.const()})"
        return f"{self._reached(callee, *_AT_THE_TOP, *_INSIDE)}({argument})"

    def call_beneath(self, argument: str) -> tuple[list[str], str]:
        """Statements and an expression for the body of a function that stands in another one."""
        callee = self._choose()
        if callee is None:
            return [], f"mix({argument}, {self.const()})"
        before, self._inside = self._inside, []
        call = f"{self._reached(callee, *_INSIDE)}({argument})"
        taken, self._inside = self._inside, before
        return taken, call

    def callee(self) -> str:
        """An expression for a function that was made before, for a statement at the top level."""
        callee = self._choose()
        if callee is None:
            name = self.fresh("plain")
            self.add(f"def {name}(x):\n    return mix(x, {self.const()})")
            return name
        return self._reached(callee, *_AT_THE_TOP)

    def hold(self, prefix: str, text: str) -> str:
        """Hold a value in a global of the module, which others may read."""
        name = self.fresh(prefix)
        self.add(f"{name} = {text}")
        self.values.append(Callee(self.module, name, 0))
        return name

    def value(self) -> str:
        """An expression for a global of any module, for lines of `function`."""
        return self._reached(self.random.choice(self.values), *_AT_THE_TOP, *_INSIDE)

    def _choose(self) -> Callee | None:
        cheap = [each for each in self.callees if self._cost + each.cost <= _COSTLY]
        if not cheap or self.random.random() < 0.1:
            return None
        alone = [each for each in cheap if each.name not in self._called]
        found = self.random.choice(alone if alone and self.random.random() < 0.8 else cheap)
        self._cost += found.cost
        self._called.add(found.name)
        return found

    def _reached(self, callee: Callee, *ways: Way) -> str:
        if callee.module == self.module:
            return callee.name
        return self.random.choice(ways)(self, callee)

    def passes_on(self, callee: Callee) -> str | None:
        """The package that passes a function of one of its modules on."""
        package = callee.module.partition(".")[0]
        return package if callee.name in self.reexported.get(package, ()) else None

    def inside(self, statement: str) -> None:
        """Have a statement in the body of the function that is being made."""
        if statement not in self._inside:
            self._inside.append(statement)


# Ways from one module to a function of another. Each gives an expression.

Way = Callable[[Maker, Callee], str]


def _module(maker: Maker, callee: Callee) -> str:
    maker.require(f"import {callee.module}")
    return f"{callee.module}.{callee.name}"


def _module_as(maker: Maker, callee: Callee) -> str:
    alias = f"m_{callee.module.replace('.', '_')}"
    maker.require(f"import {callee.module} as {alias}")
    return f"{alias}.{callee.name}"


def _name(maker: Maker, callee: Callee) -> str:
    maker.require(f"from {_spelled(maker, callee)} import {callee.name}")
    return callee.name


def _name_as(maker: Maker, callee: Callee) -> str:
    maker.require(f"from {_spelled(maker, callee)} import {callee.name} as as_{callee.name}")
    return f"as_{callee.name}"


def _star(maker: Maker, callee: Callee) -> str:
    maker.require(f"from {_spelled(maker, callee)} import *")
    return callee.name


def _alias(maker: Maker, callee: Callee) -> str:
    alias = maker.fresh("alias")
    maker.add(f"{alias} = {_module(maker, callee)}")
    return alias


def _module_alias(maker: Maker, callee: Callee) -> str:
    maker.require(f"import {callee.module}")
    alias = maker.fresh("module")
    maker.add(f"{alias} = {callee.module}")
    return f"{alias}.{callee.name}"


def _inner_name(maker: Maker, callee: Callee) -> str:
    maker.inside(f"from {_spelled(maker, callee)} import {callee.name}")
    return callee.name


def _inner_name_as(maker: Maker, callee: Callee) -> str:
    maker.inside(f"from {_spelled(maker, callee)} import {callee.name} as inner_{callee.name}")
    return f"inner_{callee.name}"


def _inner_module(maker: Maker, callee: Callee) -> str:
    alias = f"i_{callee.module.replace('.', '_')}"
    maker.inside(f"import {callee.module} as {alias}")
    return f"{alias}.{callee.name}"


def _inner_top(maker: Maker, callee: Callee) -> str:
    maker.inside(f"import {callee.module}")
    return f"{callee.module}.{callee.name}"


def _local_alias(maker: Maker, callee: Callee) -> str:
    maker.require(f"import {callee.module}")
    alias = maker.fresh("held")
    maker.inside(f"{alias} = {callee.module}")
    return f"{alias}.{callee.name}"


def _by_name(maker: Maker, callee: Callee) -> str:
    maker.require(f"import {callee.module}")
    return f'getattr({callee.module}, "{callee.name}")'


def _module_by_name(maker: Maker, callee: Callee) -> str:
    maker.require("import importlib")
    return f'importlib.import_module("{callee.module}").{callee.name}'


def _spelled(maker: Maker, callee: Callee) -> str:
    """A module as an import may spell it: relative, or the package that passes the name on."""
    package, dot, inner = callee.module.partition(".")
    choices = [callee.module]
    if dot and maker.module.startswith(f"{package}."):
        choices += [f".{inner}", f".{inner}"]
    elif maker.passes_on(callee):
        choices += [package, package]
    return maker.random.choice(choices)


_AT_THE_TOP: tuple[Way, ...] = (
    _module,
    _module,
    _module_as,
    _name,
    _name,
    _name_as,
    _star,
    _alias,
    _module_alias,
)
_INSIDE: tuple[Way, ...] = (
    _inner_name,
    _inner_name_as,
    _inner_module,
    _inner_top,
    _local_alias,
    _by_name,
    _module_by_name,
)
