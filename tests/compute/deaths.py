"""The death table: python -m tests.compute.deaths [--tries N] [--only WORD].

Runs each fault of `faults` some times against a Prefect server of its own, and prints what came of
it. Ends with status 1 if anything was not as it is to be.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.compute.faults import FAULTS, VALUE, Fault, Suffered, suffer
from tests.compute.stage import Stage

TITLES = (
    "fault",
    "tries",
    "worst s",
    "run twice",
    "wrong values",
    "left running",
    "not as it is to be",
)
LIMIT_S = 3600.0


def row(fault: Fault, tries: Sequence[Suffered]) -> tuple[str, ...]:
    """What is said of one fault."""
    twice = sum(each.ran["first"] > 1 or each.ran_again["first"] > 0 for each in tries)
    values = [(each.value, each.value_again) for each in tries]
    wrong = sum(not {one, again} <= {VALUE, None} for one, again in values)
    left = sum(len(each.left) for each in tries)
    not_as = sum(bool(each.wrong()) for each in tries)
    worst = max(each.seconds for each in tries)
    return (fault.name, *map(str, (len(tries), f"{worst:.1f}", twice, wrong, left, not_as)))


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """The rows, aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, each, widths)).rstrip() for each in rows)


def main(tries: int, only: str) -> int:
    """Run the faults and print the table."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tests.server import running_server

    rows, bad, began = [TITLES], 0, time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="mlpipe-deaths-") as folder,
        running_server(Path(folder)) as server,
        temporary_settings({PREFECT_API_URL: server.api_url}),
        closing(Stage()) as stage,
    ):
        os.environ["PREFECT_API_URL"] = server.api_url  # for drivers and workers
        for number, fault in enumerate(each for each in FAULTS if only in each.name):
            if time.monotonic() - began > LIMIT_S:
                print(f"{fault.name}: left out, the time is up", file=sys.stderr)
                continue
            folders = [Path(folder, f"{number}-{each}") for each in range(tries)]
            suffered = [suffer(fault, stage, each) for each in folders]
            for each in suffered:
                bad += len(each.wrong())
                print(fault.name, f"{each.seconds:.1f} s", *each.wrong(), sep=": ", flush=True)
            rows.append(row(fault, suffered))
    print(table(rows))
    return int(bad > 0)


if __name__ == "__main__":
    os.environ.update(DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false")
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    given = parser.parse_args()
    sys.exit(main(given.tries, given.only))
