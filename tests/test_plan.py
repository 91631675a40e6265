"""`plan()` says beforehand what the run then does, and executes nothing."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest

from prefect_mlpipe import Plan, StepPlan, pipeline, resolve, step
from prefect_mlpipe.core.manifest import Reason
from prefect_mlpipe.errors import InvalidPipeline, NoSuchCompute, UnstableInput
from tests.project import Project, ran


class Split(NamedTuple):
    train: list[int]
    test: list[int]


@step
def load(n: int) -> list[int]:
    ran("load")
    return [*range(n)]


@step
def split(table: list[int]) -> Split:
    ran("split")
    return Split(table[:2], table[2:])


@step
def train(table: list[int], lr: float) -> float:
    ran("train")
    return sum(table) * lr


@step
def evaluate(model: float, table: list[int]) -> float:
    ran("evaluate")
    return model * len(table)


@pipeline
def digits(n: int = 4, lr: float = 1.0) -> float:
    parts = split(load(n))
    return evaluate(train(parts.train, lr), parts.test)


def said(plan: Plan) -> dict[str, tuple[str, list[str]]]:
    return {one.name: (one.action, [*map(str, one.reasons)]) for one in plan}


def actions(plan: Plan) -> dict[str, str]:
    return {one.name: one.action for one in plan}


def test_a_first_plan_says_run_and_runs_nothing(project: Project) -> None:
    p = project.own(digits)
    plan = p.plan()
    assert {action for action, _ in said(plan).values()} == {"run"}
    assert {tuple(why) for _, why in said(plan).values()} == {("first run",)}
    assert project.ran() == []
    assert plan.complete
    assert [one.compute for one in plan] == ["default"] * 4
    assert [one.expected_seconds for one in plan] == [None] * 4
    assert "first run" in str(plan)
    assert "4 run" in str(plan)


def test_a_plan_says_what_the_run_then_does(project: Project) -> None:
    p = project.own(digits)
    p.local()
    project.ran()
    assert set(actions(p.plan()).values()) == {"reuse"}
    assert said(p.plan(lr=2.0)) == {
        "load": ("reuse", []),
        "split": ("reuse", []),
        "train": ("run", ["parameter 'lr' changed: 1.0 → 2.0"]),
        "evaluate": ("run?", ["input 'model' may change (from train)"]),
    }
    p.local(lr=2.0)
    assert project.ran() == ["evaluate", "train"]
    assert said(p.plan(n=5, lr=3.0)) == {
        "load": ("run", ["parameter 'n' changed: 4 → 5"]),
        "split": ("run?", ["input 'table' may change (from load)"]),
        "train": ("run", ["parameter 'lr' changed: 2.0 → 3.0"]),
        "evaluate": (
            "run?",
            [
                "input 'model' may change (from train)",
                "input 'table' may change (from split.test)",
            ],
        ),
    }
    p.local(n=5, lr=2.0)
    assert project.ran() == ["evaluate", "load", "split"]  # `train` was spared


def test_expected_seconds_are_those_of_the_last_time(project: Project) -> None:
    p = project.own(digits)
    p.local()
    seconds = [one.expected_seconds for one in p.plan()]
    assert all(isinstance(second, float) for second in seconds)
    assert p.plan().expected_seconds == 0
    assert p.plan(n=5).expected_seconds > 0


def test_a_plan_ends_at_a_barrier_that_only_a_run_can_pass(project: Project) -> None:
    @pipeline
    def p(n: int) -> Any:
        table = load(n)
        if len(resolve(table)) > 2:
            return split(table).train
        return table

    owned = project.own(p)
    plan = owned.plan(3)
    assert not plan.complete
    assert plan.stopped_at == "load"
    assert "more after 'load' has run" in str(plan)
    assert not owned.graph(3).complete
    owned.local(3)
    project.ran()
    plan = owned.plan(3)
    assert plan.complete
    assert actions(plan) == {"load": "reuse", "split": "reuse"}
    assert [node.name for node in owned.graph(3)] == ["load", "split"]
    assert project.ran() == []


def test_a_barrier_is_not_taken_for_a_failure_by_the_body(project: Project) -> None:
    @pipeline
    def p() -> Any:
        try:
            return resolve(load(3))
        except Exception:
            return split([1])

    assert actions(project.own(p).plan()) == {"load": "run"}


def test_two_nodes_of_one_key_are_planned_once(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return split(load(3)), split(load(3))

    owned = project.own(p)
    assert actions(owned.plan())["load#2"] == "reuse"
    owned.local()
    assert project.ran() == ["load", "split"]
    assert owned.runs.last()["load#2"].state == "reused"


def test_refresh_and_targets_are_planned(project: Project) -> None:
    p = project.own(digits)
    p.local()
    plan = p.with_options(refresh=["train"]).plan()
    assert said(plan)["train"] == ("run", ["refresh asked"])
    assert actions(plan)["evaluate"] == "run?"
    assert actions(p.with_options(refresh=True).plan()) == dict.fromkeys(
        ("load", "split", "train", "evaluate"), "run"
    )
    assert [one.name for one in p.with_options(targets=["split"]).plan()] == ["load", "split"]
    with pytest.raises(InvalidPipeline, match=r"no step called 'trian'.*(?s:.*)'train'"):
        p.with_options(refresh=["trian"]).plan()


def test_an_uncached_step_is_planned_to_run(project: Project) -> None:
    @step(cache=False)
    def report(x: Any) -> int:
        return 1

    @pipeline
    def p() -> int:
        return report(load(2))

    owned = project.own(p)
    assert said(owned.plan())["report"] == ("run", ["cache off"])
    owned.local()
    assert said(owned.plan())["report"] == ("run", ["cache off"])


def test_items_are_planned_one_by_one(project: Project) -> None:
    @pipeline
    def p(items: list[int]) -> Any:
        return split.map(load.map(items))

    owned = project.own(p)
    assert said(owned.plan([1])) == {
        "load": ("run", ["first run"]),
        "split": ("run", ["first run"]),
    }
    owned.local([1, 2])
    assert actions(owned.plan([1, 2])) == {"load": "reuse", "split": "reuse"}
    assert actions(owned.plan([2])) == {"load": "reuse", "split": "reuse"}
    assert said(owned.plan([1, 3])) == {
        "load": ("run", ["parameter 'n' changed: 2 → 3"]),
        "split": ("run?", ["input 'table' may change (from load)"]),
    }
    assert owned.plan([]).complete


def test_verify_looks_at_the_stored_values_beforehand(project: Project) -> None:
    @step
    def large() -> Any:
        return np.zeros(5000)

    @step
    def size(array: Any) -> int:
        return len(array)

    @pipeline
    def p() -> int:
        return size(large())

    owned = project.own(p)
    owned.local()
    for file in project.stored_files():
        file.unlink()
    assert actions(owned.plan()) == {"large": "reuse", "size": "reuse"}
    assert said(owned.plan(verify=True))["large"] == ("run", ["value missing"])


def test_a_plan_stops_at_a_barrier_whose_value_is_lost(project: Project) -> None:
    @step
    def large() -> Any:
        ran("large")
        return np.zeros(5000)

    @pipeline
    def p() -> int:
        return len(resolve(large()))

    owned = project.own(p)
    assert owned.local() == 5000
    for file in project.stored_files():
        file.unlink()
    plan = owned.plan()
    assert said(plan) == {"large": ("run", ["value missing"])}
    assert not plan.complete


def test_a_plan_refuses_what_a_run_would_refuse(project: Project) -> None:
    @pipeline
    def p(x: Any) -> Any:
        return load.with_options(compute="moon")(x)

    with pytest.raises(NoSuchCompute, match=r"(?s)'load'.*'moon'.*defined +default"):
        project.own(p).plan(1)

    @pipeline
    def q() -> Any:
        import threading

        return load(threading.Lock())  # type: ignore[arg-type]

    with pytest.raises(UnstableInput):
        project.own(q).plan()


def reasons(*names: str) -> tuple[Reason, ...]:
    return tuple(Reason("code changed", name) for name in names)


def test_a_plan_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    many = reasons("helpers.clean", f"helpers.{'very' * 40}_long", "conf.RATE", "conf.K", "conf.L")
    steps = [
        StepPlan("load", "reuse", (), "default", 1.0),
        StepPlan("prepare/features#2/clean_all_of_the_columns", "run", many, "gpu", 12.5),
        StepPlan("score", "run?", reasons("models.fit"), "default", 9000.0),
    ]
    lines = str(Plan("digits", steps, "score")).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for part in (
        "code changed: helpers.clean",
        "and 2 more",
        "12.5 s",
        "2 h 30 min",
        "gpu",
        "reuse",
    ):
        assert part in text
    assert "conf.L" not in text
    assert "more after 'score'" in text
    assert lines[-2] == "digits: 1 reuse, 1 run, 1 run?; 2 h 30 min expected, one after the other"
    assert lines[-1].startswith("run? = a step above runs")


def test_a_plan_of_one_compute_does_not_name_it() -> None:
    steps = [StepPlan("load", "run", reasons("main.load"), "default", None)]
    plan = Plan("digits", steps, None)
    assert "compute" not in str(plan)
    assert str(plan).endswith("digits: 1 run; 1 never timed")
    assert "run? =" not in str(plan)
    assert str(Plan("digits", [], None)) == "digits: no steps"


def test_a_long_plan_folds_neighbours_of_one_fate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    same = reasons("helpers.clean")
    steps = [
        *(StepPlan(f"load#{n}", "reuse", (), "default", 1.0) for n in range(200)),
        StepPlan("train", "run", same, "default", 2.0),
        *(StepPlan(f"score#{n}", "run", reasons("main.score"), "default", 0.5) for n in range(100)),
    ]
    lines = str(Plan("digits", steps, None)).splitlines()
    assert len(lines) < 12
    assert any("load#0 … load#199 (200 steps)" in line for line in lines)
    assert any("score#0 … score#99 (100 steps)" in line and "50.0 s" in line for line in lines)
    assert lines[-1] == "digits: 200 reuse, 101 run; 52.0 s expected, one after the other"
    assert "…" not in str(Plan("digits", steps[180:205], None))


def test_a_plan_is_a_table_in_a_notebook() -> None:
    steps = [StepPlan("load", "run", reasons("main.<lambda>", "conf.K"), "default", None)]
    html = Plan("digits", steps, None, ["<b>"])._repr_html_()
    assert "code changed: main.&lt;lambda&gt;<br>code changed: conf.K" in html
    assert "! &lt;b&gt;" in html


@pytest.mark.parametrize("compute", ["default", "gpu"])
def test_text_and_notebook_show_the_same_columns(compute: str) -> None:
    plan = Plan("digits", [StepPlan("load", "run", reasons("main.f"), compute, 2.0)], None)
    named = re.findall(r"<th[^>]*>(\w+)</th>", plan._repr_html_())
    assert named == str(plan).splitlines()[0].split()
    assert ("compute" in named) == (compute == "gpu")
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", plan._repr_html_())
    assert dict(zip(named, cells, strict=True)) == {
        **dict.fromkeys(named, compute),
        "step": "load",
        "action": "run",
        "why": "code changed: main.f",
        "expected": "2.0 s",
    }


def test_a_plan_explains_its_steps(project: Project) -> None:
    owned = project.own(digits)
    with pytest.raises(KeyError, match=r"no step 'lod'; it has load, split"):
        owned.plan().explain("lod")
    assert owned.plan().explain("load").startswith("load: run\n  first run\n")
    owned.local()
    assert owned.plan().explain("load") == "load: reuse; nothing that counts has changed"
    plan = owned.plan(lr=2.0)
    lines = plan.explain("train").splitlines()
    assert lines[0] == "train: run"
    assert lines[1].startswith(f"  compared with run {owned.runs.last().name} of 20")
    assert lines[2:] == ["  parameter 'lr' changed: 1.0 → 2.0"]
    assert "input 'model' may change (from train)" in plan.explain("evaluate")


def test_items_are_counted_and_the_first_is_explained(project: Project) -> None:
    @pipeline
    def p(items: list[int]) -> Any:
        return load.map(items)

    owned = project.own(p)
    owned.local([1, 2, 3])
    plan = owned.plan([1, 5, 6])
    assert plan.items == {"load": (2, 3)}
    assert "2 of 3 items: parameter 'n' changed: 2 → 5" in str(plan)
    lines = plan.explain("load").splitlines()
    assert lines[:3] == [
        "load: run",
        "  parameter 'n' changed: 2 → 5",
        "  parameter 'n' changed: 3 → 6",
    ]
    assert lines[3:5] == ["", "  load[1]: run"]
    assert lines[-1] == "    parameter 'n' changed: 2 → 5"


def test_a_plan_is_a_sequence(project: Project) -> None:
    plan = project.own(digits).plan()
    assert len(plan) == 4
    assert plan[0].name == "load"
    assert [one.name for one in plan[1:]] == ["split", "train", "evaluate"]
    assert repr(plan) == str(plan)
