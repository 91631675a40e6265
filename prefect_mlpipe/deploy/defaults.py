"""Default parameters of a deployment: files are named by absolute paths.

A worker works in a folder of its own, so a path that is relative means another file there. Knows
signatures and schemas. Knows nothing of versions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from prefect_mlpipe.core.annotations import signature_of
from prefect_mlpipe.core.files import File, Folder

_PATHS = ("file-path", "directory-path")


def absolute_parameters(pipeline: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters of a deployment with absolute paths, those of the signature among them.

    Args:
        pipeline: whose parameters they are.
        given: what the deployment sets.
    """
    schema = pipeline.parameters.properties
    found = {name: _absolute(value, _is_path(schema.get(name))) for name, value in given.items()}
    for name, parameter in signature_of(pipeline.body).parameters.items():
        default = parameter.default
        if name not in found and default is not parameter.empty:
            absolute = _absolute(default, False)
            if absolute != default:
                found[name] = _plain(absolute)
    return found


def _is_path(schema: Mapping[str, Any] | None) -> bool:
    if schema is None:
        return False
    inside = [schema["items"]] if isinstance(schema.get("items"), Mapping) else []
    return schema.get("format") in _PATHS or any(map(_is_path, [*schema.get("anyOf", ()), *inside]))


def _absolute(value: Any, is_path: bool) -> Any:
    """Return a value in which no file has a relative path; strings are paths only if it is said."""
    kind = type(value)
    if kind is File or kind is Folder:
        return kind(_path(value.path))
    if isinstance(value, os.PathLike):
        return kind(_path(os.fspath(value)))
    if kind is str and is_path:
        return _path(value)
    if kind is list or kind is tuple:
        return kind(_absolute(item, is_path) for item in value)
    if kind is dict:
        return {name: _absolute(item, is_path) for name, item in value.items()}
    return value


def _path(path: str) -> str:
    return path if not path or "://" in path or "{{" in path else os.path.abspath(path)


def _plain(value: Any) -> Any:
    """Return a value as the parameter of a deployment: paths as text."""
    if isinstance(value, os.PathLike):
        return str(value)
    if type(value) in (list, tuple):
        return [_plain(item) for item in value]
    if type(value) is dict:
        return {name: _plain(item) for name, item in value.items()}
    return value
