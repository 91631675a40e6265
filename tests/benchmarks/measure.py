"""Time contenders in turn, and say how they compare.

A ratio of two times taken in the same minute on the same machine holds elsewhere too; an absolute
time does not, so it is printed as a hint only. Contenders take turns, so that a busy minute hits
all of them, and the best of its rounds counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: what was done.
        ours: what it took.
        beside: what it is compared with.
        theirs: what that took; for a budget, what is allowed.
        target: the ratio that we promise to stay below, `None` where there is no promise.
        unit: `ms`, `MiB` for memory, or what is counted.
    """

    what: str
    ours: float
    beside: str
    theirs: float
    target: float | None = None
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if self.ratio <= self.target else "MISSED"

    def to_json(self) -> dict[str, object]:
        return {
            "what": self.what,
            "beside": self.beside,
            "ratio": round(self.ratio, 4),
            "target": self.target,
            "verdict": self.verdict,
            f"hint_ours_{self.unit}": round(self.ours, 5),
            f"hint_theirs_{self.unit}": round(self.theirs, 5),
        }


def in_turn(contenders: Mapping[str, Callable[[], float]], rounds: int = 5) -> dict[str, float]:
    """Return the least seconds of each contender; each gives back the seconds of one round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(contender())
    return {name: min(taken) for name, taken in seconds.items()}


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table(rows: list[Row]) -> str:
    """Lay the rows out for a terminal."""
    head = ("", "ours", "", "theirs", "ratio", "target", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = ("<", ">", "<", ">", ">", ">", "<")
    return "\n".join(
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(line, aligned, widths, strict=True)
        )
        for line in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    target = "" if row.target is None else f"<= {row.target:g}"
    return (
        row.what,
        _amount(row.ours, row.unit),
        row.beside,
        _amount(row.theirs, row.unit),
        f"{row.ratio:.2f}",
        target,
        row.verdict,
    )


def _amount(amount: float, unit: str) -> str:
    return _duration(amount) if unit == "ms" else f"{amount:.0f} {unit}"


def _duration(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.3f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
