"""Files count by content, wherever they lie and however they are passed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe import File, Folder, output_folder, pipeline, resolve, step
from prefect_mlpipe.errors import InputChanged, MissingFile, UnstorableOutput
from tests.project import Project, ran


@step
def read(file: File) -> str:
    ran("read")
    return Path(file).read_text()


@step
def names(folder: Folder) -> list[str]:
    ran("names")
    return sorted(os.listdir(folder))


@step
def look(value: Any) -> str:
    ran("look")
    return type(value).__name__


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("a,b")
    return path


@pipeline
def reading(file: File) -> str:
    return read(file)


def change_in_place(path: Path, content: str) -> None:
    """Change the content, and leave size and modification time as they are."""
    before = path.stat()
    path.write_text(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_a_file_counts_by_content_and_final_name(project: Project, csv: Path) -> None:
    p = project.own(reading)
    assert p.local(File(csv)) == "a,b"
    project.ran()
    os.utime(csv, (1, 1))
    elsewhere = project.folder / "elsewhere" / "data.csv"
    elsewhere.parent.mkdir()
    elsewhere.write_text("a,b")
    assert p.local(File(csv)) == p.local(File(elsewhere)) == p.local(str(csv)) == "a,b"  # type: ignore[arg-type]
    assert project.ran() == []
    change_in_place(csv, "a,c")
    assert p.local(File(csv)) == "a,c"
    assert project.ran() == ["read"]
    renamed = csv.rename(csv.with_name("other.csv"))
    assert p.local(File(renamed)) == "a,c"
    assert project.ran() == ["read"]


def test_a_folder_counts_by_relative_names_and_contents(project: Project) -> None:
    @pipeline
    def p(folder: Folder) -> list[str]:
        return names(folder)

    def made(at: str, **files: str) -> Folder:
        for name, content in files.items():
            path = project.folder / at / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return Folder(project.folder / at)

    owned = project.own(p)
    assert owned.local(made("one", a="1", b="2")) == ["a", "b"]
    assert owned.local(made("two", a="1", b="2")) == ["a", "b"]
    assert project.ran() == ["names"]
    assert owned.local(made("three", a="2", b="1")) == ["a", "b"]
    assert project.ran() == ["names"]


@dataclass
class Config:
    table: Path
    depth: int = 1


@pytest.mark.parametrize(
    "wrap",
    [
        lambda path: path,
        lambda path: [path],
        lambda path: (1, {"a": [path]}),
        lambda path: Config(path),
        lambda path: [Config(path)],
    ],
)
def test_a_path_that_exists_counts_by_content_wherever_it_stands(
    project: Project, csv: Path, wrap: Any
) -> None:
    @pipeline
    def p() -> str:
        return look(wrap(csv))

    owned = project.own(p)
    owned.local()
    owned.local()
    assert project.ran() == ["look"]
    change_in_place(csv, "a,c")
    owned.local()
    assert project.ran() == ["look"]


def test_a_path_arrives_as_the_path_and_a_text_as_text(project: Project, csv: Path) -> None:
    @pipeline
    def p(text: str) -> Any:
        return look(csv), look.with_options(name="text")(text)

    owned = project.own(p)
    assert owned.local(str(csv)) == ("PosixPath", "str")
    project.ran()
    change_in_place(csv, "a,c")
    owned.local(str(csv))
    assert project.ran() == ["look"]  # the text is a string as any other


def test_a_text_for_a_parameter_that_is_declared_a_file_is_a_file(
    project: Project, csv: Path
) -> None:
    @step
    def maybe(file: File | None) -> str:
        return "none" if file is None else type(file).__name__

    @pipeline
    def p() -> Any:
        spelled: Any = str(csv)
        return maybe(spelled), maybe(None), read.map([spelled, csv]), read(File(csv))

    assert project.own(p).local() == ("File", "none", ["a,b", "a,b"], "a,b")


@pytest.mark.parametrize("kind", [File, Path])
def test_a_path_that_does_not_exist_is_an_error_with_the_ways_out(
    project: Project, kind: Any
) -> None:
    @pipeline
    def p() -> str:
        return look(kind("nowhere/x.csv"))

    with pytest.raises(
        MissingFile, match=r"(?s)'look'.*argument +value.*nowhere/x\.csv.*str\(path\)"
    ):
        project.own(p).local()
    assert project.ran() == []


def test_a_file_that_changes_while_a_step_reads_it_fails_the_step(
    project: Project, csv: Path
) -> None:
    @step
    def disturbed(file: File) -> str:
        Path(file).write_text("while it is read")
        return "x"

    @pipeline
    def p() -> str:
        return disturbed(File(csv))

    owned = project.own(p)
    with pytest.raises(InputChanged, match=r"(?s)'disturbed'.*nothing is recorded.*data\.csv"):
        owned.local()
    assert owned.runs.last()["disturbed"].key is None


def test_a_declared_read_that_changes_meanwhile_fails_the_step_too(
    project: Project, csv: Path
) -> None:
    def disturbed() -> str:
        Path(os.environ["MLPIPE_TESTS_FILE"]).write_text("while it is read")
        return "x"

    os.environ["MLPIPE_TESTS_FILE"] = str(csv)
    reads = step(reads=[File(csv)])(disturbed)

    @pipeline
    def p() -> str:
        return reads()

    with pytest.raises(InputChanged, match="'disturbed'"):
        project.own(p).local()


def test_a_declared_read_that_is_missing_names_the_step(project: Project) -> None:
    @step(reads=[File("nowhere.txt")])
    def f() -> int:
        return 1

    @pipeline
    def p() -> int:
        return f()

    with pytest.raises(MissingFile, match=r"(?s)'f' declares.*nowhere\.txt"):
        project.own(p).local()


def test_a_returned_file_or_folder_is_stored(project: Project) -> None:
    @step
    def write(text: str) -> File:
        ran("write")
        path = output_folder() / "out.txt"
        path.write_text(text)
        return File(path)

    @step
    def write_many(text: str) -> Folder:
        ran("write_many")
        folder = output_folder()
        (folder / "a").write_text(text)
        return Folder(folder)

    @pipeline
    def p(text: str, more: str = "") -> Any:
        one, many = write(text), write_many(text)
        return read(one), names(many), look((one, many, more)), one

    owned = project.own(p)
    text, listed, _, file = owned.local("x")
    assert (text, listed) == ("x", ["a"])
    assert isinstance(file, File)
    assert file.name == "out.txt"
    assert Path(file).read_text() == "x"
    project.ran()
    assert owned.local("x", more="y")[0] == "x"
    assert project.ran() == ["look"]


def test_output_folders_are_empty_and_gone_afterwards(project: Project) -> None:
    seen: list[Path] = []

    @step(cache=False)
    def write() -> int:
        for _ in range(2):
            folder = output_folder()
            assert os.listdir(folder) == []
            seen.append(folder)
        return 1

    @pipeline
    def p() -> int:
        return write()

    project.own(p).local()
    assert len(set(seen)) == 2
    assert not any(folder.exists() for folder in seen)
    assert output_folder().is_dir()


@pytest.mark.parametrize("wrap", [lambda path: path, lambda path: {"a": [path]}])
def test_a_path_in_a_returned_value_is_refused_with_the_ways_out(
    project: Project, csv: Path, wrap: Any
) -> None:
    @step
    def write() -> Any:
        return wrap(csv)

    @pipeline
    def p() -> Any:
        return write()

    with pytest.raises(UnstorableOutput, match=r"(?s)'write'.*File\(path\)"):
        project.own(p).local()


def test_a_stored_file_that_is_gone_is_made_again(project: Project) -> None:
    @step
    def write() -> File:
        ran("write")
        path = output_folder() / "out.txt"
        path.write_text("x" * 5000)
        return File(path)

    @pipeline
    def p() -> int:
        return len(Path(resolve(write())).read_text())

    owned = project.own(p)
    assert owned.local() == 5000
    for file in project.stored_files():
        file.unlink()
    assert owned.local() == 5000
    assert project.ran() == ["write", "write"]


def test_returning_a_file_parameter_does_not_copy_it(project: Project, csv: Path) -> None:
    @pipeline
    def p(file: File) -> Any:
        return file, read(file)

    owned = project.own(p)
    assert owned.local(File(csv)) == (File(csv), "a,b")
    assert owned.runs.last().output == (File(csv), "a,b")
    assert project.stored_files() == []
