"""The decision: pure, so that a plan and a run agree."""

from __future__ import annotations

from datetime import timedelta
from typing import NoReturn

import pytest

from prefect_mlpipe.core.decide import Decision, Options, Reuse, Run, changes_since, decide
from prefect_mlpipe.core.manifest import Manifest, Reason
from prefect_mlpipe.core.record import Record

MANIFEST = Manifest("f", "c1", {}, {}, None, {}, {}, {})
RECORD = Record("key", MANIFEST.to_json(), "digest", {}, 1000.0, 1.0, {}, {})
HOUR = timedelta(hours=1)


def decided(record: Record | None, options: Options, now: float = 1001.0) -> Decision:
    return decide(record, options, now, lambda: [Reason("first run")])


def not_asked() -> NoReturn:
    raise AssertionError("nobody needs to know what changed")


def test_a_record_is_reused_and_nobody_asks_what_changed() -> None:
    assert decide(RECORD, Options(), 1001.0, not_asked) == Reuse(RECORD)


@pytest.mark.parametrize(
    ("record", "options", "reason"),
    [
        (None, Options(), "first run"),
        (RECORD, Options(cache=False), "cache off"),
        (None, Options(cache=False), "cache off"),
        (RECORD, Options(refresh=True), "refresh asked"),
        (RECORD, Options(lost=Reason("value damaged")), "value damaged"),
        (None, Options(lost=Reason("value missing")), "value missing"),
        (RECORD, Options(cache=False, refresh=True), "cache off"),
    ],
)
def test_a_step_runs_for_one_reason(record: Record | None, options: Options, reason: str) -> None:
    assert decided(record, options) == Run((Reason(reason),))


def test_a_record_expires_by_its_age_against_the_present_option() -> None:
    assert decided(RECORD, Options(expiration=HOUR), 1000 + 3599) == Reuse(RECORD)
    run = decided(RECORD, Options(expiration=HOUR), 1000 + 3600)
    assert isinstance(run, Run)
    assert str(run.reasons[0]) == "expired: older than 1:00:00"


def test_a_record_from_the_future_does_not_last_for_longer_than_it_is_ahead() -> None:
    assert decided(RECORD, Options(expiration=HOUR), 1000 - 3600) == Reuse(RECORD)
    run = decided(RECORD, Options(expiration=HOUR), 1000 - 3601)
    assert isinstance(run, Run)
    assert str(run.reasons[0]) == "expired: made by a clock 1:00:00 ahead or more"
    assert decided(RECORD, Options(), -1e9) == Reuse(RECORD)


def test_without_a_record_and_without_a_change_the_record_is_missing() -> None:
    run = decide(None, Options(), 0.0, list)
    assert isinstance(run, Run)
    assert str(run.reasons[0]) == "value missing: its record"


def test_changes_are_against_nothing_at_the_first_run() -> None:
    assert changes_since(MANIFEST, None, lambda code: None) == [Reason("first run")]


def test_pieces_of_code_are_looked_up_only_if_the_code_changed() -> None:
    now = MANIFEST._replace(version="2")
    assert [reason.kind for reason in changes_since(now, MANIFEST, lambda code: not_asked())] == [
        "version changed"
    ]
    parts = {"c1": {"f": "1"}, "c2": {"f": "2"}}
    assert changes_since(MANIFEST._replace(code="c2"), MANIFEST, parts.get) == [
        Reason("code changed", "f")
    ]
