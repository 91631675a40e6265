"""Any other object, by pickle protocol 5, with large buffers where they can be mapped.

Knows nothing of stores or digests. What cannot be pickled, or should not be, raises `Unstorable`
and says where in the value it is.

Large buffers stand aside from the pickle stream, aligned, so that loading maps them. The file is
nevertheless one plain pickle that `pickle.load` reads: a hand-made prologue hands the buffers to a
nested `pickle.loads(stream, buffers=[…])`. A container of our own would have been as short, and
closed to everybody else.

Classes and functions of a script are stored under the name by which the script can be imported, so
that a worker, a deployment and a notebook find them; where there is no such name (a notebook cell),
cloudpickle stores them by value.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle
from typing_extensions import override

from prefect_mlpipe.core.encoding import reductions
from prefect_mlpipe.core.encoding.deep import deeply, shallow
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.formats import embedded_files
from prefect_mlpipe.core.formats.base import Format, Part, Unstorable
from prefect_mlpipe.core.formats.plain import is_plain

ASIDE_ABOVE = 4096  # buffers below this stay in the stream
ALIGNMENT = 64

# The prologue, in pickle's opcodes: partial(pickle.loads, buffers=[…])(stream)
_OPEN = b"\x80\x05cfunctools\npartial\ncpickle\nloads\n\x85}\x8c\x07buffers]"
_BUFFER, _APPEND = b"\x96", b"a"
_CLOSE = b"s\x92\x8e"
_END = b"\x85R."
_BEFORE_STREAM = len(_APPEND) + len(_CLOSE) + 8


class Pickle(Format):
    """Whatever pickle or cloudpickle can take."""

    name, suffix, maps = "pickle", ".pkl", True

    @override
    def accepts(self, value: object) -> bool:
        return True

    @override
    def exact(self, value: object) -> bool:
        return is_plain(value)

    @override
    def dump(self, value: object) -> Sequence[Part]:
        stream, buffers = _pickled(value)
        return _enveloped(stream, buffers) if buffers else (stream,)

    @override
    def load(self, data: memoryview) -> object:
        if data[: len(_OPEN)] != _OPEN:
            return _unpickled(data, ())
        parts = self.split(data)
        return _unpickled(parts[-1][_BEFORE_STREAM : -len(_END)], parts[1:-1:2])

    def rehearse(self, parts: Sequence[Part]) -> object:
        """Without copying the buffers; read-only, so that no `__setstate__` writes the original."""
        stream = memoryview(bytes(parts[-1]))  # type: ignore[arg-type]
        if len(parts) == 1:
            return _unpickled(stream, ())
        aside = [part.toreadonly() for part in parts[1:-1:2] if isinstance(part, memoryview)]
        return _unpickled(stream[_BEFORE_STREAM : -len(_END)], aside)

    @override
    def split(self, data: memoryview) -> list[memoryview]:
        if data[: len(_OPEN)] != _OPEN:
            return [data]
        parts: list[memoryview] = []
        start, at = 0, len(_OPEN)
        while True:
            at = _skip_padding(data, at)
            if data[at : at + 1] != _BUFFER:
                return [*parts, data[start:]]
            size = int.from_bytes(data[at + 1 : at + 9], "little")
            parts += [data[start : at + 9], data[at + 9 : at + 9 + size]]
            start = at + 9 + size
            at = start + len(_APPEND)
            if start > len(data):
                return [data]


def _enveloped(stream: bytes, buffers: Sequence[memoryview]) -> list[Part]:
    """Lay out the prologue, the aligned buffers and the stream, as one pickle."""
    parts: list[Part] = []
    glue, at = _OPEN, len(_OPEN)
    for buffer in buffers:
        padding = _padding(-(at + 9) % ALIGNMENT)
        glue += padding + _BUFFER + buffer.nbytes.to_bytes(8, "little")
        parts += [glue, buffer]
        at += len(padding) + 9 + buffer.nbytes + len(_APPEND)
        glue = _APPEND
    parts.append(glue + _CLOSE + len(stream).to_bytes(8, "little") + stream + _END)
    return parts


def _padding(count: int) -> bytes:
    """Opcodes that do nothing: `None`, pop (2 bytes); 0, pop (3 bytes)."""
    if count == 1:
        count += ALIGNMENT
    return b"K\x000" * (count % 2) + b"N0" * ((count - 3 * (count % 2)) // 2)


def _skip_padding(data: memoryview, at: int) -> int:
    if bytes(data[at : at + 3]) == b"K\x000":
        at += 3
    while bytes(data[at : at + 2]) == b"N0":
        at += 2
    return at


def _pickled(value: object) -> tuple[bytes, list[memoryview]]:
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: stays in the stream
            return True
        if raw.nbytes < ASIDE_ABOVE:
            return True
        buffers.append(raw)
        return False

    stream = io.BytesIO()
    try:
        with shallow():
            _Pickler(stream, protocol=5, buffer_callback=keep).dump(value)
    except Unstorable as error:
        raise _located(error, value) from None
    except Exception as error:
        # Objects raise what they like when they are asked to be pickled.
        if not _is_too_deep(error):
            raise _unpicklable(value, error) from error
        return _pickled_deeply(value), []
    return stream.getvalue(), buffers


def _is_too_deep(error: Exception) -> bool:
    return isinstance(error, RecursionError) or isinstance(error.__context__, RecursionError)


def _pickled_deeply(value: object) -> bytes:
    stream = io.BytesIO()
    try:
        deeply(lambda: _DeepPickler(stream, protocol=5).dump(value))
    except Unstorable:
        raise
    except Exception as error:
        why = f"it is nested too deeply, or cannot be pickled ({type(error).__name__}: {error})"
        raise Unstorable("", type_name(value), why) from error
    return stream.getvalue()


def _unpickled(stream: memoryview, buffers: Sequence[memoryview]) -> object:
    if importable_main() is None:
        return pickle.loads(stream, buffers=buffers)
    return _Unpickler(io.BytesIO(stream), buffers=buffers).load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, but for names of `__main__` and for what must not be stored."""

    def reducer_override(self, obj: Any) -> Any:
        reduced = _reduced(obj)
        return super().reducer_override(obj) if reduced is NotImplemented else reduced


