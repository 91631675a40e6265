"""The table of cases in which others reuse wrongly, row by row."""

from __future__ import annotations

import pytest

from tests.reuse.lab import Lab, Row, check

CODE = [
    Row(
        "03a helper in another user module changed",
        {
            "helpers.py": "def clean(x): return x + 1",
            "main.py": """
                from helpers import clean

                @step
                def work(x: int) -> int:
                    ran("work")
                    return clean(x)

                @pipeline
                def main(x: int = 1) -> int:
                    return work(x)
            """,
        },
        {"helpers.py": "def clean(x): return x + 2"},
        "rerun",
        "code changed: helpers.clean",
    ),
    Row(
        "20g comment changed in a helper",
        {
            "helpers.py": "def clean(x): return x + 1",
            "main.py": """
                from helpers import clean

                @step
                def work(x: int) -> int:
                    ran("work")
                    return clean(x)

                @pipeline
                def main(x: int = 1) -> int:
                    return work(x)
            """,
        },
        {"helpers.py": "def clean(x): return x + 1  # as agreed"},
        "reuse",
    ),
]


@pytest.mark.parametrize("row", CODE, ids=lambda row: row.name)
def test_code(lab: Lab, row: Row) -> None:
    check(lab, row)
