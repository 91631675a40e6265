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

from prefect_mlpipe.core.encoding.encode import Encoder
from prefect_mlpipe.core.encoding.pieces import MARSHAL_VERSION, SCALARS
from prefect_mlpipe.core.reading.nested_annotations import without_annotations

# What of the flags changes what a call does: *args, **kwargs, generator, coroutine and the like.
_FLAGS: Final = 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1 | 0x2

# With these in sight, the names of locals show.
_NAMES_SHOW: Final = frozenset({"locals", "vars", "dir", "eval", "exec", "f_locals"})

# With these, a function can read any global of its module.
READS_ALL: Final = frozenset({"globals", "eval", "exec"})

# Behind these, a constant is the name of a module.
_TAKES_MODULE: Final = frozenset({"import_module", "__import__", "modules"})
_MODULE: Final = re.compile(r"(\.*)([^\W\d]\w*(?:\.[^\W\d]\w*)*)")

# These find variables of their caller by names in a text: behind an @, or any word.
_EVALUATES: Final = {
    **dict.fromkeys(("query", "eval"), re.compile(r"@([^\W\d]\w*)")),
    **dict.fromkeys(("evaluate", "sql"), re.compile(r"([^\W\d]\w*)")),
}

# By these, code sees of other code what is not in its bytecode.
ASKS: Final = {
    **dict.fromkeys(("__doc__", "getdoc"), "docstring"),
    **dict.fromkeys(("__name__", "__qualname__", "co_name", "co_qualname"), "name"),
    **dict.fromkeys(
        (
            *("__annotations__", "get_annotations", "get_type_hints", "signature"),
            *("getfullargspec", "validate_call", "TypeAdapter", "create_model"),
        ),
        "annotations",
    ),
    **dict.fromkeys(("getsource", "getsourcelines"), "source"),
}

