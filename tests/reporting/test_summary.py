from __future__ import annotations

from typing import Any

import pytest

from prefect_mlpipe.core.telling.describing import seconds_text, size_text
from prefect_mlpipe.reporting.summary import (
    MAX_ROWS,
    StepRow,
    counts_text,
    escaped,
    markdown,
    metrics_text,
    saved_text,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0004, "< 1 ms"),
        (0.001, "0.001 s"),
        (0.004, "0.004 s"),
        (0.0567, "0.057 s"),
        (0.1, "0.1 s"),
        (59.94, "59.9 s"),
        (59.99, "1 min 0 s"),
        (60, "1 min 0 s"),
        (725, "12 min 5 s"),
        (3599.9, "1 h 0 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_are_said_in_binary_units(size: int, text: str) -> None:
    assert size_text(size) == text


def test_counts_leave_out_what_did_not_happen() -> None:
    rows = [StepRow("a", "reused"), StepRow("b", "failed"), StepRow("c", "reused")]
    assert counts_text(rows) == "2 reused, 1 failed"
    assert counts_text([]) == ""


def test_only_reused_steps_save_anything() -> None:
    rows = [StepRow("a", "ran", size_bytes=9, seconds=9), StepRow("b", "reused", saved_seconds=2)]
    assert saved_text(rows) == "saved 2.0 s"
    assert saved_text(rows[:1]) == ""


def test_a_page_has_what_failed_first_and_counts_beyond_the_cap() -> None:
    rows = [StepRow(f"old#{i}", "reused") for i in range(MAX_ROWS + 10)]
    rows += [StepRow("train", "failed", "no"), StepRow("load", "ran", "first run", 1.5, 2048)]
    page = markdown(rows, "digits").splitlines()
    table = [line for line in page if line.startswith("| ")]
    assert table[1] == "| train | failed | no |  |  |  |"
    assert table[2] == "| load | ran | first run | 1.5 s | 2.0 KiB |  |"
    assert len(table) == 1 + MAX_ROWS
    assert page[-1] == "… and 12 more: 12 reused."
    assert page[0] == "## digits"


def test_a_page_has_metrics_only_if_there_are_any() -> None:
    rows = [StepRow("load", "ran"), StepRow("train", "ran", metrics="loss=0.1")]
    assert "metrics" not in markdown(rows[:1], "digits")
    page = markdown(rows, "digits")
    assert "| saved | metrics |" in page
    assert "| train | ran |  |  |  |  | loss=0.1 |" in page
    assert "| load | ran |  |  |  |  |  |" in page


@pytest.mark.parametrize(
    ("each", "text"),
    [
        ([{}], ""),
        (
            [{"loss": 0.123456, "rows": 3, "kind": "a b", "ok": True}],
            "loss=0.1235, rows=3, kind=a b, ok=True",
        ),
        ([{"loss": 0.5}, {}, {"loss": 0.25}], "loss=0.25…0.5"),
        ([{"n": 1}, {"n": 1}], "n=1"),
        ([{"kind": "a"}, {"kind": "b"}], "kind=a and 1 more"),
        ([{"curve": [0.5] * 100}], f"curve={str([0.5] * 100)[:39]}…"),
    ],
)
def test_metrics_are_short_and_of_items_a_range(each: list[dict[str, Any]], text: str) -> None:
    assert metrics_text(each) == text


def test_a_page_of_no_steps_says_so() -> None:
    assert "No steps." in markdown([], "digits")


def test_what_markdown_would_read_as_markup_is_escaped() -> None:
    assert escaped("a|b") == r"a\|b"
    assert escaped("*x* _y_ `z`") == r"\*x\* \_y\_ \`z\`"
    assert escaped("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert escaped("one\n| two\n") == r"one \| two"
    assert len(escaped("x" * 5000)) == 300
