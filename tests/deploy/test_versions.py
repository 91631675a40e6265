"""A deployed version runs the code that it was made of, whatever becomes of the working copy."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from prefect_mlpipe import File, pipeline, step
from prefect_mlpipe.deploy.defaults import absolute_parameters
from prefect_mlpipe.errors import MissingFile, VersionNotFound
from tests.deploy.serving import eventually
from tests.deploy.working_copy import WorkingCopy
from tests.project import Project
from tests.server import Server


@pytest.mark.timeout(600)
def test_the_working_copy_is_edited_and_deleted_and_each_run_has_the_code_it_was_made_for(
    api: Server, tmp_path: Path
) -> None:
    copy = WorkingCopy(tmp_path, "edited")
    first = copy.deploy(helpers="FACTOR = 2")
    deployed_with(copy, first, prefect="3.4.0")
    waiting = copy.start(x=10)
    second = copy.deploy(helpers="FACTOR = 3")
    later = copy.start(x=10)
    shutil.rmtree(copy.folder)
    copy.work()

    @pipeline(name="edited")
    def unlike(x: int) -> int:
        return x

    here = f"prefect 3.4.0 → {version('prefect')}"
    assert here in eventually(lambda: copy.logs(waiting), lambda text: here in text)
    assert "other packages" not in copy.logs(later)

    again = unlike.with_options(store=copy.store).runs.get(waiting).replay(refresh=True)
    assert (again.output, again.version, again.replays) == (20, first, waiting)
    assert [step.state for step in again] == ["ran"]

    assert first != second
    assert [
        (copy.runs.get(run).version, copy.runs.get(run).output) for run in (waiting, later)
    ] == [
        (first, 20),
        (second, 30),
    ]


def deployed_with(copy: WorkingCopy, version: str, **packages: str) -> None:
    """Have a version say that it was deployed elsewhere."""
    document = copy.store.versions.read(copy.name, version)
    assert document is not None
    document["packages"].update(packages)
    copy.store.versions.write(copy.name, version, document)


@pytest.mark.timeout(600)
def test_a_rollback_has_the_deployment_run_the_earlier_version_with_its_own_parameters(
    api: Server, tmp_path: Path
) -> None:
    copy = WorkingCopy(tmp_path, "rolled")
    (copy.folder / "data.csv").write_text("four")
    first = copy.deploy(SIZE.format(factor=1, more=""), AWAITED)
    second = copy.deploy(SIZE.format(factor=2, more=', more: File = File("none.csv")'))
    assert copy.deploy(SIZE.format(factor=2, more=', more: File = File("none.csv")')) == second
    assert [version.name for version in copy.versions] == [second, first]

    assert copy.versions.rollback().name == first
    assert copy.versions.default == copy.versions.get(first)
    run_id = copy.start()
    with pytest.raises(Exception, match="more"):
        copy.start(more="none.csv")  # a parameter of the second version only
    copy.work()

    run = copy.runs.get(run_id)
    assert (run.version, run.output) == (first, 4)
    assert copy.ended(run_id).deployment_version == first
    assert run.params == {"csv": str(copy.folder / "data.csv")}


AWAITED = """
    if __name__ == "__main__":
        import asyncio
        asyncio.run(NAME.adeploy("frozen", "POOL", ignore_warnings=True, print_next_steps=False))
"""
SIZE = """
    from prefect_mlpipe import File, pipeline, step

    @step
    def size(csv: File) -> int:
        return len(open(csv).read()) * {factor}

    @pipeline
    def NAME(csv: File = File("data.csv"){more}) -> int:
        return size(csv)
"""


@pytest.mark.timeout(600)
def test_versions_are_listed_compared_and_found(api: Server, tmp_path: Path) -> None:
    copy = WorkingCopy(tmp_path, "compared")
    first = copy.deploy(helpers="FACTOR = 2\nUNUSED = 1")
    second = copy.deploy(helpers="FACTOR = 3\nUNUSED = 1", extra="unused = 1")
    third = copy.deploy(helpers="FACTOR = 3\nUNUSED = 2")

    assert [version.name for version in copy.versions.list()] == [third, second, first]
    assert copy.versions.get(copy.versions.get(first).digest[:8]).name == first
    changed = copy.versions.compare(first, second)
    assert (changed.functions, changed.files, changed.packages) == (
        ["flow.FACTOR"],
        ["helpers.py"],
        [],
    )
    assert str(changed) == f"{first} → {second}\n  code     flow.FACTOR\n  files    helpers.py"
    assert "-FACTOR = 2\n+FACTOR = 3" in changed.diff()
    unused = copy.versions.compare(second, third)
    assert (unused.functions, unused.files) == ([], ["helpers.py"])
    assert "no difference" in str(copy.versions.compare(first, first))
    with pytest.raises(VersionNotFound, match="'nowhere'"):
        copy.versions.get("nowhere")


def test_relative_files_of_a_deployment_become_absolute(tmp_path: Path) -> None:
    @pipeline
    def many(
        csv: File = File("a.csv"),
        url: File = File("s3://raw/a.csv"),
        files: list[File] | None = None,
        given: File = File("c.csv"),
        name: str = "a.csv",
    ) -> None: ...

    here = Path.cwd()
    assert absolute_parameters(many, {"given": "d.csv", "name": "d.csv", "files": ["b.csv"]}) == {
        "csv": str(here / "a.csv"),
        "files": [str(here / "b.csv")],
        "given": str(here / "d.csv"),
        "name": "d.csv",
    }


@step
def size(csv: File) -> int:
    return len(Path(csv).read_text())


def test_a_file_that_is_not_there_is_named_with_its_parameter(project: Project) -> None:
    @pipeline
    def sizes(table: File) -> int:
        return size(table)

    with pytest.raises(MissingFile) as raised:
        project.own(sizes).local(File("/nowhere/a.csv"))
    assert raised.value.facts["parameter"] == "table"
    assert raised.value.facts["path"] == "/nowhere/a.csv"
