"""Failures of one run: which count, and which are still to be raised.

Knows the runs of nodes. Knows nothing of the queue: what a failure stops is the engine's.

A failure that the body was given at a `resolve` is the body's: it caught it, or it ended by it.
Either way it is not raised a second time.
"""

from __future__ import annotations

from collections.abc import Iterable

from prefect_mlpipe.engine.steprun import StepRun


class Failing:
    """The failures of one run."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._runs: list[StepRun] = []
        self._given: list[BaseException] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def note(self, run: StepRun) -> bool:
        """Take in a failed run; return whether it counts: as an item it may be tolerated."""
        group = run.group
        if group is None:
            self._runs.append(run)
            return True
        _name_item(run)
        failed = [*group.failed_items, run]
        group.failed_items = failed
        excess = len(failed) - group.allowed_failures()
        if excess <= 0:
            return False
        self._runs += failed if excess == 1 else [run]
        return True

    def give(self, run: StepRun) -> None:
        """Raise what keeps a run from having an output, if that was an error of a step.

        Raises:
            Exception: the step's own; several in an `ExceptionGroup`.
        """
        cause = run.blocked_by or run
        errors = [item.error for item in cause.failed_items] or [cause.error]
        if cause.state == "cancelled":
            errors = [failed.error for failed in self._runs]
        self._raise(errors)

    def given(self, error: BaseException) -> bool:
        """Return whether an error was raised at a `resolve`."""
        return any(error is known for known in self._given)

    def raise_rest(self, with_: BaseException | None = None) -> None:
        """Raise what nobody was given yet, together with an error that is on its way.

        Raises:
            Exception: the only one as it is; several in an `ExceptionGroup`.
        """
        rest = [run.error for run in self._runs if run.error and not self.given(run.error)]
        if with_ is None:
            self._raise(rest)
        elif rest:
            known = with_.exceptions if isinstance(with_, BaseExceptionGroup) else (with_,)
            self._raise([*known, *rest])

    def _raise(self, found: Iterable[BaseException | None]) -> None:
        errors = list({id(error): error for error in found if error is not None}.values())
        self._given += errors
        if len(errors) == 1:
            raise errors[0]
        if errors:
            message = f"{len(errors)} steps of pipeline '{self._pipeline}' failed"
            group = BaseExceptionGroup(message, errors)
            self._given.append(group)
            raise group


def _name_item(run: StepRun) -> None:
    """Have the error of an item say which item it was; two of one key may share one error."""
    said = f"in {run.name}, an item of a mapped step"
    if run.error is not None and said not in getattr(run.error, "__notes__", ()):
        run.error.add_note(said)
