"""The user's code that an output holds: what a later reader of the stored value will see of it.

Knows what of code a stored value has by name and what by itself. Knows nothing of steps or keys.

A function at the top of a module is stored by name: who loads it gets the one that is there then,
with its docstring of then. One that was made inside another is stored by itself, with the docstring
that it had, although that is in no key. So a record says what it holds, and whoever decides on it
compares: what a name means now, and what shows now of the code that the other was made from.

Worth arguing: what shows of code that has not been made yet is taken from the constants of the
function that makes it, and compared with the same constants when the output was stored. Where it
cannot be found there, all that the step reaches stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from types import FunctionType
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.code import Code, shown_by
from prefect_mlpipe.core.digest import asks_in, known_of
from prefect_mlpipe.core.encoding.classes import label_of_class
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.encoding.parts import Part
from prefect_mlpipe.core.encoding.pieces import SCALARS, count, packed, scalar, text
from prefect_mlpipe.core.formats.pickles import named, stored_name
from prefect_mlpipe.core.reading.functions import held_by, label_of_function
from prefect_mlpipe.core.reading.opcodes import STORE_CELL
from prefect_mlpipe.core.reading.shapes import ASKS, shape_of
from prefect_mlpipe.core.reading.showing import docstrings_in, names_of, nested, shown_of
from prefect_mlpipe.core.record import HeldCode

# What a reader may see without asking for more than a docstring or a signature.
SHOWN: Final = frozenset({"annotations", "docstring", "name", "qualified name"})

_EVERYTHING: Final = ""
_SHORT: Final = 16  # hex digits: compared with one other digest alone
_LOCAL: Final = ".<locals>"

Made = Mapping[str, Mapping[str, str]]


# What an output holds


def held_code(reach: list[Any], code: Callable[[], Code] | None) -> HeldCode | None:
    """Return the user's code that a value holds, `None` if there is none.

    Args:
        reach: what the encoding of the value reached.
        code: reads that of the step that made it; `None` if the output is never reused.
    """
    names: dict[str, str] = {}
    made: dict[str, list[object]] = {}
    for value in _held_in(reach):
        name = stored_name(value)
        if name is not None:
            names[name] = identity(value)
        else:
            made.setdefault(_label(value), []).append(value)
    asks = asks_in(reach)
    if not names and not made and not asks:
        return None
    every = [value for values in made.values() for value in values]
    shows = {kind: _short(shown_of(each, kind) for each in every) for kind in sorted(_ALL)}
    return HeldCode(
        dict(sorted(names.items())),
        {} if code is None else _made_of(every, [*made], code()),
        shows if made else {},
        sorted(asks),
    )


def _made_of(values: list[object], labels: list[str], code: Code) -> Made:
    """Return what shows of code that was made, in that of the step: all, where it was copied."""
    copied = "wrapping" in code.asks or any(map(_is_dressed, values))
    return made_by(code, [*labels, _EVERYTHING] if copied else labels)


def _held_in(reach: list[Any]) -> Iterator[Any]:
    """Yield the functions and classes that a value holds, not those that these only call.

    What is stored by name leads to the rest by itself; what is stored by itself has it inside.
    """
    seen: set[int] = set()
    waiting = [reach]
    while waiting:
        entries = waiting.pop()
        if id(entries) in seen:
            continue
        seen.add(id(entries))
        own = [e.value for e in entries if type(e) is Part and isinstance(e.value, _CODE)]
        yield from own
        if not own or any(stored_name(value) is None for value in own):
            waiting += (each for each in entries if type(each) is list)


_ALL: Final = frozenset(ASKS.values())
_CODE: Final = (FunctionType, type)


def _label(value: Any) -> str:
    return label_of_class(value) if isinstance(value, type) else label_of_function(value)


def _is_dressed(value: object) -> bool:
    """Whether a function was given another docstring or name than its code has, as by `wraps`."""
    if not isinstance(value, FunctionType):
        return False
    code = value.__code__
    bare = FunctionType(code, {}, closure=value.__closure__)
    return (
        "__wrapped__" in vars(value)
        or value.__doc__ != bare.__doc__
        or (value.__name__, value.__qualname__) != (code.co_name, code.co_qualname)
    )


# What shows of the code that it is made from


def made_by(code: Code, labels: Iterable[str]) -> Made:
    """Return what shows of some code, as it stands in the code of the step that makes it.

    Args:
        code: of the step.
        labels: of the code that is made; "" for all that the step reaches.
    """
    found: dict[str, Mapping[str, str]] = {}
    for label in labels:
        shown = _everything(code) if label == _EVERYTHING else _made(code, _here(code, label))
        if shown is None:
            label, shown = _EVERYTHING, _everything(code)
        found[label] = {kind: _short(each) for kind, each in shown.items()}
    return found


def _here(code: Code, label: str) -> str:
    """Return what code that was made in a script or a notebook is called now, if it is imported."""
    rest = label.removeprefix("__main__")
    root = rest.partition(_LOCAL)[0]
    if rest == label or f"__main__{root}" in code.values:
        return label
    found = [each for each in code.values if each.endswith(root)]
    return found[0].removesuffix(root) + rest if len(found) == 1 else label


def _made(code: Code, label: str) -> dict[str, list[bytes]] | None:
    values = [each for each in code.values.get(label, ()) if isinstance(each, _CODE)]
    root = label.partition(_LOCAL)[0]
    makers = [each for each in code.values.get(root, ()) if isinstance(each, FunctionType)]
    inside = [
        inner
        for maker in makers
        for inner in nested(maker.__code__)
        if root != label and label.endswith(f".{inner.co_qualname}")
    ]
    if not values and not inside:
        return None
    shown = {kind: sorted(shown_of(each, kind) for each in values) for kind in sorted(SHOWN)}
    every = [code for inner in inside for code in (inner, *nested(inner))]
    shown["docstring"].append(docstrings_in(every))
    shown["name"].append(names_of(every))
    shown["annotations"] += (shape_of(maker.__code__).spelled for maker in makers if inside)
    return shown


def _everything(code: Code) -> dict[str, list[bytes]]:
    shown: dict[str, list[bytes]] = {kind: [] for kind in sorted(SHOWN)}
    every = [each for _, values in sorted(code.values.items()) for each in values]
    for kind, found in shown.items():
        found += sorted(shown_of(each, kind) for each in every)
    return shown


def _short(pieces: Iterable[bytes]) -> str:
    framed = (count(len(each)) + each for each in pieces)
    return blake3(b"".join(framed)).hexdigest()[:_SHORT]


def changes(made: Made, before: Made) -> list[str]:
    """Name what shows differently of code now than it did: `docstring of helpers.clean`."""
    found = []
    for label in before.keys() | made.keys():
        now, then = made.get(label), before.get(label)
        if now is None or then is None:
            if label != _EVERYTHING:
                found.append(f"name of {label}")
            continue
        kinds = (kind for kind in sorted(now) if now[kind] != then.get(kind))
        found += (f"{kind} of {label or 'what it reaches'}" for kind in kinds)
    return sorted(found)


# What names mean


class Names:
    """What the names in stored values mean now, each looked up once."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._identities: dict[str, str] = {}
        self._codes: dict[str, Code | None] = {}
        self._shown: dict[tuple[Any, ...], bytes] = {}

    def changed(self, held: HeldCode) -> list[str]:
        """Return those names that mean something else than they did."""
        return [name for name, before in held.names.items() if self._identity(name) != before]

    def now(self, held: HeldCode) -> list[str]:
        """Return what tells what its names mean now."""
        return [self._identity(name) for name in held.names]

    def shown(self, held: HeldCode, asks: frozenset[str]) -> bytes:
        """Return what shows of code in an output to code that asks for it."""
        if not asks:
            return b""
        key = (asks, *held.names, *held.shows.values())
        found = self._shown.get(key)
        if found is None:
            codes = [code for name in held.names if (code := self._code(name)) is not None]
            pieces = [shown_by(code, asks) for code in codes]
            pieces += [text(held.shows[kind]) for kind in sorted(asks) if held.shows]
            found = self._shown[key] = packed("shown", *pieces)
        return found

    def _value(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = named(name)
        return self._values[name]

    def _identity(self, name: str) -> str:
        found = self._identities.get(name)
        if found is None:
            found = self._identities[name] = identity(self._value(name))
        return found

    def _code(self, name: str) -> Code | None:
        if name not in self._codes:
            self._codes[name] = _code_of(self._value(name))
        return self._codes[name]


def _code_of(value: object) -> Code | None:
    try:
        return known_of(value).code
    except Undigestible:  # what it reads has changed while the run went on
        return None


def identity(value: object) -> str:
    """Return a digest by which a function or a class can be told from others of the same module.

    Of what does not change while a program runs: no counters, no registers, no caches.
    """
    return blake3(b"".join(_same(value, set()))).hexdigest()[:_SHORT]


def _same(value: object, seen: set[int]) -> Iterator[bytes]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, FunctionType):
        yield text("function") + shape_of(value.__code__).digest
        for place, name, each in held_by(value):
            if type(each) in SCALARS and place in _fixed_places(value):
                yield text(name) + scalar(each)
            yield from _same(each, seen)
    elif isinstance(value, type):
        yield text("class") + text(value.__name__)
        yield from (text(base.__name__) for base in value.__bases__)
        for name, each in sorted(_methods(value), key=itemgetter(0)):
            yield text(name)
            yield from _same(each, seen)


def _fixed_places(function: FunctionType) -> set[str]:
    """Return where a function holds what does not change: not where something is counted."""
    rebinds = STORE_CELL in function.__code__.co_code[::2]
    cells = range(0 if rebinds else len(function.__closure__ or ()))
    return {"default ", *(f"cell {at}" for at in cells)}


def _methods(cls: type) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions that were written in a class, each with its name and place."""
    for name, value in vars(cls).items():
        held = (getattr(value, place, None) for place in ("fget", "fset", "fdel", "__func__"))
        for at, each in enumerate((value, *held)):
            if isinstance(each, FunctionType) and each.__module__ == cls.__module__:
                yield f"{name} {at}", each
