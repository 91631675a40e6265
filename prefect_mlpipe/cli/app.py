"""The commands of `mlpipe`, by name; each is imported when it is asked for.

Knows the names and what becomes of a wrong command line. Nothing else is imported here: `--help`
shall answer at once. Built on cyclopts, as Prefect's command line is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import NoReturn

from cyclopts import App, CoercionError, CycloptsError, Parameter
from rich.console import Console

from prefect_mlpipe.cli.answering import WRONG_USE, show_error

_EXIT_CODES = (
    "Exit codes: 0 all is well; 1 the run failed, or something is wrong; 2 wrong use, nothing ran; "
    "3 something would run (plan --exit-code); 4 the store, Prefect or a compute cannot be reached."
)
_DURATION = "\nA duration has units: 30d, 12h, 90m, 45s, or some of them together: 1d12h."


def _version() -> str:
    from importlib.metadata import version

    return version("prefect-mlpipe")


app = App(
    name="mlpipe",
    help="Machine-learning pipelines for Prefect: run, plan, and look at what ran.",
    help_flags=["--help"],
    help_epilogue=_EXIT_CODES,
    help_format="plaintext",
    version=_version,
    version_flags=["--version"],
    default_parameter=Parameter(negative=(), show_default=False),
)
_COMMANDS = {
    "run": ("run:run", "Run a pipeline and wait for its end."),
    "plan": ("plan:plan", "Say what a run would do, and why. Executes nothing."),
    "runs": ("runs:runs_app", "Look at the runs that are over."),
    "store": ("store:store_app", "Look after a store."),
    "watch": ("watch:watch", "Watch data for the deployments that workers run."),
    "doctor": ("doctor:doctor", "Look for what keeps pipelines from running, and how to mend it."),
}
for _name, (_target, _help) in _COMMANDS.items():
    app.command(f"prefect_mlpipe.cli.{_target}", name=_name, help=_help)


def answer(tokens: Sequence[str]) -> int:
    """Do what a command line asks; return the exit code."""
    try:
        code = app(
            list(tokens), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        error.console = Console(stderr=True)  # whose width its text takes
        hint = _DURATION if _wants_duration(error) else ""
        show_error("WrongUse", f"{error}{hint}", as_json="--json" in tokens)
        return WRONG_USE
    return int(code or 0)


def _wants_duration(error: CycloptsError) -> bool:
    return isinstance(error, CoercionError) and error.target_type is timedelta


def main() -> NoReturn:
    """Do what the command line of this process asks, and end it."""
    try:
        code = answer(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise SystemExit(code)
