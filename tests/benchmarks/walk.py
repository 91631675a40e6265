"""Reading the code of a step that reaches a thousand functions, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

from tests.benchmarks.measure import Row

FUNCTIONS = 100  # in each module

HEAD = """
    from __future__ import annotations

    import json
    import math
    from dataclasses import dataclass

    import numpy as np

    from project import {others}

    FACTOR = {number}
    NAMES = ("amount", "count", "day")
    LIMITS = {{"low": 0.5, "high": [1, 2, {number}]}}


    @dataclass(frozen=True)
    class Settings{number}:
        depth: int = {number}
        rate: float = 0.5

        def scaled(self, by: float) -> float:
            return self.rate * by + self.depth

        @property
        def name(self) -> str:
            return f"settings of depth {{self.depth}}"
"""

FUNCTION = """
    def work_{at}(rows, scale=1.5, *, limit=None):
        \"\"\"Docstrings do not count.\"\"\"
        settings = Settings{number}(depth={at})
        kept = [row * FACTOR for row in rows[:limit] if row > LIMITS["low"]]
        if not kept:
            raise ValueError(f"no row of {{NAMES[0]}} is above {{settings.name}}")
        total = math.sqrt(sum(kept)) + settings.scaled(scale)
        return {calls} + [json.dumps(kept), np.round(total, {at})]
"""

STEP = """
    from project import {modules}


    def step(rows):
        return {calls}
"""

CHILD = """
import gc, json, sys, time
sys.path.insert(0, sys.argv[1])
from prefect_mlpipe.core.code import CodeReader
import project.main

def read():
    start = time.perf_counter()
    code = CodeReader().read(project.main.step)
    return code, time.perf_counter() - start

gc.collect()  # of what the imports have left behind
code, cold = read()
again = min(read()[1] for _ in range(20))
project.module_0.LIMITS["high"].append(0)
changed, after = read()
assert code.parts["project.module_0.LIMITS"] != changed.parts["project.module_0.LIMITS"]
assert code.digest != changed.digest
functions = sum(".work_" in label for label in code.parts)
print(json.dumps({"functions": functions, "cold": cold, "again": again, "changed": after}))
"""


def write_project(folder: Path, modules: int) -> None:
    """Write a package of modules whose functions call each other, within and across them."""
    package = folder / "project"
    package.mkdir()
    (package / "__init__.py").touch()
    names = [f"module_{number}" for number in range(modules)]
    for number, name in enumerate(names):
        other = names[(number + 1) % modules]
        head = dedent(HEAD.format(number=number, others=other))
        functions = [
            dedent(FUNCTION.format(number=number, at=at, calls=_calls(at, other)))
            for at in range(FUNCTIONS)
        ]
        (package / f"{name}.py").write_text("\n".join([head, *functions]))
    calls = ", ".join(f"{name}.work_{FUNCTIONS - 1}(rows)" for name in names)
    main = dedent(STEP.format(modules=", ".join(names), calls=calls))
    (package / "main.py").write_text(main)


def _calls(at: int, other: str) -> str:
    below = [f"work_{each}(rows)" for each in {at - 1, at // 2} if 0 <= each < at]
    return " + ".join([*below, f"{other}.work_{at // 3}(rows)"])


def benchmark_walk(scale: float) -> list[Row]:
    """A step that reaches 1,000 functions in ten modules: read first, again, after a change."""
    with tempfile.TemporaryDirectory(prefix="mlpipe-benchmark-") as folder:
        write_project(Path(folder), max(1, int(10 * scale)))
        _read(folder)  # Python compiles the project
        found = [_read(folder) for _ in range(max(2, int(9 * scale)))]
    functions = found[0]["functions"]
    what = f"code of {functions:.0f} functions, read"
    best = {name: min(each[name] for each in found) * 1000 for name in ("cold", "again", "changed")}
    share = functions / 1000
    return [
        Row(f"{what} for the first time", best["cold"], "budget", 50 * share, 1.0),
        Row(f"{what} again", best["again"], "budget", 1 * share, 1.0),
        Row(f"{what} after one global changed", best["changed"], "first time", best["cold"]),
    ]


def _read(folder: str) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found
