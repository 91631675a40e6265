"""Make projects, edit them, and compare each edit's run with the oracle.

A wrong reuse is a value of the product that is not the oracle's. A needless rerun is a step that
ran after an edit of spelling alone. Everything follows from the seed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.fuzz import edits, mutations, neutral, running
from tests.fuzz.edits import Edit
from tests.fuzz.making import make
from tests.fuzz.projects import Project
from tests.fuzz.running import FreshProcesses, NoContent, Ran, Refused, TooLong
from tests.fuzz.shrinking import shown, shrunk

EDITS_OF_A_PROJECT = 40
_NEUTRAL, _FRESH, _IN_PLACE, _RAISING = 0.11, 0.14, 0.08, 0.2

_MAY_BREAK = ("function moved", "imports swapped")  # where a module's body uses it above
_SHOWN = 5  # wrong reuses that are made small, which takes seconds

# A value that was remembered stays, whatever is changed in place: the oracle itself would be wrong.
_REMEMBERS = ("functools.cache", "lru_cache", "cached_property")


@dataclass
class Counts:
    """What a campaign saw.

    Attributes:
        edits: that were compared; not those that broke the project.
        changed: of these, how many changed what the oracle gives.
        fresh: of these, how many ran in a process that had never seen the project.
        in_place: of these, how many changed what was loaded, between two runs of a process.
        neutral: of these, how many changed the spelling alone.
        raising: edits after which the project raises, and the product was to raise too.
        broken, refused: edits that were not compared: the project cannot be imported or called; the
            product refuses it, as it says it does.
        kinds: kind of edit → how many were compared, how many changed the value.
        reran: kind of edit that leaves it open whether steps run again → how often they did.
        wrong: wrong reuses, as text.
        needless: needless reruns, as text.
        whole: reruns after an edit of something unrelated in a module that is taken whole.
        undetermined: projects that give another value each time they are loaded, as by the hash of
            a class: they are given up.
        failures: errors of the product, as text.
    """

    edits: int = 0
    changed: int = 0
    fresh: int = 0
    in_place: int = 0
    neutral: int = 0
    raising: int = 0
    broken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, list[int]] = field(default_factory=dict)
    reran: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    whole: int = 0
    undetermined: int = 0

    @property
    def share(self) -> float:
        return self.changed / max(1, self.edits)

    def add(self, more: Counts) -> None:
        """Add what another campaign saw."""
        for name, value in vars(more).items():
            if name == "kinds":
                for kind, (edits, changed) in value.items():
                    numbers = self.kinds.setdefault(kind, [0, 0])
                    numbers[:] = numbers[0] + edits, numbers[1] + changed
            else:
                setattr(self, name, getattr(self, name) + value)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "share": round(self.share, 4)}


class Campaign:
    """Edits projects until there are enough edits, or the first wrong reuse if that is asked."""

    def __init__(self, seed: str, fresh: FreshProcesses, *, hunting: bool = False) -> None:
        self.random = Random(seed)
        self.fresh = fresh
        self.hunting = hunting  # for a fault that was planted: only whether it is found
        self.counts = Counts()

    def run(self, count: int) -> None:
        while self.counts.edits < count and not (self.hunting and self.counts.wrong):
            store = tempfile.mkdtemp(prefix="mlpipe-fuzz-", dir=_folder())
            try:
                _Chain(self, store).run(min(EDITS_OF_A_PROJECT, count - self.counts.edits))
            finally:
                shutil.rmtree(store)


class _Chain:
    """One project, and the edits of it."""

    def __init__(self, campaign: Campaign, store: str) -> None:
        self.campaign, self.counts, self.store = campaign, campaign.counts, store
        self.random = campaign.random
        self.project = make(self.random)
        self.history: list[Project] = []
        self.value = ""
        self.undetermined = False

    def run(self, count: int) -> None:
        if not self._begin():
            return
        end, wrong = self.counts.edits + count, len(self.counts.wrong)
        while (
            self.counts.edits < end
            and len(self.counts.wrong) == wrong  # one spoils the store
            and not self.undetermined
        ):
            if self.random.random() < _IN_PLACE and not self._remembers():
                self._change_in_place()
            else:
                self._edit()

    def _begin(self) -> bool:
        try:
            running.load(self.project)
            self.value = running.oracle()
        except (Exception, TooLong):  # made at random, not every project can be run
            self.counts.broken += 1
            return False
        ran = self._product("made", fresh=False)
        if ran is None:
            return False
        if ran.value != self.value:
            self._wrong("the first run", "", ran)
        self.history.append(self.project)
        return True

    def _remembers(self) -> bool:
        return any(word in self.project.text() for word in _REMEMBERS)

    def _edit(self) -> None:
        if self.random.random() < _NEUTRAL and not self.campaign.hunting:
            edit = neutral.leave(self.random, self.project)
        else:
            edit = edits.change(self.random, self.project)
        if edit is None or edit.project.modules == self.project.modules:
            return
        before, self.project = self.project, edit.project
        if not self._compare(edit):
            self.project = before
            return
        self.history.append(self.project)

    def _compare(self, edit: Edit) -> bool:
        """Run an edited project and compare; `False` if it cannot be."""
        try:
            running.load(self.project)
            value = running.oracle()
        except (Exception, TooLong) as error:
            self._broken(edit, error)
            return False
        fresh = self.random.random() < (_FRESH / 3 if self.campaign.hunting else _FRESH)
        ran = self._product(edit.kind, fresh)
        if ran is None:
            return False
        self.counts.fresh += fresh
        self._count(edit.kind, value)
        if ran.value.startswith("raises ") and not value.startswith("raises "):
            self.counts.failures.append(f"{edit.kind}: {ran.value}\n{self._text()}")
        elif ran.value != value:
            self._wrong(edit.kind, edit.where, ran, value)
        elif ran.executed and edit.whole:
            self.counts.whole += 1
        elif ran.executed and edit.neutral:
            self._needless(edit, ran)
        elif ran.executed and edit.neutral is None:
            self.counts.reran[edit.kind] += 1
        self.counts.neutral += edit.neutral is not False
        self.value = value
        return True

    def _broken(self, edit: Edit, error: BaseException) -> None:
        self.counts.broken += 1
        if edit.neutral is not False and edit.kind not in _MAY_BREAK and not self.campaign.hunting:
            self.counts.failures.append(f"{edit.kind} breaks a project: {error!r}\n{self._text()}")
        if isinstance(error, TooLong | NoContent) or self.random.random() > _RAISING:
            return
        try:
            running.load(self.project)
        except Exception:  # it cannot even be imported
            return
        ran = self._product(edit.kind, fresh=False)
        if ran is None:
            return
        self.counts.raising += 1
        if not ran.value.startswith("raises "):
            self._wrong(edit.kind, edit.where, ran, f"raises {type(error).__name__}")

    def _change_in_place(self) -> None:
        modules, reached = running.load(self.project), self.project.reached()
        for _ in range(self.random.randint(1, 3)):
            mutation = mutations.mutate(self.random, modules, reached)
            if mutation is None:
                return
            try:
                value = running.oracle()
            except (Exception, TooLong):
                self.counts.broken += 1
                break
            ran = self._product(mutation.kind, fresh=False)
            if ran is None:
                break
            self.counts.in_place += 1
            self._count(f"in place: {mutation.kind}", value)
            if ran.value != value:
                self._wrong(f"in place: {mutation.kind}", mutation.where, ran, value)
                return
            self.value = value
        running.load(self.project)
        self.value = running.oracle()

    def _product(self, kind: str, fresh: bool) -> Ran | None:
        """Run the product; `None` if it refuses the project or fails."""
        try:
            if fresh:
                return self.campaign.fresh.product(self.project, self.store)
            return running.product(self.store)
        except Refused as refusal:
            self.counts.refused[str(refusal).partition("\n")[0]] += 1
        except Exception as error:
            self.counts.failures.append(f"{kind}: {type(error).__name__}: {error}\n{self._text()}")
        return None

    def _count(self, kind: str, value: str) -> None:
        self.counts.edits += 1
        self.counts.changed += value != self.value
        numbers = self.counts.kinds.setdefault(kind, [0, 0])
        numbers[0] += 1
        numbers[1] += value != self.value

    def _text(self) -> str:
        return "" if self.campaign.hunting else self.project.text()

    def _wrong(self, kind: str, where: str, ran: Ran, value: str = "") -> None:
        if not value.startswith("raises ") and self._gives_up():
            return
        said = f"{kind} at {where}: {ran.value} instead of {value or self.value}; {ran.steps}"
        if not self.campaign.hunting and len(self.counts.wrong) < _SHOWN:
            said += f"\n{shrunk(self.history, self.project) or self.project.text()}"
        self.counts.wrong.append(said)

    def _gives_up(self) -> bool:
        """Give the project up if it is none to be compared, since its value is not determined."""
        self.undetermined = not running.is_determined(self.project)
        self.counts.undetermined += self.undetermined
        return self.undetermined

    def _needless(self, edit: Edit, ran: Ran) -> None:
        if self._gives_up():
            return
        said = f"{edit.kind} at {edit.where}: {ran.steps}"
        if not self.campaign.hunting and self.history:
            said += f"\n{shown(self.history[-1], self.project)}"
        self.counts.needless.append(said)


def _folder() -> str | None:
    """A folder in memory where there is one: a store is written for each edit."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None
