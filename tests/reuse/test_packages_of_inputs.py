"""Packages that a step reaches only through the types of its inputs."""

from __future__ import annotations

import shutil

import pytest

from tests.reuse.lab import Lab

PATHS = """
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "site-packages"))
"""
SHAPES = """
import enum

FACTOR = {factor}

class Box:
    def __init__(self, side): self.side = side
    def __eq__(self, other): return type(other) is type(self) and other.side == self.side
    def __hash__(self): return hash(self.side)
    def area(self): return FACTOR * self.side

class Size(enum.Enum):
    SMALL = 1
    def area(self): return FACTOR * self.value

class Wrong(Exception):
    def area(self): return FACTOR * self.args[0]

class Meta(type):
    def area(cls): return FACTOR * 3

class Slotted:
    __slots__ = ("side",)
    def __init__(self, side): self.side = side
    def area(self): return FACTOR * self.side

def area(side): return FACTOR * side
"""
# What a user builds with the package, in a module that no step reaches.
MODELS = """
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import shapes

class Own(shapes.Box):
    name = "own"

class Further(Own):
    pass

class OfMeta(metaclass=shapes.Meta):
    pass

@dataclass
class Holder:
    box: shapes.Box
    more: list = field(default_factory=list)

class Two(NamedTuple):
    one: shapes.Box
    two: shapes.Box

class Plain:
    def __init__(self, box): self.box = box

def objects(*boxes):
    made = np.empty(len(boxes), dtype=object)
    made[:] = boxes
    return made
"""


def install(lab: Lab, version: str, factor: int, name: str = "shapes") -> None:
    """Install a distribution as pip does; what was there before goes."""
    folder = lab.folder / "site-packages"
    for old in folder.glob(f"{name}*"):
        shutil.rmtree(old)
    info = f"site-packages/{name}-{version}.dist-info"
    lab.write(
        {
            f"site-packages/{name}/__init__.py": SHAPES.format(factor=factor),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/RECORD": f"{name}/__init__.py,,\n",
            f"{info}/INSTALLER": "pip\n",
        }
    )


VALUES = {
    "an instance": ("shapes.Box(2)", "x.area()"),
    "with slots": ("shapes.Slotted(2)", "x.area()"),
    "in a list": ("[1, shapes.Box(2)]", "x[1].area()"),
    "in a tuple in a dict": ("{'a': (shapes.Box(2),)}", "x['a'][0].area()"),
    "as the key of a dict": ("{shapes.Box(2): 1}", "[*x][0].area()"),
    "in a set": ("{shapes.Box(2)}", "[*x][0].area()"),
    "in a field of a dataclass": ("models.Holder(shapes.Box(2))", "x.box.area()"),
    "deep in a dataclass": (
        "models.Holder(None, [{'a': shapes.Box(2)}])",
        "x.more[0]['a'].area()",
    ),
    "in a named tuple": ("models.Two(shapes.Box(1), shapes.Box(2))", "x.two.area()"),
    "in an attribute": ("models.Plain(shapes.Box(2))", "x.box.area()"),
    "an instance of a subclass of the user's": ("models.Own(2)", "x.area()"),
    "an instance of a subclass further down": ("[models.Further(2)]", "x[0].area()"),
    "an instance of a class made by its metaclass": ("models.OfMeta()", "type(x).area()"),
    "a class of the user's that it made": ("models.OfMeta", "x.area()"),
    "a member of an enum": ("shapes.Size.SMALL", "x.area()"),
    "an exception": ("shapes.Wrong(2)", "x.area()"),
    "a class": ("shapes.Box", "x(2).area()"),
    "a function": ("shapes.area", "x(2)"),
    "a partial": ("models.functools.partial(shapes.area, 2)", "x()"),
    "a bound method": ("shapes.Box(2).area", "x()"),
    "a lambda that calls it": ("lambda: shapes.area(2)", "x()"),
    "in an array of objects": ("models.objects(shapes.Box(2))", "x[0].area()"),
    "in a column of objects": (
        "models.pd.DataFrame({'a': models.objects(shapes.Box(2))})",
        "x['a'][0].area()",
    ),
    "in the attributes of a table": (
        "(lambda t: (t.attrs.update(box=shapes.Box(2)), t)[1])(models.pd.DataFrame({'a': [1]}))",
        "x.attrs['box'].area()",
    ),
}


def typed(value: str, use: str) -> dict[str, str]:
    """A project whose step gets a value as a literal, and another gets it from a step."""
    return {
        "paths.py": PATHS,
        "models.py": MODELS,
        "main.py": f"""
import paths
import models
import shapes

@step
def literal(x: object) -> int:
    ran("literal")
    return {use}

@step
def made() -> object:
    ran("made")
    return {value}

@step
def output(x: object) -> int:
    ran("output")
    return {use}

@pipeline
def main() -> list[int]:
    return [literal({value}), output(made())]
""",
    }


