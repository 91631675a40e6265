"""Value to bytes and back: the format interface, the simple formats, and who takes what.

Knows nothing of stores, files or digests. A format takes a value only if reading it back gives the
same value: `exact` says that this holds by construction, else the store tries it once when the
value is stored, and pickle takes what other formats do not keep.

Every format is one that other programs open: `np.load`, `pyarrow.ipc`, `json`, `pickle.load`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import orjson
from typing_extensions import override

Bytes: TypeAlias = bytes | bytearray | memoryview

MAX_JSON_DEPTH = 64
MAX_INT = 2**63


class Unstorable(Exception):
    """A value cannot be stored and read back as what it is. The engine adds the step.

    Attributes:
        path: where in the value, as in `[3].pool`; empty for the value itself.
        type: qualified name of the type found there.
        why: what is wrong with it, and what else could be returned.
    """

    def __init__(self, path: str, type: str, why: str) -> None:
        super().__init__(path, type, why)
        self.path, self.type, self.why = path, type, why

    def __str__(self) -> str:
        return f"{self.type}{f' at {self.path}' if self.path else ''}: {self.why}"


class Chunks(tuple[Bytes, ...]):
    """One part that lies in several buffers, so that nobody has to join them."""


Part: TypeAlias = Bytes | Chunks


class Format:
    """How values of some types become bytes. Subclass it, and hand it to `register_format`.

    Attributes:
        name: written into every reference; never reuse one for another layout.
        suffix: of the file, so that other programs know it.
        maps: `load` gets a writable buffer and may keep views of it; otherwise it gets read-only
            bytes that end with the call.
    """

    name: str
    suffix: str
    maps = False

    def accepts(self, value: object) -> bool:
        """Tell whether this format may take the value. Cheap."""
        raise NotImplementedError

    def exact(self, value: object) -> bool:
        """Tell whether the round trip keeps every accepted value as it is, whatever it holds."""
        return False

    def dump(self, value: object) -> Sequence[Part]:
        """Give the bytes in parts, buffers as they lie.

        A large buffer of the value is hashed only once if it is a part of its own and `split` finds
        it again.
        """
        raise NotImplementedError

    def load(self, data: memoryview) -> object:
        """Give back the value; it belongs to the reader alone."""
        raise NotImplementedError

    def split(self, data: memoryview) -> list[memoryview]:
        """Find the parts that `dump` gave. Must not trust the bytes: they are not yet checked."""
        return [data]

    def parts(self, value: object) -> Sequence[Part]:
        """Give the parts as `split` will find them: one, unless a format says how to find more."""
        parts = self.dump(value)
        if len(parts) > 1 and type(self).split is Format.split:
            return (Chunks(flattened(parts)),)
        return parts

    def rehearse(self, parts: Sequence[Part]) -> object:
        """Load what `dump` gave, to see whether it is still the same value; nobody keeps it."""
        return self.load(joined(parts))


def flattened(parts: Sequence[Part]) -> Iterator[Bytes]:
    """The buffers of all parts, in order."""
    for part in parts:
        if isinstance(part, Chunks):
            yield from part
        else:
            yield part


def joined(parts: Sequence[Part]) -> memoryview:
    """All parts in one buffer that can be written."""
    buffers = [memoryview(buffer).cast("B") for buffer in flattened(parts) if len(buffer)]
    whole = memoryview(bytearray(sum(buffer.nbytes for buffer in buffers)))
    at = 0
    for buffer in buffers:
        whole[at : at + buffer.nbytes] = buffer
        at += buffer.nbytes
    return whole


class Json(Format):
    """Plain values: `None`, bool, int, float, str, and lists and dicts of them."""

    name, suffix = "json", ".json"

    @override
    def accepts(self, value: object) -> bool:
        return is_json(value)

    @override
    def exact(self, value: object) -> bool:
        return True

    @override
    def dump(self, value: object) -> Sequence[Part]:
        return (orjson.dumps(value),)

    @override
    def load(self, data: memoryview) -> object:
        return orjson.loads(data)


class Text(Format):
    """A string, as UTF-8."""

    name, suffix = "text", ".txt"

    @override
    def accepts(self, value: object) -> bool:
        return type(value) is str and _is_unicode(value)

    @override
    def exact(self, value: object) -> bool:
        return True

    @override
    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, str)
        return (value.encode(),)

    @override
    def load(self, data: memoryview) -> object:
        return str(data, "utf-8")


class Blob(Format):
    """Bytes, as they are."""

    name, suffix = "bytes", ".bin"

    @override
    def accepts(self, value: object) -> bool:
        return type(value) is bytes

    @override
    def exact(self, value: object) -> bool:
        return True

    @override
    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, bytes)
        return (value,)

    @override
    def load(self, data: memoryview) -> object:
        return bytes(data)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return False
    return True


def is_json(value: object) -> bool:
    """Tell whether JSON gives back exactly this value."""
    return _is_json(value, MAX_JSON_DEPTH)


def _is_json(value: object, depth: int) -> bool:
    """Tell whether JSON, as orjson writes and reads it, gives back exactly this value."""
    kind = type(value)
    if kind is list:
        return _are_json(value, depth)  # type: ignore[arg-type]
    if kind is dict:
        keys: list[object] = list(value)  # type: ignore[call-overload]
        return (
            all(type(key) is str for key in keys)
            and _are_json(keys, depth)
            and _are_json(list(value.values()), depth)  # type: ignore[attr-defined]
        )
    check = _SCALARS.get(kind)
    return check is not None and check((value,))


def _are_json(values: list[object], depth: int) -> bool:
    """Look at items type by type: a list of a million numbers is not worth a million calls."""
    if depth == 0:
        return False
    kinds = set(map(type, values))
    for kind in kinds:
        if kind is list or kind is dict:
            nested: Iterator[object] = (item for item in values if type(item) is kind)
            if not all(_is_json(item, depth - 1) for item in nested):
                return False
            continue
        check = _SCALARS.get(kind)
        if check is None:
            return False
        same = values if len(kinds) == 1 else [item for item in values if type(item) is kind]
        if not check(same):
            return False
    return True


_SCALARS: dict[type, Callable[[Sequence[object]], bool]] = {
    type(None): lambda items: True,
    bool: lambda items: True,
    int: lambda items: min(items) >= -MAX_INT and max(items) < 2 * MAX_INT,  # type: ignore[type-var, operator]
    float: lambda items: all(map(math.isfinite, items)),  # type: ignore[arg-type]
    str: lambda items: all(map(_is_unicode, items)),  # type: ignore[arg-type]
}
