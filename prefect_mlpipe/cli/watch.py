"""`mlpipe watch`: watch data for all deployments that workers run."""

from __future__ import annotations

import logging
from typing import Annotated

from cyclopts import Parameter

from prefect_mlpipe.cli.answering import Answer, Common, command
from prefect_mlpipe.deploy.watching import look_once, requested, watch_all
from prefect_mlpipe.stores import open_store


@command
def watch(
    *,
    once: Annotated[bool, Parameter(help="Look once and end, for a cron of your own.")] = False,
    store: Annotated[
        str | None, Parameter(help="Where to keep what was seen; default: the pipeline's.")
    ] = None,
    common: Common | None = None,
) -> Answer:
    """Watch data for all deployments that workers run, new ones included, until it is stopped.

    Run one beside the workers. Serving processes watch for themselves.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    opened = open_store(store) if store else None
    if not once:
        watch_all(opened)
        return Answer({"places": None}, "")
    places = look_once(requested(), opened)
    return Answer({"places": places}, f"Looked at {places:,} places.")
