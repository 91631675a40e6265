"""`mlpipe store`: how much room a store takes, whether it is whole, and what of it may go."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from cyclopts import App, Parameter
from pydantic import ValidationError

from prefect_mlpipe.cli.answering import FAILED, Answer, Common, WrongUse, command
from prefect_mlpipe.cli.asked import opened
from prefect_mlpipe.cli.shapes import pruned_shape, usage_shape, verified_shape
from prefect_mlpipe.core.upkeep.pruning import Pruned

store_app = App(name="store", help="Look after a store.", help_flags=["--help"])

Which = Annotated[str | None, Parameter(help="A folder or URL; default: that of the settings.")]


@store_app.command
@command
def usage(*, store: Which = None, common: Common | None = None) -> Answer:
    """Say how much room values, records, runs and the rest take."""
    found = opened(store).usage()
    return Answer({"usage": usage_shape(found)}, str(found))


@store_app.command
@command
def verify(
    *,
    repair: Annotated[
        bool, Parameter(help="Remove what is damaged and can be made again.")
    ] = False,
    store: Which = None,
    common: Common | None = None,
) -> Answer:
    """Read everything and compare it with its checksums. Exit code 1 if something is not sound."""
    whole = opened(store)
    found = whole.verify(repair=repair)
    text = f"{whole.url}: {found}".replace("verify(repair=True)", "--repair")
    return Answer({"verified": verified_shape(whole.url, found)}, text, 0 if found else FAILED)


@store_app.command
@command
def prune(
    *,
    keep_last: Annotated[
        int | None, Parameter(help="Runs may go, but for so many of the newest of each pipeline.")
    ] = None,
    older_than: Annotated[
        timedelta | None,
        Parameter(help="Runs may go that started longer ago, as 30d; with --keep-last both hold."),
    ] = None,
    max_bytes: Annotated[
        str | None,
        Parameter(help="Then values go, the least recently used first, down to this: '500 GB'."),
    ] = None,
    grace: Annotated[timedelta, Parameter(help="What is younger stays.")] = timedelta(hours=1),
    yes: Annotated[bool, Parameter(help="Remove it. Else nothing goes.")] = False,
    store: Which = None,
    common: Common | None = None,
) -> Answer:
    """Say what may go: what nothing refers to, and what the rules let go. With --yes, remove it."""
    try:
        done = opened(store).prune(
            keep_last=keep_last,
            older_than=older_than,
            max_bytes=max_bytes,
            grace=grace,
            dry_run=not yes,
        )
    except ValidationError:
        raise WrongUse(f"--max-bytes {max_bytes!r} is no size, as '500 GB' is.") from None
    except ValueError as error:
        raise WrongUse(str(error)) from None
    return Answer({"pruned": pruned_shape(done)}, _told(done))


def _told(done: Pruned) -> str:
    asked = "\n--yes removes it." if done.dry_run and done.counts.total() else ""
    return f"{done}{asked}"
