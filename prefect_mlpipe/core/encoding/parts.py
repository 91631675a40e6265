"""What reading code leaves behind: parts, what they were read from, and whose code is whose.

Knows the records that a read of a function collects in `Encoder.reach`. Knows nothing of bytecode.

Worth arguing: each part has a digest of its own beside the digest of the whole, in which the code
that it calls stands as a constant. So `code changed: helpers.clean` names what changed, and not
everything that calls it.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from blake3 import blake3

from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.pieces import SCALARS, Piece, packed, scalar, text
from prefect_mlpipe.core.environment import USER, Owner, owner_of

_IMMUTABLE: Final = SCALARS | {types.FunctionType, type, types.BuiltinFunctionType, range}
MISSING: Final = object()

# Label → digest of a part alone → the part: two lambdas of one module share a label.
Parts: TypeAlias = "dict[str, dict[bytes, object]]"


class Part(NamedTuple):
    """A function, class or global value that code reaches.

    Attributes:
        label: module-qualified name.
        own: digest of it alone.
        value: the thing itself, for its source.
    """

    label: str
    own: bytes
    value: object


class Binding(NamedTuple):
    """A name, and what it meant when it was read."""

    names: dict[str, Any]
    name: str
    value: object


class Content(NamedTuple):
    """A value that can change in place, and its piece when read; `None`: always look again."""

    value: object
    piece: bytes | None


class Asks(NamedTuple):
    """What code asks of other code beside what that does: values of `shapes.ASKS`."""

    kinds: frozenset[str]


class Attributes(NamedTuple):
    """What the attributes of a function or a class, or the names of a module, were."""

    holder: object
    values: tuple[object, ...]


def entries(reach: list[Any]) -> Iterator[Any]:
    """Yield the records that a read left behind, those of what is reached twice once."""
    seen: set[int] = set()
    waiting = [reach]
    while waiting:
        for entry in waiting.pop():
            if type(entry) is not list:
                yield entry
            elif id(entry) not in seen:
                seen.add(id(entry))
                waiting.append(entry)


def together(owns: Mapping[bytes, object]) -> str:
    """Return one digest for all parts of one label."""
    if len(owns) == 1:
        return next(iter(owns)).hex()
    return blake3(b"".join(sorted(owns))).hexdigest()


def present(value: object) -> bytes:
    """Stand for code in the digest of a part alone, by name: `{"a": f}` is not `{"a": g}`."""
    if isinstance(value, types.FunctionType):
        return packed("code", text(value.__code__.co_qualname))
    return packed("code", text(value.__name__ if isinstance(value, type) else ""))


def identity(value: object) -> bytes:
    """Stand for code where only its identity is asked."""
    return packed("code", scalar(id(value)))


def label_of_module(names: dict[str, Any]) -> str:
    """Return the name under which a module can be imported, for `__main__` too."""
    name = names.get("__name__")
    if name != "__main__":
        return str(name or "__main__")
    spec, file = names.get("__spec__"), names.get("__file__")
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"


def owner_of_function(function: types.FunctionType) -> Owner:
    """Return whose code a function is; what it is called, and what it wraps, does not matter."""
    names = function.__globals__
    name = names.get("__name__")
    if is_loaded(names):
        return owner_of(str(name))
    file = names.get("__file__") or function.__code__.co_filename
    return owner_of(str(name), file) if os.path.isabs(file) else USER


def is_loaded(names: dict[str, Any]) -> bool:
    """Whether these are the names of a module that can be imported, not of a copy by value."""
    name = names.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module is not None and vars(module) is names


def foreign(encoder: Encoder, owner: Owner, module: str, name: str) -> bytes:
    """Encode what is not the user's by name, and note whose it is."""
    encoder.reach.extend(owner.distributions)
    return packed("foreign", text(module), text(name))


def own_and_whole(encoder: Encoder, value: object) -> tuple[bytes, Piece]:
    """Return the piece of a value alone, without the code in it, and the whole one."""
    if type(value) in SCALARS:
        piece = encoder.encode(value)
        return piece, piece  # type: ignore[return-value]
    before = len(encoder.reach)
    whole = encoder.encode(value)
    plain = isinstance(whole, bytes) and not _has_code(encoder.reach[before:])
    if type(value) not in _IMMUTABLE:
        content = whole if plain else _without_code(encoder, value, identity)
        encoder.reach.append(Content(value, content))  # type: ignore[arg-type]
    if plain:
        return whole, whole  # type: ignore[return-value]
    return _without_code(encoder, value, present), whole


def _has_code(reach: Iterable[Any]) -> bool:
    """Whether anything but names of distributions was reached."""
    return any(_has_code(each) if type(each) is list else type(each) is not str for each in reach)


def _without_code(encoder: Encoder, value: object, code_as: Any) -> bytes:
    inner = Encoder(encoder.buffers, ignore=encoder.ignore, code_as=code_as)
    inner.code_depth = 1
    return inner.whole(value)


def alone(value: object) -> bytes:
    """Return the piece of a value, code in it by name."""
    return _without_code(Encoder(), value, present)


def content_of(value: object) -> bytes:
    """Return the piece of a value, code in it by identity: has it changed since it was read?"""
    return _without_code(Encoder(), value, identity)
