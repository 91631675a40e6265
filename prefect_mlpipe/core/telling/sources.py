"""What the parts of some code look like: the source of functions and classes, values in few words.

Knows code objects and source files. Knows nothing of stores or steps, and nothing that it gives is
part of a key.

Worth arguing: a source file may since have become another than the one that was loaded. So it is
compiled again, and its text is believed only where that gives the very code that is loaded, with
the same defaults and attributes. Where it does not there is no source, rather than a wrong one.
"""

from __future__ import annotations

import ast
import functools
import linecache
import sys
from collections.abc import Collection, Iterable, Iterator
from textwrap import dedent
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

from prefect_mlpipe.core.code import Code
from prefect_mlpipe.core.reading.functions import held_by
from prefect_mlpipe.core.reading.shapes import shape_of
from prefect_mlpipe.core.telling.describing import Facts, describe, is_secret

_LONGEST: Final = 40_000  # characters of one source
_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_WRAPPED: Final = (classmethod, staticmethod)
_WORDS: Final = {"default": "default", "attribute": "attribute", "cell": "closure"}


class Looks(NamedTuple):
    """What one part of some code looks like.

    Attributes:
        source: its text; `None` where there is none that can be believed.
        values: what it holds besides, as facts: defaults, closure cells, attributes of a class; of
            a global value what it is.
    """

    source: str | None
    values: Facts

    def to_json(self) -> list[Any]:
        """Return the fields as plain JSON."""
        return list(self)


def looks(code: Code, labels: Collection[str]) -> dict[str, Looks]:
    """Return what some of the parts look like.

    To be asked where the code was just read: of a value that changes it says what it is by now.
    """
    files: dict[str, _File] = {}
    return {
        label: _together([_looks(label, value, files) for value in values])
        for label, values in code.values.items()
        if label in labels
    }


def sources(code: Code) -> dict[str, str]:
    """Return label → source text, as far as there is one that can be believed."""
    found = looks(code, code.parts.keys())
    return {label: each.source for label, each in found.items() if each.source is not None}


def _together(found: list[Looks]) -> Looks:
    """Make one of several parts that share a label, as the lambdas of a module do."""
    if len(found) == 1:
        return found[0]
    texts = [each.source for each in found if each.source is not None]
    complete = "\n".join(dict.fromkeys(texts)) if len(texts) == len(found) else None
    values = {
        f"{place} of #{number}": fact
        for number, each in enumerate(found, start=1)
        for place, fact in each.values.items()
    }
    return Looks(complete, values)


def _looks(label: str, value: object, files: dict[str, _File]) -> Looks:
    if isinstance(value, FunctionType):
        return Looks(_source_of_function(value, files), _held(value))
    if isinstance(value, type):
        return Looks(_source_of_class(value, files), _attributes(value))
    name = label.rpartition(".")[2]
    if type(value) is str and "\n" in value and not is_secret(value, name):
        return Looks(value[:_LONGEST], {"type": "str"})  # a query, a template: a diff shows it best
    return Looks(None, describe(value, name))


def _held(function: FunctionType) -> Facts:
    facts: Facts = {}
    for place, name, value in held_by(function):
        if isinstance(value, FunctionType | type):
            continue  # a part of its own
        word = _WORDS[place.split()[0]]
        facts |= _named(f"{word} {name}", describe(value, name, limit=20))
    return facts


def _attributes(cls: type) -> Facts:
    facts: Facts = {}
    for name, value in vars(cls).items():
        code = isinstance(value, FunctionType | type | property | classmethod | staticmethod)
        if not (name.startswith("_") or code or hasattr(type(value), "__get__")):
            facts |= _named(f"attribute {name}", describe(value, name, limit=20))
    return facts


def _named(name: str, facts: Facts) -> Facts:
    return {f"{name} {place}".strip(): fact for place, fact in facts.items()}


# From what is loaded to its text


class _File:
    """A source file as it is now, and the code that it gives."""

    def __init__(self, name: str, names: dict[str, Any]) -> None:
        linecache.checkcache(name)
        self._lines = linecache.getlines(name, names)
        self._codes = _compiled(name, "".join(self._lines))

    def named(self, qualified_name: str) -> list[CodeType]:
        """Return the functions and class bodies of a name."""
        return self._codes.get(qualified_name, [])

    def text(self, code: CodeType) -> str:
        """Return the lines that some code of this file stands in."""
        return dedent("".join(self._lines[code.co_firstlineno - 1 : _last_line(code)])).rstrip()


@functools.lru_cache(maxsize=128)  # the steps of a run share their files
def _compiled(name: str, text: str) -> dict[str, list[CodeType]]:
    """Return the functions and class bodies of a source, by their qualified names."""
    found: dict[str, list[CodeType]] = {}
    try:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # a notebook's cell may await
        whole = compile(text, name, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError):  # it is being edited
        return found
    for code in _inner(whole):
        found.setdefault(code.co_qualname, []).append(code)
    return found


