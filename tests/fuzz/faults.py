"""Faults that can be planted in the reader of code, one at a time, as a developer might make them.

Each replaces a few words in the source of one function, in place: whoever holds the function gets
the faulty one. A fault whose words are no longer found is an error; then say it in the new words.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from prefect_mlpipe.core import bytecode, classes, code, encode, objects, parts, reach
from prefect_mlpipe.engine import keying


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: what is broken.
        function: where.
        old, new: what stands there, and what is put in its place.
    """

    name: str
    function: Callable[..., Any]
    old: str
    new: str


class StaleFault(Exception):
    """The words that a fault replaces do not stand there, or not once."""


def faulty_source(fault: Fault) -> str:
    """The source of the function with the fault in it."""
    source = textwrap.dedent(inspect.getsource(fault.function))
    if source.count(fault.old) != 1:
        found = source.count(fault.old)
        raise StaleFault(
            f"{fault.name}: {fault.old!r} stands {found} times in {fault.function.__qualname__}"
        )
    return source.replace(fault.old, fault.new)


def plant(name: str) -> None:
    """Plant a fault for the rest of this process."""
    fault = BY_NAME[name]
    function: Any = inspect.unwrap(fault.function)
    names = dict(vars(sys.modules[function.__module__]))
    exec(compile(faulty_source(fault), f"<{name}>", "exec", dont_inherit=True), names)
    function.__code__ = names[function.__name__].__code__


_READER = bytecode._Reader
_SNAPSHOT = code._Snapshot

FAULTS: tuple[Fault, ...] = (
    Fault(
        "defaults",
        reach._held,
        '*(("default ", *each) for each in zip(names, defaults, strict=True)),',
        "",
    ),
    Fault("keyword defaults", reach._held, "for name in sorted(keywords)", "for name in ()"),
    Fault("closure cells", reach._held, "zip(code.co_freevars, function.__closure__ or (),", "zip((), (),"),
    Fault("function attributes", reach._held, "for name in sorted(attributes)", "for name in ()"),
    Fault("constants", _READER._constant, "            return value\n", "            return None\n"),
    Fault(
        "types of constants",
        _READER._constant,
        "            return value\n",
        "            return str(value)\n",
    ),
    Fault(
        "names of attributes",
        _READER._name,
        "    number = self.names",
        "    if operation in _ATTRIBUTE:\n        return 0\n    number = self.names",
    ),
    Fault("names of globals", _READER.shape, "names = tuple(self.names)", "names = ()"),
    Fault("operators", _READER._numbers, "out.append(argument)", "out.append(argument if meaning else 0)"),
    Fault("jumps", _READER._numbers, "argument = ordinals[argument]", "argument = 0"),
    Fault("exception table", _READER.shape, "self._handlers()", "()"),
    Fault("nested code", _READER._constant, '("code", inner.digest)', '("code", b"")'),
    Fault(
        "globals of nested code",
        _READER._constant,
        "self.chains.update(dict.fromkeys(inner.chains))",
        "pass",
    ),
    Fault(
        "imports of nested code",
        _READER._constant,
        "self.imports.update(dict.fromkeys(inner.imports))",
        "pass",
    ),
    Fault("arguments", _READER.shape, "counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)", "counts = ()"),
    Fault("names of arguments", _READER.shape, "signature = (code.co_flags & _FLAGS, counts, arguments, shown)", "signature = (code.co_flags & _FLAGS, counts)"),
    Fault("kind of function", _READER.shape, "code.co_flags & _FLAGS", "0"),
    Fault("imports in bodies", reach._function_parts, "for each in shape.imports", "for each in ()"),
    Fault("members of imports", reach._imported, "for chain in found.chains:", "for chain in ():"),
    Fault("all globals but one", reach._function_parts, "for chain in shape.chains", "for chain in shape.chains[:1]"),
    Fault("globals by name", reach._function_parts, "if shape.reads_all and", "if False and"),
    Fault(
        "depth above one",
        reach._function_parts,
        "reads = [read_global(encoder, names, chain) for chain in shape.chains]",
        "reads = [read_global(encoder, names, chain) for chain in shape.chains] if encoder.code_depth < 3 else []",
    ),
    Fault("values of globals", reach.read_value, "return whole", 'return b"value"'),
    Fault(
        "modules held",
        reach._read_module,
        "return encode_module(encoder, module)",
        'return text("module")',
    ),
    Fault(
        "other modules",
        reach._read_module,
        "return _read(encoder, vars(module), chain)",
        "return text(chain[0])",
    ),
    Fault("registry of singledispatch", reach._singledispatch, "registry.items()", "()"),
    Fault("methods' objects", reach._method, "own_and_whole(encoder, each.__self__)[1]", 'b""'),
    Fault("what is bound", reach._builtin_function, "encoder.encode(each.__self__)", 'b""'),
    Fault("bases", classes._class_parts, "(type(cls), *cls.__bases__)", "(type(cls),)"),
    Fault("metaclass", classes._class_parts, "(type(cls), *cls.__bases__)", "cls.__bases__"),
    Fault(
        "attributes of classes",
        classes._counted,
        "if name not in noise\n",
        "if name not in noise and callable(value)\n",
    ),
    Fault("methods", classes._counted, "if name not in noise\n", "if name not in noise and not callable(value)\n"),
    Fault("members of enums", classes._declared, "each._value_) for name", "None) for name"),
    Fault("fields of dataclasses", classes._field, '"default", ', ""),
    Fault("factories of fields", classes._field, '"default_factory", ', ""),
    Fault("defaults of named tuples", classes._declared, '("defaults", cls._field_defaults)', '("defaults", ())'),
    Fault("state of objects", objects.object_parts, "if state is not None:", "if False:"),
    Fault("class of objects", objects.object_parts, "encoder.encode(function), encoder.encode(arguments)", 'b""'),
    Fault("items of objects", objects.object_parts, "if items is not None:", "if False:"),
    Fault("values of dicts", encode._dict, "pieces.append(encoder.encode(item))", "pass"),
    Fault("order of dicts", encode._flat_dict, "_marshalled(value)", "_marshalled(dict(sorted(value.items(), key=repr)))"),
    Fault("kind of container", encode._flat_sequence, "_marshalled(value)", "_marshalled(list(value))"),
    Fault("remembered by name", bytecode.shape_of, "key = id(code)", "key = hash((code.co_name, code.co_firstlineno))"),
    Fault("bindings watched", _SNAPSHOT.holds, "for names, name, value in self.bindings.values():", "for names, name, value in ():"),
    Fault("attributes watched", _SNAPSHOT.holds, "for holder, values in self.attributes.values():", "for holder, values in ():"),
    Fault("contents watched", _SNAPSHOT.holds, "return all(_unchanged(content) for content in self.contents.values())", "return True"),
    Fault("snapshots held", _SNAPSHOT.holds, "        for names, name, value in", "        return True\n        for names, name, value in"),
    Fault("arguments by text", keying.Keyer.manifest, "inputs[name] = digest(value)", "inputs[name] = digest(str(value))"),
    Fault("outputs by source", keying.Keyer.manifest, "inputs[name] = known.digest", "inputs[name] = _source(value)"),
    Fault("decorators", code.CodeReader._read, "snapshot = _snapshots.get(key)", "plain = inspect.unwrap(plain)\n    snapshot = _snapshots.get(key)"),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
