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

from prefect_mlpipe.core.code import Code, CodeReader, shown_by
from prefect_mlpipe.core.digest import digest, known_of
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.environment import python_environment, versions
from prefect_mlpipe.core.files import File, Folder, noting_files
from prefect_mlpipe.core.graph import Output, outputs_in, replace_outputs
from prefect_mlpipe.core.held import SHOWN, Names
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.nested import items_in, refilled
from prefect_mlpipe.core.reading.shapes import asked_by_text
from prefect_mlpipe.core.record import HeldCode
from prefect_mlpipe.core.telling.describing import SECRET, describe, is_secret
from prefect_mlpipe.engine.ignoring import refuse_unknown_names
from prefect_mlpipe.errors import MissingFile, UnstableCode, UnstableInput
from prefect_mlpipe.steps import Step

SCALARS = frozenset({int, float, bool, str, type(None)})
SHOWN_LENGTH = 80
SECRETS = (Secret, SecretStr, SecretBytes)


class Reference(NamedTuple):
    """What is known of an output without loading it.

    Attributes:
        digest: of its value.
        owners: distributions that own the types in it.
        held: the user's code in it.
    """

    digest: str
    owners: tuple[str, ...]
    held: tuple[HeldCode, ...] = ()

    def __mlpipe_digest__(self) -> tuple[str, str]:
        """Count as the output's digest."""
        return ("output", self.digest)


class StepCode(NamedTuple):
    """What a manifest takes from the step alone; the same for all its calls in a run.

    `files` are those among `reads` and in globals, as they were before they were digested.
    """

    function: str
    code: Code
    environment: dict[str, str]
    reads: dict[str, str]
    brought: dict[str, str]
    given: dict[str, str]
    files: list[tuple[File | Folder, object]]


