"""A run is run again as it was, or it is said what has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from prefect_mlpipe import File, pipeline, step
from prefect_mlpipe.errors import CannotReplay
from prefect_mlpipe.runs import Run
from tests.project import Project, ran
from tests.server import Server

WORK = """
    from prefect_mlpipe import File, pipeline, step
    from tests.project import ran

    def scale(x):
        return x * 2

    @step
    def scaled(x: int) -> int:
        ran("scaled")
        return scale(x)

    @step
    def plus(x: int, y: int = 1) -> int:
        ran("plus")
        return x + y

    @pipeline
    def work(x: int = 1) -> int:
        return plus(scaled(x))
"""


def loaded(project: Project, source: str = WORK) -> Any:
    module: ModuleType = project.module("work", source)
    return project.own(module.work)


def refusal(run: Run, **asked: Any) -> str:
    """What is said of why a run cannot be run again."""
    with pytest.raises(CannotReplay) as raised:
        run.replay(**asked)
    return str(raised.value)


def test_a_replay_is_a_run_of_its_own_that_says_which_one_it_replays(project: Project) -> None:
    work = loaded(project)
    assert work.local(x=5) == 11
    first = work.runs.last()
    assert project.ran() == ["plus", "scaled"]

    again = first.replay()
    assert (again.output, again.replays, again.params) == (11, first.id, {"x": 5})
    assert project.ran() == []
    assert work.runs.list()[0].id == again.id != first.id
    assert first.replays is None


def test_a_refreshed_replay_runs_every_step(project: Project) -> None:
    work = loaded(project)
    work.local()
    project.ran()
    assert work.runs.last().replay(refresh=True).output == 3
    assert project.ran() == ["plus", "scaled"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("x * 2", "x * 3", "work.scale"),
        ("x + y", "y + x", "work.plus"),
        ("y: int = 1", "y: int = 2", "work.plus"),
        ("plus(scaled(x))", "plus(scaled(x), 5)", "parameter 'y' changed"),
        ("plus(scaled(x))", "plus(plus(scaled(x)))", "plus#2"),
        ("plus(scaled(x))", "scaled(x)", "gone from the pipeline"),
    ],
)
def test_what_has_changed_in_the_code_is_named_and_nothing_runs(
    project: Project, old: str, new: str, told: str
) -> None:
    work = loaded(project)
    work.local()
    run_id = work.runs.last().id
    changed = loaded(project, WORK.replace(old, new))
    project.ran()
    assert told in refusal(changed.runs.get(run_id))
    assert project.ran() == []
    assert loaded(project).runs.get(run_id).replay().output == 3


def test_a_change_that_does_not_count_is_none(project: Project) -> None:
    work = loaded(project)
    work.local()
    run_id = work.runs.last().id
    commented = loaded(project, WORK.replace("x * 2", "x * 2  # twice"))
    assert commented.runs.get(run_id).replay().output == 3


@step
def size(csv: File) -> int:
    ran("size")
    return len(Path(csv).read_text())


@pipeline
def sizes(csv: File = File("one.csv"), more: list[File] = []) -> Any:  # noqa: B006
    return [size(csv), size(File("fixed.csv")), size.map(more)]


@pytest.fixture
def files(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project.folder)
    for number, name in enumerate(("one", "fixed", "two", "three"), start=1):
        Path(f"{name}.csv").write_text("x" * number)
    return project.folder


def more() -> list[File]:
    return [File("two.csv"), File("three.csv")]


@pytest.mark.parametrize("name", ["one.csv", "fixed.csv", "three.csv"])
def test_a_file_whose_content_has_changed_is_named(
    project: Project, files: Path, name: str
) -> None:
    own = project.own(sizes)
    assert own.local(more=more()) == [1, 2, [3, 4]]
    run = own.runs.last()
    os.utime(name)
    assert run.replay().output == [1, 2, [3, 4]]
    Path(name).write_text("other")
    assert str(files / name) in refusal(run)
    Path(name).unlink()
    assert str(files / name) in refusal(run)


def test_with_keep_inputs_it_is_run_again_with_the_files_as_they_were(
    project: Project, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = project.own(sizes, keep_inputs=True)
    own.local(more=more())
    run = own.runs.last()
    for name in ("one.csv", "three.csv"):
        Path(name).write_text("another content")
    Path("fixed.csv").unlink()
    project.ran()
    again = run.replay(refresh=True)
    assert again.output == [1, 2, [3, 4]]
    assert project.ran() == ["size"] * 4
    assert own.runs.get(again.id).replay().output == [1, 2, [3, 4]]


def test_kept_inputs_stay_as_long_as_their_run(project: Project, files: Path) -> None:
    own = project.own(sizes, keep_inputs=True)
    own.local()
    own.runs.last().pin()
    long_ago = 10_000_000
    for path in (project.folder / "store").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    project.store.prune(keep_last=0, grace=timedelta(minutes=10))
    Path("one.csv").unlink()
    assert own.runs.last().replay().output == [1, 2, []]


@step
def login(password: SecretStr) -> int:
    return len(password.get_secret_value())


@step
def total(values: Any) -> float:
    return float(values.sum())


def test_a_secret_is_given_again(project: Project) -> None:
    @pipeline
    def secret(password: SecretStr) -> int:
        return login(password)

    own = project.own(secret)
    own.local(password=SecretStr("four"))
    assert "parameter 'password' was not kept" in refusal(own.runs.last())
    assert own.runs.last().replay(password=SecretStr("four")).output == 4


def test_an_array_is_kept_for_a_replay_only_if_that_is_asked_for(project: Project) -> None:
    @pipeline
    def summed(values: Any) -> float:
        return total(values)

    own = project.own(summed)
    own.local(np.ones(3))
    assert "parameter 'values' was not kept" in refusal(own.runs.last())
    keeping = own.with_options(keep_inputs=True)
    keeping.local(np.ones(3))
    assert keeping.runs.last().replay().output == 3.0


def test_a_run_whose_records_were_pruned_cannot_be_compared(project: Project) -> None:
    work = loaded(project)
    work.local()
    run = work.runs.last()
    for path in (project.folder / "store" / "records").rglob("*"):
        if path.is_file():
            path.unlink()
    assert "pruned" in refusal(loaded(project).runs.get(run.id))


def test_a_package_of_another_version_is_named(project: Project, tmp_path: Path) -> None:
    script = """
        import sys
        import lib
        from prefect_mlpipe import pipeline, step

        @step
        def used(x: int) -> int:
            return lib.same(x)

        @pipeline
        def work(x: int = 1) -> int:
            return used(x)

        if sys.argv[1:]:
            try:
                work.runs.get(sys.argv[1]).replay()
            except Exception as error:
                print(error)
        else:
            work.local()
            print(work.runs.last().id)
    """
    (tmp_path / "work.py").write_text(dedent(script))

    def run(version: str, *words: str) -> str:
        site = tmp_path / f"lib-{version}"
        info = site / f"lib-{version}.dist-info"
        info.mkdir(parents=True)
        (site / "lib.py").write_text("def same(x):\n    return x\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lib\nVersion: {version}\n")
        (info / "RECORD").write_text(f"lib.py,,\nlib-{version}.dist-info/METADATA,,\n")
        environment = {
            **os.environ,
            "PREFECT_MLPIPE_STORE": project.store.url,
            "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[2])]),
        }
        command = [sys.executable, "work.py", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    run_id = run("1.0")
    assert "package lib  1.0 → 1.1" in run("1.1", run_id)


@pipeline
def inner(x: int) -> int:
    return doubled(x)


@step
def doubled(x: int) -> int:
    return x * 2


@step(cache=False)
def calls_another(x: int) -> int:
    store = os.environ["REPLAYED_STORE"]
    found: int = inner.with_options(store=store).local(x)
    return found


def test_a_pipeline_that_a_step_of_it_runs_is_no_replay(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAYED_STORE", project.store.url)

    @pipeline
    def outer(x: int = 4) -> int:
        return calls_another(x)

    own = project.own(outer)
    own.local()
    own.runs.last().replay()
    assert [run.replays for run in project.own(inner).runs] == [None, None]


def test_a_flow_run_is_replayed_as_a_flow_run_with_its_parameters_by_reference(
    api: Server, project: Project
) -> None:
    @pipeline(name="replayed")
    def summed(values: Any, times: int = 2) -> float:
        return total(values * times)

    own = project.own(summed)
    own(np.ones(3))
    first = own.runs.last()
    again = first.replay()
    assert (again.output, again.replays, len(again.id)) == (6.0, first.id, 36)
