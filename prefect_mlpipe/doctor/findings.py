"""What a check has found: a state, facts, and how to mend what is wrong.

Knows nothing of what is checked. Facts are for everybody to read: no secret is ever one. Checks
leave them out, and what is said all the same is struck out at the end (`doctor.secrets`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prefect_mlpipe.errors import MlpipeError

State = Literal["ok", "skipped", "warning", "problem"]
STATES: tuple[State, ...] = ("ok", "skipped", "warning", "problem")  # the worst last


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        state: `ok`; `skipped`, where something else keeps it from looking; `warning`; `problem`.
        facts: what was seen.
        mend: what to do about it; lines that begin with spaces are for copying.
    """

    state: State = "ok"
    facts: Mapping[str, str] = field(default_factory=dict)
    mend: str = ""


@dataclass
class Notes:
    """What a check writes down while it looks; the worst that is noted is its state."""

    state: State = "ok"
    facts: dict[str, str] = field(default_factory=dict)
    mends: list[str] = field(default_factory=list)

    def fact(self, name: str, value: object) -> None:
        """Note what was seen."""
        self.facts[name] = str(value)

    def warn(self, mend: str) -> None:
        """Note what may do harm, and what to do about it."""
        self._note("warning", mend)

    def problem(self, mend: str) -> None:
        """Note what keeps something from working, and what to do about it."""
        self._note("problem", mend)

    def _note(self, state: State, mend: str) -> None:
        self.state = max(self.state, state, key=STATES.index)
        if mend not in self.mends:
            self.mends.append(mend)

    def finding(self) -> Finding:
        """Return what was found."""
        return Finding(self.state, self.facts, "\n".join(self.mends))


@dataclass(frozen=True)
class Look:
    """What all checks are told.

    Attributes:
        store: which store to look at; default: that of the settings.
    """

    store: str | None = None


Check = Callable[[Look], Finding]


def from_error(error: Exception) -> Finding:
    """Return a problem as an error tells of it."""
    if isinstance(error, MlpipeError):
        facts = {name: str(value) for name, value in error.facts.items()}
        return Finding("problem", {"found": error.sentence, **facts}, error.advice)
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    return Finding("problem", {"error": said}, "See whether this is known; if not, report it.")
