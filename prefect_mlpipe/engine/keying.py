"""From a step call to its manifest: digests of arguments, code, declared reads.

Holds what is read once per pipeline call (code, globals, files), so that all nodes of one run
agree. Knows nothing of records, of decisions, or of where steps run.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from prefect_mlpipe.core.code import Code, CodeReader
from prefect_mlpipe.core.digest import digest, owners
from prefect_mlpipe.core.encode import Undigestible
from prefect_mlpipe.core.environment import python_environment, versions
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.graph import Output, replace_outputs
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.errors import MissingFile, UnstableCode, UnstableInput
from prefect_mlpipe.steps import Step

_SCALARS = frozenset({int, float, bool, str, type(None)})
_SHOWN_LENGTH = 80


class Reference(NamedTuple):
    """What is known of an output without loading it: its digest, and whose types are in it."""

    digest: str
    owners: tuple[str, ...]

    def __mlpipe_digest__(self) -> tuple[str, str]:
        """Count as the output's digest."""
        return ("output", self.digest)


class StepCode(NamedTuple):
    """What a manifest takes from the step alone; the same for all its calls in a run."""

    function: str
    code: Code
    environment: dict[str, str]
    reads: dict[str, str]


class EnvVar:
    """An environment variable that a step reads: `@step(reads=[EnvVar("LANG")])`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"EnvVar({self.name!r})"

    def __mlpipe_digest__(self) -> tuple[str, str | None]:
        """Count as name and value; unset differs from empty."""

        return ("environment variable", os.environ.get(self.name))


class Keyer:
    """Makes the manifests of one run. One thread at a time."""

    def __init__(self) -> None:
        self._codes: dict[Step[..., Any], StepCode] = {}
        self._reader = CodeReader()
        self._python = python_environment()
        self._versions: dict[tuple[str, ...], dict[str, str]] = {}

    def manifest(
        self,
        step: Step[..., Any],
        node: str,
        arguments: Mapping[str, Any],
        reference: Callable[[Output], Reference],
    ) -> Manifest:
        """Return everything that the key of a call is made of.

        Args:
            step: what is called.
            node: name for error messages.
            arguments: parameter → argument, outputs inside.
            reference: what is known of an output.

        Raises:
            UnstableInput: an argument has no content to digest; with `cache=False` it is left out.
            UnstableCode: a global that the code reaches has none; likewise.
            MissingFile: an argument is a path that does not exist.
        """
        code = self.code(step, node)
        inputs: dict[str, str] = {}
        shown: dict[str, str] = {}
        sources: dict[str, str] = {}
        owned: tuple[str, ...] = ()
        ignore = step.options.ignore
        for name, value in arguments.items():
            if name in ignore:
                continue
            kind = type(value)
            if kind is Output:
                known = reference(value)
                inputs[name] = known.digest
                sources[name] = _source(value)
                owned += known.owners
            elif kind in _SCALARS:
                inputs[name] = digest(value)
                text = repr(value)
                if len(text) <= _SHOWN_LENGTH:
                    shown[name] = text
            else:
                inputs[name] = self._literal(step, node, name, value, reference)
                owned += self._owners(value, reference)
        environment = code.environment
        if owned:
            environment = {**environment, **self._owned(owned)}
        version = step.options.version
        return Manifest(
            code.function,
            code.code.digest,
            inputs,
            code.reads,
            version,
            environment,
            shown,
            sources,
        )

    def code(self, step: Step[..., Any], node: str) -> StepCode:
        """Return what the step's code reaches, read once per run."""
        found = self._codes.get(step)
        if found is None:
            found = self._codes[step] = self._read(step, node)
        return found

    def _read(self, step: Step[..., Any], node: str) -> StepCode:
        try:
            code = self._reader.read(step.fn, ignore=step.options.ignore)
            reads = {_read_name(item): self._declared(item) for item in step.options.reads}
        except Undigestible as error:
            if not step.cached:
                return StepCode(step.qualified_name, Code("", {}, {}), self._python, {})
            raise UnstableCode(
                f"Step '{node}' cannot be cached: its code reaches something without content.",
                {"the way there": error.path, "type": error.type, "because": error.why},
                "Pass it as an argument, leave it out of the key with "
                f"@step(ignore=[{error.path.rpartition('→')[2].strip()!r}]), "
                "or turn caching off with @step(cache=False).",
            ) from error
        return StepCode(step.qualified_name, code, {**self._python, **code.environment}, reads)

    def _declared(self, item: Any) -> str:
        function = getattr(item, "__mlpipe_function__", item)
        if callable(function) and not isinstance(function, type):
            return self._reader.read(function).digest
        return digest(with_files(item))

    def _literal(
        self,
        step: Step[..., Any],
        node: str,
        name: str,
        value: Any,
        reference: Callable[[Output], Reference],
    ) -> str:
        try:
            return digest(with_files(replace_outputs(value, reference)))
        except MissingFile as error:
            raise MissingFile(
                f"Step '{node}' was given a path that does not exist.",
                {"argument": name, **error.facts},
                error.advice or "Correct the path, or pass str(path) if only the name is meant.",
            ) from error
        except Undigestible as error:
            if not step.cached:
                return ""
            raise UnstableInput(
                f"Step '{node}' cannot be cached: one input has no content we can digest.",
                {
                    "argument": name,
                    "at": f"{name}{error.path}",
                    "type": error.type,
                    "because": error.why,
                },
                f"Pass plain data, or leave it out of the key with @step(ignore=[{name!r}]),\n"
                "or turn caching off for this step with @step(cache=False).",
            ) from error

    def _owners(self, value: Any, reference: Callable[[Output], Reference]) -> tuple[str, ...]:
        found: list[str] = []

        def note(output: Output) -> None:
            found.extend(reference(output).owners)

        return (*owners(replace_outputs(value, note)), *found)

    def _owned(self, names: tuple[str, ...]) -> dict[str, str]:
        found = self._versions.get(names)
        if found is None:
            found = self._versions[names] = versions(names)
        return found


def _read_name(item: Any) -> str:
    if isinstance(item, EnvVar | File | Folder):
        return repr(item)
    return getattr(item, "__qualname__", None) or repr(item)


def _source(output: Output) -> str:
    field = output._mlpipe_field
    node = output._mlpipe_node.name
    return node if field is None else f"{node}.{field}"


def with_files(value: Any) -> Any:
    """Return a value with every path inside it that exists turned into a `File` or `Folder`.

    Looks into lists, tuples, dicts and dataclasses.

    Raises:
        MissingFile: a path does not exist.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    if isinstance(value, PurePath):
        return _as_file(value)
    if kind is list or kind is tuple:
        return kind(with_files(item) for item in value)
    if kind is dict:
        return {name: with_files(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and _holds_path(value):
        adopted = copy.copy(value)
        for item in dataclasses.fields(value):  # past __setattr__: the dataclass may be frozen
            object.__setattr__(adopted, item.name, with_files(getattr(value, item.name)))
        return adopted
    return value


def _holds_path(value: Any) -> bool:
    fields = (getattr(value, f.name) for f in dataclasses.fields(value))
    return any(isinstance(item, PurePath | list | tuple | dict) for item in fields)


def _as_file(path: PurePath) -> File | Folder:

    if os.path.isdir(path):
        return Folder(path)
    if os.path.exists(path):
        return File(path)
    raise MissingFile(
        "A path does not exist.",
        {"path": path, "looked in": os.getcwd()},
        "Correct the path, or pass str(path) if only the name is meant.",
    )