def _inner(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inner(constant)


def _last_line(code: CodeType) -> int:
    ends = [end or start or 0 for start, end, _, _ in code.co_positions()]
    return max([code.co_firstlineno, *ends, *map(_last_line, _nested(code))])


def _nested(code: CodeType) -> Iterable[CodeType]:
    return (constant for constant in code.co_consts if isinstance(constant, CodeType))


def _file_of(code: CodeType, names: dict[str, Any], files: dict[str, _File]) -> _File:
    found = files.get(code.co_filename)
    if found is None:
        found = files[code.co_filename] = _File(code.co_filename, names)
    return found


def _source_of_function(function: FunctionType, files: dict[str, _File]) -> str | None:
    code = function.__code__
    file = _file_of(code, function.__globals__, files)
    wanted = shape_of(code).digest
    # Two of one name and shape: an edit above may have moved the file's lines, but not their order.
    near = sorted(
        file.named(code.co_qualname), key=lambda c: abs(c.co_firstlineno - code.co_firstlineno)
    )
    for candidate in near:
        if shape_of(candidate).digest == wanted:
            text = file.text(candidate)
            return text[:_LONGEST] if _has_defaults(function, text) else None
    return None


def _has_defaults(function: FunctionType, text: str) -> bool:
    """Whether the defaults that a text spells out are those of the function."""
    if not (function.__defaults__ or function.__kwdefaults__):
        return True
    spelled = _definition(text)
    if not isinstance(spelled, ast.FunctionDef | ast.AsyncFunctionDef):
        return True  # a lambda stands somewhere in its line
    arguments = spelled.args
    by_name = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    keywords = function.__kwdefaults__ or {}
    pairs = [
        *zip(arguments.defaults, function.__defaults__ or (), strict=False),
        *((node, keywords.get(argument.arg)) for argument, node in by_name if node is not None),
    ]
    return all(_says(node, value) for node, value in pairs)


def _definition(text: str) -> ast.stmt | None:
    try:
        body = ast.parse(text).body
    except SyntaxError:  # a part of a statement: a lambda among arguments
        return None
    return body[0] if body else None


def _says(node: ast.expr, value: object) -> bool:
    """Whether an expression gives a value, as far as one can tell without evaluating it."""
    try:
        spelled = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return True  # a name, a call: nothing is said of the value
    return type(spelled) is type(value) and repr(spelled) == repr(value)


def _source_of_class(cls: type, files: dict[str, _File]) -> str | None:
    """Return the text of a class whose functions and plain attributes are those that are loaded."""
    functions = list(_functions_of(cls))
    file = _file_of_class(cls, functions, files)
    for body in file.named(cls.__qualname__) if file is not None else ():
        text = file.text(body) if file is not None else ""
        definition = _definition(text)
        if isinstance(definition, ast.ClassDef) and _is_class(cls, definition, body):
            return text[:_LONGEST]
    return None


def _functions_of(cls: type) -> Iterator[FunctionType]:
    for name, value in vars(cls).items():
        inner = value.__func__ if isinstance(value, _WRAPPED) else value
        inner = inner.fget if isinstance(inner, property) else inner
        expected = f"{cls.__qualname__}.{name}"
        if isinstance(inner, FunctionType) and inner.__code__.co_qualname == expected:
            yield inner


def _file_of_class(
    cls: type, functions: list[FunctionType], files: dict[str, _File]
) -> _File | None:
    if functions:
        return _file_of(functions[0].__code__, functions[0].__globals__, files)
    names = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    name = names.get("__file__")
    if not isinstance(name, str):
        return None
    found = files.get(name)
    if found is None:
        found = files[name] = _File(name, names)
    return found


def _is_class(cls: type, definition: ast.ClassDef, body: CodeType) -> bool:
    spelled = {(code.co_qualname, shape_of(code).digest) for code in _nested(body)}
    for function in _functions_of(cls):
        if (function.__code__.co_qualname, shape_of(function.__code__).digest) not in spelled:
            return False
    own = vars(cls)
    for statement in definition.body:
        if isinstance(statement, _DEFINITIONS) and statement.name not in own:
            return False
        for name, value in _assigned(statement):
            if name in own and not _says_attribute(value, own[name]):
                return False
    return True


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
    elif isinstance(statement, ast.AnnAssign):
        target, value = statement.target, statement.value
        if isinstance(target, ast.Name) and value is not None:
            yield target.id, value


def _says_attribute(node: ast.expr, value: object) -> bool:
    if hasattr(value, "_value_"):  # a member of an enum
        value = value._value_
    plain = isinstance(value, int | float | complex | str | bytes | tuple | list | dict | set)
    return not plain or _says(node, value)
