"""Digests of any values against an equality that knows nothing of digests: `tests.core.seen`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.storing.own_copies import own_copy
from tests.core.seen import seen
from tests.core.strategies import values

QUICK = settings(max_examples=60, deadline=None)
ROOT = Path(__file__).parents[2]


@QUICK
@given(values, values)
def test_two_values_have_one_digest_exactly_when_a_step_cannot_tell_them_apart(
    one: Any, other: Any
) -> None:
    assert (digest(one) == digest(other)) == (seen(one) == seen(other))


@QUICK
@given(values)
def test_a_copy_is_the_value_and_changing_the_one_is_not_seen_in_the_other(value: Any) -> None:
    text, identity = seen(value), digest(value)
    copied = own_copy(value)
    assert seen(copied) == text
    assert digest(copied) == identity
    if isinstance(copied, list):
        copied.append(1)
    assert seen(value) == text


@QUICK
@given(values)
def test_a_deep_copy_that_looks_the_same_has_the_same_digest(value: Any) -> None:
    copied = copy.deepcopy(value)
    assert (digest(copied) == digest(value)) == (seen(copied) == seen(value))
