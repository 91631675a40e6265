"""`python -m prefect_mlpipe.deploy`: watch for all deployments that workers run.

Run one beside the workers. `--once` looks once and ends, for a cron of one's own.
"""

from __future__ import annotations

import argparse
import logging

from prefect_mlpipe.deploy.watching import look_once, requested, watch_all
from prefect_mlpipe.stores import open_store


def main() -> None:
    """Read the command line and watch."""
    parser = argparse.ArgumentParser("python -m prefect_mlpipe.deploy", description=__doc__)
    parser.add_argument("--store", help="where to keep what was seen; default: the pipeline's")
    parser.add_argument("--once", action="store_true", help="look once and end")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    store = open_store(given.store) if given.store else None
    if given.once:
        look_once(requested(), store)
    else:
        watch_all(store)


if __name__ == "__main__":
    main()
