"""Faults that can be planted in the reader of code, one at a time, as a developer might make them.

Each replaces a few words in the source of one function, in place: whoever holds the function gets
the faulty one. A fault whose words are no longer found is an error; then say it in the new words.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: what is broken.
        where: module and function, `core.reading.functions:held_by`.
        old, new: what stands there, and what is put in its place.
    """

    name: str
    where: str
    old: str
    new: str


class StaleFault(Exception):
    """The words that a fault replaces do not stand there, or not once."""


def faulty(fault: Fault) -> tuple[Any, str]:
    """The function that a fault is in, and its source with the fault."""
    module, _, names = fault.where.partition(":")
    function: Any = importlib.import_module(f"prefect_mlpipe.{module}")
    for name in names.split("."):
        function = getattr(function, name, None)
    if function is None:
        raise StaleFault(f"{fault.name}: there is no {fault.where}")
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(fault.old) != 1:
        found = source.count(fault.old)
        raise StaleFault(f"{fault.name}: {fault.old!r} stands {found} times in {fault.where}")
    return function, source.replace(fault.old, fault.new)


def plant(name: str) -> None:
    """Plant a fault for the rest of this process."""
    function, source = faulty(BY_NAME[name])
    names = dict(vars(sys.modules[function.__module__]))
    exec(compile(source, f"<{name}>", "exec", dont_inherit=True), names)
    function.__code__ = names[function.__name__].__code__


_FIELDS = "core.reading.shapes:_Reader._fields"
_NAMES = "core.reading.shapes:_names_and_chains"
_CONSTANT = "core.reading.shapes:_Reader._constant"
_SIGNATURE = "core.reading.shapes:_signature"
_HELD = "core.reading.functions:held_by"
_FUNCTION = "core.reading.functions:_function_parts"
_OBJECT = "core.encoding.objects:object_parts"
_HOLDS = "core.code:_Snapshot.holds"
_MANIFEST = "engine.keying:Keyer.manifest"

