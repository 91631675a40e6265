from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reuse.lab import Lab, Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def lab(tmp_path: Path, zygote: Zygote) -> Lab:
    return Lab(tmp_path, zygote)
