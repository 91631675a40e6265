"""The source of what is loaded, or none: never another one."""

from __future__ import annotations

import linecache
from textwrap import dedent

import pytest

from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.core.telling.kept_code import KeptCode, kept
from prefect_mlpipe.core.telling.sources import looks, sources
from tests.core.projects import Project

WHOLE = '''\
@helpers.twice
def clean(
    x,
    n=1,
):
    """Clean."""
    # as agreed
    return sum(
        [x, n],
    )
'''
HELPERS = "def twice(f):\n    return f\n"
STEP = "import helpers\n\n\n{}\n\ndef step(x): return clean(x)\n"


def test_the_text_is_whole_from_the_decorator_to_the_last_bracket(project: Project) -> None:
    code = project.read({"helpers.py": HELPERS, "steps.py": STEP.format(WHOLE)})
    assert sources(code)["steps.clean"] == WHOLE.rstrip()
    assert "helpers.K" not in sources(code)


EDITS = {
    "body": ("sum(", "min("),
    "default": ("n=1", "n=2"),
    "argument": ("    x,", "    y,"),
    "gone": (WHOLE, "clean = abs\n"),
    "broken": ("):", "))):"),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_text_that_is_not_what_is_loaded_is_not_shown(project: Project, what: str) -> None:
    module = project.load({"helpers.py": HELPERS, "steps.py": STEP.format(WHOLE)})
    project.write({"steps.py": STEP.format(WHOLE).replace(*EDITS[what])})
    assert "steps.clean" not in sources(CodeReader().read(module.step))


def test_a_text_that_only_moved_is_found(project: Project) -> None:
    module = project.load({"helpers.py": HELPERS, "steps.py": STEP.format(WHOLE)})
    project.write({"steps.py": "# new\n\n" + STEP.format("K = 1\n" + WHOLE)})
    assert sources(CodeReader().read(module.step))["steps.clean"] == WHOLE.rstrip()


def test_a_file_that_is_gone_gives_nothing(project: Project) -> None:
    module = project.load(STEP.format("def clean(x): return x").removeprefix("import helpers\n"))
    (project.folder / "steps.py").unlink()
    assert sources(CodeReader().read(module.step)) == {}


CLASSES = {
    "plain": "class C:\n    rate = 2\n    def of(self, x):\n        return x * self.rate",
    "dataclass": "@dataclass(frozen=True)\nclass C:\n    rate: int = 2\n\n    def of(self, x):\n"
    "        return x * self.rate",
    "enum": "class C(Enum):\n    A = 1\n    B = 2\n\n    @classmethod\n    def of(cls, x):\n"
    "        return cls.A",
    "property": "class C:\n    @property\n    def one(self):\n        return 1\n\n    @one.setter\n"
    "    def one(self, value):\n        pass\n    def of(self, x):\n        return self.one",
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_shown_whole(project: Project, kind: str) -> None:
    above = "from dataclasses import dataclass\nfrom enum import Enum\n"
    made = "C" if kind == "enum" else "C()"
    source = f"{above}{CLASSES[kind]}\n\ndef step(x): return {made}.of(x)\n"
    module = project.load(source)
    assert sources(CodeReader().read(module.step))["steps.C"] == CLASSES[kind]
    for old, new in ((" = 2", " = 3"), ("return ", "return 7, ")):
        if old in CLASSES[kind]:
            project.write({"steps.py": source.replace(old, new)})
            assert "steps.C" not in sources(CodeReader().read(module.step))


def test_a_cell_of_a_notebook_has_a_source() -> None:
    cell = "import asyncio\nawait asyncio.sleep(0)\ndef step(x):\n    return x + 1\n"
    name = "<ipython-input-1-abc>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile("def step(x):\n    return x + 1\n", name, "exec"), names)
    try:
        found = sources(CodeReader().read(names["step"]))  # type: ignore[arg-type]
    finally:
        del linecache.cache[name]
    assert [*found.values()] == ["def step(x):\n    return x + 1"]


def test_values_that_no_source_tells_stand_beside_it(project: Project) -> None:
    source = """
        K = 3
        def by(rate):
            def scaled(x, k=K):
                return x * rate + k
            return scaled
        scaled = by(2)
        scaled.note = "n"
        def step(x): return scaled(x)
    """
    code = project.read(dedent(source))
    look = looks(code, code.parts.keys())["steps.by.<locals>.scaled"]
    assert look.values == {"default k": "3", "attribute note": "'n'", "closure rate": "2"}


def test_what_looks_as_before_is_not_kept_again(project: Project) -> None:
    source = "def a(x): return x\ndef b(x): return x + 1\ndef step(x): return a(x) + b(x)\n"
    first = kept(project.read(source), None, lambda code: None)
    store = {"first": first.to_json()}
    assert first.looks.keys() == {"steps.a", "steps.b", "steps.step"}
    later = project.read(source.replace("x + 1", "x + 2"))
    second = kept(later, "first", store.get)
    assert second.looks.keys() == {"steps.b"}
    store["second"] = second.to_json()
    third = kept(project.read(source.replace("x + 1", "x + 3")), "second", store.get)
    assert third.elsewhere == {"steps.a": "first", "steps.step": "first"}
    read = KeptCode.from_json(third.to_json())
    look = read.look("steps.a", store.get)
    assert look is not None
    assert look.source == "def a(x): return x"
    assert read.look("steps.a", lambda code: None) is None
    assert read.look("steps.none", store.get) is None


def test_a_document_never_says_that_the_texts_stand_in_itself(project: Project) -> None:
    code = project.read("def step(x): return x\n")
    first = kept(code, None, lambda digest: None)
    store = {code.digest: first.to_json()}
    again = kept(code, code.digest, store.get)
    assert again == first
