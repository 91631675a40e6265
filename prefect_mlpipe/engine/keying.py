"""From a step call to its manifest: digests of arguments, beside what comes from the step alone.

Knows nothing of records, of decisions, or of where steps run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import orjson
from blake3 import blake3
from pydantic import Secret, SecretBytes, SecretStr

from prefect_mlpipe.core.code import Code, shown_by
from prefect_mlpipe.core.digest import digest, known_of
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.graph import Output, outputs_in, replace_outputs
from prefect_mlpipe.core.held import SHOWN, Names
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.reading.shapes import asked_by_text
from prefect_mlpipe.core.record import HeldCode
from prefect_mlpipe.core.telling.describing import SECRET, describe, is_secret
from prefect_mlpipe.engine.paths import as_file, with_files
from prefect_mlpipe.engine.references import Reference, source_of, source_of_output
from prefect_mlpipe.engine.step_code import EnvVar, StepCodes, labels_of
from prefect_mlpipe.errors import MissingFile, UnstableInput
from prefect_mlpipe.steps import Step

SCALARS = frozenset({int, float, bool, str, type(None)})
SHOWN_LENGTH = 80
SECRETS = (Secret, SecretStr, SecretBytes)


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


class Keyer:
    """Makes the manifests of one run. One thread at a time.

    Args:
        run_id: part of the keys that no other run is to find.

    Attributes:
        names: what names in stored values mean.
        codes: what the code of steps reaches.
    """

    def __init__(self, run_id: str = "") -> None:
        self._run_id = run_id
        self.names = Names()
        self.codes = StepCodes()
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
        code = self.codes.of(step, node)
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
                    brought = {**brought, f"input {name}": self.codes.note(brings.own)}
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
            environment = {**environment, **self.codes.versions_of(owned)}
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
        found = {**self.codes.of(step, node).given}
        for name, each in self._bringing.get(node, {}).items():
            found[f"input {name}"] = blake3(self._shows(each, SHOWN)).hexdigest()
        return found

    def _shows(self, brings: _Bringing, asks: frozenset[str]) -> bytes:
        found = b"" if brings.own is None else shown_by(brings.own, asks)
        return found + b"".join(self.names.shown(each, asks) for each in brings.held)

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
        for label, item in zip(labels_of(declared), declared, strict=True):
            found[f"read {label}"] = getattr(item, "__mlpipe_function__", item)
        return {
            place: describe(
                os.environ.get(value.name) if isinstance(value, EnvVar) else value,
                place.partition(" ")[2],
            )
            for place, value in found.items()
        }

    def key_of_its_own(self, key: str, node: str) -> str:
        """Return a key that no other run, and no other node, looks up."""
        return blake3(orjson.dumps([key, self._run_id, node])).hexdigest()

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


def _adopted(value: object) -> object:
    return as_file(value) if isinstance(value, PurePath) else value


def _is_described(value: object) -> bool:
    kind = type(value)
    if kind is Output or kind in SCALARS:
        return kind is str and len(value) > SHOWN_LENGTH  # type: ignore[arg-type]
    return not outputs_in(value)
