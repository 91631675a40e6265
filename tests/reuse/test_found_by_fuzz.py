"""Cases that random edits found (`python -m tests.fuzz`), made small."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab, Row, check

ROWS = [
    Row(
        "a name that a body imports and does not use does not take its whole module",
        {
            "helpers.py": "def clean(x): return x + 1",
            "main.py": """
                @step
                def work(x: int) -> int:
                    from helpers import clean
                    ran("work")
                    return x

                @pipeline
                def main(x: int = 1) -> int:
                    return work(x)
            """,
        },
        {"helpers.py": "def clean(x): return x + 1\n\ndef other(x): return x"},
        "reuse",
    ),
    Row(
        "a named tuple gets a method in place of one that all have",
        {
            "shapes.py": """
                from typing import NamedTuple

                class Point(NamedTuple):
                    x: int
            """,
            "main.py": """
                from shapes import Point

                @step
                def work(x: int) -> str:
                    ran("work")
                    return repr(Point(x))

                @pipeline
                def main(x: int = 1) -> str:
                    return work(x)
            """,
        },
        {
            "shapes.py": """
                from typing import NamedTuple

                class Point(NamedTuple):
                    x: int

                    def __repr__(self):
                        return "a point"
            """
        },
        "rerun",
        "code changed: shapes.Point",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_found_by_fuzz(lab: Lab, row: Row) -> None:
    check(lab, row)
