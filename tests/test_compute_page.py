"""The page on computes: what it shows are settings that are taken, by the cluster classes too."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe.compute import Cuda, Dask, RoutingTaskRunner, Target, Threads
from prefect_mlpipe.compute.targets import adopt_computes
from tests.project import Project

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "compute.md").read_text()
SETTINGS: dict[str, str] = dict(
    re.findall(r"<!-- settings: (\w+) -->\n```toml\n(.*?)```\n", PAGE, re.DOTALL)
)
BLOCKS: dict[str, str] = {
    words.split()[0]: code
    for words, code in re.findall(
        r"<!-- test: ([\w. ]+) -->\n```python\n(.*?)```\n", PAGE, re.DOTALL
    )
}
CLASSES = {"slurm": "dask_jobqueue", "kubernetes": "dask_kubernetes.operator"}


def run(name: str) -> dict[str, Any]:
    """The names that a block defines."""
    names: dict[str, Any] = {"__name__": f"page_{name}"}
    exec(compile(BLOCKS[name], f"docs/compute.md, {name}", "exec"), names)
    return names


def targets_in(value: Any) -> Iterator[Target]:
    for each in value.values() if isinstance(value, dict) else [value]:
        if isinstance(each, Target):
            yield each


def test_every_block_of_the_page_is_tested() -> None:
    assert PAGE.count("```python") == len(BLOCKS)
    assert PAGE.count("```toml") == len(SETTINGS)


@pytest.mark.parametrize(
    ("name", "count"), [("steps", 0), ("slurm", 2), ("kubernetes", 2), ("cost", 2), ("flow", 0)]
)
def test_a_block_makes_its_settings(name: str, count: int) -> None:
    found = [target for value in run(name).values() for target in targets_in(value)]
    assert len(found) == count


def test_the_steps_run_with_the_settings_of_a_laptop(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_MLPIPE_COMPUTE", raising=False)
    (tmp_path / "pyproject.toml").write_text(SETTINGS["laptop"])
    module = project.module("page_steps", BLOCKS["steps"])
    embeddings = project.own(module.embeddings)
    assert embeddings.local([" A ", "BCD"]) == [1, 3]
    computes, named = embeddings.computes()
    graph = embeddings.graph(["a"])
    adopt_computes(graph, list(graph), computes, named)
    assert computes == {"default": Threads(max_workers=4), "gpu": Threads()}


def test_the_settings_of_a_machine_with_gpus_are_those_of_cuda(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_MLPIPE_COMPUTE", raising=False)
    (tmp_path / "pyproject.toml").write_text(SETTINGS["gpu"])
    module = project.module("page_gpu", BLOCKS["steps"])
    _, named = module.embeddings.computes()
    assert named == {"gpu": Cuda(devices=(0, 1), rmm_pool_size="20GiB")}


def test_the_task_runner_of_the_page_is_one_of_ours() -> None:
    assert isinstance(run("flow")["nightly"].task_runner, RoutingTaskRunner)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("which", ["cpu", "gpu"])
def test_the_cluster_class_takes_what_the_page_gives_it(name: str, which: str) -> None:
    """Where it is installed; no cluster is started."""
    pytest.importorskip(CLASSES[name], reason=f"needs {CLASSES[name]}")
    target: Dask = run(name)[which]
    assert isinstance(target.cluster_class, str)
    module, _, kind = target.cluster_class.rpartition(".")
    cluster = getattr(importlib.import_module(module), kind)
    known: set[str] = set()
    for part in (*cluster.__mro__, *getattr(cluster, "job_cls", type).__mro__):
        known |= set(inspect.signature(part.__init__).parameters) if part is not object else set()
    assert target._arguments().keys() <= known
    if target.adapt:
        inspect.signature(cluster.adapt).bind(None, **target.adapt)


def test_the_readme_leads_to_the_page_and_its_links_lead_somewhere() -> None:
    assert "(docs/compute.md)" in (ROOT / "README.md").read_text()
    headings = {
        title.strip().lower().replace(",", "").replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= headings
    assert "## What lives on a GPU" in (ROOT / "docs" / "formats.md").read_text()