_TELLING: Final = _TAKES_MODULE | ASKS.keys()


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
_STORE_CELL: Final = dis.opmap["STORE_DEREF"]
_MAKE_FUNCTION: Final = dis.opmap["MAKE_FUNCTION"]
_STORE_NAME: Final = dis.opmap["STORE_NAME"]
_IMPORT: Final = dis.opmap["IMPORT_NAME"]
_IMPORT_FROM: Final = dis.opmap["IMPORT_FROM"]
_SHUFFLES: Final = _operations("SWAP", "POP_TOP")
_GLOBAL: Final = _operations("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE: Final = _operations("LOAD_ATTR")
_OF_CELLS: Final = _operations(
    "STORE_DEREF", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"
)
_LOAD: Final = _operations(*(name for name in dis.opmap if name.startswith("LOAD_FAST")))
_BACKWARD: Final = _operations(*(name for name in dis.opmap if "BACKWARD" in name), "END_ASYNC_FOR")

# What marks lines, holds caches, makes room for `self`, or prepares the frame: its order follows
# the names of variables.
_SKIPPED: Final = _operations(
    *("NOP", "CACHE", "RESUME", "NOT_TAKEN", "EXTENDED_ARG", "MAKE_CELL", "COPY_FREE_VARS"),
    "PUSH_NULL",
)
# Superinstructions are made where two instructions stand on one line: they count as the two.
_PAIRS: Final = {code: pair for name, code in dis.opmap.items() if len(pair := _pair(name)) == 2}
_PAIR: Final = re.compile(b"[%s]" % re.escape(bytes(_PAIRS))) if _PAIRS else None
# A borrowed reference is only a quicker one. So is a method that is called without being bound,
# which is chosen by whether an import of the object stands in the same file or notebook cell.
_QUICKER: Final = {
    **dict.fromkeys(_operations("LOAD_FAST_BORROW"), dis.opmap["LOAD_FAST"]),
    **dict.fromkeys(_operations("LOAD_METHOD"), dis.opmap["LOAD_ATTR"]),
}

_SPANS: Final = _spans()
_WIDTHS: Final = _table({**dict.fromkeys(_SKIPPED, 0), **dict.fromkeys(_PAIRS, 2)}, default=1)
_SAME: Final = bytes(_QUICKER.get(operation, operation) for operation in range(256))
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
# What of an argument is content by itself; an index counts as what it points to. Only of `super`
# do the flags: the others say how a call makes room for `self`.
_CONTENT: Final = [
    3 if _SHIFTS[at] == 2 else 0 if _IS_CONST[at] or _IS_JUMP[at] or _IS_NAME[at] else -1
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
        spelled: digest of annotations of nested functions, which are left out.
    """

    operations: bytes
    arguments: Sequence[int]
    targets: list[int]
    ordinals: list[int]
    spelled: bytes


def _decoded(code: CodeType) -> _Instructions:
    raw = code.co_code
    units = raw[::2]
    arguments: Sequence[int] = raw[1::2]
    if _EXTENDED in units:
        arguments = _extended(units, arguments)
    if not code.co_flags & inspect.CO_OPTIMIZED:
        units = _without_noise(code, units, arguments)
    spelled = b""
    if _MAKE_FUNCTION in units:
        units, arguments, spelled = without_annotations(code, units, arguments, _SPANS)
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
    return _Instructions(operations, arguments, targets, ordinals, spelled)


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
    single, done = bytearray(), 0
    each: list[int] = []
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
        decoded = _decoded(code)
        self.operations, self.arguments, self.targets, self.ordinals, spelled = decoded
        self.spelled = [spelled] if spelled else []
        self.asks: set[str] = set()
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
        self._look_around(names, constants)
        self.reads_all = self.reads_all or not READS_ALL.isdisjoint(
            chain[-1] for chain in self.chains if len(chain) == 1 or chain[0] == "builtins"
        )
        chains, imports, asks = tuple(self.chains), tuple(self.imports), frozenset(self.asks)
        return Shape(digest, chains, imports, self.reads_all, asks, b"".join(self.spelled))

    def _look_around(self, names: list[str], constants: list[object]) -> None:
        """Note which globals are named in texts, and what is asked of other code."""
        texts = [value for value in constants if type(value) is str]
        for name in _EVALUATES.keys() & names:
            words = [word for value in texts for word in _EVALUATES[name].findall(value)]
            self.chains.update(((word,), None) for word in words)
        if "getattr" in names:
            self.asks.update(ASKS[name] for name in ASKS.keys() & texts)

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
        telling = not _TELLING.isdisjoint(known)
        for at in compress(range(len(operations)), operations.translate(_IS_NAME)):
            operation = operations[at]
            name = known[arguments[at] >> _SHIFTS[operation]]
            names.append(name)
            if telling:
                self._note(at, name)
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

    def _note(self, at: int, name: str) -> None:
        if name in _TAKES_MODULE:
            self._import_by_name(at, name)
        if name in ASKS and not (self.operations[at] in _GLOBAL and name.startswith("_")):
            self.asks.add(ASKS[name])

    def _constant(self, value: object) -> object:
        """Return a scalar, or a tuple of them, as it is; anything else as a list."""
        if type(value) is tuple and SCALARS.issuperset(map(type, value)):
            return value
        if isinstance(value, CodeType):
            inner = shape_of(value)
            self.chains.update(dict.fromkeys(inner.chains))
            self.imports.update(dict.fromkeys(inner.imports))
            self.reads_all = self.reads_all or inner.reads_all
            self.asks |= inner.asks
            self.spelled += [inner.spelled] if inner.spelled else []
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
                    uses = self._uses(step + 1) or [()]  # unused, it is no reason to take more
                    chains.update((member + use, None) for use in uses)
            elif wanted is None and operation not in _SHUFFLES:
                chains.update((use, None) for use in self._uses(step))
                break
            elif wanted is not None and operation in _SHUFFLES:
                break
        self.imports[Import(name, int(level or 0), top, tuple(chains) or ((),))] = None

    def _import_by_name(self, at: int, name: str) -> None:
        """Note the module that stands as a constant behind `import_module` or `sys.modules`."""
        at += 1
        while self.operations[at] in _ATTRIBUTE:  # sys.modules.get
            at += 1
        operation, operand = self.operations[at], self._operand(at)
        if operation in _GLOBAL and self._name(at) == "__name__":
            self.reads_all = True
        found = _MODULE.fullmatch(operand) if isinstance(operand, str) else None
        if found is not None:
            dots, module = found.groups()
            self.imports[Import(module, len(dots), name == "__import__", ((),))] = None

    def _operand(self, at: int) -> Any:
        argument = self.arguments[at]
        return self.code.co_consts[argument] if _IS_CONST[self.operations[at]] else argument

    def _uses(self, at: int) -> list[tuple[str, ...]]:
        """Return the attribute chains read of the local that is stored here; `()` for all of it."""
        variable = self.arguments[at]
        if self.operations[at] == _STORE_CELL:
            return self._uses_of_cell(self._variable(variable))
        touched = [
            (where, operation)
            for where, operation in enumerate(self.operations)
            if self.arguments[where] == variable and (operation == _STORE or operation in _LOAD)
        ]
        if self.operations[at] != _STORE or [each for _, each in touched].count(_STORE) > 1:
            return [()]
        return [self._attributes_after(where) for where, each in touched if each != _STORE]

    def _variable(self, number: int) -> str:
        code = self.code
        cells = [name for name in code.co_cellvars if name not in code.co_varnames]
        return str([*code.co_varnames, *cells, *code.co_freevars][number])

    def _uses_of_cell(self, name: str) -> list[tuple[str, ...]]:
        """Return the same for a variable that nested code sees too."""
        found: list[tuple[str, ...]] = []
        stores = 0 if name in self.code.co_freevars else -1
        for at, operation in enumerate(self.operations):
            if operation not in _OF_CELLS or self._variable(self.arguments[at]) != name:
                continue
            if operation == _STORE_CELL:
                stores += 1
            else:
                found.append(self._attributes_after(at))
        for constant in self.code.co_consts:
            if isinstance(constant, CodeType) and name in constant.co_freevars:
                found += _Reader(constant)._uses_of_cell(name)
        return [()] if stores > 0 else found

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
