"""Encode classes: the user's by what they do, others by name.

Knows what Python, dataclasses, enums, named tuples, pydantic and attrs write into a class. Knows
nothing of modules or keys.

Worth arguing: the name of a class counts, that of its module does not. `A(1)` and `B(1)` are two
things even where both classes have the same body; a class of `__main__`, of an import and of a copy
by value are one.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, Final

from blake3 import blake3

from prefect_mlpipe.core.annotations import spelled_annotations
from prefect_mlpipe.core.encoding.encode import Encoder, branch
from prefect_mlpipe.core.encoding.parts import (
    Attributes,
    Part,
    foreign,
    label_of_module,
    own_and_whole,
    owner_of_function,
)
from prefect_mlpipe.core.encoding.pieces import Piece, count, record, text, unordered
from prefect_mlpipe.core.encoding.type_hints import Annotation, annotations_of
from prefect_mlpipe.core.environment import USER, Owner, owner_of

# What Python and libraries keep in a class for themselves.
_NOISE: Final = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__attrs_attrs__",
        "__attrs_props__",
        "__class_vars__",
        "__classdictcell__",
        "__conditional_annotations__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__private_attributes__",
        "__protocol_attrs__",
        "__non_callable_proto_members__",
        "__qualname__",
        "__signature__",
        "__slotnames__",
        "__static_attributes__",
        "__type_params__",
        "__weakref__",
        "_abc_impl",
    }
)

_ENUM_NOISE: Final = frozenset(
    {
        "_generate_next_value_",
        "_hashable_values_",
        "_member_map_",
        "_member_names_",
        "_member_type_",
        "_new_member_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_use_args_",
        "_value2member_map_",
        "_value_repr_",
        "__new__",
    }
)

_NAMED_TUPLE_NOISE: Final = frozenset(
    {
        "__getnewargs__",
        "__match_args__",
        "__new__",
        "__replace__",
        "__repr__",
        "__slots__",
        "_asdict",
        "_field_defaults",
        "_fields",
        "_make",
        "_replace",
    }
)

_SLOTS: Final = (types.MemberDescriptorType, types.GetSetDescriptorType)
_FIELD_INFO: Final = (
    "default",
    "default_factory",
    "alias",
    "validation_alias",
    "serialization_alias",
    "discriminator",
    "exclude",
    "frozen",
    "init",
    "init_var",
    "kw_only",
    "metadata",
    "validate_default",
)
_PRIVATE: Final = ("default", "default_factory")
_ATTRS_FIELD: Final = (
    "name",
    "default",
    "validator",
    "repr",
    "eq",
    "order",
    "hash",
    "init",
    "converter",
    "metadata",
    "kw_only",
    "alias",
    "on_setattr",
)


def module_of_class(cls: type) -> str | None:
    """Return the name of the module that a class stands in, `None` if it says none.

    Some classes of extension modules say only the last part (scikit-learn's losses: `_loss`).
    """
    module = getattr(cls, "__module__", None)
    if not isinstance(module, str):
        return None
    if module not in sys.modules:
        for name, found in list(sys.modules.items()):
            if name.endswith(f".{module}") and getattr(found, cls.__name__, None) is cls:
                return name
    return module


def owner_of_class(cls: type) -> Owner:
    """Return whose a class is."""
    module = module_of_class(cls)
    owner = USER if module is None else owner_of(module)
    if module is not None and owner.kind != "user" and not _is_found(cls, module):
        # A copy by value may share no more than its module's name with what is loaded here.
        functions = (each for each in vars(cls).values() if isinstance(each, FunctionType))
        owner = next(map(owner_of_function, functions), owner)
    made = owner.kind == "installed" and "<locals>" in cls.__qualname__
    return USER if made else owner  # made by a library, maybe of what the user gave it


def _is_found(cls: type, module: str) -> bool:
    found: Any = sys.modules.get(module)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls


def label_of_class(cls: type) -> str:
    """Return the module-qualified name of a class."""
    module = str(cls.__module__)
    found = sys.modules.get(module)  # an object may have taken the place of a module
    names = vars(found) if isinstance(found, types.ModuleType) else {"__name__": module}
    return f"{label_of_module(names)}.{cls.__qualname__}"


def encode_class(encoder: Encoder, cls: type) -> Piece:
    """Encode a class."""
    owner = owner_of_class(cls)
    if owner.kind != "user":
        piece = foreign(encoder, owner, str(module_of_class(cls)), cls.__qualname__)
        added = added_by_user(cls) if encoder.code_depth and encoder.code_as is None else {}
        return _extended(encoder, cls, piece, added) if added else piece
    label = label_of_class(cls)
    return encoder.in_code(cls, label, lambda _, value: _class_parts(encoder, value, label))


def added_by_user(cls: type) -> dict[str, FunctionType]:
    """Return the functions of the user's that were put into a class of a library."""
    library = str(cls.__module__).partition(".")[0]
    return {
        name: value
        for name, value in vars(cls).items()
        if type(value) is FunctionType
        and str(value.__globals__.get("__name__")).partition(".")[0] != library
        and owner_of_function(value).kind == "user"
    }


def _extended(
    encoder: Encoder, cls: type, piece: bytes, added: Mapping[str, FunctionType]
) -> Piece:
    def parts(encoder: Encoder, _: object) -> Sequence[Piece]:
        encoder.reach.append(Attributes(cls, class_values(cls)))
        return record("extended", piece, encoder.encode(dict(sorted(added.items()))))

    return encoder.in_code(cls, label_of_class(cls), parts)


def _class_parts(encoder: Encoder, cls: type, label: str) -> Sequence[Piece]:
    owns: list[bytes] = [text(cls.__name__)]
    pieces: list[Piece] = [text(cls.__name__)]
    encoder.reach.append(Attributes(cls, class_values(cls)))
    for base in (type(cls), *cls.__bases__):
        pieces.append(encoder.encode(base))
        owns.append(text(base.__name__))
    for name, value in (*_counted(cls), *_declared(cls)):
        if f"{label}.{name}" in encoder.ignore:
            continue
        encoder.trail.append((f"{label}.{name}", len(encoder.open)))
        own, whole = own_and_whole(encoder, value)
        encoder.trail.pop()
        owns += (text(name), own)
        pieces += (text(name), whole)
    encoder.reach.append(Part(label, blake3(b"".join(owns)).digest(), cls))
    return record("class", count(len(cls.__bases__)), *pieces)


def class_values(cls: type) -> tuple[object, ...]:
    """Return what a class is made of, each to be compared by identity."""
    return (*cls.__bases__, *vars(cls).values())


def _counted(cls: type) -> list[tuple[str, object]]:
    """Return the attributes that count, by name."""
    noise = _NOISE
    if isinstance(cls, enum.EnumMeta):
        noise = noise | _ENUM_NOISE | frozenset(cls.__members__)
    elif _is_named_tuple(cls):
        noise = noise | {name for name in _NAMED_TUPLE_NOISE if not _is_written(cls, name)}
    inherited = [vars(base) for base in cls.__mro__[1:]]
    return [
        (name, value)
        for name, value in sorted(vars(cls).items())
        if name not in noise
        and not name.startswith("__pydantic_")
        and not isinstance(value, _SLOTS)
        and not _is_inherited(name, value, inherited)
    ]


def _is_written(cls: type, name: str) -> bool:
    """Whether somebody has put a method of his own in the place of one of every named tuple."""
    value = vars(cls).get(name)
    function = getattr(value, "__func__", value)
    return (
        name != "__new__"
        and isinstance(function, FunctionType)
        and function.__globals__.get("__name__") != "collections"  # of by-value copies, too
    )


def _is_inherited(name: str, value: object, inherited: Sequence[Mapping[str, object]]) -> bool:
    # `Protocol` copies the inherited `__init__` into a class when it is first called.
    if name != "__init__":
        return False
    ours = getattr(value, "__module__", None) == "typing"
    return ours or any(names.get(name) is value for names in inherited)


def _is_named_tuple(cls: type) -> bool:
    return cls.__bases__ == (tuple,) and "_fields" in vars(cls)


def _declared(cls: Any) -> list[tuple[str, object]]:
    """Return what annotations and libraries have made of a class, as plain values."""
    own = vars(cls)
    found: list[tuple[str, object]] = []
    if isinstance(cls, enum.EnumMeta):
        members: Mapping[str, Any] = cls.__members__
        found.append(("members", [(name, each._value_) for name, each in members.items()]))
        if own.get("__new__") is not None and "__new_member__" in own:
            found.append(("new", own["__new_member__"]))
    elif _is_named_tuple(cls):
        found += [("fields", cls._fields), ("defaults", cls._field_defaults)]
        defaults = getattr(cls.__new__, "__defaults__", None)
        if (defaults or ()) != tuple(cls._field_defaults.values()):  # they were set later
            found.append(("defaults that hold", defaults))
    if "__dataclass_fields__" in own:
        found.append(("fields", [_field(each) for each in own["__dataclass_fields__"].values()]))
    if "__attrs_attrs__" in own:
        found.append(("fields", [_picked(each, _ATTRS_FIELD) for each in own["__attrs_attrs__"]]))
    if "__pydantic_decorators__" in own:
        found += _pydantic(cls)
    if _is_declarative(cls):
        found.append(("annotations", annotations_of(cls)))
    return [*found, *_seen_by_checks(cls), *_said_of_bases(own)]


def _seen_by_checks(cls: Any) -> Iterator[tuple[str, object]]:
    """Yield what `isinstance` looks at beside methods and bases."""
    if type(cls) is abc.ABCMeta or (isinstance(cls, abc.ABCMeta) and _registered(cls)):
        yield ("registered", _Registered(cls))
    if vars(cls).get("_is_runtime_protocol"):
        yield ("members", sorted(spelled_annotations(cls)))


def _said_of_bases(own: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield arguments of generic bases, `Box[int]`, and configuration that pydantic keeps."""
    for base in own.get("__orig_bases__", ()):
        if typing.get_origin(base) not in (None, typing.Generic, typing.Protocol):
            yield ("base", base)
    if "__pydantic_config__" in own:
        yield ("config", own["__pydantic_config__"])


class _Registered:
    """The classes that pass for an abstract class: looked at anew each time."""

    def __init__(self, cls: type) -> None:
        self.cls = cls


def _registered(cls: type) -> list[type]:
    references = abc._get_dump(cls)[0]  # type: ignore[attr-defined]
    return [found for reference in references if (found := reference()) is not None]


@branch(_Registered)
def _registered_parts(encoder: Encoder, value: _Registered) -> Sequence[Piece]:
    return record("registered", *unordered(map(encoder.encode, _registered(value.cls))))


def _is_declarative(cls: type) -> bool:
    """Whether something reads the annotations of a class."""
    plain = type(cls) in (type, abc.ABCMeta, enum.EnumMeta)
    protocol = getattr(cls, "_is_protocol", False)
    marks = {"__dataclass_fields__", "__attrs_attrs__"}
    return not protocol and (not plain or _is_named_tuple(cls) or not marks.isdisjoint(vars(cls)))


def _field(field: dataclasses.Field[Any]) -> object:
    kind = getattr(field, "_field_type", None)
    names = ("name", "default", "default_factory", "init", "repr", "hash", "compare", "kw_only")
    return [*_picked(field, names), dict(field.metadata), getattr(kind, "name", "")]


def _picked(value: object, names: Sequence[str]) -> list[object]:
    found = [getattr(value, name, None) for name in names]
    return [dict(each) if isinstance(each, types.MappingProxyType) else each for each in found]


def _pydantic(cls: Any) -> list[tuple[str, object]]:
    own = vars(cls)
    fields = getattr(cls, "__pydantic_fields__", {})
    private = own.get("__private_attributes__") or {}
    infos = own["__pydantic_decorators__"]
    decorators = [
        (kind, name, each.func, _info(each.info))
        for kind in sorted(each.name for each in dataclasses.fields(infos))
        for name, each in getattr(infos, kind).items()
    ]
    return [
        ("fields", {name: _picked(each, _FIELD_INFO) for name, each in fields.items()}),
        ("types", [Annotation(name, each.annotation) for name, each in fields.items()]),
        ("decorators", decorators),
        ("private", {name: _picked(each, _PRIVATE) for name, each in private.items()}),
    ]


def _info(info: Any) -> object:
    """Return what a decorator of pydantic was told; not the id that it keeps of the class."""
    if not dataclasses.is_dataclass(info):
        return None
    return [(each.name, getattr(info, each.name)) for each in dataclasses.fields(info)]


# Descriptors


def _descriptor(*names: str) -> Any:
    def parts(encoder: Encoder, value: Any) -> Sequence[Piece]:
        kind = text(type(value).__name__)
        return record("descriptor", kind, *(encoder.encode(getattr(value, n)) for n in names))

    return lambda encoder, value: encoder.branch(value, parts)


def _own_descriptor(*names: str) -> Any:
    """Encode a descriptor of a class that was derived from one of Python's."""

    def parts(encoder: Encoder, value: Any) -> Sequence[Piece]:
        held = getattr(value, "__dict__", {})
        state = {name: item for name, item in held.items() if not name.startswith("__")}
        inner = (encoder.encode(getattr(value, name)) for name in names)
        return record("own descriptor", encoder.encode(type(value)), encoder.encode(state), *inner)

    return lambda encoder, value: encoder.branch(value, parts)


_DESCRIPTORS: Final[dict[type, tuple[str, ...]]] = {
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    classmethod: ("__func__",),
    staticmethod: ("__func__",),
}


def _find(kind: type) -> Any:
    if issubclass(kind, type):
        return encode_class
    if kind in _DESCRIPTORS:
        return _descriptor(*_DESCRIPTORS[kind])
    for base in (property, classmethod, staticmethod):
        if issubclass(kind, base):
            return _own_descriptor(*_DESCRIPTORS[base])
    return None


Encoder.finders.append(_find)
Encoder.handlers[type] = encode_class
