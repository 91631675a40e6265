"""Make a random project: which modules there are, what is in them, and the pipeline."""

from __future__ import annotations

from random import Random

from tests.fuzz import classes, functions, values
from tests.fuzz.projects import Maker, Project

_LAYOUTS = (
    ("tools", "main"),
    ("low", "high", "main"),
    ("pkg.inner", "pkg.outer", "pkg", "main"),
    ("tools", "pkg.inner", "pkg", "rest", "main"),
    ("low", "pkg.inner", "pkg.outer", "pkg", "main"),
)
_KINDS = (functions.SHAPES, functions.SHAPES, classes.SHAPES, values.SHAPES)


def make(random: Random) -> Project:
    """Make a project of two to five modules."""
    m = Maker(random)
    for module in random.choice(_LAYOUTS):
        if module == "pkg":
            _package(m)
            continue
        m.begin(module)
        if module == "main":
            m.require("from prefect_mlpipe import step")
        for _ in range(random.randint(2, 4)):
            shape = random.choice(random.choice(_KINDS))
            m.offer(shape(m))
        if module == "main":
            _pipeline(m)
    return Project({name: tuple(statements) for name, statements in m.modules.items()})


def _package(m: Maker) -> None:
    """Have a package pass on some of what its modules hold."""
    names: list[str] = []
    lines: list[str] = []
    for callee in m.callees:
        package, dot, inner = callee.module.partition(".")
        if package != "pkg" or not dot or m.random.random() < 0.3:
            continue
        way = m.random.choice((f".{inner} import {callee.name}", f"{callee.module} import *"))
        lines.append(f"from {way}")
        names.append(callee.name)
    if m.number() > 7:
        lines.append(f"from . import {m.random.choice(_inner_modules(m))}")
    m.modules["pkg"] = list(dict.fromkeys(lines)) or ["VERSION = 1"]
    m.reexported["pkg"] = names


def _inner_modules(m: Maker) -> list[str]:
    return [name.partition(".")[2] for name in m.modules if name.startswith("pkg.")]


# Steps

_RETURNS = (
    "return y",
    "return [y, {const}]",
    'return {{"y": y, "more": {const}}}',
    "return (y, {const})",
    "return np.array([y % 9, {number}])",
    "return float(y % 999)",
    "return str(y)",
    "return bool(y % {number})",
)


def _pipeline(m: Maker) -> None:
    names: list[str] = []
    lines: list[str] = []
    for at in range(m.random.randint(2, 3)):
        name = _step(m)
        given = _argument(m, [f"o{each}" for each in range(at)])
        by_name = m.random.random() < 0.3
        lines.append(f"    o{at} = {name}({given}{', other=' + m.const() if by_name else ''})")
        names.append(f"o{at}")
        if m.number() == 9:
            lines.append(f"    p{at} = {name}.map([{m.number()}, {m.number()}])")
            names.append(f"p{at}")
    m.add("\n".join(["def main():", *lines, f"    return ({', '.join(names)},)"]))


def _step(m: Maker) -> str:
    name = m.fresh("step")
    decorators: tuple[str, ...] = ("step",)
    if m.number() > 7:
        around = functions.decorator(m, m.number() > 4, False)
        decorators = (f'step(name="{name}")', around)
    calls = [m.call("number") for _ in range(m.random.randint(1, 3))]
    returned = m.random.choice(_RETURNS).format(const=m.const(), number=m.number())
    if "np." in returned:
        m.require("import numpy as np")
    annotation = m.random.choice(("", ": object", ": 'object'"))
    m.function(
        "number = mix(given() if callable(given) else given, other)",
        f"y = mix({', '.join(calls)}, {m.const()})",
        returned,
        arguments=f"given{annotation}, other={m.const()}",
        name=name,
        decorators=decorators,
    )
    m.end()
    return name


def _argument(m: Maker, outputs: list[str]) -> str:
    """What a step is given: a literal, a function, an output, or a structure of these."""
    chance = m.random.random()
    if outputs and chance < 0.6:
        output = m.random.choice(outputs)
        return m.random.choice((output, output, f"[{output}, {m.const()}]", f'{{"a": {output}}}'))
    if chance < 0.7:
        return f"lambda: mix({m.const()}, {m.callee()}({m.number()}))"
    if chance < 0.8:
        m.require("import functools")
        return f"functools.partial({m.callee()}, {m.number()})"
    return m.random.choice((m.const(), m.const(), f"[{m.const()}, {{1: {m.const()}}}]"))
