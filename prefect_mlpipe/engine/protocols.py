"""What the engine needs of whoever runs calls, and of whoever is told what happens.

Knows neither. Whoever implements these needs nothing else of the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from prefect_mlpipe.core.graph import Node
from prefect_mlpipe.engine.batching import Batch
from prefect_mlpipe.engine.calls import Done, StepCall
from prefect_mlpipe.engine.steprun import StepRun


class Outcome(NamedTuple):
    """What a runner reports of a submitted call."""

    run: StepRun
    attempt: int
    done: Done | None
    error: BaseException | None


class BatchPart(NamedTuple):
    """What a runner reports of a submitted batch, all at once or part by part.

    Attributes:
        batch: which.
        outcomes: of items that have ended since the last part.
        ended: whether nothing more will come. Items of which nothing was said have not run, or
            their worker died under them: they are decided anew, and go alone.
        seconds: how long its calls took so far.
    """

    batch: Batch
    outcomes: Sequence[Outcome]
    ended: bool
    seconds: float


class Cancel(NamedTuple):
    """Put on the queue of outcomes to stop the run from outside."""

    message: str


class Runner(Protocol):
    """Where calls run."""

    def check(self, nodes: Iterable[Node]) -> None:
        """Refuse nodes that cannot run where they ask to, before anything runs."""

    def inline(self, run: StepRun, call: StepCall) -> Outcome | None:
        """Run a call here and now, or return `None` where that cannot be done."""

    def submit(self, run: StepRun, call: StepCall, outcomes: SimpleQueue[Any]) -> None:
        """Start a call; put its `Outcome` on the queue when it has ended."""

    def slots(self, run: StepRun) -> int:
        """Return how many batches of a mapped step may be under way; 0 if it takes none."""

    def inline_batch(self, batch: Batch) -> BatchPart | None:
        """Run a batch here and now, or return `None` where that cannot be done."""

    def submit_batch(self, batch: Batch, outcomes: SimpleQueue[Any]) -> None:
        """Start a batch; put a `BatchPart` on the queue whenever there is something to say."""

    def abandon(self, run: StepRun, state: str, message: str) -> None:
        """Give up a call that cannot be stopped; its outcome will be dropped."""

    def abandon_batch(self, batch: Batch, state: str, message: str) -> None:
        """Give up a batch that cannot be stopped; its outcomes will be dropped."""

    def release(self, remaining: Iterable[Node]) -> None:
        """Let go of what these nodes cannot need: no others will come."""

    def close(self) -> None:
        """Let go of everything that was started."""


class Reporter(Protocol):
    """Who is told what happens."""

    def reading(self, run: StepRun) -> None:
        """A step is about to run: `run.reasons` say why."""

    def began(self, run: StepRun) -> None:
        """The first items of a mapped step are about to run, in batches."""

    def behind(self, run: StepRun, holder: str) -> None:
        """A step waits for what another run computes; of items of a mapped step, one is told."""

    def settled(self, run: StepRun) -> None:
        """A step has come to its end: `run.state` says how."""

    def progress(self, runs: Mapping[str, int], running: Iterable[StepRun]) -> None:
        """Counts by state have changed."""

    def warned(self, text: str) -> None:
        """Something is not as the user may think, and the run goes on."""
