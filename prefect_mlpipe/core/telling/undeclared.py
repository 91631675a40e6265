"""Find what code reads that no key can hold: the environment, the clock, chance, files by name.

Knows the bytecode of functions and the public names of what is not a value. Knows nothing of steps
or of what a step declares. It looks at the user's functions alone: how a library comes by its
results is the library's affair.

Worth arguing: it is a lint, so it says nothing where it is not sure. A clock that is read twice and
subtracted is a stopwatch; a path that is put together is not followed; a generator with a seed is
an ordinary value. The walk of the code is not touched: names that it has collected already tell
which few functions are worth a second look.
"""

from __future__ import annotations

import builtins
import dis
import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Final, NamedTuple

from prefect_mlpipe.core.code import Code
from prefect_mlpipe.core.encoding.parts import label_of_module, owner_of_function
from prefect_mlpipe.core.environment import owner_of
from prefect_mlpipe.core.reading.shapes import shape_of
from prefect_mlpipe.core.telling.telltales import (
    NOW_ONLY_WITH,
    PATH_WORDS,
    READING_METHODS,
    TOPS,
    is_read,
    public_names,
    telltale,
)


class Use(NamedTuple):
    """One thing outside the key that one function reads.

    Attributes:
        label: the function, as `helpers.fetch`.
        kind: `environment`, `folder`, `chance`, `seed`, `time`, `file`, `outside`, `code`,
            `global`.
        name: what is read, by its public name: `os.environ`, `random.shuffle`.
        detail: which one, where the code says it: the variable, the path.
    """

    label: str
    kind: str
    name: str
    detail: str | None = None


def undeclared(code: Code) -> list[Use]:
    """Return what the user's functions among this code read from outside, each thing once."""
    found: dict[Use, None] = {}
    public = public_names()
    for label, values in code.values.items():
        for function in values:
            if isinstance(function, FunctionType) and owner_of_function(function).kind == "user":
                found.update(dict.fromkeys(_Function(label, function, public).uses()))
    return [use for use in found if use.kind != "global" or use.name in code.parts]


class _Call(NamedTuple):
    """Arguments of a call; one that is not a constant is `_UNKNOWN`."""

    positional: list[object]
    named: Mapping[str, object]

    def first(self, *words: str) -> object:
        """Return the first argument, by position or under one of these names."""
        if self.positional:
            return self.positional[0]
        return next((self.named[word] for word in words if word in self.named), None)


_UNKNOWN: Final = object()
_STORE_GLOBAL: Final = dis.opmap["STORE_GLOBAL"]
_SILENT: Final = frozenset(
    {
        *("CACHE", "NOP", "RESUME", "EXTENDED_ARG", "PRECALL", "NOT_TAKEN"),
        *("COPY_FREE_VARS", "MAKE_CELL"),
    }
)
_GLOBAL: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTE: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_DELETING: Final = frozenset({"STORE_SUBSCR", "DELETE_SUBSCR"})


