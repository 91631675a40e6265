"""Describe values in a few short facts, so that two of them can be compared long afterwards.

Knows types, shapes, columns and lengths. Knows nothing of digests, stores or steps. Facts are for
people and are never part of a key.

Worth arguing: no `repr` of a user's class is called. It may be slow, raise, or print an address
that differs each time; what an object holds says more. Secrets are never shown: neither values of
secret types nor what is named like one.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import itertools
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prefect_mlpipe.core.encoding.pieces import slots_of, type_name
from prefect_mlpipe.core.files import File, Folder

Facts = dict[str, str]

SHOWN_LENGTH: Final = 80
FEW: Final = 200  # facts of a value that is described to be kept
MANY: Final = 20_000  # facts of a value that is compared at once
SECRET: Final = "***"
_DEPTH: Final = 4
_SMALL_ARRAY: Final = 10
_SHOWN_PLACES: Final = 5  # of what was added or removed
_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, range)
_SPOKEN: Final = frozenset(
    {"datetime", "decimal", "fractions", "uuid", "pathlib", "zoneinfo", "pathlib._local"}
)
_LIBRARIES: Final = frozenset(
    {
        "cudf",
        "cupy",
        "geopandas",
        "jax",
        "numpy",
        "pandas",
        "polars",
        "pyarrow",
        "scipy",
        "tensorflow",
        "torch",
        "xarray",
    }
)
_SECRET_NAME: Final = re.compile(
    r"(passw(or)?d|passphrase|secret|token|credential)s?(?![a-z])|(api|access|private|auth)_?key",
    re.IGNORECASE,
)
_CREDENTIALS: Final = re.compile(r"://[^/\s]*:[^/\s]*@")
_CODE: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)


def describe(value: object, name: str = "", limit: int = FEW) -> Facts:
    """Return place → what stands there, short.

    Args:
        value: anything.
        name: what it is called, if it is; a name like that of a secret hides it.
        limit: how many facts at most.
    """
    try:
        return dict(itertools.islice(_facts(value, "", name, 0), limit))
    except Exception:  # whatever a class of the user's does when it is looked at: no step may fail
        return {"type": type_name(type(value))}


def shorten(text: str, length: int = SHOWN_LENGTH) -> str:
    """Return a text on one line, cut where it is long."""
    line = " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
    return line if len(line) <= length else f"{line[: length - 1]}…"


def size_text(size_bytes: float) -> str:
    """Return a size as a person reads it: '512 B', '1.5 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def seconds_text(seconds: float) -> str:
    """Return a duration as a person reads it: '< 1 ms', '0.04 s', '3.2 s', '12 min 5 s'."""
    if seconds < 0.001:
        return "< 1 ms" if seconds > 0 else "0 s"
    if seconds < 0.1:
        return f"{seconds:.2g} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def is_secret(value: object, name: str = "") -> bool:
    """Tell whether a value must not be shown, for its type or what it is called."""
    if isinstance(value, str | bytes) and _SECRET_NAME.search(name):
        return True
    if isinstance(value, str) and _CREDENTIALS.search(value):
        return True
    return any(base.__name__.startswith(("Secret", "_Secret")) for base in type(value).__mro__)


def _facts(value: object, at: str, name: str, depth: int) -> Iterator[tuple[str, str]]:
    text = _text(value, name)
    if text is not None:
        yield at, text
        if isinstance(value, str | bytes) and len(value) >= SHOWN_LENGTH - 2 and text != SECRET:
            yield f"{at} length".strip(), f"{len(value):,}"
        if isinstance(value, types.MethodType) and depth < _DEPTH:
            yield from _facts(value.__self__, f"{at}.__self__", "", depth + 1)
        return
    kind = type_name(type(value))
    for fits, facts in _KINDS:
        if fits(value):
            yield f"{at} type".strip(), kind
            for place, fact in facts(value):
                yield f"{at} {place}".strip(), fact
            return
    children = _children(value)
    if children is None:
        yield f"{at} type".strip(), kind
        return
    yield f"{at} type".strip(), kind
    if isinstance(value, list | tuple | set | frozenset | dict):
        yield f"{at} length".strip(), f"{len(value):,}"
    if depth < _DEPTH:
        hidden = name if _SECRET_NAME.search(name) else ""  # what lies in a bag of secrets is one
        for place, inner, child in children:
            yield from _facts(child, f"{at}{place}".strip(), hidden or inner, depth + 1)


def _text(value: object, name: str) -> str | None:
    """Return a plain value as text, `None` if it takes more than a few words."""
    if is_secret(value, name):
        return SECRET
    kind = type(value)
    if kind in _PLAIN:
        return shorten(repr(value[: SHOWN_LENGTH + 1] if kind in (str, bytes) else value))  # type: ignore[index]
    if isinstance(value, enum.Enum):
        return f"{kind.__qualname__}.{value._name_}"
    if isinstance(value, _CODE):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if kind.__module__ in _SPOKEN:
        return shorten(repr(value))
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):  # of pandas, too
        return shorten(str(value))
    if isinstance(value, re.Pattern):
        return shorten(repr(value.pattern))
    return None


