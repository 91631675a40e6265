"""Two flow runs that need the same step at once: one computes, the other waits in its driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.runs import Runs
from tests.flow_runs.conftest import Script, Seen

SCRIPT = """
    import os, sys, time
    from prefect_mlpipe import pipeline, step
    from prefect_mlpipe.compute import Dask, Threads

    def ran(name):
        with open(os.environ["MLPIPE_TESTS_LOG"], "a") as log:
            log.write(name + "\\n")

    @step(ignore=["folder"])
    def slow(x: int, folder: str) -> int:
        ran("slow")
        open(os.path.join(folder, "begun"), "w").close()
        while not os.path.exists(os.path.join(folder, "go")):
            time.sleep(0.01)
        return x + 1

    @step(ignore=["folder"])
    def other(x: int, folder: str) -> int:
        ran("other")
        open(os.path.join(folder, "other"), "w").close()
        return x + 10

    @pipeline(name="{name}")
    def mine(folder: str, others: bool = False) -> int:
        found = slow(1, folder)
        if others:
            other(2, folder)
        return found

    if __name__ == "__main__":
        os.environ["MLPIPE_TESTS_LOG"] = os.path.abspath("ran.txt")
        one = {compute}
        print("value", mine.with_options(compute={{"default": one}})(os.getcwd(), {others}))
"""


@pytest.mark.parametrize(
    "compute", ["Threads(max_workers=1)", "Dask(n_workers=1, threads_per_worker=1)"]
)
def test_a_flow_run_waits_for_another_and_keeps_no_worker_busy_with_it(
    script: Callable[..., Script], seen: Seen, tmp_path: Path, store: str, compute: str
) -> None:
    name = f"waiting-{compute[:4].lower()}"
    holder = script(SCRIPT.format(name=name, compute="Threads()", others=False))
    seen.wait_for(lambda: (tmp_path / "begun").exists() or holder.over)
    waiter = script(SCRIPT.format(name=name, compute=compute, others=True))
    waiter.until("slow: waits for run ")
    assert f", process {holder.process.pid})" in waiter.text
    # The only place of its compute is free for another step while it waits.
    seen.wait_for(lambda: (tmp_path / "other").exists() or waiter.over)
    assert not holder.over
    assert not waiter.over, waiter.text
    (tmp_path / "go").touch()
    for one in (holder, waiter):
        assert one.end() == 0, one.text
        assert "value 2" in one.text
    assert sorted((tmp_path / "ran.txt").read_text().split()) == ["other", "slow"]
    later, first = Runs(Store(store), name)
    step = later["slow"]
    assert (step.state, step.reused_from) == ("reused", first.name)
    assert [one.kind for one in step.reasons] == ["waited for"]
    states = seen.states(name, 2)
    assert states == {"slow": "Cached", "other": "Completed"}
    assert f"slow: waits for run {first.name} " in " ".join(seen.logs(name, "slow: waits for run"))