class _DeepPickler(pickle._Pickler):
    """For what is nested deeply: the one in C has a limit of its own, which nothing can raise."""

    def reducer_override(self, obj: Any) -> Any:
        return _reduced(obj)


def _reduced(obj: Any) -> Any:
    refused = why_refused(obj)
    if refused:
        raise Unstorable("", type_name(obj), refused)
    if isinstance(obj, (File, Folder)):
        return embedded_files.described(obj)
    if isinstance(obj, BaseException):
        return reductions.of_exception(obj)
    if isinstance(obj, (type, FunctionType)) and obj.__module__ == "__main__":
        name = importable_main()
        if name and _find(sys.modules["__main__"], obj.__qualname__) is obj:
            return importable, (name, obj.__qualname__)
    return reductions.of_other(obj)


class _Unpickler(pickle.Unpickler):
    """Finds the classes of the running script in the script, not in a second import of it."""

    def find_class(self, module: str, name: str) -> Any:
        if module == importable_main():
            return importable(module, name)
        return super().find_class(module, name)


def importable(module: str, qualname: str) -> Any:
    """Give what a stored pickle names; of the running script, its own."""
    main = sys.modules["__main__"]
    home = main if module == importable_main() else importlib.import_module(module)
    found = _find(home, qualname)
    if found is None:
        raise AttributeError(f"module {module!r} has no {qualname!r}")
    return found


def stored_name(obj: Any) -> str | None:
    """Return how a stored pickle names a function or a class, as `helpers:clean`.

    `None` where it is stored by value.
    """
    module, qualname = obj.__module__, obj.__qualname__
    by_value = cloudpickle.list_registry_pickle_by_value()
    if not isinstance(module, str) or not by_value.isdisjoint(_packages(module)):
        return None
    name = importable_main() if module == "__main__" else module
    home = sys.modules.get(module)
    return f"{name}:{qualname}" if name and home and _find(home, qualname) is obj else None


def _packages(module: str) -> list[str]:
    """Return the name of a module, and those of the packages that it is in."""
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def named(name: str) -> Any:
    """Return what a stored pickle names, `None` where there is nothing of that name here."""
    module, _, qualname = name.partition(":")
    try:
        return importable(module, qualname)
    except Exception:  # what the user's module raises, whoever loads the value gets too
        return None


_main_names: dict[tuple[str | None, str | None], str | None] = {}


def importable_main() -> str | None:
    """The name by which the running script could be imported, `None` where there is none."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    where = (spec and spec.name, file)
    if where not in _main_names:
        _main_names[where] = (spec and spec.name) or (file and _module_at(file))
    return _main_names[where]


def _module_at(file: str) -> str | None:
    stem = os.path.splitext(os.path.basename(file))[0]
    try:
        spec = importlib.util.find_spec(stem)
    except (ImportError, ValueError):
        return None
    origin = spec and spec.origin
    if origin and os.path.exists(origin) and os.path.exists(file):
        return stem if os.path.samefile(origin, file) else None
    return None


def _find(home: ModuleType, qualname: str) -> Any:
    found: Any = home
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def why_refused(value: object) -> str | None:
    """Say why a value must not be stored although pickle would take it."""
    if isinstance(value, PurePath):
        return (
            "a path names a place, not its content; "
            "return File(path) to store the file, or str(path) for the name"
        )
    if isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
        return "an iterator can be read only once; return a list"
    return None


def type_name(value: object) -> str:
    """The qualified name of a value's type, for people."""
    kind = type(value)
    if kind.__module__ in ("builtins", None):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _unpicklable(value: object, error: Exception) -> Unstorable:
    """Find the innermost thing that cannot be pickled, and say what it is."""

    def fails(item: object) -> bool:
        try:
            _Pickler(io.BytesIO(), protocol=5, buffer_callback=lambda buffer: None).dump(item)
        except Exception:  # objects raise what they like; which one does is what is asked
            return True
        return False

    path, culprit = _descend(value, fails)
    return Unstorable(path, type_name(culprit), f"it cannot be pickled ({error})")


def _located(refused: Unstorable, value: object) -> Unstorable:
    """Add to a refusal where in the value it is."""

    def holds(item: object) -> bool:
        try:
            _Pickler(io.BytesIO(), protocol=5, buffer_callback=lambda buffer: None).dump(item)
        except Unstorable:
            return True
        except Exception:  # another thing is wrong with it than what is looked for
            return False
        return False

    path, _ = _descend(value, holds)
    return Unstorable(path, refused.type, refused.why)


def _descend(value: object, wrong: Callable[[object], bool]) -> tuple[str, object]:
    """Follow, from the outside in, the parts of a value that are wrong."""
    path, depth = "", 0
    while depth < 32:
        step = next(((name, item) for name, item in _parts(value) if wrong(item)), None)
        if step is None:
            break
        path, value, depth = path + step[0], step[1], depth + 1
    return path, value


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from (("{…}", item) for item in value)
    state = getattr(value, "__dict__", None)
    if isinstance(state, dict) and not isinstance(value, (type, ModuleType)):
        yield from ((f".{name}", item) for name, item in state.items())
