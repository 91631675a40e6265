"""What a command line says of a pipeline: which one, its parameters, the options of a run.

Knows Prefect's way to name a flow and to give parameters, and takes Prefect's own code for both.
Knows nothing of what the pipeline is wanted for.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

from cyclopts import Parameter
from prefect.exceptions import MissingFlowError, ScriptError
from prefect.flows import load_flow_from_entrypoint

from prefect_mlpipe.cli.answering import WrongUse
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import PipelineNotFound, StoreUnavailable
from prefect_mlpipe.pipelines import Pipeline
from prefect_mlpipe.stores import open_store

Entrypoint = Annotated[
    str, Parameter(help="Which pipeline: path.py:pipeline or package.module:pipeline.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The parameters of a pipeline, as `prefect deployment run` takes them."""

    param: Annotated[
        list[str] | None,
        Parameter(
            name=["--param", "-p"],
            help="key=value; the value is read as JSON, or else as text. As often as needed.",
        ),
    ] = None
    params: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="All parameters as a JSON object; - reads it from stdin.",
        ),
    ] = None

    def values(self) -> dict[str, Any]:
        """Return name → value.

        Raises:
            WrongUse: it is no JSON, or a name is given twice.
        """
        given = self._together()
        single = dict(map(_pair, self.param or ()))
        twice = sorted(single.keys() & given.keys())
        if twice:
            raise WrongUse(f"Given by --param and by --params: {', '.join(twice)}.")
        return {**given, **single}

    def _together(self) -> dict[str, Any]:
        if not self.params:
            return {}
        text = sys.stdin.read() if self.params == "-" else self.params
        try:
            given = json.loads(text)
        except ValueError as error:
            raise WrongUse(f"--params is no JSON: {error}") from None
        if not isinstance(given, dict):
            raise WrongUse(f"--params is no JSON object, but a {type(given).__name__}.")
        return given


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise WrongUse(f"--param {text!r} is not key=value.")
    return name, _value(name, value)


def _value(name: str, text: str) -> Any:
    """Read a value as Prefect does: JSON, or else text, unless a quote says that JSON was meant."""
    try:
        return json.loads(text)
    except ValueError as error:
        if '"' not in text:
            return text
        raise WrongUse(f"--param {name}: {text!r} is no JSON: {error}") from None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be asked of a run, or of the plan of one, besides parameters."""

    refresh: Annotated[
        list[str] | None,
        Parameter(help="A step or group that runs although it could be reused."),
    ] = None
    refresh_all: Annotated[bool, Parameter(help="All steps run although they could be reused.")] = (
        False
    )
    target: Annotated[
        list[str] | None,
        Parameter(help="A step or group that is wanted, with what it needs."),
    ] = None
    store: Annotated[
        str | None, Parameter(help="A folder or URL; default: the pipeline's, or the settings'.")
    ] = None

    def said(self) -> dict[str, Any]:
        """Return those that were given, in the words of `with_options`."""
        options = {
            "refresh": self.refresh_all or self.refresh,
            "targets": self.target,
            "store": self.store,
        }
        return {name: value for name, value in options.items() if value}


def pipeline_at(entrypoint: str, options: Mapping[str, Any]) -> Pipeline[..., Any]:
    """Load a pipeline by its path or module, and give it options.

    Raises:
        PipelineNotFound: there is none.
        Exception: what the code of the module raises.
    """
    if ".py:" not in entrypoint and "" not in sys.path:
        sys.path.insert(0, "")  # the working folder, as `python -m` has it
    # a file alone, too, is looked into for what it has
    asked = entrypoint if ":" in entrypoint or not entrypoint.endswith(".py") else f"{entrypoint}:"
    try:
        found: Any = load_flow_from_entrypoint(asked, use_placeholder_flow=False)
    except ScriptError as error:
        cause = error.__cause__ or error
        if isinstance(cause, FileNotFoundError):
            raise _not_found(entrypoint, f"there is no file {cause.filename}") from error
        raise cause from None
    except (MissingFlowError, ModuleNotFoundError, FileNotFoundError, ValueError) as error:
        named = not asked.endswith(":") and (":" in asked or "." in asked)
        why = str(error).strip() if named else "no pipeline is named in it"
        raise _not_found(entrypoint, why, _pipelines_beside(error)) from error
    if not isinstance(found, Pipeline):
        raise _not_found(entrypoint, "it is a flow, but no pipeline")
    return found.with_options(**options) if options else found


def _not_found(
    entrypoint: str, why: str, there: Mapping[str, Pipeline[..., Any]] | None = None
) -> PipelineNotFound:
    near = difflib.get_close_matches(entrypoint.rpartition(":")[2], there or ())
    where = entrypoint.rpartition(":")[0] or entrypoint
    advice = "Name it as path.py:pipeline or package.module:pipeline."
    return PipelineNotFound(
        f"'{entrypoint}' is no pipeline.",
        {"because": why, **({"pipelines there": ", ".join(there)} if there else {})},
        f"Did you mean {where}:{near[0]}?" if near else advice,
    )


def _pipelines_beside(error: BaseException) -> dict[str, Pipeline[..., Any]]:
    """Return the pipelines of the module in which a name was not found: name → pipeline."""
    module = getattr(error.__cause__, "obj", None)
    beside = vars(module) if isinstance(module, ModuleType) else {}
    return {name: found for name, found in beside.items() if isinstance(found, Pipeline)}


def opened(store: str | None) -> Store:
    """Open a store that is to be looked at: one that was named must be there.

    Raises:
        StoreUnavailable: nothing was ever stored there.
    """
    found = open_store(store)
    if store is not None and not found.is_made():
        raise StoreUnavailable(
            "There is no store where --store says.",
            {"store": found.url},
            "Correct it; runs leave theirs where PREFECT_MLPIPE_STORE, or the pipeline, says.",
        )
    return found
