"""A project whose steps reach a bit of everything, and programs that start it in other ways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.reuse.child import LOG
from tests.reuse.lab import ROOT, Lab, Outcome

HELPERS = '''
    from __future__ import annotations

    import abc
    import functools
    import logging
    import operator
    import re
    import warnings
    from dataclasses import dataclass, field
    from datetime import datetime
    from enum import Enum
    from pathlib import Path
    from typing import NamedTuple, Protocol, runtime_checkable
    from zoneinfo import ZoneInfo

    import numpy as np
    import pandas as pd

    VOCABULARY = Path(__file__).parent / "data" / "vocabulary.txt"
    WORDS = {"amount", "count", "day", "city", "price", "größe"}
    PAIRS = frozenset({("x", 1), ("y", 2), ("z", 3)})
    LIMITS = {"low": 0.5, "high": [1, 2, 3], "names": {"b", "a", "c"}}
    PATTERN = re.compile("^[a-zß-ÿ]+$")
    LARGE = np.arange(300_000, dtype="float64")
    TABLE = pd.DataFrame({"city": ["Köln", "Paris"], "day": pd.to_datetime(["2026-01-02"] * 2)})
    NOON = datetime(2026, 1, 2, 12, tzinfo=ZoneInfo("Europe/Paris"))
    LOGGER = logging.getLogger(__name__)


    class Colour(Enum):
        RED = 1
        BLUE = "two"


    class Point(NamedTuple):
        x: float
        y: float = 0.5


    @dataclass(frozen=True)
    class Settings:
        depth: int = 3
        tags: tuple[str, ...] = ("a",)
        rates: dict[str, float] = field(default_factory=lambda: {"base": 0.25})


    @runtime_checkable
    class Sized(Protocol):
        def size(self) -> int: ...


    class Figure(abc.ABC):
        @abc.abstractmethod
        def size(self) -> int: ...


    class Square(Figure):
        def __init__(self, side: int) -> None:
            self.side = side

        def size(self) -> int:
            return self.side**2

        @functools.cached_property
        def corners(self) -> list[tuple[int, int]]:
            return [(x, y) for x in (0, self.side) for y in (0, self.side)]


    SQUARE = Square(3)


    @functools.lru_cache
    def slow(number: int) -> int:
        return number if number < 2 else slow(number - 1) + slow(number - 2)


    @functools.singledispatch
    def describe(value: object) -> str:
        return f"{value!r} of {type(value).__name__}"


    @describe.register
    def _(value: int) -> str:
        return f"the number {value:>4}"


    OPERATIONS = {"double": lambda x: x * 2, "half": functools.partial(operator.truediv, 2)}


    def checked(function):
        @functools.wraps(function)
        def inside(*args, **kwargs):
            found = function(*args, **kwargs)
            assert found is not None, "nothing was found"
            return found

        return inside


    def scaled(by: float):
        def scale(value: float) -> float:
            return value * by

        return scale


    TWICE = scaled(2)


    @checked
    def tidy(words: set[str]) -> list[str]:
        """Give the words that are known, in order."""
        known = sorted(word for word in words if word in WORDS and PATTERN.match(word))
        match known:
            case [first, *_] if first in LIMITS["names"]:
                raise ValueError(first)
            case _:
                LOGGER.info("%d words", len(known))
        return known


    def measure(table: pd.DataFrame, settings: Settings) -> float:
        warnings.warn("measured", stacklevel=1)
        total = float(table["amount"].sum()) + TWICE(settings.depth) + LARGE[: settings.depth].sum()
        total += sum(point.x for point in (Point(1.5), Point(2))) + slow(20) + len(describe(5))
        total += len(SQUARE.corners) + isinstance(SQUARE, Sized) + isinstance(SQUARE, Figure)
        total += OPERATIONS["double"](Colour.RED.value) + NOON.toordinal() + len(PAIRS)
        total += len(VOCABULARY.name) + len(TABLE) + settings.rates["base"]
        return total + (lambda number: number + 1)(LIMITS["low"])
'''

TYPES = """
    import dataclasses
    from typing import NamedTuple

    import pandas as pd

    import helpers
    from helpers import Settings, tidy

    class Parts(NamedTuple):
        table: pd.DataFrame
        words: list[str]

    @dataclasses.dataclass
    class Score:
        total: float
        words: int = 0

        def rounded(self) -> float:
            return round(self.total, 3)
"""
LOAD = """
    @step
    def load(csv: File, words: set[str]) -> Parts:
        ran("load")
        return Parts(pd.read_csv(csv), tidy(words))
"""
RATE = """
    @step(reads=[EnvVar("COLOUR")])
    def rate(table: pd.DataFrame, words: list[str], settings: Settings = Settings(4)) -> Score:
        ran("rate")
        return Score(helpers.measure(table, settings), len(words))
"""
FINISH = """
    @step
    def finish(score: Score) -> float:
        ran("finish")
        return float(score.rounded() + score.words)
"""
MAIN = """
    @pipeline
    def main(csv: File = File(PLACE), words: set[str] = {"city", "größe", "day", "other"}) -> float:
        parts = load(csv, words)
        return finish(rate(parts.table, parts.words))
"""
PLACE = """
    import os
    PLACE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "rows.csv")
"""
STEPS = (LOAD, RATE, FINISH)

TOLD = """
    import json
    import sys

    MARK = "TOLD "

    def tell(pipe, **arguments):
        value = pipe.local(**arguments)
        steps = {step.name: [step.state, step.key] for step in pipe.runs.last()}
        print(MARK + json.dumps([value, steps]))
        sys.stdout.flush()
"""
TELL = """
    from told import tell

    if __name__ == "__main__":
        tell(main)
"""


def main_module(steps: Sequence[str] = STEPS, place: str = PLACE) -> str:
    return "".join([place, TYPES, *steps, MAIN, TELL])


def files(main: str | None = None) -> dict[str, str]:
    return {
        "main.py": main_module() if main is None else main,
        "helpers.py": HELPERS,
        "told.py": TOLD,
        "data/rows.csv": "amount,count\n1.5,2\n2.5,3\n",
        "data/vocabulary.txt": "city\n",
    }


def keys(outcome: Outcome) -> dict[str, str]:
    assert outcome.error is None, outcome.traceback
    assert set(outcome.steps) == {"load", "rate", "finish"}
    return {name: step["key"] for name, step in outcome.steps.items()}


def program(
    lab: Lab, *command: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[list[object], list[str]]:
    """Run an interpreter that tells what came of the pipeline: value and keys, and what ran."""
    log = lab.place / f"ran-by-{len(list(lab.place.iterdir()))}"
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd or lab.folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PREFECT_MLPIPE_STORE": lab.store,
            LOG: str(log),
            **(environ or {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert told, f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, done.stderr
    value, steps = json.loads(told[-1].removeprefix("TOLD "))
    ran = sorted(log.read_text().split()) if log.exists() else []
    return [value, {name: key for name, (_, key) in steps.items()}], ran
