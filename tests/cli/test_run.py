"""`mlpipe run` and `mlpipe plan`."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.exceptions import ParameterTypeError

from tests.cli.conftest import Mlpipe
from tests.server import Server

SUMS = "sums.py:adding"


def states(said: dict[str, object]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in said["steps"]}  # type: ignore[attr-defined]


def test_a_run_says_what_ran_and_what_it_returned(mlpipe: Mlpipe) -> None:
    said = mlpipe("run", SUMS, "--local", "-p", "n=4")
    assert said.code == 0
    assert "returned 12" in said.out
    assert "first run" in said.out


def test_json_is_all_that_stands_on_stdout(mlpipe: Mlpipe) -> None:
    said = mlpipe("run", SUMS, "--local", "--json", "--params", '{"n": 4}')
    assert said.code == 0
    assert said.json["returned"] == 12
    run = said.json["run"]
    assert (run["pipeline"], run["state"], run["parameters"]) == (
        "adding",
        "completed",
        {"n": 4, "bad": False},
    )
    assert states(run) == {"load": "ran", "double": "ran", "total": "ran"}
    assert run["counts"] == {"ran": 3, "reused": 0, "failed": 0, "skipped": 0, "cancelled": 0}
    assert run["steps"][1]["items"]["ran"] == 4
    assert "noise of a step" in said.err


def test_what_ran_once_is_reused_and_refreshed_when_asked(mlpipe: Mlpipe) -> None:
    mlpipe("run", SUMS, "--local")
    again = mlpipe("run", SUMS, "--local", "--json").json["run"]
    assert set(states(again).values()) == {"reused"}
    asked = mlpipe("run", SUMS, "--local", "--json", "--refresh", "load").json["run"]
    assert states(asked)["load"] == "ran"
    assert states(asked)["total"] == "reused"
    whole = mlpipe("run", SUMS, "--local", "--json", "--refresh-all").json["run"]
    assert set(states(whole).values()) == {"ran"}


def test_only_what_a_target_needs_runs(mlpipe: Mlpipe) -> None:
    run = mlpipe("run", SUMS, "--local", "--json", "--target", "load").json["run"]
    assert {name for name, state in states(run).items() if state == "ran"} == {"load"}


def test_a_failed_run_ends_with_1_and_its_error_without_a_traceback(mlpipe: Mlpipe) -> None:
    said = mlpipe("run", SUMS, "--local", "-p", "bad=true", "--failures", "stop")
    assert said.code == 1
    assert "total   failed" in said.out
    assert "ValueError: no good" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in mlpipe("run", SUMS, "--local", "-p", "bad=true", "--traceback").err


def test_a_failed_run_is_told_as_json_too(mlpipe: Mlpipe) -> None:
    said = mlpipe("run", SUMS, "--local", "-p", "bad=true", "--json")
    assert said.code == 1
    assert said.json["run"]["state"] == "failed"
    assert states(said.json["run"])["total"] == "failed"
    assert said.json["returned"] is None


def test_a_failed_run_is_shown_with_the_whole_message_and_the_step_that_failed(
    mlpipe: Mlpipe,
) -> None:
    mlpipe("run", "sums.py:judging", "--local", "-p", "found=false")
    page = mlpipe("runs", "inspect", "last").out
    for said in ("MissingFile: Step 'judge' finds no file.", "path  a.csv", "Make it."):
        assert said in page
    assert "judge    failed  MissingFile: " in page
    run = mlpipe("runs", "inspect", "last", "--json").json["run"]
    assert run["cause"].startswith("MissingFile: Step 'judge' finds no file.\n")
    assert run["error"].startswith("Traceback")
    assert run["steps"][1]["cause"] == "MissingFile: Step 'judge' finds no file."


def test_metrics_are_shown_where_there_are_any_of_items_their_range(mlpipe: Mlpipe) -> None:
    assert "metrics" not in mlpipe("run", SUMS, "--local").out
    page = mlpipe("run", "sums.py:judging", "--local").out
    assert "accuracy=0.91…0.93" in page
    assert "verdict=good" in page


def test_as_a_flow_it_is_a_flow_run(mlpipe: Mlpipe, api: Server) -> None:
    from prefect.client.orchestration import get_client

    said = mlpipe("run", SUMS, "-p", "n=5", "--json")
    assert (said.code, said.json["returned"]) == (0, 20)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(said.json["run"]["id"])
    assert run.name == said.json["run"]["name"]
    failed = mlpipe("run", SUMS, "-p", "bad=true", "--json")
    assert (failed.code, failed.json["run"]["state"]) == (1, "failed")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-p", "m=5"], "'m'"),
        (["-p", "n=x"], "valid integer"),
        (["-p", "n"], "is not key=value"),
        (["-p", 'n="x'], "is no JSON"),
        (["--params", "[1]"], "no JSON object"),
        (["--params", "{"], "is no JSON"),
        (["--params", '{"n": 1}', "-p", "n=2"], "by --param and by --params: n"),
        (["--failures", "abort"], "abort"),
        (["--nonsense"], "--nonsense"),
        (["--refresh"], "--refresh"),
    ],
)
def test_what_does_not_fit_is_refused_with_2_before_anything_runs(
    mlpipe: Mlpipe, folder: Path, words: list[str], why: str
) -> None:
    said = mlpipe("run", SUMS, "--local", *words)
    assert said.code == 2
    assert why in said.err
    assert "Traceback" not in said.err
    as_json = mlpipe("run", SUMS, "--local", "--json", *words)
    assert as_json.code == 2
    assert why in as_json.json["error"]["message"] + str(as_json.json["error"]["facts"])
    assert not (folder / "store" / "runs").exists()


def test_a_parameter_of_a_wrong_type_is_told_once(
    mlpipe: Mlpipe, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.flows import flow

    assert "n: Input should be" in mlpipe("run", SUMS, "--local", "-p", "n=x").err
    assert "validation failed" not in caplog.text

    @flow
    def plain(n: int) -> None: ...

    with pytest.raises(ParameterTypeError):
        plain.validate_parameters({"n": "x"})
    assert "validation failed" in caplog.text


def test_parameters_are_read_from_stdin(mlpipe: Mlpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO('{"n": 2}'))
    assert mlpipe("run", SUMS, "--local", "--json", "--params", "-").json["returned"] == 2


@pytest.mark.parametrize(
    ("entrypoint", "why"),
    [
        ("none.py:adding", "there is no file"),
        ("sums.py:none", "'none' not found"),
        ("sums.py:plain", "a flow, but no pipeline"),
        ("sums.py:load", "is not a flow"),
        ("no_such_module:adding", "no_such_module"),
        ("sums", "no pipeline is named"),
        ("sums.py", "no pipeline is named"),
    ],
)
def test_what_is_no_pipeline_is_refused_with_2(mlpipe: Mlpipe, entrypoint: str, why: str) -> None:
    said = mlpipe("plan", entrypoint, "--json")
    assert said.code == 2
    assert said.json["error"]["type"] == "PipelineNotFound"
    assert why in said.json["error"]["facts"]["because"]


@pytest.mark.parametrize(
    ("entrypoint", "advice"),
    [
        ("sums.py:addin", "Did you mean sums.py:adding?"),
        ("sums.py:zzz", "Name it as path.py:pipeline or package.module:pipeline."),
        ("sums.py", "Name it as path.py:pipeline or package.module:pipeline."),
    ],
)
def test_the_pipelines_that_are_there_are_named(
    mlpipe: Mlpipe, entrypoint: str, advice: str
) -> None:
    error = mlpipe("plan", entrypoint, "--json").json["error"]
    assert error["facts"]["pipelines there"] == "adding, judging"
    assert error["advice"] == advice


def test_an_error_in_the_module_is_the_modules_own(mlpipe: Mlpipe, folder: Path) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    said = mlpipe("plan", "broken.py:adding")
    assert said.code == 1
    assert "ZeroDivisionError" in said.err
    assert "Traceback" not in said.err
    assert "broken.py" in mlpipe("plan", "broken.py:adding", "--traceback").err


def test_a_pipeline_is_found_by_its_module_in_the_working_folder(
    mlpipe: Mlpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        assert mlpipe("plan", "sums:adding", "--json").json["plan"]["pipeline"] == "adding"
    finally:
        sys.modules.pop("sums", None)


def test_a_plan_says_what_would_run_and_runs_nothing(mlpipe: Mlpipe) -> None:
    first = mlpipe("plan", SUMS)
    assert (first.code, "first run" in first.out) == (0, True)
    assert mlpipe("plan", SUMS, "--exit-code").code == 3
    mlpipe("run", SUMS, "--local")
    assert mlpipe("plan", SUMS, "--exit-code").code == 0
    plan = mlpipe("plan", SUMS, "-p", "n=4", "--exit-code", "--json")
    assert plan.code == 3
    assert plan.json["plan"]["counts"] == {"reuse": 0, "run": 1, "run?": 2}
    reason = plan.json["plan"]["steps"][0]["reasons"][0]
    assert reason["text"] == "parameter 'n' changed: 3 → 4"
    assert (reason["before"], reason["after"]) == ("3", "4")


def test_a_plan_explains_a_step(mlpipe: Mlpipe, folder: Path) -> None:
    mlpipe("run", SUMS, "--local")
    path = folder / "sums.py"
    path.write_text(path.read_text().replace("OFFSET = 0", "OFFSET = 7"))
    said = mlpipe("plan", SUMS, "--explain", "total")
    assert "OFFSET" in said.out
    as_json = mlpipe("plan", SUMS, "--explain", "total", "--json").json
    assert as_json["explanations"]["total"] in said.out
    wrong = mlpipe("plan", SUMS, "--explain", "none")
    assert wrong.code == 2
    assert "no step 'none'" in wrong.err


def test_a_plan_looks_for_values_that_are_gone(mlpipe: Mlpipe, folder: Path) -> None:
    (folder / "large.py").write_text(
        "import numpy as np\n"
        "from prefect_mlpipe import pipeline, step\n"
        "@step\n"
        "def make() -> np.ndarray:\n"
        "    return np.arange(100_000)\n"
        "@pipeline\n"
        "def large() -> np.ndarray:\n"
        "    return make()\n"
    )
    mlpipe("run", "large.py:large", "--local")
    for path in (folder / "store" / "values").rglob("*.npy"):
        path.unlink()
    assert mlpipe("plan", "large.py:large", "--exit-code").code == 0
    said = mlpipe("plan", "large.py:large", "--exit-code", "--verify")
    assert said.code == 3
    assert "value missing" in said.out


def test_a_store_that_cannot_be_used_ends_with_4(mlpipe: Mlpipe, folder: Path) -> None:
    (folder / "file").write_text("no folder")
    said = mlpipe("run", SUMS, "--local", "--json", "--store", str(folder / "file"))
    assert said.code == 4
    assert said.json["error"]["type"] == "StoreUnavailable"
    assert said.json["error"]["advice"]


@pytest.mark.parametrize("words", [["run", SUMS], ["watch", "--once"]])
def test_an_api_that_does_not_answer_ends_with_4(mlpipe: Mlpipe, words: list[str]) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        said = mlpipe(*words, "--json")
    assert said.code == 4
    assert said.json["error"]["type"] == "PrefectUnavailable"
    assert said.json["error"]["facts"]["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
