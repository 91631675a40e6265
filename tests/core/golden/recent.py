"""Code that only later Pythons can read, as text."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

SCALE = 10
SOURCES: dict[tuple[int, int], str] = {
    (3, 12): """
        type Pair[T] = tuple[T, T]

        def first[T: (int, str)](pair: Pair[T]) -> T:
            return pair[0]

        def listed[*Ts, **P](call, *args: *Ts) -> Pair[int]:
            return [call(each) for each in args], {each: [call(each)] for each in args}

        class Box[T]:
            def __init__(self, content: T) -> None:
                self.content = content

            size = len(str(T))

            def open(self) -> T:
                return self.content

        def nested_texts(value):
            return f"{", ".join(f"{each!r:>{len(value)}}" for each in value)}\\n"

        def inlined(rows):
            rows = [row for row in rows]
            return [lambda: row for row in rows], rows
    """,
    (3, 13): """
        type Default[T = int] = list[T]

        def with_default[T = str](value: T) -> Default[T]:
            return value
    """,
    (3, 14): """
        def template(name):
            return t"hello {name!r:>10} {name=}"

        def without_parentheses(work):
            try:
                return work()
            except ValueError, TypeError:
                return None

        def small():
            return 1, 255, 256, [each for each in (1, 2, 3)]
    """,
}


def functions() -> dict[str, Any]:
    """The functions and classes of this Python's sources, by name."""
    found: dict[str, Any] = {}
    for version, source in SOURCES.items():
        if sys.version_info >= version:
            names: dict[str, Any] = {"__name__": "recent"}
            exec(compile(textwrap.dedent(source), "<recent>", "exec"), names)
            found |= {name: each for name, each in names.items() if not name.startswith("__")}
    return found
