"""The benchmarks run, and print ratios beside their targets. How fast anything is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.benchmarks.measure import Row, table


def test_a_ratio_above_its_target_is_called_missed() -> None:
    rows = [Row("fast", 1.0, "peer", 2.0, 0.5), Row("slow", 3.0, "peer", 2.0, 1.0)]
    assert [(row.ratio, row.verdict) for row in rows] == [(0.5, "met"), (1.5, "MISSED")]
    assert [line.split()[-1] for line in table(rows).splitlines()[1:]] == ["met", "MISSED"]


def test_benchmarks_are_picked_by_name_and_print_json() -> None:
    pytest.importorskip("joblib", reason="needs the extra [dev]")
    command = [sys.executable, "-m", "tests.benchmarks", "chain", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    executed, reused = json.loads(done.stdout)
    assert executed["target"] == 1.0
    assert reused["target"] == 0.7
    assert executed["ratio"] > 0
    assert reused["hint_ours_ms"] > 0
