"""Reduce a code object to what it does: its shape.

Knows the bytecode of Python 3.11 to 3.14, through the tables of `dis` alone. Knows nothing of
globals' values. A shape has no file name, lines, qualified name, docstring, or unused constant;
names of locals count only where they show; jumps point to instructions, not to bytes.

Worth arguing: not `dis.get_instructions`, which would be the obvious way and takes several times as
long: a step may reach a thousand functions. `co_code` undoes what the adaptive interpreter,
coverage and debuggers write over the instructions.
"""

from __future__ import annotations

import dis
import inspect
import marshal
import re
import weakref
from array import array
from collections.abc import Iterator
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


def _operations(*names: str) -> frozenset[int]:
    return frozenset(dis.opmap[name] for name in names if name in dis.opmap)


def _caches() -> list[int]:
    entries: Any = dis._inline_cache_entries  # type: ignore[attr-defined]
    if isinstance(entries, dict):
        return [entries.get(name, 0) for name in dis.opname]
    return [*entries, *([0] * (256 - len(entries)))]


def _pair(name: str) -> tuple[int, int] | None:
    """Return the two operations that a superinstruction on locals stands for."""
    halves = re.findall(r"(LOAD|STORE)_FAST", name)
    return (dis.opmap[f"{halves[0]}_FAST"], dis.opmap[f"{halves[1]}_FAST"]) if halves[1:] else None


