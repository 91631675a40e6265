"""Marks everything in this folder, and skips it where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu import WITHOUT, devices


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not devices():
                item.add_marker(pytest.mark.skip(reason=WITHOUT))