FAULTS: tuple[Fault, ...] = (
    # what a code object does
    Fault("constants", _FIELDS, "instructions, names, constants)", "instructions, names)"),
    Fault(
        "types of constants",
        _FIELDS,
        "instructions, names, constants)",
        "instructions, names, [*map(str, constants)])",
    ),
    Fault("names", _FIELDS, "instructions, names, constants)", "instructions, constants)"),
    Fault(
        "names of attributes",
        _NAMES,
        "names.append(name)",
        "names.append('' if operation in ATTRIBUTE else name)",
    ),
    Fault("operators", _FIELDS, "(operations, body.content(),", "(operations,"),
    Fault(
        "instructions", _FIELDS, "(operations, body.content(),", "(len(operations), body.content(),"
    ),
    Fault("jumps", _FIELDS, "body.targets", "()"),
    Fault("exception table", _FIELDS, "body.handlers)", "())"),
    Fault(
        "nested code", _CONSTANT, "self.nested.append(self._fields(value))", "self._fields(value)"
    ),
    Fault(
        "globals of nested code",
        _CONSTANT,
        "self.nested.append(self._fields(value))",
        "known = {**self.chains}\n    self.nested.append(self._fields(value))\n"
        "    self.chains = known",
    ),
    Fault(
        "imports of nested code",
        _CONSTANT,
        "self.nested.append(self._fields(value))",
        "known = {**self.imports}\n    self.nested.append(self._fields(value))\n"
        "    self.imports = known",
    ),
    Fault("arguments", _SIGNATURE, "counts, arguments)", ")"),
    Fault(
        "remembered by place",
        "core.reading.shapes:shape_of",
        "key = id(code)\n"
        "    known = _shapes.get(key)\n    if known is not None and known[0]() is code:",
        "key = hash((code.co_qualname, code.co_firstlineno))\n"
        "    known = _shapes.get(key)\n    if known is not None and known[0]() is not None:",
    ),
    # what a function holds and reads
    Fault("defaults", _HELD, "for each in zip(names, defaults, strict=True)", "for each in ()"),
    Fault("keyword defaults", _HELD, "for name in sorted(keywords)", "for name in ()"),
    Fault(
        "closure cells",
        _HELD,
        "zip(code.co_freevars, function.__closure__ or (), strict=True)",
        "()",
    ),
    Fault("function attributes", _HELD, "for name in sorted(attributes)", "for name in ()"),
    Fault("imports in bodies", _FUNCTION, "for each in shape.imports", "for each in ()"),
    Fault(
        "members of imports",
        "core.reading.globals:imported",
        "for chain in found.chains:",
        "for chain in ():",
    ),
    Fault("first global only", _FUNCTION, "names, shape.chains)", "names, shape.chains[:1])"),
    Fault("last global only", _FUNCTION, "names, shape.chains)", "names, shape.chains[-1:])"),
    Fault("globals by name", _FUNCTION, "if shape.reads_all and", "if False and"),
    Fault(
        "deeper than one call",
        _FUNCTION,
        "names, shape.chains)",
        "names, shape.chains if encoder.code_depth < 2 else ())",
    ),
    Fault(
        "deeper than two calls",
        _FUNCTION,
        "names, shape.chains)",
        "names, shape.chains if encoder.code_depth < 3 else ())",
    ),
    Fault(
        "values of globals", "core.reading.globals:_read_value", "return whole", 'return b"value"'
    ),
    Fault(
        "modules held",
        "core.reading.globals:_read_module",
        "if not chain or",
        "if not chain:\n            return b'module'\n        if",
    ),
    Fault(
        "other modules",
        "core.reading.globals:_read_module",
        "return _read(encoder, vars(module), chain)",
        "return text(chain[0])",
    ),
    Fault(
        "registry of singledispatch",
        "core.reading.functions:_singledispatch",
        "for pair in registry.items()",
        "for pair in ()",
    ),
    Fault(
        "objects of methods",
        "core.reading.callables:_method",
        "own_and_whole(encoder, each.__self__)[1]",
        'b""',
    ),
    Fault(
        "decorators",
        "core.code:CodeReader._read",
        "labels = _labels(plain",
        "plain = inspect.unwrap(plain)\n    labels = _labels(plain",
    ),
    # classes and objects
    # What is inherited and not overridden is seen through bases alone, and what is called of a
    # metaclass through the type alone.
    Fault(
        "bases", "core.encoding.classes:_class_parts", "(type(cls), *cls.__bases__)", "(type(cls),)"
    ),
    Fault(
        "metaclass",
        "core.encoding.classes:_class_parts",
        "(type(cls), *cls.__bases__)",
        "cls.__bases__",
    ),
    Fault(
        "attributes of classes",
        "core.encoding.classes:_counted",
        "if name not in noise\n",
        "if name not in noise and callable(value)\n",
    ),
    Fault(
        "methods",
        "core.encoding.classes:_counted",
        "if name not in noise\n",
        "if name not in noise and not callable(value)\n",
    ),
    Fault(
        "members of enums",
        "core.encoding.classes:_declared",
        "each._value_) for name",
        "None) for name",
    ),
    # Most defaults of fields stand in the class and in its `__init__`, too; not those of a class
    # with slots for which `dataclasses` writes no `__init__`.
    Fault("defaults of fields", "core.encoding.classes:_field", '"default", ', ""),
    Fault(
        "defaults of named tuples",
        "core.encoding.classes:_declared",
        '("defaults", cls._field_defaults)',
        '("defaults", ())',
    ),
    Fault("state of objects", _OBJECT, "if state is not None and", "if False and"),
    Fault("what objects are made of", _OBJECT, "encoder.encode(arguments)", 'b""'),
    Fault("items of objects", _OBJECT, "if items is not None:", "if False:"),
    # values
    Fault(
        "values of dicts",
        "core.encoding.encode:_dict",
        "pieces.append(encoder.encode(item))",
        "pass",
    ),
    Fault(
        "order of dicts",
        "core.encoding.encode:_flat_dict",
        "_marshalled(value)",
        "_marshalled(dict(sorted(value.items(), key=repr)))",
    ),
    Fault(
        "kind of container",
        "core.encoding.encode:_flat_sequence",
        "_marshalled(value)",
        "_marshalled(list(value))",
    ),
    Fault(
        "members of lists",
        "core.encoding.encode:_list",
        "for item in value",
        "for item in value[:1]",
    ),
    # what is remembered from run to run
    Fault("bindings watched", _HOLDS, "in self.bindings.values()", "in ()"),
    Fault("attributes watched", _HOLDS, "in self.attributes.values()", "in ()"),
    Fault(
        "contents watched",
        _HOLDS,
        "return all(_unchanged(content) for content in self.contents.values())",
        "return True",
    ),
    # keys
    Fault(
        "arguments by text",
        _MANIFEST,
        "inputs[name] = digest(value)",
        "inputs[name] = digest(str(value))",
    ),
    Fault(
        "outputs by source",
        _MANIFEST,
        "inputs[name] = known.digest",
        "inputs[name] = _source(value)",
    ),
    Fault(
        "arguments with content",
        _MANIFEST,
        "inputs[name], owners, brings = self._literal(step, node, name, value, reference)",
        'inputs[name], owners, brings = "", (), _Bringing(None)',
    ),
    Fault(
        "code",
        "core.manifest:Manifest.walk",
        'yield ("code", "", self.code)',
        'yield ("code", "", "")',
    ),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
