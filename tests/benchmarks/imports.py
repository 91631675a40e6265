"""What the package adds to the time that `import prefect` takes."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from tests.benchmarks.measure import Row, in_turn, seconds


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def benchmark_import(scale: float) -> list[Row]:
    """A new process that imports Prefect, and one that imports the package too."""
    took = in_turn(
        {
            "prefect": partial(seconds, partial(_run, "import prefect, prefect.flows")),
            "both": partial(
                seconds, partial(_run, "import prefect, prefect.flows, prefect_mlpipe")
            ),
        },
        rounds=max(3, int(9 * scale)),
    )
    added = (took["both"] - took["prefect"]) * 1000
    return [
        Row("import, over `import prefect`", added, "budget", 100, 1.0),
        Row("import, with Prefect", took["both"] * 1000, "import prefect", took["prefect"] * 1000),
    ]
