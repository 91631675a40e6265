from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reuse.gate import LOUD, Gate
from tests.reuse.lab import Lab, Process, Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def lab(tmp_path: Path, zygote: Zygote) -> Lab:
    return Lab(tmp_path, zygote)


@pytest.fixture
def gate(lab: Lab) -> Gate:
    return Gate(lab)


@pytest.fixture
def start(lab: Lab) -> Iterator[Callable[..., Process]]:
    """Starts processes that are killed if they are left over."""
    started: list[Process] = []

    def start(*setup: str, **options: Any) -> Process:
        who = options.pop("who")
        arguments = ", ".join([f"who={who!r}", *filter(None, [options.pop("arguments", "")])])
        started.append(lab.start(arguments, setup="\n".join([LOUD, *setup]), **options))
        return started[-1]

    yield start
    for process in started:
        process.end()
