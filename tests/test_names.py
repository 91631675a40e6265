"""Names of nodes, and that equal work is done once."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.errors import NameClash
from tests.project import Project, ran


@step
def clean(x: int) -> int:
    ran("clean")
    return x


def names(project: Project, pipeline: Any) -> list[str]:
    return [node.name for node in project.own(pipeline).graph()]


def test_calls_are_counted_and_one_can_be_named(project: Project) -> None:
    @pipeline
    def p() -> None:
        clean(1)
        clean(2)
        clean.with_options(name="clean_train")(3)
        clean(4)

    assert names(project, p) == ["clean", "clean#2", "clean_train", "clean#3"]


def test_two_functions_of_one_name_in_one_group_are_an_error(project: Project) -> None:
    def other(x: int) -> int:
        return x

    @pipeline
    def p() -> None:
        clean(1)
        step(name="clean")(other)(1)

    with pytest.raises(NameClash, match=r"(?s)'clean'.*one .*other .*with_options\(name="):
        project.own(p).graph()


def test_in_two_groups_they_are_not(project: Project) -> None:
    def other(x: int) -> int:
        return x

    @pipeline
    def prep() -> None:
        step(name="clean")(other)(1)

    @pipeline
    def p() -> None:
        clean(1)
        prep()

    assert names(project, p) == ["clean", "prep/clean"]


def test_a_step_and_a_group_of_one_name_clash(project: Project) -> None:
    @pipeline
    def prep() -> None:
        clean(1)

    @pipeline
    def p() -> None:
        clean.with_options(name="prep")(1)
        prep()

    with pytest.raises(NameClash, match="'prep'"):
        project.own(p).graph()


def test_two_nodes_of_one_key_execute_once(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return clean(1), clean(1), clean.with_options(name="third")(1), clean(2)

    owned = project.own(p)
    assert owned.local() == (1, 1, 1, 2)
    assert project.ran() == ["clean", "clean"]
    run = owned.runs.last()
    assert [step.state for step in run] == ["ran", "reused", "reused", "ran"]


def test_uncached_nodes_execute_each_time(project: Project) -> None:
    @pipeline
    def p() -> Any:
        free = clean.with_options(cache=False)
        return free(1), free(1)

    assert project.own(p).local() == (1, 1)
    assert project.ran() == ["clean", "clean"]


def test_names_pipelines_and_compute_are_not_in_the_key(project: Project) -> None:
    @pipeline
    def p() -> int:
        return clean(1)

    @pipeline
    def q() -> Any:
        prepared = p()
        return prepared, clean.with_options(name="other", retries=3, tags={"x"})(1)

    assert project.own(p).local() == 1
    project.ran()
    assert project.own(q).local() == (1, 1)
    assert project.ran() == []
