"""The page on formats: its examples do what it says, here and on a worker process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_mlpipe.core.formats import registry
from tests.server import Server

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "formats.md").read_text()
EXAMPLES: dict[str, str] = dict(
    re.findall(r"<!-- test: (\w+) -->\n```python\n(.*?)```\n", PAGE, re.DOTALL)
)

STEPS = """
from prefect_mlpipe import current, pipeline, step

@step
def draw(seed: int) -> Image.Image:
    return Image.frombytes("RGB", (64, 64), random.Random(seed).randbytes(64 * 64 * 3))

@step
def corner(picture: Image.Image) -> list[int]:
    return list(picture.getpixel((0, 0)))

@pipeline
def picture(seed: int) -> list[int]:
    return corner(draw(seed))
"""

RUN = """
import json
import random
import sys

from PIL import Image

from pictures import picture
from prefect_mlpipe.compute import Dask

def main():
    found = []
    on_dask = picture.with_options(compute={"default": Dask(n_workers=1)})
    for seed, run in ((1, picture.local), (2, on_dask)):
        assert run(seed) == list(random.Random(seed).randbytes(64 * 64 * 3)[:3])
        last = picture.runs.last()
        path = last["draw"].output.path()
        with Image.open(path) as opened:
            found.append([opened.format, str(path).endswith(".png"), last["corner"].state])
    print(json.dumps(found))

if __name__ == "__main__":
    main()
"""


def test_ten_lines_make_a_format_that_steps_and_workers_know(tmp_path: Path, api: Server) -> None:
    pytest.importorskip("PIL", reason="needs the extra [dev]")
    (tmp_path / "pictures.py").write_text("import random\n" + EXAMPLES["png"] + STEPS)
    (tmp_path / "run.py").write_text(RUN)
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={**os.environ, "PREFECT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [["PNG", True, "ran"]] * 2


def test_the_example_has_ten_lines_of_its_own() -> None:
    lines = [line for line in EXAMPLES["png"].splitlines() if line and "import" not in line]
    assert len(lines) <= 10


def test_every_format_of_ours_is_in_the_table() -> None:
    table = PAGE.partition("\n\nWhat is not larger")[0]
    for name in (*registry._by_name, *registry._on_demand):
        format = registry.format_named(name) if name != "safetensors" else None
        assert f"`{format.suffix if format else '.safetensors'}`" in table


def test_the_readme_leads_to_the_page_and_its_links_lead_somewhere() -> None:
    assert "(docs/formats.md)" in (ROOT / "README.md").read_text()
    headings = {
        title.strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= headings
