"""What lies in a store in another shape than expected stops neither a plan nor a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from prefect_mlpipe.core import store as store_module
from tests.project import Project

SOURCE = """
    from prefect_mlpipe import pipeline, step
    from tests.project import ran

    def clean(x):
        return x + 1

    @step
    def load(n: int) -> list[int]:
        ran("load")
        return [clean(n)]

    @step
    def train(table: list[int]) -> int:
        ran("train")
        return sum(table)

    @pipeline
    def main(n: int = 1) -> int:
        return train(load(n))
"""


def without(*names: str) -> Callable[[Any], Any]:
    return lambda document: {name: document[name] for name in document.keys() - set(names)}


SPOILED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "code without looks": ("code/*/*", without("looks", "elsewhere")),
    "code as a list": ("code/*/*", lambda document: [document]),
    "latest without a key": ("latest/*", without("key")),
    "records with an older manifest": (
        "records/*/*",
        lambda document: {**document, "manifest": without("sources")(document["manifest"])},
    ),
    "records of an unknown manifest": (
        "records/*/*",
        lambda document: {**document, "manifest": {**document["manifest"], "moon": "full"}},
    ),
    "runs without nodes": ("runs/*/*.json", without("nodes")),
    "runs whose nodes lack a key": (
        "runs/*/*.json",
        lambda document: {**document, "nodes": [without("key")(n) for n in document["nodes"]]},
    ),
    "everything empty": ("*/*/*", lambda document: {}),
}


def spoil(store: Path, pattern: str, change: Callable[[Any], Any]) -> None:
    found = [path for path in store.glob(pattern) if path.is_file() and path.name != "last"]
    assert found
    for path in found:
        document = orjson.loads(path.read_bytes())
        if path.parts[-3] == "records":
            changed = change(document["record"])
            data = orjson.dumps(changed)
            checksum = store_module.blake3(data).hexdigest()
            document = {"checksum": checksum, "record": changed}
        else:
            document = change(document)
        path.write_bytes(orjson.dumps(document))


@pytest.mark.parametrize("case", SPOILED)
def test_plan_run_and_explain_go_on(project: Project, case: str) -> None:
    before = project.own(project.module("steps", SOURCE).main)
    assert before.local() == 2
    assert project.ran() == ["load", "train"]
    spoil(project.folder / "store", *SPOILED[case])

    now = project.own(project.module("steps", SOURCE.replace("x + 1", "x + 2")).main)
    plan = now.plan()
    assert plan[0].action == "run"
    assert all(plan.explain(step.name).startswith(f"{step.name}: run") for step in plan)
    assert now.local() == 3
    assert project.ran() == ["load", "train"]
    assert all(step.explain() for run in now.runs for step in run)
    assert [step.action for step in now.plan()] == ["reuse", "reuse"]
