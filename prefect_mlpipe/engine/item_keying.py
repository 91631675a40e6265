"""Keys of the items of mapped steps, of which most differ from each other in very little.

Knows how a manifest is made of a call (`engine.keying`). Knows nothing of records or decisions.

Items that differ in numbers, short texts or outputs of steps share all else of their manifests:
only that is digested anew, and put into a key of which the rest is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.files import File, Folder, noting_files
from prefect_mlpipe.core.graph import Node, Output
from prefect_mlpipe.core.manifest import Manifest
from prefect_mlpipe.core.reading.shapes import asked_by_text
from prefect_mlpipe.core.telling.describing import is_secret
from prefect_mlpipe.engine.keying import SCALARS, SHOWN_LENGTH, Keyer
from prefect_mlpipe.engine.references import Reference, source_of_output

References: TypeAlias = Callable[[Output], Reference]
Files: TypeAlias = "Sequence[tuple[File | Folder, object]]"


class Keyed(NamedTuple):
    """A manifest, its key, and the files that were digested for it, as they were before."""

    manifest: Manifest
    key: str
    files: Files


class _Shared(NamedTuple):
    """What the items of a mapped node share.

    Attributes:
        manifest: without what goes item by item.
        names: of the parameters that do.
        key: gives the key with the digests of these.
        files: that were digested for it.
        plain: whether there is nothing in it that may count differently beside another input.
    """

    manifest: Manifest
    names: tuple[str, ...]
    key: Callable[[Sequence[str]], str]
    files: Files
    plain: bool


class ItemKeyer:
    """Makes the manifests of calls, and of items of mapped steps. One thread at a time."""

    def __init__(self, keyer: Keyer) -> None:
        self._keyer = keyer
        self._shared: dict[Node, _Shared] = {}

    def keyed(self, node: Node, group: Node | None, reference: References) -> Keyed:
        """Return the manifest of a node and its key; see `Keyer.manifest`.

        Args:
            node: of a call, or of an item of a mapped step.
            group: the mapped node that it is an item of.
            reference: what is known of an output.
        """
        if group is not None:
            shared = self._shared.get(group)
            if shared is None:
                shared = self._shared[group] = self._of(group, node.arguments, reference)
            found = _differing(shared, node.arguments, reference) if shared.plain else None
            if found is not None:
                return found
        with noting_files() as files:
            manifest = self._keyer.manifest(node.step, node.name, node.arguments, reference)
        return Keyed(manifest, manifest.key(), [*files.items()])

    def _of(self, group: Node, arguments: Mapping[str, Any], reference: References) -> _Shared:
        ignore = group.step.options.ignore
        given = group.arguments
        names = tuple(n for n in arguments if arguments[n] is not given[n] and n not in ignore)
        fixed = {name: value for name, value in arguments.items() if name not in names}
        with noting_files() as files:
            manifest = self._keyer.manifest(group.step, group.name, fixed, reference)
        plain = not self._keyer.brings_code(group.name)
        return _Shared(manifest, names, manifest.keys(names), [*files.items()], plain)


def _differing(
    shared: _Shared, arguments: Mapping[str, Any], reference: References
) -> Keyed | None:
    """Return what differs with the rest; `None` if an argument needs a closer look."""
    digests: list[str] = []
    base = shared.manifest
    shown, sources = base.shown, base.sources
    for name in shared.names:
        value = arguments[name]
        kind = type(value)
        if kind is Output:
            known = reference(value)
            if known.owners or known.held:
                return None
            digests.append(known.digest)
            sources = {**sources, name: source_of_output(value)}
        elif kind in SCALARS:
            if kind is str and (is_secret(value, name) or asked_by_text(value)):
                return None
            digests.append(digest(value))
            text = repr(value)
            if len(text) <= SHOWN_LENGTH:
                shown = {**shown, name: text}
        else:
            return None
    inputs = {**base.inputs, **dict(zip(shared.names, digests, strict=True))}
    manifest = Manifest(
        base.function,
        base.code,
        inputs,
        base.reads,
        base.version,
        base.environment,
        shown,
        sources,
        brought=base.brought,
    )
    return Keyed(manifest, shared.key(digests), shared.files)
