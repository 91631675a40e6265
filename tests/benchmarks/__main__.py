"""Run benchmarks and print how we compare: `python -m tests.benchmarks [names] [--quick]`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile

from tests.benchmarks.measure import Row, table

# name → module: imported only when asked for, so that `import` is measured on its own
BENCHMARKS = {
    "chain": "local",
    "map": "local",
    "growth": "local",
    "map_dask": "maps",
    "dask_memory": "compute",
    "digest": "content",
    "walk": "walk",
    "store_array": "store",
    "store_frame": "store",
    "store_records": "store",
    "store_worker": "store",
    "import": "imports",
    "s3": "s3",
    "s3_rerun": "s3",
    "flow_reused": "flows",
    "flow_executed": "flows",
    "dask_submit": "compute",
    "dask_executed": "compute",
    "gpu_roundtrip": "gpu",
}


def run(name: str, scale: float) -> list[Row]:
    module = importlib.import_module(f"tests.benchmarks.{BENCHMARKS[name]}")
    rows: list[Row] = getattr(module, f"benchmark_{name}")(scale)
    return rows


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="a twentieth of the size")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="mlpipe-benchmark-") as home:
        os.environ |= {
            "PREFECT_HOME": home,
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_MLPIPE_PROGRESS": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        rows = []
        for name in options.names or BENCHMARKS:
            print(f"{name} ...", file=sys.stderr)
            rows += run(name, 0.05 if options.quick else 1.0)
    print(json.dumps([row.to_json() for row in rows], indent=2) if options.json else table(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