class _Bringing(NamedTuple):
    """The user's code that an argument brings along.

    Attributes:
        own: that of the argument itself.
        held: that in the outputs in it.
        asks: what it asks of other code, once it is called.
    """

    own: Code | None
    held: tuple[HeldCode, ...] = ()
    asks: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, own: Code | None, held: tuple[HeldCode, ...], asks: frozenset[str] = frozenset()
    ) -> _Bringing:
        return cls(own, held, asks.union(*(each.asks for each in held)))


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

    Attributes:
        names: what names in stored values mean.
    """

    def __init__(self, run_id: str = "") -> None:
        self._run_id = run_id
        self.names = Names()
        self._codes: dict[Step[..., Any], StepCode] = {}
        self._reader = CodeReader()
        self._states: dict[File | Folder, object] = {}  # of files that count in code
        self._python = python_environment()
        self._versions: dict[tuple[str, ...], dict[str, str]] = {}
        self._known: dict[str, Code] = {}
        self._bringing: dict[str, dict[str, _Bringing]] = {}  # by node

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
        brought: Mapping[str, str] = code.brought
        bringing: dict[str, _Bringing] = {}
        owned: tuple[str, ...] = ()
        ignore = step.options.ignore
        for name, value in arguments.items():
            if name in ignore:
                continue
            kind = type(value)
            if kind is Output:
                known = reference(value)
                inputs[name] = known.digest
                sources[name] = source_of_output(value)
                owned += known.owners
                if known.held:
                    bringing[name] = _Bringing.of(None, known.held)
            elif kind in SCALARS:
                inputs[name] = digest(value)
                if asks := asked_by_text(value):
                    bringing[name] = _Bringing(None, (), asks)
                text = repr(value)
                if kind is str and is_secret(value, name):
                    shown[name] = SECRET
                elif len(text) <= SHOWN_LENGTH:
                    shown[name] = text
            else:
                if isinstance(value, SECRETS):
                    shown[name] = "***"
                    continue
                inputs[name], owners, brings = self._literal(step, node, name, value, reference)
                owned += owners
                if brings.own is not None:
                    brought = {**brought, f"input {name}": self._noted(brings.own)}
                if any(brings):
                    bringing[name] = brings
                nested = outputs_in(value)
                if nested:
                    sources[name] = source_of(nested)
        if bringing:
            self._bringing[node] = bringing
            self._count_what_shows(code.code, inputs, bringing)
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
            brought=brought,
        )

    def _count_what_shows(
        self, code: Code, inputs: dict[str, str], bringing: Mapping[str, _Bringing]
    ) -> None:
        """Let count what shows of code in inputs, since the step or another input asks for it.

        Args:
            code: of the step.
            inputs: parameter → digest; changed where more of an input shows.
            bringing: parameter → the code that it brings.
        """
        asks = code.asks.union(*(each.asks for each in bringing.values()))
        for name, each in bringing.items():
            shows = self._shows(each, asks)
            if each.asks - code.asks:  # of the step's own code, too
                shows += shown_by(code, each.asks - code.asks)
            if shows:
                inputs[name] = blake3(inputs[name].encode() + shows).hexdigest()

    def brings_code(self, node: str) -> bool:
        """Return whether an input of a node, of which the manifest was made, has user's code."""
        return node in self._bringing

    def given(self, step: Step[..., Any], node: str) -> dict[str, str]:
        """Return what shows of code that a call was given: place → digest.

        Args:
            step: what is called.
            node: of which the manifest was made.
        """
        found = {**self.code(step, node).given}
        for name, each in self._bringing.get(node, {}).items():
            found[f"input {name}"] = blake3(self._shows(each, SHOWN)).hexdigest()
        return found

    def _shows(self, brings: _Bringing, asks: frozenset[str]) -> bytes:
        found = b"" if brings.own is None else shown_by(brings.own, asks)
        return found + b"".join(self.names.shown(each, asks) for each in brings.held)

    def code(self, step: Step[..., Any], node: str) -> StepCode:
        """Return what the step's code reaches, read once per run."""
        found = self._codes.get(step)
        if found is None:
            found = self._codes[step] = self._read(step, node)
        return found

    def code_of(self, code: str) -> Code | None:
        """Return code that was read for the manifests of this run, by its digest."""
        return self._known.get(code)

    def described(
        self, step: Step[..., Any], arguments: Mapping[str, Any]
    ) -> dict[str, dict[str, str]]:
        """Return what reasons and explanations need to know of inputs that are not shown.

        Returns:
            `input table`, `read LANG` → facts.
        """
        found = {
            f"input {name}": _adopted(value)
            for name, value in arguments.items()
            if _is_described(value) and name not in step.options.ignore
        }
        declared = step.options.reads or ()
        if not found and not declared:
            return {}
        for label, item in zip(_labels(declared), declared, strict=True):
            found[f"read {label}"] = getattr(item, "__mlpipe_function__", item)
        return {
            place: describe(
                os.environ.get(value.name) if isinstance(value, EnvVar) else value,
                place.partition(" ")[2],
            )
            for place, value in found.items()
        }

    def _noted(self, code: Code) -> str:
        """Return the digest of some code, which can be asked for by it from here on."""
        self._known.setdefault(code.digest, code)
        return code.digest

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
        refuse_unknown_names(step)
        declared = step.options.reads or ()
        files: list[tuple[File | Folder, object]] = []
        try:
            with noting_files() as states:
                code = self._reader.read(step, ignore=step.options.ignore)
                found = [self._declared(item) for item in declared]
            files += self._files(step, states)
        except MissingFile as error:
            raise MissingFile(
                f"Step '{node}' declares that it reads a path that does not exist.",
                error.facts,
                error.advice,
            ) from error
        except Undigestible as error:
            if not step.cached:
                nothing = Code("", {}, {})
                return StepCode(step.qualified_name, nothing, self._python, {}, {}, {}, files)
            raise UnstableCode(
                f"Step '{node}' cannot be cached: its code reaches something without content.",
                {"the way there": error.path, "type": error.type, "because": error.why},
                "Pass it as an argument, leave it out of the key with "
                f"@step(ignore=[{error.path.rpartition('→')[2].strip()!r}]), "
                "or turn caching off with @step(cache=False).",
            ) from error
        self._noted(code)
        environment = {**self._python, **code.environment}
        reads: dict[str, str] = {}
        brought: dict[str, str] = {}
        given: dict[str, str] = {}
        for label, (content, reached, own) in zip(_labels(declared), found, strict=True):
            environment.update(reached)
            reads[label] = content
            if own is not None:
                brought[f"read {label}"] = self._noted(own)
                shows = self._shows(_Bringing(own), SHOWN)
                given[f"read {label}"] = blake3(shows).hexdigest()
        return StepCode(step.qualified_name, code, environment, reads, brought, given, files)

    def _files(
        self, step: Step[..., Any], states: dict[File | Folder, object]
    ) -> list[tuple[File | Folder, object]]:
        """Return the files that count in the code of a step, as they were when first digested.

        The reader does not look again at what another step reaches too: once there was any file,
        the code is gone through once more, which costs little, since it has just been read.
        """
        self._states = {**states, **self._states}
        if not self._states:
            return []
        with noting_files() as own:
            CodeReader().read(step, ignore=step.options.ignore)
        return [(file, self._states.get(file, own.get(file))) for file in {**states, **own}]

    def _declared(self, item: Any) -> tuple[str, Mapping[str, str], Code | None]:
        """Return the digest of what is declared, the versions that it reaches, and its code."""
        function = getattr(item, "__mlpipe_function__", item)
        if callable(function) and not isinstance(function, type):
            code = self._reader.read(function)
            return code.digest, code.environment, code
        content, owners, own, _ = known_of(with_files(item))
        return content, self._owned(tuple(sorted(owners))), own

    def _literal(
        self,
        step: Step[..., Any],
        node: str,
        name: str,
        value: Any,
        reference: Callable[[Output], Reference],
    ) -> tuple[str, tuple[str, ...], _Bringing]:
        """Return the digest of an argument, who owns the types in it, and the code in it."""
        outputs: list[Reference] = []

        def note(output: Output) -> Reference:
            outputs.append(reference(output))
            return outputs[-1]

        try:
            found, owners, code, asks = known_of(with_files(replace_outputs(value, note)))
        except MissingFile as error:
            raise MissingFile(
                f"Step '{node}' was given a path that does not exist.",
                {"argument": name, **error.facts},
                error.advice or "Correct the path, or pass str(path) if only the name is meant.",
            ) from error
        except Undigestible as error:
            if not step.cached:
                return "", (), _Bringing(None)
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
        owned = (*sorted(owners), *(owner for one in outputs for owner in one.owners))
        held = tuple(each for one in outputs for each in one.held)
        return found, owned, _Bringing.of(code, held, asks)

    def _owned(self, names: tuple[str, ...]) -> dict[str, str]:
        found = self._versions.get(names)
        if found is None:
            found = self._versions[names] = versions(names)
        return found


