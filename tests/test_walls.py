"""Imports go downward only, and the first import of the package is a light one."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import prefect_mlpipe

PACKAGE = Path(prefect_mlpipe.__file__).parent

# From the ground up: a module may import what stands in a row above its own, or in its own row.
LAYERS = (
    "errors",
    "active",
    "core",
    "formats",
    "settings",
    "stores",
    "step_options",
    "asking",
    "steps",
    "current",
    "replays",
    "tracing",
    "engine",
    "reporting",
    "compute",
    "entries",
    "explaining",
    "baseline",
    "step_results",
    "runs",
    "all_runs",
    "publishing",
    "parameters",
    "plans",
    "planning",
    "keeping",
    "conduct",
    "localruns",
    "flowruns",
    "deploy",
    "deployable",
    "pipeline_options",
    "pipelines",
    "doctor",
    "cli",
    "__init__",
    "__main__",
)

# The rooms of the core, likewise from the ground up.
ROOMS = (
    "environment",
    "heap",
    "nested",
    "annotations",
    "record",
    "places",
    "encoding",
    "reading",
    "code",
    "digest",
    "files",
    "formats",
    "held",
    "telling",
    "manifest",
    "decide",
    "graph",
    "leases",
    "storing",
    "upkeep",
    "store",
    "shipping",
    "bundling",
)

# What each layer may not import, neither at its top nor inside a function.
FOREIGN = {
    "errors": {"prefect", "dask", "distributed"},
    "core": {"prefect", "dask", "distributed"},
    "formats": {"prefect", "dask", "distributed"},
    "tracing": {"dask", "distributed"},
    "engine": {"prefect", "dask", "distributed"},
    "reporting": {"dask", "distributed"},
    "step_results": {"dask", "distributed"},
    "runs": {"dask", "distributed"},
    "deploy": {"dask", "distributed"},
    "pipeline_options": {"dask", "distributed"},
    "deployable": {"dask", "distributed"},
    "pipelines": {"dask", "distributed"},
    "cli": {"dask", "distributed"},
}

HEAVY = {"dask", "distributed", "matplotlib", "pandas", "pyarrow", "s3fs", "sklearn", "torch"}


def modules() -> list[str]:
    """The dotted names of all modules, seen from the package: `core.store`, `errors`."""
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def layer(name: str) -> int:
    """The row of a module; what is none is a public name, found in `__init__`."""
    module = name.partition(".")[0]
    return LAYERS.index(module if source(module).exists() else "__init__")


def source(module: str) -> Path:
    file = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    return file if file.exists() else file.with_suffix("") / "__init__.py"


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes, but for what only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from statements(node)


def imports(module: str) -> set[str]:
    """The absolute names of everything that a module imports, anywhere in it."""
    found = set()
    for node in statements(ast.parse(source(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inside(module: str) -> set[str]:
    """What a module imports of this package, seen from the package."""
    own = {name for name in imports(module) if name.split(".")[0] == "prefect_mlpipe"}
    return {name.removeprefix("prefect_mlpipe").removeprefix(".") or "__init__" for name in own}


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    upward = {name for name in inside(module) if layer(name) > layer(module)}
    assert not upward


def room(name: str) -> int:
    return ROOMS.index(name.split(".")[1])


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("core.")])
def test_a_room_of_the_core_knows_only_what_lies_below_it(module: str) -> None:
    upward = {name for name in inside(module) if name[:5] == "core." and room(name) > room(module)}
    assert not upward


@pytest.mark.parametrize("module", [name for name in modules() if name.split(".")[0] in FOREIGN])
def test_a_layer_knows_nothing_of_what_it_must_not_know(module: str) -> None:
    known = {name.split(".")[0] for name in imports(module)}
    assert not known & FOREIGN[module.split(".")[0]]


def test_no_two_modules_import_each_other() -> None:
    names = set(modules()) - {"__init__"}
    edges = {
        module: {known for name in inside(module) for known in prefixes(name) if known in names}
        - {module}
        for module in names
    }
    while leaves := {module for module in edges if not edges[module] & edges.keys()}:
        edges = {module: edges[module] for module in edges.keys() - leaves}
    assert not edges, f"circles among {sorted(edges)}"


def prefixes(name: str) -> list[str]:
    """The longest known module that a dotted name stands for comes first: `core.store.Store`."""
    parts = name.split(".")
    found = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return [name for name in found if source(name).exists()][:1]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, prefect_mlpipe; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_all_public_names_are_listed_and_all_listed_names_are_there() -> None:
    listed = prefect_mlpipe.__all__
    for name in listed:
        assert getattr(prefect_mlpipe, name) is not None
    seen = {
        name
        for name, value in vars(prefect_mlpipe).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert seen <= set(listed)
