"""Processes that have imported another version of the code than the key was made of."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import pytest

from prefect_mlpipe.compute import Dask
from prefect_mlpipe.errors import CodeMismatch, EnvironmentMismatch
from tests.project import Project
from tests.reuse.lab import Lab
from tests.reuse.rows import work
from tests.server import Server

LIVING = work("clean(x)", "from helpers import clean")["main.py"]


def test_the_key_follows_the_code_that_a_living_process_has_loaded(lab: Lab) -> None:
    """A process that serves for weeks runs the code that it has imported, under that code's key."""
    lab.write({"helpers.py": "def clean(x): return x + 1", "main.py": LIVING})
    edited = "import pathlib; pathlib.Path('helpers.py').write_text('def clean(x): return x + 2')"
    old = lab.run(setup=edited, plan=True)
    assert (old.value, old.ran) == ("builtins.int 2", ["work"])
    new = lab.run()
    assert (new.value, new.ran) == ("builtins.int 3", ["work"])
    assert new.reasons() == ["code changed: helpers.clean"]
    lab.write({"helpers.py": "def clean(x): return x + 1"})
    again = lab.run(setup=edited, plan=True)
    assert (again.value, again.ran) == ("builtins.int 2", [])
    assert again.plan["work"] == ("reuse", [])
    assert lab.run().value == "builtins.int 3"


def test_a_module_that_is_loaded_anew_between_two_calls_is_seen(lab: Lab) -> None:
    source = """
        import importlib, pathlib
        import helpers

        @step
        def work(x: int) -> int:
            ran("work")
            return helpers.clean(x)

        @pipeline
        def main(x: int = 1) -> int:
            return work(x)

        def again(store):
            own = main.with_options(store=store)
            pathlib.Path("helpers.py").write_text("def clean(x): return x + 20")
            stale = own.local()
            importlib.reload(helpers)
            return [stale, own.local(), [*map(str, own.runs.last()["work"].reasons)]]
    """
    lab.write({"helpers.py": "def clean(x): return x + 1", "main.py": source})
    outcome = lab.run(after=f"again({lab.store!r})")
    assert outcome.error is None, outcome.traceback
    assert outcome.extra == [2, 21, ["code changed: helpers.clean"]]
    assert outcome.ran == ["work", "work"]


@pytest.fixture(scope="module")
def worker() -> Iterator[Any]:
    """One worker process, that outlives many runs."""
    from distributed import Client

    cluster = Dask(n_workers=1, threads_per_worker=1).start()
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        yield client
    cluster.close()


class Stale:
    """A worker that has imported old versions of modules, and a driver with new ones."""

    def __init__(self, project: Project, client: Any) -> None:
        self.project, self.client = project, client
        self.there = Dask(address=client.scheduler.address)
        self.old = project.folder / "old"
        self.old.mkdir()

    def given(self, old: dict[str, str], new: dict[str, str]) -> Any:
        """Have the worker import old modules; return the driver's last."""
        for name, source in old.items():
            (self.old / f"{name}.py").write_text(dedent(source))
        self.on_worker(_import_anew, str(self.old), [*old], [*new])
        return [self.project.module(name, source) for name, source in new.items()][-1]

    def on_worker(self, function: Any, *args: Any) -> Any:
        return self.client.submit(function, *args, pure=False).result(timeout=60)

    def own(self, pipeline: Any) -> Any:
        return self.project.own(pipeline, compute={"far": self.there})


def _import_anew(folder: str, names: list[str], others: list[str]) -> None:
    import contextlib
    import importlib
    import sys

    sys.dont_write_bytecode = True
    for name in (*names, *others):
        sys.modules.pop(name, None)
    sys.path[:] = [folder, *(each for each in sys.path if not each.endswith("/old"))]
    importlib.invalidate_caches()
    for name in names:
        with contextlib.suppress(RuntimeError, SyntaxError, AttributeError):
            importlib.import_module(name)


@pytest.fixture
def stale(project: Project, worker: Any, api: Server) -> Stale:
    return Stale(project, worker)


STEPS = """
from prefect_mlpipe import pipeline, resolve, step
import {imported}

@step(compute="far")
def work(x: object) -> object:
    return {expression}

@step
def made(x: int) -> object:
    return {made}

@pipeline
def main() -> object:
    return {body}
"""


def steps(expression: str, body: str, made: str = "x", imported: str = "ours_b") -> str:
    return STEPS.format(expression=expression, body=body, made=made, imported=imported)


