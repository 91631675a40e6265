"""Refuse names in `@step(ignore=...)` that mean nothing: a slip of the pen would be silent.

Knows a step's parameters and the modules that are loaded. A name in a module that is not loaded
cannot be judged, and is let through.
"""

from __future__ import annotations

import builtins
import difflib
import inspect
import sys
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from prefect_mlpipe.core.encoding.parts import label_of_module
from prefect_mlpipe.core.telling.telltales import ANY_OF, TOPS, telltale
from prefect_mlpipe.errors import InvalidStep
from prefect_mlpipe.steps import Step


def refuse_unknown_names(step: Step[..., Any]) -> None:
    """Refuse a step that ignores what is neither a parameter nor anything that it could read.

    Raises:
        InvalidStep: with the names that are nearest.
    """
    if not step.options.ignore:
        return
    function = inspect.unwrap(step.fn)
    names: Mapping[str, Any] = getattr(function, "__globals__", {})
    variables = [*step.signature.names, *_variables(step.fn), *_variables(function)]
    own = label_of_module(names)  # type: ignore[arg-type]
    for name in sorted(step.options.ignore):
        if (
            name.removeprefix(f"{own}.") in variables
            or telltale(name)[1]
            or name in ANY_OF.keys() | TOPS
        ):
            continue
        if _is_there(name, names, own):
            continue
        known = [*dict.fromkeys([*variables, *(n for n in names if not n.startswith("__"))])]
        near = difflib.get_close_matches(name.rpartition(".")[2], known)
        raise InvalidStep(
            f"Step '{step.name}' ignores '{name}', which is neither a parameter nor a global that "
            "it can reach.",
            {"parameters": ", ".join(step.signature.names)},
            f"Did you mean {' or '.join(map(repr, near))}?"
            if near
            else "Give the name of a parameter, or of a global with its module: 'helpers.SESSION'.",
        )


def _variables(function: Any) -> tuple[str, ...]:
    code = getattr(function, "__code__", None)
    return () if code is None else (*code.co_freevars, *code.co_varnames)


def _is_there(name: str, names: Mapping[str, Any], own: str) -> bool:
    if name.startswith(f"{own}."):
        return _has(names, name[len(own) + 1 :].split("."))
    parts = name.split(".")
    if parts[0] in names or len(parts) == 1:
        return _has(names, parts)
    for end in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:end]))
        if module is not None:
            return _has(vars(module), parts[end:])
    return True  # of a module that is not loaded: the body may import it


def _has(names: Mapping[str, Any], parts: list[str]) -> bool:
    """Whether names lead to something: attributes, or variables of functions."""
    if parts[0] not in names and parts[0] not in vars(builtins):
        return False
    found = names.get(parts[0])
    for part in parts[1:]:
        if part == "<locals>" or isinstance(found, Step):
            return True
        if isinstance(found, FunctionType) and part in _variables(found):
            return True
        try:
            found = inspect.getattr_static(found, part)
        except AttributeError:
            return False
    return True
