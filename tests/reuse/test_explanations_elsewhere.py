"""A remote store explains a change as a local one does, on another machine too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prefect_mlpipe.core.store import Store
from tests.project import Project

SOURCE = """
    from prefect_mlpipe import pipeline, step

    def clean(x):
        return x + 1

    @step
    def load(n: int) -> list[int]:
        return [clean(each) for each in range(n)]

    @step
    def train(table: list[int], lr: float) -> float:
        return sum(table) * lr

    @pipeline
    def main(n: int = 3, lr: float = 0.5) -> float:
        return train(load(n), lr)
"""
LOAD = """
  code changed: steps.clean

  steps.clean
    --- steps.clean, before
    +++ steps.clean, now
    @@ -1,2 +1,2 @@
     def clean(x):
    -    return x + 1
    +    return x + 2"""
TRAIN = """
  parameter 'lr' changed: 0.5 → 0.25
  input 'table' changed (from load)

  input table (from load): list
    length: 3 → 4
    [0]: 1 → 2
    [1]: 2 → 3
    [2]: 3 → 4
    [3] added (5)"""


def told(text: str) -> str:
    """What was compared and how; not the run or the time."""
    head, compared, *rest = text.splitlines()
    assert re.fullmatch(r"\w+(: run|: ran in .*)", head)
    assert re.fullmatch(r"  compared with run [\w-]+ of [\d: -]+ UTC:", compared)
    return "\n".join(["", *rest])


def changed(project: Project, store: Store, **options: Any) -> Any:
    """The pipeline after a run with it, and after a change of a helper."""
    before = project.module("steps", SOURCE).main.with_options(store=store, **options)
    assert before.local() == 3.0
    after = SOURCE.replace("x + 1", "x + 2")
    return project.module("steps", after).main.with_options(store=store, **options)


def test_a_remote_store_explains_as_a_local_one(project: Project, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    main = changed(project, Store(url, cache_folder=str(tmp_path / "one")))
    assert told(main.plan(n=3, lr=0.25).explain("load")) == LOAD
    assert main.local(n=4, lr=0.25) == 3.5

    elsewhere = main.with_options(store=Store(url, cache_folder=str(tmp_path / "two")))
    run = elsewhere.runs.last()
    assert told(run["load"].explain()).replace("  parameter 'n' changed: 3 → 4\n", "") == LOAD
    assert told(run["train"].explain()) == TRAIN
    assert run["train"].output.load() == 3.5