POINT = """
class Point:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return isinstance(other, Point) and other.x == self.x
    def __hash__(self): return hash(self.x)
    def size(self): return self.x * {factor}
"""
# What the worker has, what the driver has, the steps.
STALE = {
    "a helper in another module": (
        "def f(x): return x * 2",
        "def f(x): return x * 100",
        steps("ours_b.f(x)", "work(3)"),
        300,
    ),
    "a constant in another module": ("K = 2", "K = 100", steps("x * ours_b.K", "work(3)"), 300),
    "a class in another module": (
        POINT.format(factor=2),
        POINT.format(factor=100),
        steps("ours_b.Point(x).size()", "work(3)"),
        300,
    ),
    "the class of an argument": (
        POINT.format(factor=2),
        POINT.format(factor=100),
        steps("x.size()", "work(ours_b.Point(3))"),
        300,
    ),
    "the class of an argument, deep in it": (
        POINT.format(factor=2),
        POINT.format(factor=100),
        steps("x['a'][0].size()", "work({'a': [ours_b.Point(3)]})"),
        300,
    ),
    "a function that is an argument": (
        "def f(x): return x * 2",
        "def f(x): return x * 100",
        steps("x(3)", "work(ours_b.f)"),
        300,
    ),
    "a class that the worker does not have": (
        "",
        POINT.format(factor=100),
        steps("x.size()", "work(ours_b.Point(3))"),
        300,
    ),
    "a function that the worker does not have": (
        "",
        "def f(x): return x * 100",
        steps("ours_b.f(x)", "work(3)"),
        300,
    ),
    "a module that fails on the worker": (
        "raise RuntimeError('of the worker')",
        "def f(x): return x * 100",
        steps("ours_b.f(x)", "work(3)"),
        300,
    ),
    "a module that is no Python on the worker": (
        "def of the worker",
        "def f(x): return x * 100",
        steps("ours_b.f(x)", "work(3)"),
        300,
    ),
}


@pytest.mark.parametrize(("old", "new", "main", "right"), STALE.values(), ids=STALE)
def test_a_worker_that_has_imported_an_old_version_runs_the_new_one(
    stale: Stale, old: str, new: str, main: str, right: int
) -> None:
    module = stale.given({"ours_b": old, "ours_a": main}, {"ours_b": new, "ours_a": main})
    pipeline = stale.own(module.main)
    assert pipeline() == right
    assert pipeline.local() == right
    assert pipeline.runs.last()["work"].state == "reused"


@pytest.mark.parametrize("body", ["work(made(3))", "work([made(3)])"])
def test_a_stored_input_whose_class_is_old_on_the_worker_is_refused(
    stale: Stale, body: str
) -> None:
    read = "x[0].size()" if "[" in body else "x.size()"
    main = steps(read, body, made="ours_b.Point(x)")
    old, new = POINT.format(factor=2), POINT.format(factor=100)
    module = stale.given({"ours_b": old, "ours_a": main}, {"ours_b": new, "ours_a": main})
    pipeline = stale.own(module.main)
    with pytest.raises(CodeMismatch, match="Step 'work'") as caught:
        pipeline()
    assert "ours_b.Point" in str(caught.value)
    assert pipeline.runs.last()["work"].key is None
    assert pipeline.plan().steps[-1].action == "run"
    assert pipeline.local() == 300


def test_a_stored_input_whose_class_is_the_same_on_the_worker_is_read(stale: Stale) -> None:
    main = steps("x.size()", "work(made(3))", made="ours_b.Point(x)")
    both = {"ours_b": POINT.format(factor=100), "ours_a": main}
    pipeline = stale.own(stale.given(both, both).main)
    assert pipeline() == 300


def test_what_an_old_worker_returns_is_of_the_drivers_class(stale: Stale) -> None:
    main = steps("ours_b.Point(x)", "work(3)")
    old, new = POINT.format(factor=2), POINT.format(factor=100)
    module = stale.given({"ours_b": old, "ours_a": main}, {"ours_b": new, "ours_a": main})
    found = stale.own(module.main)()
    assert found.size() == 300
    assert isinstance(found, module.ours_b.Point)


BOXES = """
class Box:
    def __init__(self, side):
        self.side = side

    def area(self):
        return {factor} * self.side
"""


def test_a_worker_with_another_version_of_a_package_is_refused(
    stale: Stale, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = """
        import shapes_of_ours
        from prefect_mlpipe import pipeline, step

        @step(compute="far")
        def work(x: object) -> int:
            return x.area()

        @pipeline
        def main() -> int:
            return work(shapes_of_ours.Box(2))
    """
    for where, version, factor in (("old", "1.0", 1), ("new", "2.0", 10)):
        packages = stale.project.folder / where / "site-packages"
        (packages / "shapes_of_ours").mkdir(parents=True)
        (packages / "shapes_of_ours" / "__init__.py").write_text(BOXES.format(factor=factor))
        info = packages / f"shapes_of_ours-{version}.dist-info"
        info.mkdir()
        told = f"Metadata-Version: 2.1\nName: shapes_of_ours\nVersion: {version}\n"
        (info / "METADATA").write_text(told)
        (info / "RECORD").write_text("shapes_of_ours/__init__.py,,\n")
    packages = stale.project.folder / "old" / "site-packages"
    stale.on_worker(lambda path: __import__("sys").path.insert(0, path), str(packages))
    monkeypatch.syspath_prepend(str(stale.project.folder / "new" / "site-packages"))
    module = stale.project.module("ours_c", main)
    pipeline = stale.own(module.main)
    with pytest.raises(EnvironmentMismatch, match="Step 'work'") as caught:
        pipeline()
    assert caught.value.facts["shapes_of_ours"] == "driver 2.0, worker 1.0"
    assert pipeline.runs.last()["work"].key is None
    assert pipeline.local() == 20