def _children(value: Any) -> Iterable[tuple[str, str, object]] | None:
    """Return place, name and value of what a container or an object holds."""
    if isinstance(value, dict):
        return ((f"[{_key(key)}]", str(key)[:40], item) for key, item in value.items())
    fields = getattr(type(value), "_fields", None)
    if isinstance(value, tuple) and isinstance(fields, tuple):
        return ((f".{n}", n, item) for n, item in zip(fields, value, strict=False))
    if isinstance(value, list | tuple):
        return ((f"[{index}]", "", item) for index, item in enumerate(value))
    if isinstance(value, set | frozenset):
        return _members(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return ((f".{n}", n, getattr(value, n, None)) for n in names)
    if isinstance(value, functools.partial):
        return _bound(value)
    slots = {n: getattr(value, n) for n in slots_of(type(value)) if hasattr(value, n)}
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict) and not slots:
        return None
    held = {**slots, **(held or {})}
    return ((f".{n}", n, held[n]) for n in sorted(held) if not n.startswith("__"))


def _bound(partial: functools.partial[Any]) -> Iterator[tuple[str, str, object]]:
    """Yield what a partial calls and what it hands on, each named as of the function."""
    name = getattr(partial.func, "__name__", type_name(type(partial.func)))
    label = (_text(partial.func, "") or name).strip()
    yield ".func", "", partial.func
    for at, argument in enumerate(partial.args):
        yield f" argument {at} of {label}", "", argument
    for key, argument in partial.keywords.items():
        yield f" {key} of {label}", key, argument


def _members(value: set[Any] | frozenset[Any]) -> list[tuple[str, str, object]]:
    """Return the plain members of a small set, each under its own name: a set has no places."""
    if len(value) > FEW or not all(type(member) in _PLAIN for member in value):
        return []
    return [(f" member {text}", "", True) for text in sorted(map(_key, value))]


def _key(key: object) -> str:
    return shorten(repr(key), 40) if type(key) in _PLAIN else type_name(type(key))


# Files, tables and arrays


def _is_place(value: object) -> bool:
    return isinstance(value, File | Folder)


def _place(value: File | Folder) -> Iterator[tuple[str, str]]:
    yield "name", value.name
    if value.is_url:
        return
    try:
        if isinstance(value, File):
            yield "size", f"{os.stat(value.path).st_size:,} bytes"
            return
        contents = list(value.contents())
    except OSError:  # gone since it was digested: the call itself will say so
        return
    yield "files", f"{len(contents):,}"
    for name, digest in contents:
        yield f"'{name}'", f"content {digest[:8]}"


def _has(value: object, *names: str) -> bool:
    """Whether a value of a library has attributes; a user's own might do anything when asked."""
    modules = {base.__module__.partition(".")[0] for base in type(value).__mro__}
    return not modules.isdisjoint(_LIBRARIES) and all(hasattr(value, name) for name in names)


def _is_frame(value: object) -> bool:
    return _has(value, "shape", "dtypes", "columns")


def _frame(value: Any) -> Iterator[tuple[str, str]]:
    yield "rows", f"{value.shape[0]:,}"
    yield from _index(value)
    dtypes = value.dtypes
    for label, dtype in zip(value.columns, list(dtypes), strict=False):
        yield f"column {_key(label)}", str(dtype)


def _index(value: Any) -> Iterator[tuple[str, str]]:
    index = getattr(value, "index", None)
    if index is None or callable(index):
        return
    if hasattr(index, "start") and hasattr(index, "step"):
        yield "index", f"{index.start} to {index.stop} in steps of {index.step}"
        return
    names = ", ".join(repr(name) for name in index.names if name is not None)
    dtypes = index.dtypes if hasattr(index, "dtypes") else [index.dtype]
    kinds = ", ".join(map(str, dtypes))
    yield "index", f"{type(index).__name__} of {kinds}" + (f" named {names}" if names else "")


def _is_arrow(value: object) -> bool:
    return _has(value, "schema", "num_rows")


def _arrow(value: Any) -> Iterator[tuple[str, str]]:
    yield "rows", f"{value.num_rows:,}"
    for field in value.schema:
        yield f"column {field.name!r}", str(field.type)


def _is_array(value: object) -> bool:
    return _has(value, "shape", "dtype")


def _array(value: Any) -> Iterator[tuple[str, str]]:
    yield "dtype", str(value.dtype)
    yield "shape", str(tuple(value.shape))
    if hasattr(value, "name"):
        yield "name", shorten(repr(value.name))
    yield from _index(value)
    size = 1
    for length in value.shape:
        size *= int(length)
    if size <= _SMALL_ARRAY and hasattr(value, "tolist"):
        yield "elements", shorten(repr(value.tolist()))


_KINDS: Final[
    tuple[tuple[Callable[[Any], bool], Callable[[Any], Iterator[tuple[str, str]]]], ...]
] = ((_is_place, _place), (_is_frame, _frame), (_is_arrow, _arrow), (_is_array, _array))


