"""Reduce a code object to what it does: its shape.

Knows instructions, names and constants. Knows nothing of globals' values. A shape has no file name,
lines, qualified name, docstring, or unused constant; names of locals count only where they show;
jumps point to instructions, not to bytes.

Worth arguing: the code that is nested in a function (comprehensions, lambdas, functions) is part of
its shape and has one digest with it, not one of its own that would enter the other.
"""

from __future__ import annotations

import marshal
import re
import weakref
from collections.abc import Iterable
from itertools import compress
from types import CodeType
from typing import Any, Final, NamedTuple, TypeAlias

from blake3 import blake3

from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.pieces import MARSHAL_VERSION, SCALARS
from prefect_mlpipe.core.reading.imports_in_bodies import (
    Import,
    asks_for_itself,
    imported_by,
    imported_by_name,
)
from prefect_mlpipe.core.reading.instructions import Instructions, decoded
from prefect_mlpipe.core.reading.opcodes import (
    ATTRIBUTE,
    GLOBAL,
    IMPORT,
    IS_CONST,
    IS_NAME,
    SHIFTS,
)

# What of the flags changes what a call does: *args, **kwargs, generator, coroutine and the like.
_FLAGS: Final = 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1 | 0x2

# With these in sight, the names of locals show.
_NAMES_SHOW: Final = frozenset({"locals", "vars", "dir", "eval", "exec", "f_locals"})

# With these, a function can read any global of its module.
READS_ALL: Final = frozenset({"globals", "eval", "exec"})

# Behind these, a constant is the name of a module.
_TAKES_MODULE: Final = frozenset({"import_module", "__import__", "modules"})

# These find variables of their caller by names in a text: behind an @, or any word.
_EVALUATES: Final = {
    **dict.fromkeys(("query", "eval"), re.compile(r"@([^\W\d]\w*)")),
    **dict.fromkeys(("evaluate", "sql"), re.compile(r"([^\W\d]\w*)")),
}

# By these, code sees of other code what is not in its bytecode.
ASKS: Final = {
    **dict.fromkeys(
        (
            *("__doc__", "getdoc", "render_doc", "DocTestFinder"),
            *("model_json_schema", "json_schema", "schema_json", "model_fields"),
        ),
        "docstring",
    ),
    **dict.fromkeys(("__name__", "co_name"), "name"),
    **dict.fromkeys(("__qualname__", "co_qualname"), "qualified name"),
    **dict.fromkeys(
        (
            *("__annotations__", "get_annotations", "get_type_hints", "signature"),
            *("getfullargspec", "validate_call", "TypeAdapter", "create_model"),
        ),
        "annotations",
    ),
    **dict.fromkeys(("getsource", "getsourcelines"), "source"),
    **dict.fromkeys(("wraps", "update_wrapper"), "wrapping"),
    **dict.fromkeys(
        ("co_code", "co_consts", "co_names", "co_varnames", "co_cellvars", "co_freevars"),
        "bytecode",
    ),
}
# These ask as texts, too: `vars(work)["__doc__"]`.
_ASKING_TEXTS: Final = frozenset(name for name in ASKS if name.startswith("__"))
_FEW_TEXTS: Final = 64
_SEQUENCES: Final = (tuple, list, set, frozenset)

# Of code that has none of these among its names, all that matters is what it does by itself.
_TELLING: Final = frozenset(
    {*_NAMES_SHOW, *READS_ALL, *_TAKES_MODULE, *_EVALUATES, *ASKS, "getattr"}
)

Fields: TypeAlias = "tuple[object, ...]"  # what `marshal` can write


class Shape(NamedTuple):
    """What a code object does, without the values it finds in globals.

    Attributes:
        digest: of all that is fixed in the code, nested code included.
        chains: for each global read, its name and the attributes read directly after it.
        imports: imports inside the body, by statement or by name, nested code included.
        reads_all: whether any global could be read, as by `globals()`.
        asks: what it asks of other code beside what that does: values of `ASKS`.
        spelled: digest of the annotations of nested functions, empty without any.
    """

    digest: bytes
    chains: tuple[tuple[str, ...], ...]
    imports: tuple[Import, ...]
    reads_all: bool
    asks: frozenset[str] = frozenset()
    spelled: bytes = b""


_shapes: dict[int, tuple[weakref.ref[CodeType], Shape]] = {}


def shape_of(code: CodeType) -> Shape:
    """Return what a code object does; known again as long as it lives."""
    key = id(code)
    known = _shapes.get(key)
    if known is not None and known[0]() is code:
        return known[1]
    shape = _Reader().shape(code)

    def forget(reference: weakref.ref[CodeType]) -> None:
        if _shapes.get(key, (None,))[0] is reference:
            del _shapes[key]

    _shapes[key] = (weakref.ref(code, forget), shape)
    return shape


