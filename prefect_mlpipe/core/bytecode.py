"""Reduce a code object to what it does: its shape.

Knows the bytecode of Python 3.11 to 3.14, through the tables of `dis` alone. Knows nothing of
globals' values. A shape has no file name, lines, qualified name, docstring, or unused constant;
names of locals count only where they show; jumps point to instructions, not to bytes.

Worth arguing: not `dis.get_instructions`, which would be the obvious way and takes many times as
long: a step may reach a thousand functions. An instruction is one byte of a string, so that tables
of 256 entries say what it is, and `translate`, `compress` and `accumulate` do the work. `co_code`
undoes what the adaptive interpreter, coverage and debuggers write over the instructions.
"""

from __future__ import annotations

import dis
import inspect
import marshal
import re
import weakref
from collections.abc import Iterator, Sequence
from itertools import accumulate, compress
from operator import and_
from types import CodeType
from typing import Any, Final, NamedTuple

from blake3 import blake3

from prefect_mlpipe.core.encode import Encoder
from prefect_mlpipe.core.pieces import MARSHAL_VERSION, SCALARS

# What of the flags changes what a call does: *args, **kwargs, generator, coroutine and the like.
_FLAGS: Final = 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1 | 0x2

# With these in sight, the names of locals show.
_NAMES_SHOW: Final = frozenset({"locals", "vars", "dir", "eval", "exec"})

# With these, a function can read any global of its module.
READS_ALL: Final = frozenset({"globals", "eval", "exec"})


class Import(NamedTuple):
    """An import inside a body.

    Attributes:
        name: the module as written, without leading dots.
        level: number of leading dots.
        top: whether what is bound is the package at the top, as by `import a.b.c`.
        chains: attribute chains read of what is bound; `()` for the module itself.
    """

    name: str
    level: int
    top: bool
    chains: tuple[tuple[str, ...], ...]


class Shape(NamedTuple):
    """What a code object does, without the values it finds in globals.

    Attributes:
        digest: of all that is fixed in the code, nested code included.
        chains: for each global read, its name and the attributes read directly after it.
        imports: imports inside the body, nested code included.
        reads_all: whether any global could be read, as by `globals()`.
    """

    digest: bytes
    chains: tuple[tuple[str, ...], ...]
    imports: tuple[Import, ...]
    reads_all: bool


# Tables of what each instruction is

_PSEUDO: Final = 256  # from here on, operations are of the compiler alone


def _operations(*names: str) -> bytes:
    found = (dis.opmap.get(name, _PSEUDO) for name in names)
    return bytes(operation for operation in found if operation < _PSEUDO)


def _table(values: dict[int, int], default: int = 0) -> bytes:
    return bytes(values.get(operation, default) for operation in range(256))


def _marks(operations: Sequence[int]) -> bytes:
    return _table({operation: 1 for operation in operations})


def _pair(name: str) -> bytes:
    """Return the two operations that a superinstruction on locals stands for."""
    return _operations(*(f"{half}_FAST" for half in re.findall(r"(LOAD|STORE)_FAST", name)))


def _spans() -> list[int]:
    """Return how many units an instruction takes with its caches."""
    entries: Any = dis._inline_cache_entries  # type: ignore[attr-defined]
    if isinstance(entries, dict):
        entries = [entries.get(name, 0) for name in dis.opname]
    return [1 + (entries[at] if at < len(entries) else 0) for at in range(256)]


