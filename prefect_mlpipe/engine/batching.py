"""Items of mapped steps that must run, put into batches.

Knows runs of items and how long they took. Knows nothing of keys, of records, or of where a batch
runs. Sending an item costs more than many an item's work, so those that are short go together: as
many as take about `BATCH_S`, fewer where there would be too few batches for all who could work.
The first ones go alone, for nothing is known of them yet.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from prefect_mlpipe.core.record import Record
from prefect_mlpipe.engine.calls import StepCall
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.steps import Step

BATCH_S: Final = 0.25  # a batch of short items takes about so long
LARGEST: Final = 2000  # items
_PARTS: Final = 4  # where little is left, batches are shorter, to so large a part
_GROWTH: Final = 16  # a batch is at most so many times as large as one that was measured

# What Prefect's task engine does for one task run at a time, and a batch does not do.
_BY_ENGINE: Final = frozenset(
    {
        "tags",
        "timeout_seconds",
        "retry_condition_fn",
        "on_completion",
        "on_failure",
        "on_rollback",
        "on_commit",
        "on_running",
        "asset_deps",
    }
)


class Gathered(NamedTuple):
    """An item that must run.

    Attributes:
        run: of the item.
        record: what stood under its key when that was decided.
        refreshed: whether it runs because the user asked for it.
    """

    run: StepRun
    record: Record | None
    refreshed: bool


class Batch:
    """Items of one mapped step that are sent together.

    Attributes:
        group: the run of the mapped step.
        runs: of the items.
        calls: one for each.
    """

    __slots__ = ("calls", "group", "runs")

    def __init__(self, group: StepRun, runs: list[StepRun], calls: list[StepCall]) -> None:
        self.group = group
        self.runs = runs
        self.calls = calls

    def __len__(self) -> int:
        return len(self.runs)


class _Mapped:
    """The items of one mapped step that wait, and what is known of those that ran."""

    def __init__(self) -> None:
        self.waiting: deque[Gathered] = deque()
        self.under_way: set[Batch] = set()
        self.measured = 0  # size of the largest batch that has ended
        self.item_s = 0.0
        self._count = self._seconds = 0.0

    def measure(self, count: int, seconds: float) -> None:
        """Take in how long so many items took; what is older counts for less."""
        self._count, self._seconds = self._count / 2 + count, self._seconds / 2 + seconds
        self.item_s = self._seconds / self._count
        self.measured = max(self.measured, count)

    def size(self, slots: int) -> int:
        """How many items the next batch has."""
        if not self.measured:
            return 1
        fitting = int(BATCH_S / self.item_s) if self.item_s else LARGEST
        share = max(math.ceil(len(self.waiting) / slots), fitting // _PARTS)
        return max(1, min(fitting, share, self.measured * _GROWTH, LARGEST, len(self.waiting)))


class Batches:
    """The batches of one run.

    Args:
        slots: how many batches of a mapped step may be under way.
    """

    def __init__(self, slots: Callable[[StepRun], int]) -> None:
        self._slots = slots
        self._mapped: dict[StepRun, _Mapped] = {}
        self._of: dict[StepRun, Batch] = {}

    def __bool__(self) -> bool:
        """Whether an item waits, or a batch is under way."""
        return any(each.waiting or each.under_way for each in self._mapped.values())

    def gather(self, item: Gathered) -> None:
        """Take in an item that must run."""
        group = item.run.group
        assert group is not None
        self._mapped.setdefault(group, _Mapped()).waiting.append(item)

    def due(self) -> Iterator[tuple[StepRun, list[Gathered]]]:
        """Yield the items of batches that can be sent now; they do not wait any longer."""
        for group, mapped in list(self._mapped.items()):
            slots = self._slots(group)
            while mapped.waiting and len(mapped.under_way) < slots:
                if mapped.waiting[0].run.alone:
                    yield group, [mapped.waiting.popleft()]
                    continue
                size = mapped.size(slots)
                yield group, [mapped.waiting.popleft() for _ in range(size)]

    def item_s(self, group: StepRun) -> float | None:
        """How long an item took of late, `None` if that is not known."""
        mapped = self._mapped.get(group)
        return mapped.item_s if mapped is not None and mapped.measured else None

    def sent(self, batch: Batch) -> None:
        """Note that a batch is under way."""
        self._mapped[batch.group].under_way.add(batch)
        for run in batch.runs:
            self._of[run] = batch

    def ended(self, batch: Batch, seconds: float) -> None:
        """Note that a batch has come to its end, and how long its items took in all."""
        mapped = self._mapped[batch.group]
        mapped.under_way.discard(batch)
        for run in batch.runs:
            if self._of.get(run) is batch:
                del self._of[run]
        if seconds:
            mapped.measure(len(batch), seconds)

    def under_way(self) -> list[Batch]:
        """Return all batches that are under way."""
        return [batch for mapped in self._mapped.values() for batch in mapped.under_way]

    def give_up(self) -> None:
        """Forget what waits."""
        for mapped in self._mapped.values():
            mapped.waiting.clear()


def goes_in_batches(step: Step[..., object]) -> bool:
    """Return whether items of a mapped step can go together.

    Not where the user asked for what Prefect's engine does for each task run, as a timeout, a hook
    or a concurrency limit by tags.
    """
    options = step.options.task
    return not any(options.get(name) for name in _BY_ENGINE)
