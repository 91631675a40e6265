"""In a process that has never seen the project: import it, run it, say what came of it.

Forked by `tests.reuse.zygote`, or run as a program of its own: `python -m tests.reuse.child JOB`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from prefect_mlpipe.errors import RunNotFound

LOG = "MLPIPE_TESTS_LOG"
LOG_MODULE = f"""import os

def ran(name):
    with open(vars(os)["environ"][{LOG!r}], "a") as log:  # not seen by the lint of `plan()`
        log.write(name + "\\n")
"""


def show(value: Any) -> str:
    """A value as text: with its type, and for tables and arrays all that a step could see of it."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if hasattr(value, "dtypes") and hasattr(value, "to_dict"):
        index = value.index.to_list() if hasattr(value, "index") else None
        return f"{kind} {list(map(str, value.dtypes))} {value.to_dict()!r} {index!r}"
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return f"{kind} {value.dtype} {getattr(value, 'shape', ())} {value.tolist()!r}"
    if isinstance(value, list | tuple):
        return f"{kind}[{', '.join(map(show, value))}]"
    return f"{kind} {value!r}"


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job; whatever goes wrong is part of the answer."""
    answer: dict[str, Any] = {"value": None, "error": None, "plan": {}, "steps": {}, "extra": None}
    os.environ.update(job["environ"])
    os.environ[LOG] = job["log"]
    sys.dont_write_bytecode = True
    sys.path.insert(0, job["folder"])
    os.chdir(job["cwd"])
    try:
        _perform(job, answer)
    except BaseException as error:
        notes = [type(error).__qualname__, str(error)]
        cause = error.__cause__
        if isinstance(error, BaseExceptionGroup):
            notes += [f"{type(one).__qualname__}: {one}" for one in error.exceptions]
        answer["error"] = ": ".join(notes)
        answer["cause"] = f"{type(cause).__qualname__}: {cause}" if cause is not None else None
        answer["traceback"] = traceback.format_exc()
    return answer


def _perform(job: dict[str, Any], answer: dict[str, Any]) -> None:
    module = importlib.import_module(job["module"])
    names = vars(module)
    if job["setup"]:
        exec(job["setup"], names)
    pipe = names[job["pipeline"]]
    arguments = eval(f"dict({job['arguments']})", names)
    if job["how"] == "oracle":
        body = inspect.unwrap(pipe.fn)  # called as it is: its steps are plain functions
        answer["value"] = show(body(**arguments))
        return
    pipe = pipe.with_options(store=job["store"], **eval(f"dict({job['options']})", names))
    if job["plan"] or job["verify"]:
        plan = pipe.plan(**arguments, **({"verify": True} if job["verify"] else {}))
        answer["plan"] = {step.name: [step.action, [*map(str, step.reasons)]] for step in plan}
        answer["printed"] = str(plan)
        answer["plan_explained"] = {step.name: plan.explain(step.name) for step in plan}
    if job["how"] == "plan":
        return
    try:
        answer["value"] = show(pipe.local(**arguments))
    finally:
        # There is none where it was refused before it began, or the store was removed.
        with contextlib.suppress(RunNotFound):
            _report(pipe.runs.last(), answer)
    if job["after"]:
        answer["extra"] = eval(job["after"], names)


def _report(run: Any, answer: dict[str, Any]) -> None:
    for step in run:
        answer["steps"][step.name] = {
            "state": step.state,
            "reasons": [*map(str, step.reasons)],
            "error": step.error,
            "key": step.key,
            "explain": step.explain(),
        }
    answer["warnings"] = run.warnings


def finish(job_file: str) -> None:
    """Do the job that is written in a file, and write the answer beside it."""
    job = json.loads(Path(job_file).read_text())
    answer = json.dumps(perform(job))
    temporary = Path(f"{job_file}.part")
    temporary.write_text(answer)
    temporary.rename(f"{job_file}.answer")


if __name__ == "__main__":
    finish(sys.argv[1])
