"""What a run leaves, and how it is found again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from prefect_mlpipe import current, log_metrics, pipeline, step
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.upkeep import pruning
from prefect_mlpipe.errors import MissingFile, OutputError, RunNotFound
from prefect_mlpipe.flowruns import summary_rows
from prefect_mlpipe.reporting.terminal import summary_text
from prefect_mlpipe.runs import Run, Runs
from tests.project import Project, ran


class Split(NamedTuple):
    train: int
    test: int


@step
def load(n: int) -> list[int]:
    logging.getLogger("tests.load").warning("loading %d", n)
    log_metrics(rows=n, share=np.float64(0.5), seen=[1, np.int64(2)])
    return [*range(n)]


@step
def split(table: list[int]) -> Split:
    return Split(len(table), 0)


@step
def double(x: int) -> int:
    log_metrics(x=x)
    return 2 * x


@pipeline
def digits(n: int = 4, note: str = "") -> Any:
    parts = split(load(n))
    return {"train": parts.train, "doubled": double.map([1, 2])}


def fresh(project: Project, name: str = "digits") -> Runs:
    """The runs as another process sees them."""
    return Runs(Store(project.store.url, cache_folder=str(project.folder / "other")), name)


def test_a_run_is_found_after_the_process_has_ended(project: Project) -> None:
    project.own(digits).local(5)
    run = fresh(project).last()
    assert (run.pipeline, run.state, run.error) == ("digits", "completed", None)
    assert run.params == {"n": 5, "note": ""}
    assert run.output == {"train": 5, "doubled": [2, 4]}
    assert run.duration >= 0
    assert run.started.tzinfo is not None
    assert [node["name"] for node in run.graph["nodes"]] == ["load", "split", "double"]
    assert [step.name for step in run] == ["load", "split", "double", "double[0]", "double[1]"]
    assert len(run) == 5


def test_a_step_of_a_run_tells_all_about_itself(project: Project) -> None:
    owned = project.own(digits)
    owned.local()
    first = fresh(project).last()
    result = first["load"]
    assert (result.name, result.state, result.reused_from) == ("load", "ran", None)
    assert result.output.load() == [0, 1, 2, 3]
    assert [str(reason) for reason in result.reasons] == ["first run"]
    assert result.metrics == {"rows": 4, "share": 0.5, "seen": [1, 2]}
    assert type(result.metrics["share"]) is float
    assert any("loading 4" in line for line in result.logs)
    assert result.duration > 0
    assert result.key is not None
    assert first["split"].output.load() == {"train": 4, "test": 0}
    assert first["double"].output.load() == [2, 4]
    assert first["double"].duration >= first["double[0]"].duration


def test_a_reused_step_still_shows_its_metrics_and_where_it_is_from(project: Project) -> None:
    owned = project.own(digits)
    owned.local()
    first = owned.runs.last()
    owned.local()
    run = fresh(project).last()
    assert run["load"].state == "reused"
    assert run["load"].reused_from == first.name
    assert run["load"].metrics["rows"] == 4
    assert run.metrics == {
        "load.rows": 4,
        "load.share": 0.5,
        "load.seen": [1, 2],
        "double[0].x": 1,
        "double[1].x": 2,
    }
    assert run["load"].logs == []
    assert run.saved_seconds == pytest.approx(
        sum(first[name].duration for name in ("load", "split", "double"))
    )
    assert run.saved_bytes > 0
    assert first.saved_seconds == 0


def test_explain_says_what_was_compared(project: Project) -> None:
    owned = project.own(digits)
    owned.local(4)
    owned.local(5)
    lines = owned.runs.last()["load"].explain().splitlines()
    assert lines[0].startswith("load: ran in ")
    assert lines[1].startswith(f"  compared with run {owned.runs.list()[1].name} of 20")
    assert lines[2:] == ["  parameter 'n' changed: 4 → 5"]
    owned.local(5)
    text = owned.runs.last()["load"].explain()
    assert text.startswith("load: reused from run ")
    assert "nothing that counts has changed" in text


def test_the_summary_says_why_in_the_words_of_the_reasons(project: Project) -> None:
    owned = project.own(digits)
    owned.local(4)
    owned.local(5)
    run = owned.runs.last()
    document = project.store.runs.read("digits", run.id)
    assert document is not None
    rows = {row.step: row for row in summary_rows(document)}
    assert rows["load"].why == "; ".join(map(str, run["load"].reasons))
    assert rows["load"].why in summary_text("digits", [*rows.values()], 1.0)
    assert rows["double"].why == "2 reused"
    assert rows["load"].metrics == "rows=5, share=0.5, seen=[1, 2]"
    assert rows["double"].metrics == "x=1…2"  # of reused items, too
    assert rows["load"].metrics in summary_text("digits", [*rows.values()], 1.0)


@step
def refusing(why: str) -> int:
    raise MissingFile(f"'{why}' is not there.", {"path": why}, "Make it.")


@pipeline
def refused(whys: list[str]) -> None:
    for why in whys:
        refusing(why)


def test_the_cause_of_a_run_is_its_whole_error_without_the_traceback(project: Project) -> None:
    owned = project.own(refused)
    with pytest.raises(MissingFile):
        owned.local(["a"])
    run = owned.runs.last()
    assert run.cause == "MissingFile: 'a' is not there.\n    path  a\nMake it."
    assert run["refusing"].cause == "MissingFile: 'a' is not there."
    assert "Traceback" in (run.error or "")
    document = project.store.runs.read("refused", run.id) or {}
    earlier = {name: value for name, value in document.items() if name != "cause"}
    assert Run(project.store, earlier).cause == run.error
    with pytest.raises(ExceptionGroup):
        owned.local([str(n) for n in range(12)])
    cause = (owned.runs.last().cause or "").splitlines()
    assert cause[0].startswith("ExceptionGroup: 12 steps of pipeline 'refused' failed")
    assert cause[1].startswith("  MissingFile: '")
    assert cause[-1] == "  … and 2 more"
    owned.local([])
    assert owned.runs.last().cause is None


@step
def applied(how: Callable[[int], int]) -> int:
    return how(20)


@pipeline
def chosen(up: bool) -> int:
    return applied((lambda x: x + 1) if up else (lambda x: x - 1))


def test_the_summary_names_the_code_that_changed_in_an_argument(project: Project) -> None:
    owned = project.own(chosen)
    assert [owned.local(up) for up in (False, True)] == [19, 21]
    document = project.store.runs.read("chosen", owned.runs.last().id)
    assert document is not None
    (row,) = summary_rows(document)
    code = "tests.test_runs.chosen.<locals>.<lambda>"
    assert row.why == f"parameter 'how' changed: code of {code}"


def test_runs_are_listed_filtered_and_got(project: Project) -> None:
    owned = project.own(digits)
    for n in (1, 2, 2):
        owned.local(n)
    runs = fresh(project)
    newest = runs.list()
    assert [run.params["n"] for run in newest] == [2, 2, 1]
    assert [run.params["n"] for run in runs.list(limit=1)] == [2]
    assert [run.id for run in runs.filter(n=2)] == [newest[0].id, newest[1].id]
    assert runs.filter(n=2, note="x") == []
    assert runs.filter(state="failed") == []
    assert len(runs.filter(state="completed", limit=2)) == 2
    assert runs.last().id == newest[0].id
    assert runs.get(newest[2].id).params["n"] == 1
    assert runs.get(newest[2].name).id == newest[2].id
    with pytest.raises(KeyError, match="no step 'lod'"):
        newest[0]["lod"]


def test_a_run_that_is_not_there_is_a_clear_error(project: Project) -> None:
    with pytest.raises(RunNotFound, match=r"(?s)'digits' has no run.*store"):
        fresh(project).last()
    project.own(digits).local()
    with pytest.raises(RunNotFound, match="'nowhere'"):
        fresh(project).get("nowhere")


def test_a_body_that_returns_what_cannot_be_stored_still_returns_it(project: Project) -> None:
    import threading

    @pipeline
    def p() -> Any:
        return [double(1), threading.Lock()]

    owned = project.own(p)
    assert owned.local()[0] == 2
    with pytest.raises(OutputError, match="cannot be stored"):
        _ = owned.runs.last().output


def test_a_value_made_in_the_body_is_kept(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return Split(double(3), 7)

    owned = project.own(p)
    assert owned.local() == Split(6, 7)
    assert fresh(project, "p").last().output == (6, 7)


def test_inside_a_step_current_says_where_it_is(project: Project) -> None:
    seen: list[Any] = []

    @step(cache=False)
    def look() -> int:
        here = current()
        seen.append((here.step, here.pipeline, here.run, here.compute, bool(here.key)))
        return 1

    @pipeline
    def p() -> Any:
        return look(), look()

    owned = project.own(p)
    owned.local()
    run = owned.runs.last()
    assert sorted(seen) == [
        ("look", "p", run.name, "default", True),
        ("look#2", "p", run.name, "default", True),
    ]


def test_outside_a_step_current_and_log_metrics_are_harmless() -> None:
    log_metrics(accuracy=1.0)
    assert current().step == ""
    assert current().metrics == {}
    with pytest.raises(TypeError, match="Metric 'x' is a object"):
        log_metrics(x=object())  # type: ignore[arg-type]


def test_a_run_that_the_body_ended_leaves_its_manifest(project: Project) -> None:
    @pipeline
    def p() -> Any:
        ran("body")
        raise KeyError("body")

    owned = project.own(p)
    with pytest.raises(KeyError):
        owned.local()
    run = owned.runs.last()
    assert run.state == "failed"
    assert run.error is not None
    assert "KeyError: 'body'" in run.error


def test_a_pinned_run_stays_with_its_values_whatever_is_pruned(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "SETTLE_S", 0.0)
    owned = project.own(digits)
    for n in (1, 2):
        owned.local(n)
    first, last = owned.runs.list()[1], owned.runs.last()
    first.pin()
    assert (first.pinned, last.pinned) == (True, False)
    for path in Path(project.store.url).rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert project.store.prune(keep_last=0).counts["runs"] == 1
    assert [run.id for run in owned.runs] == [first.id]
    project.ran()
    owned.local(1)
    assert project.ran() == []
    first.unpin()
    assert not first.pinned
