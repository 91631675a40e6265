"""`mlpipe runs` and `mlpipe store`: what is asked of a store."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from prefect_mlpipe.all_runs import AllRuns
from prefect_mlpipe.core.upkeep import pruning
from prefect_mlpipe.stores import open_store
from tests.cli.conftest import Mlpipe

SUMS = "sums.py:adding"
OTHER = """
from prefect_mlpipe import pipeline, step

@step
def one() -> int:
    return 1

@pipeline
def other() -> int:
    return one()
"""


def test_runs_of_all_pipelines_are_listed_newest_first(mlpipe: Mlpipe, folder: Path) -> None:
    assert mlpipe("runs", "ls").out.strip() == "No runs."
    (folder / "other.py").write_text(OTHER)
    mlpipe("run", SUMS, "--local")
    mlpipe("run", "other.py:other", "--local")
    mlpipe("run", SUMS, "--local", "-p", "bad=true")
    runs = mlpipe("runs", "ls", "--json").json["runs"]
    assert [run["pipeline"] for run in runs] == ["adding", "other", "adding"]
    assert [run["state"] for run in runs] == ["failed", "completed", "completed"]
    [newest] = mlpipe("runs", "ls", "--json", "--limit", "1").json["runs"]
    assert newest == runs[0]
    for said, count in [
        (["other"], 1),
        (["other.py:other"], 1),
        (["adding", "--state", "completed"], 1),
    ]:
        assert len(mlpipe("runs", "ls", *said, "--json").json["runs"]) == count
    table = mlpipe("runs", "ls").out
    assert all(run["name"] in table for run in runs)


def test_an_unknown_pipeline_is_refused_with_those_that_have_runs(mlpipe: Mlpipe) -> None:
    mlpipe("run", SUMS, "--local")
    for words in (["ls", "addin"], ["inspect", "last", "--pipeline", "addin"]):
        said = mlpipe("runs", *words, "--json")
        assert (said.code, said.json["error"]["facts"]["pipelines"]) == (2, "adding")
        assert "'adding'" in said.json["error"]["advice"]
    known = mlpipe("runs", "ls", "adding", "--state", "failed")
    assert (known.code, known.out.strip()) == (0, "No runs.")
    assert mlpipe("runs", "ls", "sums.py:judging").out.strip() == "No runs."


@pytest.mark.parametrize(
    "words", [["store", "usage"], ["store", "verify"], ["store", "prune"], ["runs", "ls"]]
)
def test_a_store_that_is_named_must_be_there(
    mlpipe: Mlpipe, folder: Path, words: list[str]
) -> None:
    said = mlpipe(*words, "--store", str(folder / "nowhere"))
    assert (said.code, "There is no store" in said.err, said.out) == (4, True, "")
    assert not (folder / "nowhere").exists()
    assert mlpipe("store", "usage").code == 0  # that of the settings is made by the first run


def test_a_run_that_left_nothing_may_have_been_killed(mlpipe: Mlpipe) -> None:
    mlpipe("run", SUMS, "--local")
    assert "was killed" in mlpipe("runs", "inspect", "0" * 32).err


def test_a_run_is_shown_by_name_by_id_and_as_the_last_one(mlpipe: Mlpipe) -> None:
    mlpipe("run", SUMS, "--local")
    made = mlpipe("run", SUMS, "--local", "-p", "n=4", "--json").json["run"]
    for which in (made["id"], made["name"], "last"):
        assert mlpipe("runs", "inspect", which, "--json").json["run"] == made
    page = mlpipe("runs", "inspect", "last").out
    assert "parameter 'n' changed: 3 → 4" in page
    wrong = mlpipe("runs", "inspect", "nobody", "--json")
    assert (wrong.code, wrong.json["error"]["type"]) == (2, "RunNotFound")


def test_a_run_is_shown_with_its_version_and_what_it_replays(mlpipe: Mlpipe, folder: Path) -> None:
    mlpipe("run", SUMS, "--local")
    store = open_store()
    [known] = AllRuns(store)
    document = store.runs.read("adding", known.id) or {}
    changed = {**document, "id": "1" * 32, "version": "v7", "replays": "0" * 32}
    store.runs.write("adding", "1" * 32, changed)
    page = mlpipe("runs", "inspect", "1" * 32).out
    assert "version     v7\n" in page
    assert f"replays     {'0' * 32}\n" in page
    run = mlpipe("runs", "inspect", "1" * 32, "--json").json["run"]
    assert (run["version"], run["replays"]) == ("v7", "0" * 32)


def test_a_step_of_a_run_is_explained(mlpipe: Mlpipe) -> None:
    mlpipe("run", SUMS, "--local")
    mlpipe("run", SUMS, "--local", "-p", "n=4")
    said = mlpipe("runs", "explain", "last", "load", "--json").json
    assert said["step"]["state"] == "ran"
    assert "parameter 'n' changed: 3 → 4" in said["explanation"]
    assert said["explanation"] in mlpipe("runs", "explain", "last", "load").out
    assert mlpipe("runs", "explain", "last", "double[3]", "--json").json["step"]["state"] == "ran"
    wrong = mlpipe("runs", "explain", "last", "none")
    assert (wrong.code, "it has load" in wrong.err) == (2, True)


def test_usage_says_what_a_store_takes(mlpipe: Mlpipe, folder: Path) -> None:
    mlpipe("run", SUMS, "--local")
    usage = mlpipe("store", "usage", "--json").json["usage"]
    assert usage["store"] == str(folder / "store")
    assert usage["kinds"]["records"]["number"] > 0
    assert usage["size_bytes"] == sum(kind["size_bytes"] for kind in usage["kinds"].values())
    assert "records" in mlpipe("store", "usage").out


def test_verify_ends_with_1_where_something_is_damaged(mlpipe: Mlpipe, folder: Path) -> None:
    mlpipe("run", SUMS, "--local")
    assert mlpipe("store", "verify").code == 0
    record = next(path for path in (folder / "store" / "records").rglob("*") if path.is_file())
    record.chmod(0o644)
    record.write_bytes(record.read_bytes()[:-3] + b"xyz")
    said = mlpipe("store", "verify", "--json")
    assert said.code == 1
    assert not said.json["verified"]["sound"]
    [problem] = said.json["verified"]["problems"]
    assert problem["found"] == "damaged"
    assert "--repair" in mlpipe("store", "verify").out
    assert mlpipe("store", "verify", "--repair").code == 1
    assert mlpipe("store", "verify").code == 0


@pytest.fixture
def old_run(mlpipe: Mlpipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose only run is ten days old."""
    monkeypatch.setattr(pruning, "SETTLE_S", 0.0)
    mlpipe("run", SUMS, "--local")
    then = time.time() - 10 * 86400
    for path in [folder / "store", *(folder / "store").rglob("*")]:
        os.utime(path, (then, then))
    return folder / "store"