class _Function:
    """Looks into one function of the user's."""

    def __init__(
        self, label: str, function: FunctionType, public: Mapping[int, tuple[str, object]]
    ) -> None:
        self._label = label
        self._function = function
        self._names = function.__globals__
        self._public = public
        # Names of the body that an import in it binds: to what, by its dotted name.
        self._bound: dict[str, str] = {}

    def uses(self) -> Iterator[Use]:
        """Yield what it reads from outside."""
        code = self._function.__code__
        shape = shape_of(code)
        tells = any(map(self._tells, shape.chains)) or any(
            found.name.partition(".")[0] in TOPS for found in shape.imports
        )
        if tells or _changes_globals(code):
            uses = [*self._in_code(code)]
            watch = _is_stopwatch(code, uses)
            yield from (use for use in uses if not (watch and use.kind == "time"))

    def _tells(self, chain: tuple[str, ...]) -> bool:
        root, rest = self._root(chain[0]), chain[1:]
        while rest and isinstance(root, ModuleType):
            root, rest = self._public_name(vars(root).get(rest[0])), rest[1:]
        if isinstance(root, str):
            return telltale(".".join((root, *rest)))[1] is not None
        return isinstance(root, PurePath) and bool(rest)

    def _root(self, name: str) -> object:
        """Return the dotted name of what a global stands for, else its value."""
        value = self._names.get(name, _UNKNOWN)
        if value is _UNKNOWN:
            return f"builtins.{name}" if name in vars(builtins) else _UNKNOWN
        return self._public_name(value)

    def _public_name(self, value: object) -> object:
        """Return a dotted name; a module of the user's, or any other value, as it is."""
        if isinstance(value, ModuleType):
            return value if owner_of(value.__name__).kind == "user" else value.__name__
        name, known = self._public.get(id(value), ("", _UNKNOWN))
        if known is value:
            return name
        return _UNKNOWN if isinstance(value, str) else value

    def _in_code(self, code: CodeType) -> Iterator[Use]:
        instructions = [each for each in dis.get_instructions(code) if each.opname not in _SILENT]
        for at, each in enumerate(instructions):
            if each.opname == "IMPORT_NAME":
                self._import(instructions, at)
            elif each.opname == "STORE_GLOBAL":
                yield self._use("global", f"{label_of_module(self._names)}.{each.argval}")
            else:
                yield from self._from(instructions, at)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._in_code(constant)

    def _use(self, kind: str, name: str, detail: str | None = None) -> Use:
        return Use(self._label, kind, name.removeprefix("builtins."), detail)

    def _import(self, instructions: list[dis.Instruction], at: int) -> None:
        """Note what the names stand for that an import binds."""
        name = str(instructions[at].argval)
        wanted = instructions[at - 1].argval if at else None
        if not name or (at > 1 and instructions[at - 2].argval):
            return  # of the user's own package
        member: str | None = None
        for each in instructions[at + 1 :]:
            if each.opname == "IMPORT_FROM":
                member = str(each.argval)
            elif each.opname.startswith("STORE_"):
                whole = name if member else name.partition(".")[0]
                self._bound[str(each.argval)] = f"{name}.{member}" if wanted else whole
                if wanted is None:
                    return
            elif each.opname not in ("SWAP", "POP_TOP") or wanted:
                return

    def _from(self, instructions: list[dis.Instruction], at: int) -> Iterator[Use]:
        """Yield what is read by the attributes that follow a load of a name."""
        each = instructions[at]
        if each.opname in _GLOBAL:
            root = self._root(each.argval)
        elif each.opname.startswith(("LOAD_FAST", "LOAD_DEREF")):
            both = each.argval if isinstance(each.argval, tuple) else (each.argval,)
            root = self._bound.get(str(both[-1]), _UNKNOWN)
        else:
            return
        after = at + 1
        while after < len(instructions) and instructions[after].opname in _ATTRIBUTE:
            attribute = str(instructions[after].argval)
            if isinstance(root, str):
                root = f"{root}.{attribute}"
            elif isinstance(root, ModuleType):
                root = self._public_name(vars(root).get(attribute))
            elif isinstance(root, PurePath) and attribute in READING_METHODS:
                yield self._use("file", f"Path.{attribute}", str(root))
                return
            else:
                return
            after += 1
        if isinstance(root, str):
            yield from self._found(root, instructions, at, after)

    def _found(
        self, name: str, instructions: list[dis.Instruction], at: int, after: int
    ) -> Iterator[Use]:
        head, kind = telltale(name)
        rest = name[len(head) + 1 :]
        following = instructions[after : after + 30]
        if kind == "environment":
            use = self._environment(head, rest, instructions[at - 1] if at else None, following)
            if use is not None:
                yield use
        elif kind == "unseeded":
            call = self._call(following)
            if call is not None and call.first("seed", "x") is None:
                yield self._use("chance", head)
        elif kind == "seed":
            call = self._call(following)
            none = call is not None and call.first("seed", "a") is None
            yield self._use("chance" if none else "seed", head)
        elif kind == "time":
            call = self._call(following)
            given = len(call.positional) if call is not None else 0
            if given <= NOW_ONLY_WITH.get(head, given):
                yield self._use("time", head)
        elif kind == "file":
            yield from self._file(head, following)
        elif kind == "code":
            yield from self._loaded_code(head, following)
        elif kind is not None:
            yield self._use(kind, head)

    def _environment(
        self,
        name: str,
        rest: str,
        before: dis.Instruction | None,
        following: list[dis.Instruction],
    ) -> Use | None:
        if name != "os.environ" or rest in ("get", "pop"):
            call = self._call(following)
            variable = call.first("key") if call is not None else None
        elif rest in ("setdefault", "update", "clear"):
            return None  # a step that sets one reads what it has set
        else:
            upto = next((i for i, e in enumerate(following) if "SUBSCR" in e.opname), None)
            if upto is not None and following[upto].opname in _DELETING:
                return None
            variable = self._constant(following[0]) if following else None
            if following and following[0].opname == "CONTAINS_OP" and before is not None:
                variable = self._constant(before)
        return self._use("environment", name, variable if isinstance(variable, str) else None)

    def _file(self, name: str, following: list[dis.Instruction]) -> Iterator[Use]:
        call = self._call(following)
        path = call.first(*PATH_WORDS) if call is not None else None
        if not isinstance(path, str | PurePath) or call is None:
            return
        if name == "pathlib.Path":
            end = next(i for i, each in enumerate(following) if each.opname.startswith("CALL"))
            after = following[end + 1].argval if end + 1 < len(following) else None
            if after not in READING_METHODS:
                return
        elif not is_read(call.positional[1:2] or [call.named.get("mode", "r")]):
            return
        kind = "outside" if "://" in str(path) else "file"
        yield self._use(kind, name, str(path))

    def _loaded_code(self, name: str, following: list[dis.Instruction]) -> Iterator[Use]:
        call = self._call(following)
        wanted = call.first("name") if call is not None else _UNKNOWN
        if isinstance(wanted, str) and not wanted.startswith("."):
            if wanted not in sys.modules or owner_of(wanted).kind != "user":
                return  # of a library: its version counts, if anything else of it is reached
            yield self._use("code", name, wanted)
            return
        yield self._use("code", name)

    # -- arguments ------------------------------------------------------------------------------

    def _constant(self, each: dis.Instruction) -> object:
        """Return the constant that an instruction loads, be it a global that holds one."""
        if each.opname in ("LOAD_CONST", "LOAD_SMALL_INT", "RETURN_CONST"):
            return each.argval
        if each.opname in _GLOBAL:
            value = self._names.get(each.argval, _UNKNOWN)
            return value if isinstance(value, str | PurePath) else _UNKNOWN
        return _UNKNOWN

    def _call(self, following: list[dis.Instruction]) -> _Call | None:
        """Return the arguments of the call of what has just been loaded.

        `None` if it is not called, or not in a straight line.
        """
        stack: list[object] = []
        names: tuple[str, ...] = ()
        for number, each in enumerate(following):
            if each.opname == "PUSH_NULL" and not number:
                continue
            if each.opname == "KW_NAMES":
                names = each.argval
                continue
            if each.opname in ("CALL", "CALL_KW"):
                if each.opname == "CALL_KW":
                    names = stack.pop() if stack else ()  # type: ignore[assignment]
                if each.arg == len(stack):
                    return _arguments(stack, names)
            pops = _pops(each)
            if pops is None or pops > len(stack):
                return None
            pushes = dis.stack_effect(each.opcode, each.arg, jump=False) + pops
            if each.opname == "CALL_KW":
                pops, pushes = pops - 1, pushes  # its names are popped already
            del stack[len(stack) - pops :]
            stack += [self._constant(each), *([_UNKNOWN] * pushes)][:pushes]
        return None


