"""The page on deployments: its example holds, and the files that it names are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe.deploy.completions import EVENT

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "deployments.md").read_text()


def test_the_example_of_a_completion_is_a_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_MLPIPE_STORE", str(tmp_path))
    found = re.search(r"<!-- test: completion -->\n```python\n(.*?)```\n", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "page_completion.py").write_text(found[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    page: Any = importlib.import_module("page_completion")
    [trigger] = page.deployment.triggers
    assert trigger.expect == {EVENT}
    assert page.score.local(page.prep.local(4).table) == 0 + 1 + 2 + 3


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((\.\./.*?)\)", PAGE))))
def test_files_that_it_names_are_there(link: str) -> None:
    assert (ROOT / "docs" / link).exists()


@pytest.mark.parametrize("anchor", sorted(set(re.findall(r"\]\(#(.*?)\)", PAGE))))
def test_headings_that_it_names_are_there(anchor: str) -> None:
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    slugs = {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}
    assert anchor in slugs
