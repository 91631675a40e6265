"""From a step call to its manifest: digests of arguments, code, declared reads.

Holds what is read once per pipeline call (code, globals, files), so that all nodes of one run
agree. Knows nothing of records, of decisions, or of where steps run.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from types import ModuleType
from typing import Any, NamedTuple

import orjson
from blake3 import blake3
from pydantic import Secret, SecretBytes, SecretStr

from prefect_mlpipe.core.code import Code, CodeReader
from prefect_mlpipe.core.describing import describe
from prefect_mlpipe.core.digest import digest, digest_and_owners
from prefect_mlpipe.core.encode import Undigestible
from prefect_mlpipe.core.environment import python_environment, versions
from prefect_mlpipe.core.files import File, Folder, fingerprint_state
from prefect_mlpipe.core.graph import Output, outputs_in, replace_outputs
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.engine.calls import files_in
from prefect_mlpipe.errors import MissingFile, UnstableCode, UnstableInput
from prefect_mlpipe.steps import Step

_SCALARS = frozenset({int, float, bool, str, type(None)})
_SHOWN_LENGTH = 80
SECRETS = (Secret, SecretStr, SecretBytes)


class Reference(NamedTuple):
    """What is known of an output without loading it: its digest, and whose types are in it."""

    digest: str
    owners: tuple[str, ...]

    def __mlpipe_digest__(self) -> tuple[str, str]:
        """Count as the output's digest."""
        return ("output", self.digest)


class StepCode(NamedTuple):
    """What a manifest takes from the step alone; the same for all its calls in a run.

    `files` are those among `reads`, as they were before they were digested.
    """

    function: str
    code: Code
    environment: dict[str, str]
    reads: dict[str, str]
    files: list[tuple[File | Folder, object]]


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
    """Makes the manifests of one run. One thread at a time.

    Args:
        run_id: part of the keys that no other run is to find.
    """

    def __init__(self, run_id: str = "") -> None:
        self._run_id = run_id
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
                if isinstance(value, SECRETS):
                    shown[name] = "***"
                    continue
                inputs[name], owners = self._literal(step, node, name, value, reference)
                owned += owners
                nested = outputs_in(value)
                if nested:
                    sources[name] = _together(nested)
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

    def described(
        self, step: Step[..., Any], arguments: Mapping[str, Any]
    ) -> dict[str, dict[str, str]]:
        """Return what a later explanation may need to know of inputs that are not shown."""
        found = {
            f"input {name}": describe(_adopted(value), name)
            for name, value in arguments.items()
            if name not in step.options.ignore and _is_described(value)
        }
        declared = step.options.reads or ()
        for label, item in zip(_labels(declared), declared, strict=True):
            value = os.environ.get(item.name) if isinstance(item, EnvVar) else item
            found[f"read {label}"] = describe(value, label)
        return found

    def key_of_its_own(self, key: str, node: str) -> str:
        """Return a key that no other run, and no other node, looks up."""
        return blake3(orjson.dumps([key, self._run_id, node])).hexdigest()

    def changed_code(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the steps whose code reads other globals now than when the run began."""
        reader = CodeReader()
        for step, before in self._codes.items():
            if not before.code.digest:
                continue
            try:
                now = reader.read(step, ignore=step.options.ignore)
            except Undigestible as error:
                yield step.name, [error.path]
                continue
            if now.digest != before.code.digest:
                labels = now.parts.keys() | before.code.parts.keys()
                yield (
                    step.name,
                    sorted(n for n in labels if now.parts.get(n) != before.code.parts.get(n)),
                )

    def _read(self, step: Step[..., Any], node: str) -> StepCode:
        declared = step.options.reads or ()
        files = [(file, fingerprint_state(file)) for file in files_in({"reads": list(declared)})]
        try:
            code = self._reader.read(step, ignore=step.options.ignore)
            found = [self._declared(item) for item in declared]
        except MissingFile as error:
            raise MissingFile(
                f"Step '{node}' declares that it reads a path that does not exist.",
                error.facts,
                error.advice,
            ) from error
        except Undigestible as error:
            if not step.cached:
                return StepCode(step.qualified_name, Code("", {}, {}), self._python, {}, files)
            raise UnstableCode(
                f"Step '{node}' cannot be cached: its code reaches something without content.",
                {"the way there": error.path, "type": error.type, "because": error.why},
                "Pass it as an argument, leave it out of the key with "
                f"@step(ignore=[{error.path.rpartition('→')[2].strip()!r}]), "
                "or turn caching off with @step(cache=False).",
            ) from error
        environment = {**self._python, **code.environment}
        for _, reached in found:
            environment.update(reached)
        reads = {n: content for n, (content, _) in zip(_labels(declared), found, strict=True)}
        return StepCode(step.qualified_name, code, environment, reads, files)

    def _declared(self, item: Any) -> tuple[str, Mapping[str, str]]:
        """Return the digest of what is declared, and the versions that it reaches."""
        function = getattr(item, "__mlpipe_function__", item)
        if callable(function) and not isinstance(function, type):
            code = self._reader.read(function)
            return code.digest, code.environment
        content, owners = digest_and_owners(with_files(item))
        return content, self._owned(tuple(sorted(owners)))

    def _literal(
        self,
        step: Step[..., Any],
        node: str,
        name: str,
        value: Any,
        reference: Callable[[Output], Reference],
    ) -> tuple[str, tuple[str, ...]]:
        """Return the digest of an argument, and the distributions that own the types in it."""
        known: list[Reference] = []

        def note(output: Output) -> Reference:
            known.append(reference(output))
            return known[-1]

        try:
            found, owners = digest_and_owners(with_files(replace_outputs(value, note)))
        except MissingFile as error:
            raise MissingFile(
                f"Step '{node}' was given a path that does not exist.",
                {"argument": name, **error.facts},
                error.advice or "Correct the path, or pass str(path) if only the name is meant.",
            ) from error
        except Undigestible as error:
            if not step.cached:
                return "", ()
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
        return found, (*sorted(owners), *(owner for one in known for owner in one.owners))

    def _owned(self, names: tuple[str, ...]) -> dict[str, str]:
        found = self._versions.get(names)
        if found is None:
            found = self._versions[names] = versions(names)
        return found


def _adopted(value: object) -> object:
    return _as_file(value) if isinstance(value, PurePath) else value


def _is_described(value: object) -> bool:
    kind = type(value)
    if kind is Output or kind in _SCALARS:
        return kind is str and len(value) > _SHOWN_LENGTH  # type: ignore[arg-type]
    return not outputs_in(value)


def _labels(declared: Sequence[Any]) -> list[str]:
    """Return a name for each declared read; no path of a machine may stand in one."""
    counts: Counter[str] = Counter()
    labels = []
    for item in declared:
        if isinstance(item, ModuleType):
            name = item.__name__
        else:
            name = getattr(item, "__qualname__", None) or getattr(item, "name", None)
        label = str(name or type(item).__qualname__)
        counts[label] += 1
        labels.append(label if counts[label] == 1 else f"{label}#{counts[label]}")
    return labels


def _together(outputs: list[Output]) -> str:
    names = list(dict.fromkeys(map(_source, outputs)))
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


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
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind(*map(with_files, value)) if kind is not Reference else value
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