@pytest.mark.parametrize(("value", "use"), VALUES.values(), ids=VALUES)
def test_an_upgrade_of_the_package_that_owns_a_type_is_seen(lab: Lab, value: str, use: str) -> None:
    install(lab, "1.0", 1)
    lab.write(typed(value, use))
    first = lab.run()
    assert first.error is None, first.traceback
    assert first.value == lab.oracle()
    assert lab.run().ran == []
    install(lab, "2.0", 10)
    outcome = lab.run(plan=True)
    assert outcome.error is None, outcome.traceback
    assert outcome.value == lab.oracle() != first.value
    assert outcome.ran == ["literal", "made", "output"]
    for step in ("literal", "output"):
        assert outcome.reasons(step) == ["environment changed: shapes 1.0 → 2.0"], step
    assert outcome.plan["literal"] == ("run", ["environment changed: shapes 1.0 → 2.0"])


def test_an_upgrade_is_seen_by_a_reader_of_a_reused_output(lab: Lab) -> None:
    """Who made the value does not reach the package: what it holds came in as an argument."""
    source = """
        import paths
        import shapes

        @step
        def kept(x: object) -> list:
            ran("kept")
            return [x]

        @step(version="1")
        def reader(x: list) -> int:
            ran("reader")
            return x[0].area()

        @step
        def counted(x: list) -> int:
            ran("counted")
            return 1

        @pipeline
        def main() -> object:
            items = kept.map([shapes.Box(1), shapes.Box(2)])
            return reader.map(items), counted([1])
    """
    install(lab, "1.0", 1)
    lab.write({"paths.py": PATHS, "main.py": source})
    first = lab.run()
    assert first.error is None, first.traceback
    assert lab.run().ran == []
    install(lab, "2.0", 10)
    outcome = lab.run()
    assert outcome.error is None, outcome.traceback
    assert outcome.value == lab.oracle() != first.value
    assert outcome.ran == ["kept", "kept", "reader", "reader"]


def test_a_field_is_read_with_the_packages_of_its_own_types_only(lab: Lab) -> None:
    source = """
        import paths
        import shapes
        from typing import NamedTuple

        class Parts(NamedTuple):
            box: object
            count: int

        @step
        def split() -> Parts:
            ran("split")
            return Parts(shapes.Box(2), 3)

        @step
        def sized(x: object) -> int:
            ran("sized")
            return x.area()

        @step
        def counted(x: int) -> int:
            ran("counted")
            return x

        @step
        def whole(x: Parts) -> int:
            ran("whole")
            return x.box.area()

        @pipeline
        def main() -> list[int]:
            parts = split()
            return [sized(parts.box), counted(parts.count), whole(parts)]
    """
    install(lab, "1.0", 1)
    lab.write({"paths.py": PATHS, "main.py": source})
    first = lab.run()
    assert first.error is None, first.traceback
    assert lab.run().ran == []
    install(lab, "2.0", 10)
    outcome = lab.run()
    assert outcome.value == lab.oracle() != first.value
    assert outcome.ran == ["sized", "split", "whole"]


def test_an_upgrade_is_seen_through_what_is_declared(lab: Lab) -> None:
    source = """
        import importlib
        import paths
        import shapes
        import sizes

        @step(reads=[{declared}])
        def work(name: str) -> int:
            ran("work")
            return importlib.import_module("sizes").{called}

        @pipeline
        def main() -> int:
            return work("a")
    """
    sizes = """
        import shapes
        BOX = shapes.Box(2)
        def size(): return shapes.area(2)
        class Sized:
            def size(self): return shapes.area(3)
    """
    for declared, called in {
        "sizes.size": "size()",
        "sizes.Sized": "Sized().size()",
        "sizes.BOX": "BOX.area()",
        "sizes": "size()",
        "shapes.area": "shapes.area(2)",
    }.items():
        install(lab, "1.0", 1)
        lab.write(
            {
                "paths.py": PATHS,
                "sizes.py": sizes,
                "main.py": source.format(declared=declared, called=called),
            }
        )
        first = lab.run()
        assert first.error is None, first.traceback
        assert lab.run().ran == []
        install(lab, "2.0", 10)
        outcome = lab.run()
        assert outcome.value == lab.oracle() != first.value, declared
        assert outcome.reasons() == ["environment changed: shapes 1.0 → 2.0"]


def test_an_upgrade_of_another_package_runs_nothing(lab: Lab) -> None:
    for name in ("shapes", "colours"):
        install(lab, "1.0", 1, name)
    source = typed("shapes.Box(2)", "x.area()")
    source["main.py"] = source["main.py"].replace("import models", "import models, colours")
    lab.write(source)
    assert lab.run().ran == ["literal", "made", "output"]
    install(lab, "2.0", 10, "colours")
    assert lab.run().ran == []


def test_a_package_that_comes_to_an_input_is_named(lab: Lab) -> None:
    install(lab, "1.0", 1)
    lab.write(typed("[1]", "len(x)"))
    lab.run()
    lab.write(typed("[1, shapes.Box(2)]", "len(x)"))
    outcome = lab.run()
    assert outcome.value == lab.oracle()
    assert "environment changed: shapes absent → 1.0" in outcome.reasons("output")
