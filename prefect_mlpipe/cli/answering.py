"""How a command answers: as text for people or as one JSON document, and by its exit code.

Knows stdout, stderr and our errors. Knows nothing of what a command does.

With `--json` stdout has the document and nothing else, whatever steps and libraries print: what
they write to stdout meanwhile goes to stderr, by the file descriptor, so that this holds for the
processes of workers too.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, ParamSpec

import orjson
from cyclopts import Parameter
from rich.console import Console, RenderableType
from rich.text import Text

from prefect_mlpipe.errors import (
    AuthoringError,
    ComputeUnavailable,
    InvalidCompute,
    InvalidParameters,
    MissingFile,
    MlpipeError,
    NoSuchCompute,
    PipelineNotFound,
    PrefectUnavailable,
    RunNotFound,
    StoreUnavailable,
)

P = ParamSpec("P")

FAILED: Final = 1
WRONG_USE: Final = 2
WOULD_RUN: Final = 3
UNREACHABLE: Final = 4
INTERRUPTED: Final = 130

TRACEBACK: Final = "PREFECT_MLPIPE_TRACEBACK"

_REFUSED = (
    AuthoringError,
    InvalidCompute,
    InvalidParameters,
    MissingFile,
    NoSuchCompute,
    PipelineNotFound,
    RunNotFound,
)
_GONE = (ComputeUnavailable, PrefectUnavailable, StoreUnavailable)


class WrongUse(Exception):
    """What was asked for cannot be: a step that is not there, a number that cannot be."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    json: Annotated[
        bool, Parameter(help="Print one JSON document, and nothing else, on stdout.")
    ] = False
    traceback: Annotated[
        bool,
        Parameter(env_var=TRACEBACK, help="Show where an error comes from."),
    ] = False


class Answer(NamedTuple):
    """What a command has found out.

    Attributes:
        json: for programs; its form is kept.
        text: for people; rich shows it.
        code: the exit code.
        error: an error to tell of beside it, on stderr.
    """

    json: dict[str, Any]
    text: RenderableType
    code: int = 0
    error: BaseException | None = None


def command(function: Callable[P, Answer]) -> Callable[P, int]:
    """Make a function that answers a command: its answer is shown, its errors are told."""

    @functools.wraps(function)
    def answered(*args: P.args, **kwargs: P.kwargs) -> int:
        given = kwargs.get("common")
        common = given if isinstance(given, Common) else Common()
        return _give(lambda: function(*args, **kwargs), common)

    return answered


def _give(ask: Callable[[], Answer], common: Common) -> int:
    error: BaseException | None = None
    with _quiet_stdout() if common.json else nullcontext():
        try:
            answer = ask()
            error = answer.error
        except (Exception, KeyboardInterrupt) as raised:
            answer, error = Answer({}, "", _code(raised)), raised
    if error is not None and common.traceback:
        traceback.print_exception(error)
    if error is not None and not answer.json:
        show_error(type(error).__name__, _said(error), common.json, _facts(error))
    elif common.json:
        _write(answer.json)
    else:
        show(answer.text)
        if error is not None and not common.traceback:
            show_error(type(error).__name__, _said(error), as_json=False)
    return answer.code


def _code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, (*_REFUSED, WrongUse)):
        return WRONG_USE
    return UNREACHABLE if isinstance(error, _GONE) else FAILED


def _said(error: BaseException) -> str:
    if isinstance(error, MlpipeError | WrongUse):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    lines = [f"{type(error).__name__}: {error}"]
    if isinstance(error, BaseExceptionGroup):
        lines += [f"  {type(each).__name__}: {each}" for each in error.exceptions]
    return "\n".join([*lines, f"--traceback, or {TRACEBACK}=1, shows where it comes from."])


def _facts(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, MlpipeError):
        return {"message": str(error)}
    facts = {name: str(value) for name, value in error.facts.items()}
    return {"message": error.sentence, "facts": facts, "advice": error.advice}


# -- where it goes ----------------------------------------------------------------------------


def show(text: RenderableType) -> None:
    """Print for people, on stdout; a text as it stands, a table as wide as the terminal is."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(text, soft_wrap=isinstance(text, str | Text))


def show_error(kind: str, said: str, as_json: bool, facts: dict[str, Any] | None = None) -> None:
    """Tell of an error: on stderr for people, as the document on stdout for programs."""
    if as_json:
        _write(
            {"error": {"type": kind, "message": said, "facts": {}, "advice": "", **(facts or {})}}
        )
    else:
        print(said, file=sys.stderr)


def _write(document: dict[str, Any]) -> None:
    text = orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    print(text.decode(), flush=True)


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Send to stderr what is written to stdout meanwhile, also by processes that are started."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(ValueError):  # closed by somebody
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
