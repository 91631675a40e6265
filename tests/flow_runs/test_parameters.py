"""Parameters as Prefect shows them and gives them back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from pydantic import BaseModel, SecretStr

from prefect_mlpipe import File, Pipeline, RunOptions, pipeline, step
from prefect_mlpipe.errors import InvalidParameters
from tests.flow_runs.conftest import Seen


@step
def total(values: Any) -> float:
    return float(np.sum(values))


@step
def length(file: File) -> int:
    return len(Path(file).read_bytes())


@step(ignore=["key"])
def opened(key: SecretStr) -> int:
    return len(key.get_secret_value())


class Search(BaseModel):
    depth: int = 3
    key: SecretStr = SecretStr("hidden away")


@dataclass
class Point:
    x: int
    y: int


@pipeline
def summed(values: Any) -> float:
    return total(values)


def run_again(mine: Pipeline[..., Any], seen: Seen, parameters: dict[str, Any]) -> Any:
    """Run a pipeline as a worker does: for a flow run that somebody has made over the API."""
    made = seen.api.client.create_flow_run(flow(name=mine.name)(lambda: None))
    body = {"id": str(made.id), "parameters": parameters}
    assert body["id"]
    run = FlowRun.model_validate({**made.model_dump(), "parameters": parameters})
    return run_flow(mine, flow_run=run, parameters=parameters, return_type="state")


def test_an_array_is_shown_by_reference_and_the_reference_runs_again(
    seen: Seen, store: str
) -> None:
    mine = summed.with_options(store=store, name="array")
    assert mine(np.arange(5.0)) == 10
    shown = seen.flow_run("array")["parameters"]["values"]
    assert shown["$mlpipe"] == "numpy.ndarray"
    assert run_again(mine, seen, {"values": shown}).result().load() == 10
    assert seen.task_runs("array", 1)["total"]["state_name"] == "Cached"


def test_a_long_list_is_shown_by_reference_and_a_short_one_as_it_is(seen: Seen, store: str) -> None:
    mine = summed.with_options(store=store, name="list")
    mine([1, 2, 3])
    assert seen.flow_run("list")["parameters"] == {"values": [1, 2, 3]}
    mine(list(range(50_000)))
    assert set(seen.flow_run("list")["parameters"]["values"]) == {"$mlpipe", "value"}


def test_a_reference_cannot_smuggle_bytes_in(seen: Seen, store: str) -> None:
    mine = summed.with_options(store=store, name="smuggled")
    small = mine.open_store().put(np.arange(2.0))
    assert small.inline is not None
    for value in (small.to_json(), ["d", "../../etc/passwd", 1, "t", "pickle", [], None, None], 5):
        with pytest.raises(InvalidParameters, match="'values' is a reference"):
            mine(values={"$mlpipe": "numpy.ndarray", "value": value})
    assert seen.flow_runs("smuggled") == []


def test_secrets_are_never_shown_wherever_they_stand(seen: Seen, store: str) -> None:
    secrets = SecretStr("open sesame"), [SecretStr("swordfish")]

    @pipeline(name="secret")
    def mine(key: SecretStr, keys: list[SecretStr], search: Search) -> int:
        return opened(key)

    assert mine.with_options(store=store)(*secrets, Search()) == 11
    shown = seen.flow_run("secret")["parameters"]
    assert shown["key"] == "***"
    assert shown["keys"] == ["***"]
    assert "hidden away" not in str(shown)
    documents = b"".join(p.read_bytes() for p in Path(store).rglob("*") if p.is_file())
    assert not any(secret in documents for secret in (b"open sesame", b"swordfish", b"hidden away"))


def test_a_file_is_a_plain_string_everywhere(seen: Seen, store: str, tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("12345")

    @pipeline(name="file")
    def mine(file: File) -> int:
        return length(file)

    mine = mine.with_options(store=store)
    assert mine.parameters.properties["file"]["type"] == "string"
    assert mine(str(path)) == mine(path) == mine(File(path)) == 5  # type: ignore[arg-type]
    assert seen.flow_run("file")["parameters"] == {"file": str(path)}


def test_dataclasses_and_models_are_shown_as_json(seen: Seen, store: str) -> None:
    @pipeline(name="json")
    def mine(point: Point, run: RunOptions = RunOptions()) -> float:
        return total([point.x, point.y])

    assert mine.with_options(store=store)(Point(1, 2), run=RunOptions(refresh=["total"])) == 3
    shown = seen.flow_run("json")["parameters"]
    assert shown["point"] == {"x": 1, "y": 2}
    assert shown["run"]["refresh"] == ["total"]
    again = run_again(mine.with_options(store=store), seen, {"point": {"x": 1, "y": 2}})
    assert again.result().load() == 3


def test_rest_and_python_calls_share_keys(seen: Seen, store: str) -> None:
    @pipeline(name="shared")
    def mine(x: int, by: float = 2) -> float:
        return total([x, by])

    mine = mine.with_options(store=store)
    assert mine(3) == 5
    for parameters in ({"x": "3"}, {"x": 3, "by": "2.0"}, {"x": 3.0, "by": 2}):
        assert run_again(mine, seen, parameters).result().load() == 5
        assert seen.task_runs("shared", 1)["total"]["state_name"] == "Cached"


@pytest.mark.parametrize("parameters", [{"x": "many"}, {"x": 1, "y": 2}])
def test_wrong_parameters_over_the_api_fail_the_run_before_anything_runs(
    seen: Seen, store: str, parameters: dict[str, Any]
) -> None:
    @pipeline(name="wrong")
    def mine(x: int) -> float:
        return total([x])

    state = run_again(mine.with_options(store=store), seen, parameters)
    assert state.is_failed()
    assert "'wrong'" in state.message
    assert seen.api.task_runs(UUID(seen.flow_run("wrong")["id"])) == {}


def test_a_parameter_that_can_be_neither_shown_nor_stored_is_refused(
    seen: Seen, store: str
) -> None:
    with open(__file__) as file, pytest.raises(InvalidParameters, match="neither shown"):
        summed.with_options(store=store, name="neither")([file])
    assert seen.flow_runs("neither") == []