def runs_in(store: Path) -> int:
    return len([*(store / "runs").rglob("*-*.json")])


def test_prune_only_says_what_would_go_unless_it_is_told_yes(mlpipe: Mlpipe, old_run: Path) -> None:
    said = mlpipe("store", "prune", "--keep-last", "0")
    assert said.code == 0
    assert "would free" in said.out
    assert "--yes removes it." in said.out
    dry = mlpipe("store", "prune", "--keep-last", "0", "--json").json["pruned"]
    assert (dry["dry_run"], dry["counts"]["runs"], runs_in(old_run)) == (True, 1, 1)
    done = mlpipe("store", "prune", "--keep-last", "0", "--yes", "--json").json["pruned"]
    assert (done["dry_run"], done["counts"], runs_in(old_run)) == (False, dry["counts"], 0)


def test_prune_keeps_what_is_not_old_enough(mlpipe: Mlpipe, old_run: Path) -> None:
    # the run says itself when it began
    assert mlpipe("store", "prune", "--older-than", "1h", "--json").json["pruned"]["counts"] == {}
    assert runs_in(old_run) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--max-bytes", "lots"], "is no size"),
        (["--keep-last", "-1"], "0 or more"),
        (["--grace", "1s"], "at least"),
        (["--older-than", "soon"], "soon"),
        (["--older-than", "30"], "30d"),
        (["--grace", "2"], "1d12h"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(mlpipe: Mlpipe, words: list[str], why: str) -> None:
    said = mlpipe("store", "prune", *words)
    assert said.code == 2
    assert why in said.err
