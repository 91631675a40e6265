from __future__ import annotations

import logging
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from prefect_mlpipe.core.places import copies
from prefect_mlpipe.core.store import Store
from tests.core.stores import (
    LARGE,
)


def test_copies_that_were_not_used_for_longest_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (tmp_path / f"{number}").write_bytes(b"x" * 100)
    ages = {str(tmp_path / f"{number}"): float(number * 86400) for number in range(6)}
    monkeypatch.setattr(
        copies, "_copies", lambda folder: ((used, 100, path) for path, used in ages.items())
    )
    limit = copies.Limit(str(tmp_path), 250, clock=lambda: 6 * 86400.0)
    limit.added(10)
    assert len(os.listdir(tmp_path)) == 6
    limit.added(10)
    assert sorted(os.listdir(tmp_path)) == ["4", "5"]


def test_copies_in_use_are_kept_beyond_the_limit_and_this_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100)
    with caplog.at_level(logging.WARNING):
        copies.Limit(str(tmp_path), 10).trim()
    assert (tmp_path / "x").exists()
    assert "the limit is 10" in caplog.text


def test_copies_of_a_remote_store_are_counted(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = Mock()
    monkeypatch.setitem(copies._limits, str(tmp_path / "cache" / "copies"), limit)
    stored = remote.put(LARGE)
    limit.added.assert_called_once_with(stored.size)
