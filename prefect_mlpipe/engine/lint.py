"""Warn where a step seems to need a declaration: what it reads that is not in its key.

Knows steps, what they declare, and the arguments of a call. Knows nothing of decisions: a warning
changes nothing. What is declared, or named in `ignore`, is not warned of, nor is a step that is not
cached; `reads=[]`, said outright, means that there is nothing to declare.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import PurePath
from typing import Any

from prefect_mlpipe.core.code import Code
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.telling.telltales import TELLTALES
from prefect_mlpipe.core.telling.undeclared import Use, undeclared
from prefect_mlpipe.engine.keying import SECRETS
from prefect_mlpipe.engine.step_code import EnvVar
from prefect_mlpipe.step_options import StepOptions
from prefect_mlpipe.steps import Step

_LOOKED_AT = 100  # strings of one argument
_DEPTH = 8
_LONGEST_PATH = 1024

# Kind → what is done, and the way out. `{what}` is what is read.
_SENTENCES = {
    "environment": ("reads {what}", "declare it: reads=[EnvVar({detail})]"),
    "folder": ("reads {what}", "pass the folder as an argument"),
    "chance": ("draws from {what} without a seed", "take a seed as a parameter"),
    "time": ("reads {what}", "pass the time as a parameter, or say cache_expiration="),
    "file": ("reads {what}", "declare it: reads=[File({detail})], or take it as a parameter"),
    "outside": ("asks {what}", "say cache=False, or version= or cache_expiration="),
    "code": ("loads code by {what}", "declare what it may load: reads=[module.function]"),
    "global": ("changes the global {what}, which is in its key", "pass it as an argument"),
}


def code_warnings(step: Step[..., Any], code: Code, *, certain: bool = False) -> list[str]:
    """Return what the code of a step reads and does not declare, one sentence for each.

    Args:
        step: whose options are looked at.
        code: what it reaches.
        certain: whether to leave out all that may well be meant so.
    """
    if not _is_looked_at(step):
        return []
    uses = undeclared(code)
    seeded = {_family(use.name) for use in uses if use.kind == "seed"}
    found = []
    for use in uses:
        if use.kind == "seed" or (use.kind == "chance" and _is_seeded(use, seeded)):
            continue
        if (_is_certain(use) or not certain) and not _is_declared(use, step.options):
            found.append(_sentence(step, use))
    return found


def argument_warnings(
    step: Step[..., Any], node: str, arguments: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a sentence for each string among the arguments that is the path of something."""
    if not _is_looked_at(step):
        return
    declared = _declared_paths(step.options)
    for name, value in arguments.items():
        if name in step.options.ignore:
            continue
        for at, path in _paths_in(value, name):
            if os.path.abspath(path) not in declared:
                kind = "Folder" if os.path.isdir(path) else "File"
                yield (
                    f"{node}: argument '{at}' is a str, and the path of a {kind.lower()} "
                    f"({path!r}); its content is not in the key: pass {kind}(...)"
                )


def _is_looked_at(step: Step[..., Any]) -> bool:
    return step.cached and step.options.reads != ()


def _is_certain(use: Use) -> bool:
    """Whether there is no doubt that a record may be reused where it should not be."""
    return use.kind == "chance" or (use.kind in ("environment", "file") and use.detail is not None)


def _is_seeded(use: Use, seeded: set[str]) -> bool:
    """Whether it draws from a global generator to which this step gives a seed."""
    return TELLTALES.get(use.name) != "unseeded" and _family(use.name) in seeded


def _family(name: str) -> str:
    return name.rpartition(".")[0]


def _is_declared(use: Use, options: StepOptions) -> bool:
    if {use.name, _family(use.name)} & options.ignore:
        return True
    declared = options.reads or ()
    match use.kind:
        case "environment":
            named = {each.name for each in declared if isinstance(each, EnvVar)}
            return use.detail in named if use.detail else bool(named)
        case "file" if use.detail is not None:
            path = os.path.abspath(use.detail)
            return any(
                path == one or path.startswith(one + os.sep) for one in _declared_paths(options)
            )
        case "code":
            return any(not isinstance(each, EnvVar | File | Folder | PurePath) for each in declared)
        case "outside":
            return options.version is not None or options.cache_expiration is not None
        case "time":
            return options.cache_expiration is not None
        case _:
            return False


def _declared_paths(options: StepOptions) -> set[str]:
    declared = options.reads or ()
    return {os.path.abspath(e) for e in declared if isinstance(e, File | Folder | PurePath)}


def _sentence(step: Step[..., Any], use: Use) -> str:
    done, way_out = _SENTENCES[use.kind]
    what = use.name
    if use.kind == "environment" and use.detail:
        what = f"{use.name}[{use.detail!r}]" if use.name == "os.environ" else f"{use.name}"
        what += "" if use.name == "os.environ" else f"({use.detail!r})"
    elif use.detail:
        what = f"{use.name}({use.detail!r})"
    own = use.label == step.qualified_name
    way = step.name if own else f"{step.name} → {use.label}"
    detail = "..." if use.detail is None else repr(use.detail)
    return f"{way} {done.format(what=what)}; {way_out.format(detail=detail)}"


def _paths_in(value: Any, at: str) -> Iterator[tuple[str, str]]:
    return (each for each in islice(_strings(value, at), _LOOKED_AT) if _is_path(each[1]))


def _strings(value: Any, at: str, depth: int = _DEPTH) -> Iterator[tuple[str, str]]:
    if depth == 0:
        return
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, SECRETS):
        return
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value[:_LOOKED_AT]):
            yield from _strings(item, f"{at}[{number}]", depth - 1)
    elif isinstance(value, dict):
        for key, item in islice(value.items(), _LOOKED_AT):
            yield from _strings(item, f"{at}[{key!r}]", depth - 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            item = getattr(value, field.name, None)
            yield from _strings(item, f"{at}.{field.name}", depth - 1)


def _is_path(text: str) -> bool:
    """Whether a string is the path of something, and looks as if that were meant."""
    if not text or len(text) > _LONGEST_PATH or not text.isprintable():
        return False
    if not any(map(str.isalnum, text)):
        return False  # a separator, or '.'
    if os.sep not in text and "." not in text:
        return False  # a word, as 'train', that some folder may be called too
    return os.path.exists(text)