_SKIPPED: Final = _operations("NOP", "CACHE", "RESUME", "NOT_TAKEN")
_PROLOGUE: Final = _operations("MAKE_CELL", "COPY_FREE_VARS")
_CONST: Final = frozenset(dis.hasconst)
_JUMP: Final = frozenset(dis.hasjrel)
_BACKWARD: Final = frozenset(
    code for name, code in dis.opmap.items() if "BACKWARD" in name or name == "END_ASYNC_FOR"
)
_CACHES: Final = _caches()
_EXTENDED: Final = dis.opmap["EXTENDED_ARG"]
_PAIRS: Final = {code: pair for name, code in dis.opmap.items() if (pair := _pair(name))}
_GLOBAL: Final = _operations("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE: Final = _operations("LOAD_ATTR", "LOAD_METHOD")
_LOAD: Final = frozenset(code for name, code in dis.opmap.items() if name.startswith("LOAD_FAST"))
_STORE: Final = dis.opmap["STORE_FAST"]
_STORE_NAME: Final = dis.opmap["STORE_NAME"]
_IMPORT: Final = dis.opmap["IMPORT_NAME"]
_IMPORT_FROM: Final = dis.opmap["IMPORT_FROM"]
_SHUFFLES: Final = _operations("SWAP", "POP_TOP")

_IS_LOCAL, _IS_NAME, _IS_CONST, _IS_JUMP = 1, 2, 3, 4
_MEANINGS: Final = [0] * 512
for _codes, _meaning in (
    ((*dis.haslocal, *dis.hasfree), _IS_LOCAL),
    (dis.hasname, _IS_NAME),
    (dis.hasconst, _IS_CONST),
    (dis.hasjrel, _IS_JUMP),
):
    for _code in _codes:
        _MEANINGS[_code] = _meaning

# How far the number of a name is shifted by flags of the instruction.
_SHIFTS: Final = {
    dis.opmap[name]: shift
    for name, shift in (
        ("LOAD_GLOBAL", 1),
        ("LOAD_ATTR", 1 if "LOAD_SUPER_ATTR" in dis.opmap else 0),
        ("LOAD_SUPER_ATTR", 2),
    )
    if name in dis.opmap
}

# Bookkeeping of class bodies; the order of `__static_attributes__` is that of a set.
_NOISE: Final = frozenset(
    {"__module__", "__qualname__", "__doc__", "__firstlineno__", "__static_attributes__"}
)

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


def _decoded(code: CodeType) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the instructions that matter, and for each byte offset / 2 the number of the next one.

    Jumps carry the offset of their target. What only marks lines or caches is left out.
    """
    raw = code.co_code
    out: list[tuple[int, int]] = []
    ordinals: list[int] = []
    at, extended, size = 0, 0, len(raw)
    caches, skipped, jumps, pairs = _CACHES, _SKIPPED, _JUMP, _PAIRS
    while at < size:
        operation = raw[at]
        argument = raw[at + 1] | extended
        number = len(out)
        ordinals.append(number)
        if operation == _EXTENDED:
            extended = argument << 8
            at += 2
            continue
        extended = 0
        cached = caches[operation]
        if cached:
            ordinals.extend([number] * cached)
        at += 2 + 2 * cached
        if operation in skipped:
            continue
        if operation in jumps:
            argument = at // 2 + (-argument if operation in _BACKWARD else argument)
        elif operation in pairs:
            first, second = pairs[operation]
            out.append((first, argument >> 4))
            operation, argument = second, argument & 15
        elif not out and operation in _PROLOGUE:
            continue  # their order follows the names of variables
        out.append((operation, argument))
    ordinals.append(len(out))
    return out, ordinals


class _Reader:
    """Reads one code object."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.instructions, self.ordinals = _decoded(code)
        self.chains: dict[tuple[str, ...], None] = {}
        self.imports: dict[Import, None] = {}
        self.constants: dict[int, int] = {}
        self.names: dict[str, int] = {}
        self.reads_all = False

    def shape(self) -> Shape:
        code = self.code
        fixed = array("q", self._numbers()).tobytes()
        constants = tuple(self._constant(code.co_consts[index]) for index in self.constants)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        names = tuple(self.names)
        shown = () if _NAMES_SHOW.isdisjoint(names) else (*code.co_varnames, *code.co_cellvars)
        signature = (code.co_flags & _FLAGS, counts, arguments, shown)
        fields = (signature, names, fixed, self._handlers(), constants)
        digest = blake3(marshal.dumps(fields, MARSHAL_VERSION)).digest()  # type: ignore[arg-type]
        self.reads_all = self.reads_all or not READS_ALL.isdisjoint(
            chain[0] for chain in self.chains if len(chain) == 1
        )
        return Shape(digest, tuple(self.chains), tuple(self.imports), self.reads_all)

    def _numbers(self) -> list[int]:
        """Number names, constants and invisible locals in the order of their first use."""
        out: list[int] = []
        constants, variables, ordinals = self.constants, self._fixed_variables(), self.ordinals
        meanings, dropped = _MEANINGS, self._noise()
        for at, (operation, argument) in enumerate(self.instructions):
            if dropped and at in dropped:
                continue
            out.append(operation)
            meaning = meanings[operation]
            if meaning == _IS_LOCAL:
                argument = variables.setdefault(argument, len(variables))
            elif meaning == _IS_NAME:
                argument = self._name(at, operation, argument)
            elif meaning == _IS_CONST:
                argument = constants.setdefault(argument, len(constants))
            elif meaning == _IS_JUMP:
                argument = ordinals[argument]
            out.append(argument)
        return out

    def _name(self, at: int, operation: int, argument: int) -> int:
        shift = _SHIFTS.get(operation, 0)
        name = self.code.co_names[argument >> shift]
        if operation in _GLOBAL:
            self.chains[(name, *self._attributes_after(at))] = None
        elif operation == _IMPORT:
            self._import(at, name)
        number = self.names.setdefault(name, len(self.names))
        return number << shift | argument & ((1 << shift) - 1)

    def _fixed_variables(self) -> dict[int, int]:
        """Number by position what callers see (arguments) and closures see (free variables)."""
        code = self.code
        arguments = code.co_argcount + code.co_kwonlyargcount
        arguments += bool(code.co_flags & 0x4) + bool(code.co_flags & 0x8)
        cells = sum(name not in code.co_varnames for name in code.co_cellvars)
        first = code.co_nlocals + cells
        fixed = [*range(arguments), *range(first, first + len(code.co_freevars))]
        return {index: number for number, index in enumerate(fixed)}

    def _noise(self) -> frozenset[int]:
        """Return which instructions of a class body only say where and what it is."""
        if self.code.co_flags & inspect.CO_OPTIMIZED:
            return frozenset()
        stores = (
            at
            for at, (operation, argument) in enumerate(self.instructions)
            if operation == _STORE_NAME and self.code.co_names[argument] in _NOISE
        )
        return frozenset(each for at in stores for each in (at - 1, at))

    def _attributes_after(self, at: int) -> Iterator[str]:
        for operation, argument in self.instructions[at + 1 : at + 9]:
            if operation not in _ATTRIBUTE:
                return
            yield self.code.co_names[argument >> _SHIFTS.get(operation, 0)]

    def _constant(self, value: object) -> object:
        """Return a scalar as it is, anything else as a pair, which no scalar is."""
        if type(value) in SCALARS:
            return value
        if isinstance(value, CodeType):
            inner = shape_of(value)
            self.chains.update(dict.fromkeys(inner.chains))
            self.imports.update(dict.fromkeys(inner.imports))
            self.reads_all = self.reads_all or inner.reads_all
            return ("code", inner.digest)
        return ("value", Encoder().whole(value))

    def _import(self, at: int, name: str) -> None:
        level, wanted = (self._operand(self.instructions[at - back]) for back in (2, 1))
        chains: dict[tuple[str, ...], None] = {}
        top = wanted is None
        for step, (operation, argument) in enumerate(self.instructions[at + 1 :], start=at + 1):
            if operation == _IMPORT_FROM:
                member = (self.code.co_names[argument],)
                if wanted is None:
                    top = False  # import a.b as c
                else:
                    chains.update((member + use, None) for use in self._uses(step + 1))
            elif wanted is None and operation not in _SHUFFLES:
                chains.update((use, None) for use in self._uses(step))
                break
            elif wanted is not None and operation in _SHUFFLES:
                break
        self.imports[Import(name, int(level or 0), top, tuple(chains) or ((),))] = None

    def _operand(self, instruction: tuple[int, int]) -> Any:
        operation, argument = instruction
        return self.code.co_consts[argument] if operation in _CONST else argument

    def _uses(self, at: int) -> list[tuple[str, ...]]:
        """Return the attribute chains read of the local that is stored here; `()` for all of it."""
        operation, variable = self.instructions[at]
        stores = sum(each == (_STORE, variable) for each in self.instructions)
        if operation != _STORE or stores > 1:
            return [()]
        return [
            tuple(self._attributes_after(where))
            for where, (load, index) in enumerate(self.instructions)
            if load in _LOAD and index == variable
        ]

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
