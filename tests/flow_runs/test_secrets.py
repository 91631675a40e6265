"""No secret is written anywhere: not into the store, the cache, Prefect's database or a log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.blocks.system import Secret
from pydantic import BaseModel, SecretStr

from prefect_mlpipe import EnvVar, log_metrics, pipeline, step
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import InvalidParameters
from tests.flow_runs.conftest import Seen
from tests.flow_runs.test_parameters import run_again
from tests.server import Server

SECRETS = {
    "parameter": "sentinel-of-a-parameter",
    "model": "sentinel-in-a-model",
    "list": "sentinel-in-a-list",
    "block": "sentinel-in-a-block",
    "variable": "sentinel-in-the-environment",
    "named": "sentinel-called-a-password",
    "signing": "sentinel-signing-key",
    "global": "sentinel-in-a-global",
}


class Login(BaseModel):
    user: str = "owl"
    token: SecretStr = SecretStr(SECRETS["model"])


API_KEY = SECRETS["global"]


@step(reads=[EnvVar("MLPIPE_TESTS_TOKEN")])
def fetch(key: SecretStr, login: Login, keys: list[SecretStr], block: Secret, password: str) -> Any:
    assert key.get_secret_value() == SECRETS["parameter"]
    assert block.get() == SECRETS["block"]
    log_metrics(length=len(password) + len(API_KEY))
    return np.arange(10_000.0)


@step
def total(values: Any) -> float:
    return float(values.sum())


@pipeline(name="with-secrets")
def fetched(
    key: SecretStr, login: Login, keys: list[SecretStr], block: Secret, small: bool = False
) -> float:
    return total(fetch(key, login, keys, block, SECRETS["named"]))


def places(store: Path, server: Server, text: str) -> dict[str, bytes]:
    files = [path for root in (store, server.home) for path in root.rglob("*") if path.is_file()]
    return {"what was logged": text.encode(), **{str(path): path.read_bytes() for path in files}}


def test_no_secret_is_written_anywhere(
    seen: Seen,
    prefect_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLPIPE_TESTS_TOKEN", SECRETS["variable"])
    store = Store(
        tmp_path / "store", cache_folder=str(tmp_path / "cache"), signing_key=SECRETS["signing"]
    )
    mine = fetched.with_options(store=store)
    given = {
        "key": SecretStr(SECRETS["parameter"]),
        "login": Login(),
        "keys": [SecretStr(SECRETS["list"])],
        "block": Secret(value=SECRETS["block"]),
    }
    with caplog.at_level(logging.DEBUG, "prefect_mlpipe"):
        assert mine(**given) == sum(range(10_000))
        monkeypatch.setenv("MLPIPE_TESTS_TOKEN", "another one")
        plan = mine.plan(**given)
        mine(**given)
    seen.task_runs("with-secrets", 2)
    told = f"{plan} {plan.explain('fetch')} {mine.runs.last()['fetch'].explain()} {store!r}"
    found = {
        (name, place)
        for place, data in places(tmp_path, prefect_server, told + caplog.text).items()
        for name, secret in SECRETS.items()
        if secret.encode() in data
    }
    assert found == set()
    assert "reads changed: MLPIPE_TESTS_TOKEN" in told


def test_a_reference_that_nobody_signed_is_not_loaded(seen: Seen, tmp_path: Path) -> None:
    @pipeline(name="signed-references")
    def summed(values: Any) -> float:
        return total(values)

    folder = tmp_path / "store"
    signed = summed.with_options(store=Store(folder, signing_key=SECRETS["signing"]))
    assert signed(np.arange(20_000.0)) == sum(range(20_000))
    shown = seen.flow_run("signed-references")["parameters"]
    assert run_again(signed, seen, shown).result().load() == sum(range(20_000))
    for changed in (
        {name: shown["values"][name] for name in ("$mlpipe", "value")},
        {**shown["values"], "signature": "0" * 64},
    ):
        with pytest.raises(InvalidParameters, match="not signed"):
            signed(values=changed)