class _Reader:
    """Reads one code object and the code nested in it."""

    def __init__(self) -> None:
        self.nested: list[Fields] = []  # of each nested code object, innermost first
        self.spelled: list[bytes] = []
        self.asks: set[str] = set()
        self.chains: dict[tuple[str, ...], None] = {}
        self.imports: dict[Import, None] = {}
        self.reads_all = False

    def shape(self, code: CodeType) -> Shape:
        digest = _digest(self._fields(code), self.nested)
        chains, imports, asks = tuple(self.chains), tuple(self.imports), frozenset(self.asks)
        return Shape(digest, chains, imports, self.reads_all, asks, b"".join(self.spelled))

    def _fields(self, code: CodeType) -> Fields:
        """Return what is fixed in a code object; note what it reads."""
        body = decoded(code)
        operations, arguments = body.operations, body.arguments
        names, chains = _names_and_chains(body)
        self.chains.update(dict.fromkeys(chains))
        if IMPORT in operations:
            statements = [at for at, each in enumerate(operations) if each == IMPORT]
            self.imports.update((imported_by(body, at), None) for at in statements)
        if body.spelled:
            self.spelled.append(body.spelled)
        constants = [
            value if type(value) in SCALARS else self._constant(value)
            for value in map(
                code.co_consts.__getitem__, compress(arguments, operations.translate(IS_CONST))
            )
        ]
        texts = [text for value in constants for text in _texts(value)]
        self.asks.update(map(ASKS.__getitem__, _ASKING_TEXTS.intersection(texts)))
        shown: tuple[str, ...] = ()
        if not _TELLING.isdisjoint(names):
            self._look_around(body, names, texts)
            shown = () if _NAMES_SHOW.isdisjoint(names) else (*code.co_varnames, *code.co_cellvars)
        instructions = (operations, body.content(), body.targets, body.handlers)
        return (_signature(code), shown, instructions, names, constants)

    def _constant(self, value: object) -> object:
        """Return a scalar, or a tuple of them, as it is; anything else as a list."""
        if type(value) is tuple and SCALARS.issuperset(map(type, value)):
            return value
        if not isinstance(value, CodeType):
            return ["value", Encoder().whole(value)]
        self.nested.append(self._fields(value))
        return ["code"]

    def _look_around(self, body: Instructions, names: list[str], texts: list[str]) -> None:
        """Note what is named in texts, imported by name, and asked of other code."""
        for name in _EVALUATES.keys() & names:
            words = [word for value in texts for word in _EVALUATES[name].findall(value)]
            self.chains.update(((word,), None) for word in words)
        if "getattr" in names:
            self.asks.update(ASKS[name] for name in ASKS.keys() & texts)
        positions = compress(range(len(body.operations)), body.operations.translate(IS_NAME))
        for at, name in zip(positions, names, strict=True):
            if name in _TAKES_MODULE:
                self._import_by_name(body, at)
            if name in ASKS and not (body.operations[at] in GLOBAL and name.startswith("_")):
                self.asks.add(ASKS[name])
        self.reads_all = self.reads_all or not READS_ALL.isdisjoint(
            chain[-1] for chain in self.chains if len(chain) == 1 or chain[0] == "builtins"
        )

    def _import_by_name(self, body: Instructions, at: int) -> None:
        found = imported_by_name(body, at)
        if found is not None:
            self.imports[found] = None
        elif asks_for_itself(body, at):
            self.reads_all = True


def asked_by_text(value: object) -> frozenset[str]:
    """Return what could be asked with a text, or a few of them, as a name: values of `ASKS`."""
    return frozenset(ASKS[name] for name in _ASKING_TEXTS.intersection(_texts(value)))


def _texts(value: Any) -> Iterable[str]:
    if type(value) is str:
        return (value,)
    if type(value) in _SEQUENCES and len(value) <= _FEW_TEXTS:
        return (each for each in value if type(each) is str)
    return ()


def _digest(fields: Fields, nested: list[Fields]) -> bytes:
    return blake3(marshal.dumps((fields, nested), MARSHAL_VERSION)).digest()  # type: ignore[arg-type]


def _signature(code: CodeType) -> Fields:
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return (code.co_flags & _FLAGS, counts, arguments)


def _names_and_chains(body: Instructions) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the name that each instruction with one means, and the chains that are read."""
    operations, arguments, known = body.operations, body.arguments, body.code.co_names
    names: list[str] = []
    chains: list[tuple[str, ...]] = []
    goes_on = -1  # where an attribute would belong to the last chain
    for at in compress(range(len(operations)), operations.translate(IS_NAME)):
        operation = operations[at]
        name = known[arguments[at] >> SHIFTS[operation]]
        names.append(name)
        if operation in GLOBAL:
            chains.append((name,))
            goes_on = at + 1
        elif at == goes_on and operation in ATTRIBUTE:
            chains[-1] += (name,)
            goes_on = at + 1
    return names, chains
