from __future__ import annotations

from prefect_mlpipe.deploy.changes import (
    PATIENCE,
    Burst,
    Change,
    Seen,
    change,
    portions,
    suspects,
)

KNOWN = {"a": Seen("1", "A"), "b": Seen("1", "B"), "c": Seen("", "C")}


def test_what_has_another_state_or_none_to_be_trusted_is_suspect() -> None:
    assert suspects(KNOWN, {"a": "1", "b": "2", "c": "1"}) == {"b": "2", "c": "1"}


def test_what_has_no_state_at_all_is_suspect_at_every_look() -> None:
    assert suspects({"c": Seen("", "C")}, {"c": ""}) == {"c": ""}


def test_what_is_new_and_what_is_gone_is_suspect() -> None:
    assert suspects(KNOWN, {"a": "1", "b": "1", "new": "1"}) == {"c": None, "new": "1"}


def test_only_another_content_or_name_is_a_change() -> None:
    assert change(KNOWN, "a", Seen("2", "A")) is None
    assert change(KNOWN, "a", Seen("1", "X")) == Change("a", "modified", "X")
    assert change(KNOWN, "new", Seen("1", "A")) == Change("new", "added", "A")
    assert change(KNOWN, "a", None) == Change("a", "deleted", "")
    assert change(KNOWN, "never", None) is None


def test_nothing_of_a_burst_is_ready_before_all_of_it_is_quiet() -> None:
    burst = Burst(2.0)
    burst.update({"a": "1"}, 0.0)
    burst.update({"a": "1", "b": "1"}, 1.5)
    assert burst.ready(3.4) == {}
    assert burst.pause(3.4) is not None
    assert burst.ready(3.5) == {"a": "1", "b": "1"}


def test_a_file_that_changes_again_is_quiet_only_after_that() -> None:
    burst = Burst(2.0)
    burst.update({"a": "1"}, 0.0)
    burst.update({"a": "2"}, 1.9)
    assert burst.ready(2.1) == {}
    burst.update({"a": "2"}, 3.9)
    assert burst.ready(3.9) == {"a": "2"}


def test_what_went_back_to_what_is_known_is_no_longer_waited_for() -> None:
    burst = Burst(2.0)
    burst.update({"a": None, "b": "2"}, 0.0)
    burst.update({"b": "2"}, 1.0)
    assert burst.ready(2.0) == {"b": "2"}


def test_an_endless_burst_does_not_keep_what_is_quiet_for_ever() -> None:
    burst = Burst(1.0)
    for second in range(PATIENCE):
        burst.update({"log": str(second), "done": "1"}, float(second))
        assert burst.ready(float(second)) == {}
    burst.update({"log": "last", "done": "1"}, float(PATIENCE))
    assert burst.ready(float(PATIENCE)) == {"done": "1"}
    burst.taken(float(PATIENCE))
    burst.update({"log": "more", "next": "1"}, PATIENCE + 1.0)
    burst.update({"log": "more yet", "next": "1"}, PATIENCE + 2.0)
    assert burst.ready(PATIENCE + 2.5) == {}


def test_without_settling_all_is_ready_at_once() -> None:
    burst = Burst(0.0)
    burst.update({"a": "1"}, 0.0)
    assert burst.ready(0.0) == {"a": "1"}
    burst.update({}, 0.0)
    assert burst.pause(0.0) is None


def test_changes_are_told_in_lists_that_fit_into_an_event_and_none_is_left_out() -> None:
    changes = [Change(f"folder/file-{number}", "added", "") for number in range(1000)]
    lists = portions(changes, 10_000)
    assert len(lists) > 1
    assert [one for some in lists for one in some] == changes
    assert portions(changes) == [changes]
    assert portions([]) == []
