"""What the annotations of a step do: fields of its output, files among its inputs, provable
clashes.

Reads types, never values. Knows nothing of graphs or stores. An annotation that cannot be resolved
counts as `Any`: a pipeline must not fail because a type is only imported for a type checker.
"""

from __future__ import annotations

import abc
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prefect_mlpipe.errors import OutputMismatch


class Fields(NamedTuple):
    """The declared fields of an output: each is a stored value of its own.

    Attributes:
        kind: `namedtuple`, `tuple` or `typeddict`.
        names: names of the fields; positions as text for a plain tuple.
        types: declared types, in the same order.
        make: the class that holds them.
    """

    kind: str
    names: tuple[str, ...]
    types: tuple[Any, ...]
    make: type

    def split(self, value: Any, step: str) -> dict[str, Any]:
        """Return field → value of a returned value, or raise `OutputMismatch`."""
        expected: Any = dict if self.kind == "typeddict" else self.make
        fits = isinstance(value, expected) and len(value) == len(self.names)
        if fits and self.kind == "typeddict":
            fits = set(value) == set(self.names)
        if not fits:
            raise OutputMismatch(
                f"Step '{step}' did not return what it declares.",
                {
                    "declares": f"{self.make.__name__} with fields {', '.join(self.names)}",
                    "returned": _describe(value),
                },
                "Return exactly the declared fields, or change the return annotation.",
            )
        if self.kind == "typeddict":
            return {name: value[name] for name in self.names}
        return dict(zip(self.names, value, strict=True))

    def join(self, values: Mapping[str, Any]) -> Any:
        """Return the whole made of its fields."""
        ordered = [values[name] for name in self.names]
        if self.kind == "typeddict":
            return dict(zip(self.names, ordered, strict=True))
        return tuple(ordered) if self.kind == "tuple" else self.make(*ordered)

    def type_of(self, name: str) -> Any:
        """Return the declared type of one field."""
        return self.types[self.names.index(name)]


def _describe(value: Any) -> str:
    size = f" of length {len(value)}" if isinstance(value, tuple | list | dict) else ""
    return f"{type(value).__name__}{size}"


def resolve_annotations(
    function: Callable[..., Any], names: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return parameter (and `return`) → type; `Any` for what cannot be resolved.

    Args:
        function: whose annotations are read.
        names: further names that annotations may use: locals of the place of definition.
    """
    plain = inspect.unwrap(function)
    spelled = spelled_annotations(plain)
    scope = {**getattr(plain, "__globals__", {}), **(names or {}), **_closure_names(plain)}
    return {name: _resolve(spelling, scope) for name, spelling in spelled.items()}


def spelled_annotations(holder: Any) -> Mapping[str, Any]:
    """Return the annotations of a function, or of a class without its bases, as they are written.

    Since Python 3.14 they are evaluated when they are asked for, and a name may be unknown yet, or
    be meant for a type checker alone: what names it stays text, as all do in modules that say
    `from __future__ import annotations`.
    """
    if sys.version_info >= (3, 14):
        import annotationlib

        known = annotationlib.get_annotations(holder, format=annotationlib.Format.FORWARDREF)
        if not any(map(_is_open, known.values())):
            return known
        texts = annotationlib.get_annotations(holder, format=annotationlib.Format.STRING)
        return {name: texts[name] if _is_open(each) else each for name, each in known.items()}
    own = vars(holder) if isinstance(holder, type) else None
    spelled = getattr(holder, "__annotations__", {}) if own is None else own.get("__annotations__")
    return spelled if isinstance(spelled, Mapping) else {}  # a type of C has a descriptor there


def _is_open(annotation: Any) -> bool:
    """Return whether something in an annotation could not be evaluated where it stands."""
    if isinstance(annotation, typing.ForwardRef):
        return getattr(annotation, "__owner__", None) is not None
    return any(map(_is_open, typing.get_args(annotation)))


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function, whatever its annotations name."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def _closure_names(function: Any) -> dict[str, Any]:
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    found = {}
    for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # an empty cell: defined later than the step
            continue
    return found


def _resolve(spelling: Any, scope: dict[str, Any]) -> Any:
    def probe() -> None: ...

    probe.__annotations__ = {"x": spelling}
    try:
        return typing.get_type_hints(probe, globalns=scope, include_extras=True)["x"]
    except Exception:  # any code may stand in an annotation, and it may fail in any way
        return Any


def declared_fields(annotation: Any) -> Fields | None:
    """Return the fields that a return annotation declares, or `None`."""
    annotation = bare(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return Fields("tuple", tuple(map(str, range(len(arguments)))), arguments, tuple)
    if not isinstance(annotation, type):
        return None
    if typing.is_typeddict(annotation):
        hints = _class_hints(annotation)
        if not hints or getattr(annotation, "__optional_keys__", None):
            return None
        return Fields("typeddict", tuple(hints), tuple(hints.values()), annotation)
    names = getattr(annotation, "_fields", None)
    if issubclass(annotation, tuple) and names:
        hints = _class_hints(annotation)
        return Fields(
            "namedtuple", tuple(names), tuple(hints.get(name, Any) for name in names), annotation
        )
    return None


def _class_hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception:  # as in `_resolve`
        return dict.fromkeys(spelled_annotations(cls), Any)


def bare(annotation: Any) -> Any:
    """Return an annotation without `Annotated`, `Final`, `Required` and new-type wrappers."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        else:
            return annotation


def clash(produced: Any, declared: Any) -> bool:
    """Return whether a value of the produced type can never be of the declared one.

    Only what can be proven: plain classes and unions of them, with no subclass relation either way,
    and no implicit numeric promotion. Everything else passes.
    """
    if produced is Any or declared is Any or produced is declared:
        return False
    left, right = _alternatives(produced), _alternatives(declared)
    if left is None or right is None:
        return False
    return not any(_compatible(one, other) for one in left for other in right)


# PEP 484: an int is acceptable where a float is declared, and either where a complex is.
_PROMOTIONS = {(int, float), (int, complex), (float, complex), (bool, float), (bool, complex)}


def _compatible(one: type, other: type) -> bool:
    return issubclass(one, other) or issubclass(other, one) or (one, other) in _PROMOTIONS


def _alternatives(annotation: Any) -> list[type] | None:
    """Return the plain classes that an annotation stands for, `None` where that cannot be said."""
    annotation = bare(annotation)
    if annotation is None:
        return [type(None)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [_alternatives(member) for member in typing.get_args(annotation)]
        if any(member is None for member in members):
            return None
        return [cls for member in members for cls in member or []]
    origin = typing.get_origin(annotation)
    cls = annotation if origin is None else origin
    if not isinstance(cls, type) or cls is object or typing.is_typeddict(cls):
        return [dict] if isinstance(cls, type) and typing.is_typeddict(cls) else None
    # A protocol or an abstract class can be met without inheriting from it.
    if getattr(cls, "_is_protocol", False) or inspect.isabstract(cls) or _has_subclass_hook(cls):
        return None
    return [cls]


def _has_subclass_hook(cls: type) -> bool:
    """Return whether the class, or its metaclass, decides itself what counts as one of it."""
    metaclasses = set(inspect.getmro(type(cls))) - {type, object, abc.ABCMeta}
    hooks = {"__subclasscheck__", "__instancecheck__"}
    if any(not hooks.isdisjoint(vars(meta)) for meta in metaclasses):
        return True
    return "__subclasshook__" in vars(cls)
