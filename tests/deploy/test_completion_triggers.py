from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import jsonschema
import pytest
from prefect import flow
from prefect.deployments.runner import RunnerDeployment
from prefect.events import ResourceSpecification
from prefect.events.schemas.events import Resource
from pydantic import ValidationError

from prefect_mlpipe import CompletionTrigger, pipeline
from prefect_mlpipe.deploy.completions import Completion
from prefect_mlpipe.errors import InvalidPipeline

DEPLOYMENT = UUID("00000000-0000-0000-0000-000000000001")


class Prepared(NamedTuple):
    table: list[int]
    rows: int


@pipeline
def prep() -> Prepared:
    """Returns two fields."""
    return Prepared([], 0)


@pipeline
def score(features: list[int], depth: int = 3) -> None:
    """Score what was prepared.

    Args:
        features: what to score.
    """


@flow
def report() -> None: ...


def deployed(trigger: CompletionTrigger) -> Any:
    """The automation that Prefect would make."""
    trigger.set_deployment_id(DEPLOYMENT)
    return trigger.as_automation()


def bound(trigger: CompletionTrigger) -> RunnerDeployment:
    deployment = score.to_deployment("after", triggers=[trigger])
    assert isinstance(deployment, RunnerDeployment)
    return deployment


@pytest.mark.parametrize("takes", [(), ("table",), ("model", "table")])
def test_labels_say_all_and_match_themselves(takes: tuple[str, ...]) -> None:
    completion = Completion(name="score", pipeline="prep", takes=takes, only_if_changed=False)
    match = ResourceSpecification.model_validate(completion.labels())
    assert Completion.from_labels(dict(match.items())) == completion
    assert match.matches(Resource.model_validate(completion.labels()))


def test_events_carry_the_labels_as_somebody_has_spelled_them() -> None:
    asked = {
        "prefect.resource.id": "prefect-mlpipe.outputs.score",
        "prefect-mlpipe.pipeline": "prep",
        "prefect-mlpipe.takes": "table,rows",
        "prefect-mlpipe.only_if_changed": "false",
    }
    match = ResourceSpecification.model_validate(asked)
    understood = Completion.from_labels(dict(match.items()))
    assert match.matches(Resource.model_validate(understood.labels()))


def test_labels_that_nobody_knows_are_refused() -> None:
    with pytest.raises(ValidationError, match="takse"):
        Completion.from_labels(
            {
                "prefect.resource.id": "prefect-mlpipe.outputs.x",
                "prefect-mlpipe.pipeline": "prep",
                "prefect-mlpipe.takse": "table",
            }
        )


def test_the_automation_waits_for_outputs_that_are_taken_by_its_own_deployment() -> None:
    trigger = CompletionTrigger(prep, takes={"table": "features"}, name="new table")
    automation = deployed(trigger)
    assert automation.name == "new table"
    assert automation.trigger.expect == {"prefect-mlpipe.outputs.changed"}
    completion = Completion.from_labels(dict(automation.trigger.match.items()))
    assert (completion.pipeline, completion.takes) == ("prep", ("table",))
    assert str(DEPLOYMENT) in completion.name
    assert automation.actions[0].deployment_id == DEPLOYMENT


@pytest.mark.parametrize(
    "trigger",
    [
        CompletionTrigger(report),
        CompletionTrigger("report"),
        CompletionTrigger(prep, only_if_changed=False),
    ],
)
def test_of_a_plain_flow_a_name_or_when_all_counts_it_waits_for_the_state(
    trigger: CompletionTrigger,
) -> None:
    automation = deployed(trigger)
    assert automation.trigger.expect == {"prefect.flow-run.Completed"}
    assert dict(automation.trigger.match_related.items()) == {
        "prefect.resource.role": ["flow"],
        "prefect.resource.name": [trigger.upstream],
    }


def test_a_taken_parameter_may_come_by_reference_whatever_its_type_and_no_other_may() -> None:
    schema: Any = bound(
        CompletionTrigger("prep", takes={"table": "features"})
    )._parameter_openapi_schema.model_dump()
    features = schema["properties"]["features"]
    assert features["description"] == "what to score."
    assert schema["properties"]["depth"] == {
        "default": 3,
        "position": 1,
        "title": "depth",
        "type": "integer",
    }
    reference = {"$mlpipe": "builtins.list", "value": ["digest"]}
    jsonschema.validate({"features": reference}, schema)
    jsonschema.validate({"features": [1]}, schema)
    for wrong in ({"features": ["a"]}, {"features": {}}, {"features": [1], "depth": reference}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_what_cannot_be_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(InvalidPipeline, match=r"(?s)no 'tabel'.*table, rows"):
        CompletionTrigger(prep, takes={"tabel": "features"})
    with pytest.raises(InvalidPipeline, match="what a plain flow returns is in no store"):
        CompletionTrigger(report, takes={"result": "features"})
    with pytest.raises(InvalidPipeline, match=r"(?s)no parameter 'featuers'.*features, depth"):
        bound(CompletionTrigger("prep", takes={"table": "featuers"}))
    elsewhere = prep.with_options(store=str(tmp_path))
    with pytest.raises(InvalidPipeline, match="another store"):
        bound(CompletionTrigger(elsewhere, takes={"table": "features"}))


def test_what_could_start_no_run_is_refused() -> None:
    with pytest.raises(InvalidPipeline, match=r"(?s)'features'.*cannot take 'rows'.*int.*array"):
        bound(CompletionTrigger(prep, takes={"rows": "features"}))
    with pytest.raises(InvalidPipeline, match=r"(?s)no run of pipeline 'score'.*'features'"):
        bound(CompletionTrigger(prep))
    with pytest.raises(InvalidPipeline, match=r"(?s)depth.*'deep' is not of type 'integer'"):
        bound(CompletionTrigger(prep, parameters={"features": [1], "depth": "deep"}))
    bound(CompletionTrigger(prep, parameters={"features": [1]}))
    score.to_deployment("after", triggers=[CompletionTrigger(prep)], parameters={"features": [1]})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"featuers": [1]}, "'featuers' was unexpected(.|\n)*features, depth"),
        ({"depth": "deep"}, "parameter +depth(.|\n)*not of type 'integer'"),
        ({"features": [1, "a"]}, "features.1"),
    ],
)
def test_parameters_that_no_run_could_have_are_refused(wrong: Any, said: str) -> None:
    with pytest.raises(InvalidPipeline, match=said):
        score.to_deployment("wrong", parameters=wrong)


def test_what_prefect_fills_in_later_is_left_to_it() -> None:
    later = {"__prefect_kind": "workspace_variable", "variable_name": "depth"}
    made = score.to_deployment("later", parameters={"features": [1], "depth": later})
    assert isinstance(made, RunnerDeployment)
    assert made.parameters["depth"] == later


def test_further_parameters_go_along() -> None:
    trigger = CompletionTrigger("prep", takes={"rows": "depth"}, parameters={"features": [1]})
    assert trigger.parameters is not None
    assert trigger.parameters["features"] == [1]
    assert "event.payload.taken" in str(trigger.parameters["depth"])


def test_it_is_a_value() -> None:
    trigger = CompletionTrigger(prep, takes={"table": "features"})
    assert pickle.loads(pickle.dumps(trigger)) == trigger