def _arguments(stack: list[object], names: object) -> _Call:
    if not isinstance(names, tuple):
        return _Call([*stack], {})
    first = len(stack) - len(names)
    return _Call(stack[:first], dict(zip(names, stack[first:], strict=True)))


def _pops(each: dis.Instruction) -> int | None:
    """Return how many values an instruction takes; `None` if it is none of an argument."""
    name, argument = each.opname, each.arg or 0
    if name.startswith("BUILD_"):
        return 2 * argument if name == "BUILD_MAP" else argument
    if name.startswith(("LOAD_ATTR", "LOAD_METHOD", "UNARY_", "FORMAT_SIMPLE", "CONVERT_VALUE")):
        return 1
    if name == "FORMAT_VALUE":
        return 2 if argument & 4 else 1
    if name.startswith("LOAD_SUPER"):
        return None
    if name.startswith(("LOAD_", "PUSH_NULL")):
        return 0
    if name in ("BINARY_OP", "BINARY_SUBSCR", "COMPARE_OP", "CONTAINS_OP", "FORMAT_WITH_SPEC"):
        return 2
    if name == "CALL":
        return argument + 2
    return argument + 3 if name == "CALL_KW" else None


def _changes_globals(code: CodeType) -> bool:
    if _STORE_GLOBAL in code.co_code[::2]:
        return True
    return any(_changes_globals(each) for each in code.co_consts if isinstance(each, CodeType))


def _is_stopwatch(code: CodeType, uses: list[Use]) -> bool:
    """Whether a function reads the clock only to say how long something takes."""
    if all(use.kind != "time" for use in uses):
        return False
    instructions = [*dis.get_instructions(code)]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            instructions += dis.get_instructions(constant)
    clocks = {use.name.rpartition(".")[2] for use in uses if use.kind == "time"}
    readings = sum(each.argval in clocks for each in instructions if each.opname.startswith("LOAD"))
    subtracts = any(e.opname == "BINARY_OP" and e.argrepr in ("-", "-=") for e in instructions)
    return readings > 1 and subtracts
