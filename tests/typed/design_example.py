"""The public face in one page, for `mypy --strict`; it is checked and never run."""

from __future__ import annotations

from typing import NamedTuple, assert_type

import pandas as pd
from prefect.schedules import Cron

from prefect_mlpipe import (
    DataChangeTrigger,
    File,
    Resources,
    log_metrics,
    pipeline,
    publish,
    resolve,
    step,
)
from prefect_mlpipe.compute import Cuda, Dask, Threads


class Model:
    """What a library would bring."""

    def accuracy(self, table: pd.DataFrame) -> float:
        """How good it is."""
        return len(table) / (len(table) + 1)


class Split(NamedTuple):
    """Each field is a stored value of its own."""

    train: pd.DataFrame
    test: pd.DataFrame


@step
def load(csv: File) -> pd.DataFrame:
    """Read the table."""
    return pd.read_csv(csv)


@step
def split(table: pd.DataFrame, test_size: float = 0.2, seed: int = 0) -> Split:
    """Lay a share aside."""
    test = table.sample(frac=test_size, random_state=seed)
    return Split(table.drop(test.index), test)


@step(
    compute="gpu",
    resources=Resources(gpus=1, memory="8GiB"),
    retries=2,
    timeout_seconds=3600,
)
def train(table: pd.DataFrame, depth: int) -> Model:
    """Fit a model."""
    return Model()


@step
def evaluate(model: Model, table: pd.DataFrame) -> float:
    """Judge it."""
    log_metrics(accuracy=model.accuracy(table))
    return model.accuracy(table)


@pipeline
def digits(csv: File = File("data/digits.csv"), depth: int = 8) -> float:
    """Wire the steps."""
    parts = split(load(csv))
    assert_type(parts.train, pd.DataFrame)
    model = train(parts.train, depth)
    assert_type(model, Model)
    accuracy = evaluate(model, parts.test)
    assert_type(resolve(accuracy), float)
    if resolve(accuracy) > 0.95:
        publish(model, name="digits", alias="champion")
    return accuracy


def every_way_to_call_it() -> None:
    """Call, local, plan, graph, options, serve."""
    assert_type(digits(depth=10), float)
    assert_type(digits.local(depth=10), float)
    for planned in digits.plan(depth=12):
        print(planned.name, planned.action, planned.reasons, planned.compute)
        print(planned.expected_seconds)
    print(digits.plan(depth=12))
    assert_type(digits.graph().to_mermaid(), str)
    assert_type(digits.graph().to_json(), str)
    elsewhere = digits.with_options(
        store="s3://ml/store",
        compute={"gpu": Cuda(), "cpu": Dask(), "here": Threads(max_workers=2)},
        refresh=["train"],
        targets=["evaluate"],
        failures="stop",
    )
    assert_type(elsewhere(depth=10), float)
    digits.serve(
        schedules=[Cron("0 3 * * *", timezone="Europe/Paris")],
        triggers=[DataChangeTrigger("s3://raw/digits/", every=60)],
    )


def what_a_type_checker_refuses() -> None:
    """Each of these lines is an error; `mypy --strict` complains if one is not."""
    load(3)  # type: ignore[call-overload]
    train(load(File("digits.csv")))  # type: ignore[call-overload]
    digits(deep=3)  # type: ignore[call-arg]
    digits.local(depth="deep")  # type: ignore[arg-type]
