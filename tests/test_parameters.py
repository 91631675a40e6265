"""Parameters: validated before anything runs, digested as what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prefect_mlpipe import File, RunOptions, pipeline, step
from prefect_mlpipe.errors import InvalidParameters, InvalidPipeline, MlpipeError
from tests.project import Project, ran


@step
def show(x: Any) -> str:
    ran("show")
    return repr(x)


@pipeline
def p(n: int = 1, share: float = 0.5, file: File | None = None) -> Any:
    return show(n), show(share)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n": "many"}, "n"),
        ({"share": "half"}, "share"),
        ({"m": 1}, "m"),
        ({"file": 3}, "file"),
    ],
)
def test_wrong_types_and_unknown_names_are_refused_before_anything_runs(
    project: Project, arguments: dict[str, Any], named: str
) -> None:
    owned = project.own(p)
    for call in (owned.local, owned.plan, owned.graph):
        with pytest.raises(InvalidParameters) as raised:
            call(**arguments)
        assert "'p'" in str(raised.value)
        assert named in str(raised.value)
        assert "nothing ran" in str(raised.value)
    with pytest.raises(InvalidParameters, match="'p'"):
        owned.local(1, 2.0, None, 4)  # type: ignore[call-arg]
    assert project.ran() == []
    assert owned.runs.list() == []


def test_parameters_are_converted_as_prefect_does(project: Project) -> None:
    owned = project.own(p)
    assert owned.local("3") == ("3", "0.5")  # type: ignore[arg-type]
    project.ran()
    assert owned.local(3) == ("3", "0.5")
    assert project.ran() == []


@pytest.mark.parametrize("iterator", [iter([1]), (x for x in [1]), map(str, [1])])
def test_iterators_are_refused_and_not_consumed(project: Project, iterator: Any) -> None:
    @pipeline
    def q(items: Any) -> Any:
        return show(items)

    with pytest.raises(InvalidPipeline, match=r"(?s)'q'.*iterator.*'items'.*list"):
        project.own(q).local(iterator)
    assert len(list(iterator)) == 1


def test_a_value_without_json_is_a_parameter_too(project: Project) -> None:
    @pipeline
    def q(array: Any) -> Any:
        return show(array)

    owned = project.own(q)
    assert owned.local(np.arange(3)) == "array([0, 1, 2])"
    assert owned.local(np.arange(3)) == "array([0, 1, 2])"
    assert project.ran() == ["show"]


def test_run_options_are_a_parameter(project: Project) -> None:
    @pipeline
    def q(n: int = 1, run: RunOptions = RunOptions()) -> Any:
        return show(n), show.with_options(name="other")(n + 1)

    owned = project.own(q)
    owned.local()
    project.ran()
    assert owned.local(run=RunOptions(refresh=["other"])) == ("1", "2")
    assert project.ran() == ["show"]
    owned.local(2, RunOptions(targets=["show"]))
    assert [step.name for step in owned.runs.last()] == ["show"]
    with pytest.raises(MlpipeError, match="no step called 'shwo'"):
        owned.local(run=RunOptions(refresh=["shwo"]))
    with pytest.raises(InvalidParameters):
        owned.local(run={"refreshed": True})  # type: ignore[arg-type]
