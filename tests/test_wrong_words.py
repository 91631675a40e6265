"""Names and options that mean nothing are errors that say which ones there are."""

from __future__ import annotations

import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe import EnvVar, File, pipeline, step
from prefect_mlpipe.errors import InvalidParameters, InvalidStep, MissingFile
from tests.project import Project

SESSION = threading.Lock()


class Places:
    HOME = "here"


def helper(session: Any = SESSION) -> Any:
    return session


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("tabel", "'table'"),
        ("SESION", "'SESSION'"),
        ("tests.test_wrong_words.SESION", "'SESSION'"),
        ("Places.HOM", "'helpers.SESSION'"),
        ("helper.sesion", "'helpers.SESSION'"),
        ("pathlib.Pth", "'Path'"),
        ("q", "'helpers.SESSION'"),
    ],
)
def test_an_ignored_name_that_means_nothing_is_refused(
    project: Project, name: str, near: str
) -> None:
    @step(ignore=[name])
    def work(table: int) -> int:
        return table

    @pipeline
    def p() -> int:
        return work(1)

    for call in (project.own(p).plan, project.own(p).local):
        with pytest.raises(InvalidStep, match=f"Step 'work' ignores '{name}'") as caught:
            call()
        assert near in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "table",
        "SESSION",
        "tests.test_wrong_words.SESSION",
        "Places.HOME",
        "helper.session",
        "outer",
        "time.time",
        "random",
        "os.environ",
        "not_loaded_yet.SESSION",
    ],
)
def test_an_ignored_name_that_may_mean_something_is_taken(project: Project, name: str) -> None:
    outer = 3

    @step(ignore=[name])
    def work(table: int) -> int:
        return table + outer

    @pipeline
    def p() -> int:
        return work(1)

    assert project.own(p).local() == 4


def test_one_ignored_name_may_stand_alone() -> None:
    assert step(ignore="table")(helper).options.ignore == {"table"}


@pytest.mark.parametrize("reads", [["vocab.txt"], "vocab.txt", [EnvVar("A"), "vocab.txt"]])
def test_a_text_among_reads_is_refused_at_decoration(reads: Any) -> None:
    with pytest.raises(InvalidStep, match=r"'helper' declares that it reads 'vocab\.txt'") as e:
        step(reads=reads)(helper)
    assert "File('vocab.txt'), Folder('vocab.txt') or EnvVar('vocab.txt')" in str(e.value)


def test_a_parameter_that_no_run_has_cannot_be_filtered_by(project: Project) -> None:
    @step
    def work(x: int) -> int:
        return x

    @pipeline
    def p(depth: int = 1, rate: float = 0.1) -> int:
        return work(depth)

    owned = project.own(p)
    with pytest.raises(InvalidParameters, match="has no parameter 'dept'"):
        owned.runs.filter(dept=1)
    assert owned.runs.filter(depth=1) == []
    owned.local()
    assert len(owned.runs.filter(depth=1, state="completed")) == 1
    assert owned.runs.filter(depth=2) == []
    with pytest.raises(InvalidParameters, match="Did you mean 'state'"):
        owned.runs.filter(stat="completed")
    with pytest.raises(InvalidParameters, match="parameters  depth, rate"):
        owned.runs.filter(zzz=1)


def test_the_failed_item_of_a_mapped_step_is_named(project: Project) -> None:
    @step
    def score(x: int) -> float:
        return 1 / (x - 3)

    @pipeline
    def p() -> Any:
        return score.map([1, 2, 3, 4])

    with pytest.raises(ZeroDivisionError) as caught:
        project.own(p).local()
    assert caught.value.__notes__ == ["in score[2], an item of a mapped step"]
    assert "score[2]" in "".join(traceback.format_exception(caught.value))


def test_a_returned_file_that_does_not_exist_names_the_step(project: Project) -> None:
    @step
    def write(x: int) -> list[File]:
        return [File("none.txt")]

    @pipeline
    def p() -> Any:
        return write(1)

    assert not Path("none.txt").exists()
    with pytest.raises(MissingFile, match="Step 'write' returned a path that does not exist") as e:
        project.own(p).local()
    assert "none.txt" in str(e.value)
    assert "output_folder()" in str(e.value)