# What differs


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return what two descriptions differ in, a line for each fact: old → new.

    Empty if they are equal: the difference is then not among what is described.
    """
    pair = exchanged(before, after)
    return _facts_that_differ(before, after) if pair is None else [" → ".join(pair)]


def exchanged(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, str] | None:
    """Return two values in short where one has taken the place of the other, as 1 of 2.

    `None` where it is the same kind of thing, of which the facts say what differs.
    """
    if "" in before or "" in after or before.get("type") != after.get("type"):
        pair = in_short(before), in_short(after)
        return None if pair[0] == pair[1] else pair
    return None


def in_short(facts: Mapping[str, str]) -> str:
    """Return a description in a few words: `0.1`, `list of 3`, `pandas.DataFrame of 1,000 rows`."""
    if "" in facts:
        return facts[""]
    kind = facts.get("type", "unknown")
    if "rows" in facts:
        return f"{kind} of {facts['rows']} rows"
    if "length" in facts:
        return f"{kind} of {facts['length']}"
    rest = [facts[name] for name in ("name", "dtype", "shape", "size", "files") if name in facts]
    return " ".join([kind, *rest])


def _facts_that_differ(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    gone = [place for place in before if place not in after]
    come = [place for place in after if place not in before]
    for old, new in _renamed(before, after, gone, come):
        lines.append(f"{old} renamed to {new.removeprefix('column ')}")
        gone.remove(old)
        come.remove(new)
    for place, fact in after.items():
        if place in before and before[place] != fact:
            lines.append(f"{place}: {before[place]} → {fact}")
    removed = [f"{place} removed{_was(place, f'was {before[place]}')}" for place in gone]
    added = [f"{place} added{_was(place, after[place])}" for place in come]
    return lines + _first(removed, "removed") + _first(added, "added") + _reordered(before, after)


def _first(lines: list[str], what: str) -> list[str]:
    more = len(lines) - _SHOWN_PLACES
    return lines if more <= 1 else [*lines[:_SHOWN_PLACES], f"and {more:,} more {what}"]


def _was(place: str, fact: str) -> str:
    return "" if " member " in f" {place}" else f" ({fact})"


def _renamed(
    before: Mapping[str, str], after: Mapping[str, str], gone: Sequence[str], come: Sequence[str]
) -> list[tuple[str, str]]:
    """Return columns that stand where another one stood, of the same type."""
    old = [place for place in before if place.startswith("column ")]
    new = [place for place in after if place.startswith("column ")]
    if len(old) != len(new):
        return []
    return [
        (one, other)
        for one, other in zip(old, new, strict=True)
        if one in gone and other in come and before[one] == after[other]
    ]


def _reordered(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    for start, what in (("column ", "columns"), ("[", "keys")):
        old = [p for p in before if p.startswith(start) and p in after]
        new = [p for p in after if p.startswith(start) and p in before]
        if old != new:
            named = (", ".join(p.removeprefix(start).rstrip("]") for p in ps) for ps in (old, new))
            return [f"{what} in another order: {' → '.join(shorten(text) for text in named)}"]
    return []


def content_differences(before: Any, after: Any) -> list[str]:
    """Return where two tables or arrays of the same description differ, as far as that is known."""
    try:
        return _content_differences(before, after)
    except Exception:  # a library that will not compare its values: then nobody can say
        return []


def _content_differences(before: Any, after: Any) -> list[str]:
    if _is_frame(before) and hasattr(before, "iloc"):
        lines = []
        for at, label in enumerate(before.columns):
            old, new = before.iloc[:, at], after.iloc[:, at]
            lines += _elements(f"column {_key(label)}", old.to_numpy(), new.to_numpy())
        return lines or _elements("index", before.index.to_numpy(), after.index.to_numpy())
    if _is_frame(before) and hasattr(before, "get_columns"):
        pairs = zip(before.get_columns(), after.get_columns(), strict=True)
        named = ((f"column {_key(o.name)}", o.to_numpy(), n.to_numpy()) for o, n in pairs)
        return [line for each in named for line in _elements(*each)]
    if _is_array(before) and hasattr(before, "to_numpy"):
        return _elements("values", before.to_numpy(), after.to_numpy()) or _elements(
            "index", before.index.to_numpy(), after.index.to_numpy()
        )
    if type_name(type(before)) == "numpy.ndarray":
        return _elements("elements", before, after)
    return []


def _elements(what: str, before: Any, after: Any) -> list[str]:
    """Return how many elements differ, and the first of them."""
    import numpy as np

    if before.shape != after.shape or before.dtype.names:
        return []
    old, new = before.reshape(-1), after.reshape(-1)
    differs = np.asarray(old != new, dtype=bool) & ~((old != old) & (new != new))
    places = np.flatnonzero(differs)
    if not len(places):
        return []
    first = int(places[0])
    at = first if before.ndim == 1 else tuple(map(int, np.unravel_index(first, before.shape)))
    shown = [_text(_item(each[first]), "") or type_name(type(each[first])) for each in (old, new)]
    count = f"{len(places):,} of {len(old):,}"
    return [f"{what}: {count} differ, the first at {at}: {' → '.join(shown)}"]


def _item(value: Any) -> Any:
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value