_NOP: Final = dis.opmap["NOP"]
_EXTENDED: Final = dis.opmap["EXTENDED_ARG"]
_STORE: Final = dis.opmap["STORE_FAST"]
_STORE_NAME: Final = dis.opmap["STORE_NAME"]
_IMPORT: Final = dis.opmap["IMPORT_NAME"]
_IMPORT_FROM: Final = dis.opmap["IMPORT_FROM"]
_SHUFFLES: Final = _operations("SWAP", "POP_TOP")
_GLOBAL: Final = _operations("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE: Final = _operations("LOAD_ATTR", "LOAD_METHOD")
_LOAD: Final = _operations(*(name for name in dis.opmap if name.startswith("LOAD_FAST")))
_BACKWARD: Final = _operations(*(name for name in dis.opmap if "BACKWARD" in name), "END_ASYNC_FOR")

# What marks lines, holds caches, or prepares the frame: its order follows the names of variables.
_SKIPPED: Final = _operations(
    "NOP", "CACHE", "RESUME", "NOT_TAKEN", "EXTENDED_ARG", "MAKE_CELL", "COPY_FREE_VARS"
)
# Superinstructions are made where two instructions stand on one line: they count as the two.
_PAIRS: Final = {code: pair for name, code in dis.opmap.items() if len(pair := _pair(name)) == 2}
_PAIR: Final = re.compile(b"[%s]" % re.escape(bytes(_PAIRS))) if _PAIRS else None
# A borrowed reference is only a quicker one.
_BORROWED: Final = dict.fromkeys(_operations("LOAD_FAST_BORROW"), dis.opmap["LOAD_FAST"])

_SPANS: Final = _spans()
_WIDTHS: Final = _table({**dict.fromkeys(_SKIPPED, 0), **dict.fromkeys(_PAIRS, 2)}, default=1)
_SAME: Final = bytes(_BORROWED.get(operation, operation) for operation in range(256))
_IS_JUMP: Final = _marks(dis.hasjrel)
_IS_NAME: Final = _marks(dis.hasname)
_IS_CONST: Final = _marks(dis.hasconst)

# How far the number of a name is shifted by flags of the instruction.
_SHIFTS: Final = _table(
    {
        dis.opmap[name]: shift
        for name, shift in (
            ("LOAD_GLOBAL", 1),
            ("LOAD_ATTR", 1 if "LOAD_SUPER_ATTR" in dis.opmap else 0),
            ("LOAD_SUPER_ATTR", 2),
        )
        if name in dis.opmap
    }
)
_DIRECTIONS: Final = [-1 if operation in _BACKWARD else 1 for operation in range(256)]
# What of an argument is content by itself; an index counts as what it points to.
_CONTENT: Final = [
    0 if _IS_CONST[at] or _IS_JUMP[at] else (1 << _SHIFTS[at]) - 1 if _IS_NAME[at] else -1
    for at in range(256)
]

# Bookkeeping of class bodies; the order of `__static_attributes__` is that of a set.
_NOISE: Final = frozenset(
    {"__module__", "__qualname__", "__doc__", "__firstlineno__", "__static_attributes__"}
)
_PLAIN_LOADS: Final = _operations("LOAD_CONST", "LOAD_NAME", "LOAD_SMALL_INT")

_shapes: dict[int, tuple[weakref.ref[CodeType], Shape]] = {}


def shape_of(code: CodeType) -> Shape:
    """Return what a code object does; known again as long as it lives."""
    key = id(code)
    known = _shapes.get(key)
    if known is not None and known[0]() is code:
        return known[1]
    shape = _Reader(code).shape()

    def forget(reference: weakref.ref[CodeType]) -> None:
        if _shapes.get(key, (None,))[0] is reference:
            del _shapes[key]

    _shapes[key] = (weakref.ref(code, forget), shape)
    return shape


class _Instructions(NamedTuple):
    """The instructions that matter.

    Attributes:
        operations: one byte for each.
        arguments: one for each.
        targets: for each jump among them, the number of the instruction that it goes to.
        ordinals: for each unit of two bytes of the code, the number of the next instruction.
    """

    operations: bytes
    arguments: Sequence[int]
    targets: list[int]
    ordinals: list[int]


def _decoded(code: CodeType) -> _Instructions:
    raw = code.co_code
    units = raw[::2]
    arguments: Sequence[int] = raw[1::2]
    if _EXTENDED in units:
        arguments = _extended(units, arguments)
    if not code.co_flags & inspect.CO_OPTIMIZED:
        units = _without_noise(code, units, arguments)
    widths = units.translate(_WIDTHS)
    ordinals = [*accumulate(widths, initial=0)]
    targets = [
        ordinals[at + _SPANS[units[at]] + _DIRECTIONS[units[at]] * arguments[at]]
        for at in compress(range(len(units)), units.translate(_IS_JUMP))
    ]
    operations = units.translate(_SAME, _SKIPPED)
    arguments = [*compress(arguments, widths)]
    if _PAIR is not None:
        operations, arguments = _split(_PAIR, operations, arguments)
    return _Instructions(operations, arguments, targets, ordinals)


def _extended(units: bytes, arguments: Sequence[int]) -> list[int]:
    """Add to arguments what `EXTENDED_ARG`, once or more often, says before them."""
    whole = [*arguments]
    at = units.find(_EXTENDED)
    while at >= 0:
        whole[at + 1] |= whole[at] << 8
        at = units.find(_EXTENDED, at + 1)
    return whole


def _without_noise(code: CodeType, units: bytes, arguments: Sequence[int]) -> bytes:
    """Leave out what in a class body only says where and what it is."""
    found = bytearray(units)
    for at, unit in enumerate(units):
        if unit == _STORE_NAME and code.co_names[arguments[at]] in _NOISE:
            load = len(units[:at].rstrip(bytes([_EXTENDED]))) - 1
            if units[load] in _PLAIN_LOADS:
                found[load] = found[at] = _NOP
    return bytes(found)


def _split(
    pair: re.Pattern[bytes], operations: bytes, arguments: list[int]
) -> tuple[bytes, list[int]]:
    """Take superinstructions apart."""
    single, each, done = bytearray(), [], 0
    for found in pair.finditer(operations):
        at = found.start()
        single += operations[done:at] + _PAIRS[operations[at]]
        each += (*arguments[done:at], arguments[at] >> 4, arguments[at] & 15)
        done = at + 1
    return bytes(single + operations[done:]), [*each, *arguments[done:]]


class _Reader:
    """Reads one code object."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.operations, self.arguments, self.targets, self.ordinals = _decoded(code)
        self.chains: dict[tuple[str, ...], None] = {}
        self.imports: dict[Import, None] = {}
        self.reads_all = False

    def shape(self) -> Shape:
        code, operations, arguments = self.code, self.operations, self.arguments
        names = self._names()
        constants = [
            value if type(value) in SCALARS else self._constant(value)
            for value in map(
                code.co_consts.__getitem__, compress(arguments, operations.translate(_IS_CONST))
            )
        ]
        fixed = tuple(map(and_, arguments, map(_CONTENT.__getitem__, operations)))
        instructions = (operations, fixed, tuple(self.targets), self._handlers())
        fields = (self._signature(names), instructions, names, constants)
        digest = blake3(marshal.dumps(fields, MARSHAL_VERSION)).digest()  # type: ignore[arg-type]
        self.reads_all = self.reads_all or not READS_ALL.isdisjoint(
            chain[0] for chain in self.chains if len(chain) == 1
        )
        return Shape(digest, tuple(self.chains), tuple(self.imports), self.reads_all)

    def _signature(self, names: list[str]) -> tuple[object, ...]:
        code = self.code
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        shown = () if _NAMES_SHOW.isdisjoint(names) else (*code.co_varnames, *code.co_cellvars)
        return (code.co_flags & _FLAGS, counts, arguments, shown)

    def _names(self) -> list[str]:
        """Return the name that each instruction with one means; note what is read and imported."""
        operations, arguments, known = self.operations, self.arguments, self.code.co_names
        names: list[str] = []
        chains: list[tuple[str, ...]] = []
        goes_on = -1  # where an attribute would belong to the last chain
        for at in compress(range(len(operations)), operations.translate(_IS_NAME)):
            operation = operations[at]
            name = known[arguments[at] >> _SHIFTS[operation]]
            names.append(name)
            if operation in _GLOBAL:
                chains.append((name,))
                goes_on = at + 1
            elif at == goes_on and operation in _ATTRIBUTE:
                chains[-1] += (name,)
                goes_on = at + 1
            elif operation == _IMPORT:
                self._import(at, name)
        self.chains.update(dict.fromkeys(chains))
        return names

    def _constant(self, value: object) -> object:
        """Return a scalar, or a tuple of them, as it is; anything else as a list."""
        if type(value) is tuple and SCALARS.issuperset(map(type, value)):
            return value
        if isinstance(value, CodeType):
            inner = shape_of(value)
            self.chains.update(dict.fromkeys(inner.chains))
            self.imports.update(dict.fromkeys(inner.imports))
            self.reads_all = self.reads_all or inner.reads_all
            return ["code", inner.digest]
        return ["value", Encoder().whole(value)]

    def _name(self, at: int) -> str:
        return str(self.code.co_names[self.arguments[at] >> _SHIFTS[self.operations[at]]])

    def _import(self, at: int, name: str) -> None:
        level, wanted = self._operand(at - 2), self._operand(at - 1)
        chains: dict[tuple[str, ...], None] = {}
        top = wanted is None
        for step in range(at + 1, len(self.operations)):
            operation = self.operations[step]
            if operation == _IMPORT_FROM:
                if wanted is None:
                    top = False  # import a.b as c
                else:
                    member = (self._name(step),)
                    chains.update((member + use, None) for use in self._uses(step + 1))
            elif wanted is None and operation not in _SHUFFLES:
                chains.update((use, None) for use in self._uses(step))
                break
            elif wanted is not None and operation in _SHUFFLES:
                break
        self.imports[Import(name, int(level or 0), top, tuple(chains) or ((),))] = None

    def _operand(self, at: int) -> Any:
        argument = self.arguments[at]
        return self.code.co_consts[argument] if _IS_CONST[self.operations[at]] else argument

    def _uses(self, at: int) -> list[tuple[str, ...]]:
        """Return the attribute chains read of the local that is stored here; `()` for all of it."""
        variable = self.arguments[at]
        touched = [
            (where, operation)
            for where, operation in enumerate(self.operations)
            if self.arguments[where] == variable and (operation == _STORE or operation in _LOAD)
        ]
        if self.operations[at] != _STORE or [each for _, each in touched].count(_STORE) > 1:
            return [()]
        return [self._attributes_after(where) for where, each in touched if each != _STORE]

    def _attributes_after(self, at: int) -> tuple[str, ...]:
        found: tuple[str, ...] = ()
        while self.operations[at := at + 1] in _ATTRIBUTE:
            found += (self._name(at),)
        return found

    def _handlers(self) -> tuple[int, ...]:
        """Encode the exception table; ranges that nothing is left of do not count."""
        if not self.code.co_exceptiontable:
            return ()
        ordinals = self.ordinals
        rows: list[int] = []
        for start, end, target, depth in _exception_table(self.code.co_exceptiontable):
            first, last, to = ordinals[start], ordinals[end], ordinals[target]
            if rows[-4:-3] and rows[-3:] == [first, to, depth]:
                rows[-3] = last
            elif first < last:
                rows += (first, last, to, depth)
        return tuple(rows)


def _exception_table(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield start, end, target (in code units) and depth of each entry."""
    numbers = _varints(table)
    for start in numbers:
        size, target, depth = next(numbers), next(numbers), next(numbers)
        yield start, start + size, target, depth


def _varints(table: bytes) -> Iterator[int]:
    value = 0
    for octet in table:
        value = value << 6 | octet & 63
        if not octet & 64:
            yield value
            value = 0