def _adopted(value: object) -> object:
    return as_file(value) if isinstance(value, PurePath) else value


def _is_described(value: object) -> bool:
    kind = type(value)
    if kind is Output or kind in SCALARS:
        return kind is str and len(value) > SHOWN_LENGTH  # type: ignore[arg-type]
    return not outputs_in(value)


def _labels(declared: Sequence[Any]) -> list[str]:
    """Return a name for each declared read; no path of a machine may stand in one."""
    counts: Counter[str] = Counter()
    labels = []
    for item in declared:
        name: Any
        if isinstance(item, ModuleType):
            name = item.__name__
        else:
            name = getattr(item, "__qualname__", None) or getattr(item, "name", None)
        label = str(name or type(item).__qualname__)
        counts[label] += 1
        labels.append(label if counts[label] == 1 else f"{label}#{counts[label]}")
    return labels


def source_of(outputs: list[Output]) -> str:
    """Return where an argument comes from, as reasons say it."""
    names = list(dict.fromkeys(map(source_of_output, outputs)))
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def source_of_output(output: Output) -> str:
    """Return where an output comes from: its node, and its field."""
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
    if kind in SCALARS or not _holds_path(value):
        return value
    if isinstance(value, PurePath):
        return as_file(value)
    if kind is list:
        return [with_files(item) for item in value]
    if isinstance(value, tuple):
        return refilled(value, map(with_files, value)) if kind is not Reference else value
    if kind is dict:
        return {name: with_files(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        adopted = copy.copy(value)
        for item in dataclasses.fields(value):  # past __setattr__: the dataclass may be frozen
            object.__setattr__(adopted, item.name, with_files(getattr(value, item.name)))
        return adopted
    return value


def _holds_path(value: Any) -> bool:
    return any(isinstance(item, PurePath) for item in items_in(value, fields=True))


def as_file(path: PurePath) -> File | Folder:
    """Return what a path stands for.

    Raises:
        MissingFile: it does not exist.
    """
    if os.path.isdir(path):
        return Folder(path)
    if os.path.exists(path):
        return File(path)
    raise MissingFile(
        "A path does not exist.",
        {"path": path, "looked in": os.getcwd()},
        "Correct the path, or pass str(path) if only the name is meant.",
    )
