"""Computes named in the settings: what goes before what, and errors that say where it stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.compute import Cuda, Dask, RoutingTaskRunner, Target, Threads
from prefect_mlpipe.compute.targets import adopt_computes
from prefect_mlpipe.errors import InvalidCompute, NoSuchCompute
from tests.project import Project

VARIABLE = "PREFECT_MLPIPE_COMPUTE"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write the tables below `[tool.prefect-mlpipe]`, in a folder above the working directory."""
    inner = tmp_path / "project" / "flows"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.delenv(VARIABLE, raising=False)

    def write(text: str) -> None:
        (tmp_path / "project" / "pyproject.toml").write_text(text)

    return write


@step(compute="gpu")
def train(depth: int) -> int:
    return depth + 1


@pipeline
def trees(depth: int = 1) -> int:
    return train(depth)


@pipeline(compute={"gpu": Threads(max_workers=2)})
def with_compute(depth: int = 1) -> int:
    return train(depth)


@pipeline
def outer(depth: int = 1) -> int:
    return with_compute(depth)


def adopted(one: Any) -> dict[str, Target]:
    """Name → target, as a run of the pipeline takes them up."""
    graph = one.graph()
    computes, named = one.computes()
    adopt_computes(graph, list(graph), computes, named)
    return dict(computes)


GPU = "[tool.prefect-mlpipe.compute.gpu]\n"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ('kind = "threads"\nmax_workers = 3', Threads(max_workers=3)),
        (
            'kind = "cuda"\nrmm_pool_size = "20GiB"\ndevices = [0, 1]\ncost_per_hour = 2.5',
            Cuda(rmm_pool_size="20GiB", devices=(0, 1), cost_per_hour=2.5),
        ),
        (
            'kind = "dask"\ncluster_class = "dask_jobqueue.SLURMCluster"\nshared_store = true\n'
            "cluster_kwargs = {cores = 8}\nadapt = {maximum = 4}",
            Dask(
                cluster_class="dask_jobqueue.SLURMCluster",
                shared_store=True,
                cluster_kwargs={"cores": 8},
                adapt={"maximum": 4},
            ),
        ),
    ],
    ids=["threads", "cuda", "dask"],
)
def test_the_file_names_computes_of_every_kind(
    text: str, target: Target, file: Callable[[str], None], project: Project
) -> None:
    file(GPU + text)
    assert adopted(project.own(trees))["gpu"] == target


def test_call_goes_before_pipeline_before_environment_before_file(
    file: Callable[[str], None], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(GPU + 'kind = "cuda"\nrmm_pool_size = "20GiB"')
    assert adopted(project.own(trees))["gpu"] == Cuda(rmm_pool_size="20GiB")
    monkeypatch.setenv(VARIABLE, '{"gpu": {"kind": "threads", "max_workers": 5}}')
    assert adopted(project.own(trees))["gpu"] == Threads(max_workers=5)
    assert adopted(project.own(with_compute))["gpu"] == Threads(max_workers=2)
    assert adopted(project.own(outer))["gpu"] == Threads(max_workers=2)
    called = project.own(with_compute, compute={"gpu": Threads(max_workers=1)})
    assert adopted(called)["gpu"] == Threads(max_workers=1)


def test_names_of_the_file_stand_beside_those_of_the_environment(
    file: Callable[[str], None], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(GPU + 'kind = "threads"\n[tool.prefect-mlpipe.compute.default]\nkind = "dask"')
    monkeypatch.setenv(VARIABLE, '{"gpu": {"kind": "dask", "n_workers": 2}}')
    assert adopted(project.own(trees)) == {"default": Dask(), "gpu": Dask(n_workers=2)}


def test_a_run_takes_the_compute_of_the_settings_and_does_not_list_those_it_needs_not(
    file: Callable[[str], None], project: Project
) -> None:
    owned = project.own(trees)
    with pytest.raises(NoSuchCompute, match=r"\[tool\.prefect-mlpipe\.compute\.gpu\]"):
        owned.local()
    file(GPU + 'kind = "threads"\n[tool.prefect-mlpipe.compute.other]\nkind = "cuda"')
    assert owned.local() == 2
    assert [each.compute for each in owned.plan()] == ["gpu"]
    assert "other" not in adopted(owned)


def test_a_task_runner_knows_the_computes_of_the_settings(file: Callable[[str], None]) -> None:
    file(GPU + 'kind = "threads"\nmax_workers = 3')
    with RoutingTaskRunner({"cpu": Threads(max_workers=1)}) as runner:
        assert runner._target("train", "gpu") == Threads(max_workers=3)
        assert runner._target("load", "cpu") == Threads(max_workers=1)
        with pytest.raises(NoSuchCompute, match="cpu, default, gpu"):
            runner._target("load", "tpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GPU + 'kind = "slurm"', r"(?s)of no kind.*pyproject\.toml \[tool.*gpu\].*'slurm'.*cuda"),
        (GPU + "max_workers = 2", r"(?s)of no kind.*kind   none"),
        (
            GPU + 'kind = "cuda"\nrmm_pool = 1',
            r"(?s)that Cuda cannot.*rmm_pool\n.*rmm_pool_size",
        ),
        (GPU + 'kind = "threads"\nmax_workers = 0', r"(?s)max_workers.*greater than or equal to 1"),
        ('[tool.prefect-mlpipe]\ncompute = "gpu"', r"(?s)does not say name → compute.*it is a str"),
        ("[tool.prefect-mlpipe]\ncompute.gpu = 3", r"(?s)compute 'gpu' of no kind.*compute\.gpu\]"),
    ],
    ids=["kind", "no kind", "field", "value", "no table", "number"],
)
def test_what_a_file_cannot_say_is_an_error_with_its_place(
    text: str, message: str, file: Callable[[str], None], project: Project
) -> None:
    file(text)
    with pytest.raises(InvalidCompute, match=message):
        project.own(trees).local()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gpu", "(?s)PREFECT_MLPIPE_COMPUTE.*no JSON"),
        ("[1]", "(?s)PREFECT_MLPIPE_COMPUTE.*it is a list"),
        ('{"gpu": {"kind": "dask", "gpus": 1}}', "(?s)that Dask cannot take.*COMPUTE.*gpus"),
    ],
)
def test_what_the_variable_cannot_say_is_an_error_with_its_name(
    value: str,
    message: str,
    file: Callable[[str], None],
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InvalidCompute, match=message):
        project.own(trees).local()
