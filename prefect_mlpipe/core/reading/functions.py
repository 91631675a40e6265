"""Encode functions with everything that they can reach in the user's code.

Knows what a function object holds, and whose it is. Knows nothing of keys. What its globals stand
for is found by `core.reading.globals`; classes are encoded by `core.encoding.classes`.

Worth arguing: a function is encoded as any other value is, its globals being what it holds. So a
function inside a dict inside an argument, and a dict of functions read by a step, are one case; and
mutual recursion is a cycle like that of a list in itself.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.parts import (
    MISSING,
    Asks,
    Attributes,
    Content,
    Part,
    content_of,
    foreign,
    is_loaded,
    label_of_module,
    own_and_whole,
    owner_of_function,
)
from prefect_mlpipe.core.encoding.pieces import (
    SCALARS,
    Piece,
    count,
    record,
    text,
    unordered,
)
from prefect_mlpipe.core.environment import Owner
from prefect_mlpipe.core.reading.globals import IGNORED, encode_namespace, imported, read_globals
from prefect_mlpipe.core.reading.grafts import grafted
from prefect_mlpipe.core.reading.shapes import ASKS, READS_ALL, asked_by_text, shape_of

_ASKING: Final = frozenset({"annotationlib", "inspect", "pydoc", "typing", "typing_extensions"})

_ATTRIBUTE_NOISE: Final = frozenset({"__mlpipe_effects__", "pytestmark"})


def encode_function(encoder: Encoder, function: types.FunctionType) -> Piece:
    """Encode a function: the user's by what it does, another's by name and what it holds."""
    owner = _owner_of(encoder, function)
    if owner.kind != "user":
        return _foreign_function(encoder, function, owner)
    known = encoder.seen_in_code(function)
    if known is not None:
        return known
    label = label_of_function(function)
    return encoder.in_code(function, label, lambda _, value: _function_parts(encoder, value, label))


def _owner_of(encoder: Encoder, function: types.FunctionType) -> Owner:
    """Return whose a function is, looked up once for the functions of a loaded module."""
    names = function.__globals__
    known = encoder.modules.get(id(names))
    if known is not None:
        return known[1]
    owner = owner_of_function(function)
    if is_loaded(names):
        encoder.modules[id(names)] = (names, owner)
    return owner


def label_of_function(function: types.FunctionType) -> str:
    """Return the module-qualified name of a function."""
    return f"{label_of_module(function.__globals__)}.{function.__code__.co_qualname}"


def _function_parts(encoder: Encoder, function: types.FunctionType, label: str) -> Sequence[Piece]:
    shape = shape_of(function.__code__)
    held = held_by(function)
    pairs = [_held_piece(encoder, f"{label}.{name}", value) for _, name, value in held]
    places = [text(place + name) for place, name, _ in held]
    own = blake3(b"".join((shape.digest, *places, *(own for own, _ in pairs)))).digest()
    if not _is_generated(function.__code__):
        encoder.reach.append(Part(label, own, function))
    encoder.reach.append(_attributes_of(function))
    asks = shape.asks.union(*(asked_by_text(value) for _, _, value in held))
    if asks:
        encoder.reach.append(Asks(asks))
    names = function.__globals__
    reads = read_globals(encoder, names, shape.chains)
    reads += map(encoder.encode, grafted(encoder, function.__code__))
    imports = [piece for each in shape.imports for piece in imported(encoder, names, each)]
    if shape.reads_all and not names.keys() & READS_ALL:
        reads.append(encode_namespace(encoder, names))
    wholes = [
        piece for place, (_, whole) in zip(places, pairs, strict=True) for piece in (place, whole)
    ]
    return record("function", shape.digest, count(len(held)), *wholes, *reads, *imports)


def _is_generated(code: types.CodeType) -> bool:
    """Whether a library has written the code from what a class declares, which is named instead."""
    written = code.co_filename.startswith("<attrs generated ")
    return written or code.co_qualname.startswith("__create_fn__.")  # by `dataclasses`


def held_by(function: types.FunctionType) -> list[tuple[str, str, object]]:
    """Return what a function object holds besides its code: place, name, value."""
    code, defaults = function.__code__, function.__defaults__ or ()
    if not (defaults or function.__kwdefaults__ or function.__dict__ or function.__closure__):
        return []
    positional = code.co_varnames[: code.co_argcount]
    names = positional[len(positional) - len(defaults) :]
    keywords, attributes = function.__kwdefaults__ or {}, vars(function)
    return [
        *(("default ", *each) for each in zip(names, defaults, strict=True)),
        *(("default ", name, keywords[name]) for name in sorted(keywords)),
        *(
            ("attribute ", name, attributes[name])
            for name in sorted(attributes)
            if name not in _ATTRIBUTE_NOISE
        ),
        *(
            (f"cell {at}", name, _cell_content(cell))
            for at, (name, cell) in enumerate(
                zip(code.co_freevars, function.__closure__ or (), strict=True)
            )
        ),
    ]


def _held_piece(encoder: Encoder, label: str, value: object) -> tuple[bytes, Piece]:
    if label in encoder.ignore or value is MISSING:
        return IGNORED, IGNORED
    if type(value) in SCALARS:
        return own_and_whole(encoder, value)
    encoder.trail.append((label, len(encoder.open)))
    pair = own_and_whole(encoder, value)
    encoder.trail.pop()
    return pair


def _attributes_of(function: types.FunctionType) -> Attributes:
    return Attributes(function, attribute_values(function))


def attribute_values(function: types.FunctionType) -> tuple[object, ...]:
    """Return what a function is made of, each to be compared by identity."""
    cells = function.__closure__
    return (
        function.__code__,
        function.__defaults__,
        function.__kwdefaults__,
        *(vars(function).values() if function.__dict__ else ()),
        *(map(_cell_content, cells) if cells else ()),
    )


def _cell_content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # filled later, or never
        return MISSING


def _cells(function: types.FunctionType) -> list[object]:
    contents = map(_cell_content, function.__closure__ or ())
    return [types.CellType() if each is MISSING else each for each in contents]


def _foreign_function(encoder: Encoder, function: types.FunctionType, owner: Owner) -> Piece:
    """Encode a function of a library; one that wraps a function of the user's holds that."""
    module, name = str(function.__globals__.get("__name__")), function.__code__.co_qualname
    piece = foreign(encoder, owner, module, name)
    if name in ASKS and module in _ASKING:  # whatever it is called here
        encoder.reach.append(Asks(frozenset({ASKS[name]})))
    if (module, name) == ("functools", "singledispatch.<locals>.wrapper"):
        return encoder.in_code(function, "", _singledispatch)
    wrapped = vars(function).get("__wrapped__")
    if (function.__closure__ is None and wrapped is None) or owner.kind == "ours":
        return piece
    held = [*_cells(function), wrapped]

    label = f"{module}.{name}"

    def parts(encoder: Encoder, _: object) -> Sequence[Piece]:
        pairs = [own_and_whole(encoder, each) for each in held]
        own = blake3(b"".join(own for own, _ in pairs)).digest()
        if not module.startswith("attr."):  # what it makes of a class is named by the class
            encoder.reach.append(Part(label, own, function))
        encoder.reach.append(_attributes_of(function))
        return record("wrapper", piece, *(whole for _, whole in pairs))

    return encoder.in_code(function, label, parts)


def _singledispatch(encoder: Encoder, function: Any) -> Sequence[Piece]:
    # Its closure holds a cache that fills as it is called.
    registry = dict(function.registry)
    encoder.reach.append(Content(function.registry, content_of(registry)))
    general = registry[object]
    if isinstance(general, types.FunctionType):
        kinds = sorted(text(kind.__qualname__) for kind in registry)
        encoder.reach.append(
            Part(label_of_function(general), blake3(b"".join(kinds)).digest(), general)
        )
    pairs = (encoder.encode(pair) for pair in registry.items())
    return record("singledispatch", *unordered(pairs))


Encoder.handlers[types.FunctionType] = encode_function
