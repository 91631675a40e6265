"""What of a key comes from the step alone: its code, what it declares that it reads, versions.

Read once per pipeline call, so that all nodes of one run agree. Knows nothing of arguments.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from blake3 import blake3

from prefect_mlpipe.core.code import Code, CodeReader, shown_by
from prefect_mlpipe.core.digest import known_of
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.environment import python_environment, versions
from prefect_mlpipe.core.files import File, Folder, noting_files
from prefect_mlpipe.core.held import SHOWN
from prefect_mlpipe.engine.ignoring import refuse_unknown_names
from prefect_mlpipe.engine.paths import with_files
from prefect_mlpipe.errors import MissingFile, UnstableCode
from prefect_mlpipe.steps import Step


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


class EnvVar:
    """An environment variable that a step reads: `@step(reads=[EnvVar("LANG")])`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"EnvVar({self.name!r})"

    def __mlpipe_digest__(self) -> tuple[str, str | None]:
        """Count as name and value; unset differs from empty."""
        return ("environment variable", os.environ.get(self.name))


class StepCodes:
    """Reads the code of steps, each once. One thread at a time."""

    def __init__(self) -> None:
        self._codes: dict[Step[..., Any], StepCode] = {}
        self._reader = CodeReader()
        self._states: dict[File | Folder, object] = {}  # of files that count in code
        self._python = python_environment()
        self._versions: dict[tuple[str, ...], dict[str, str]] = {}
        self._known: dict[str, Code] = {}

    def of(self, step: Step[..., Any], node: str) -> StepCode:
        """Return what the code of a step reaches.

        Args:
            step: the step.
            node: name for error messages.

        Raises:
            UnstableCode: a global that it reaches has no content, and the step is cached.
            MissingFile: it declares that it reads a path that does not exist.
        """
        found = self._codes.get(step)
        if found is None:
            found = self._codes[step] = self._read(step, node)
        return found

    def known(self, digest: str) -> Code | None:
        """Return code that was read or noted, by its digest."""
        return self._known.get(digest)

    def note(self, code: Code) -> str:
        """Return the digest of some code, which is known by it from here on."""
        self._known.setdefault(code.digest, code)
        return code.digest

    def versions_of(self, names: tuple[str, ...]) -> dict[str, str]:
        """Return the versions of distributions by name."""
        found = self._versions.get(names)
        if found is None:
            found = self._versions[names] = versions(names)
        return found

    def changed(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the steps whose code reads other globals now than when they were read."""
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
        self.note(code)
        environment = {**self._python, **code.environment}
        reads: dict[str, str] = {}
        brought: dict[str, str] = {}
        given: dict[str, str] = {}
        for label, (content, reached, own) in zip(labels_of(declared), found, strict=True):
            environment.update(reached)
            reads[label] = content
            if own is not None:
                brought[f"read {label}"] = self.note(own)
                shows = shown_by(own, SHOWN)
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
        return content, self.versions_of(tuple(sorted(owners))), own


def labels_of(declared: Sequence[Any]) -> list[str]:
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
