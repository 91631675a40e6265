# ruff: noqa: E501 - a case is one line, to be compared with its neighbours
"""Stored files open in a fresh process that knows nothing of this package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.store import Store

ROWS = 40_000


def _array() -> Any:
    return np.arange(ROWS, dtype="f4").reshape(-1, 4)


def _frame() -> Any:
    return pd.DataFrame({"x": np.arange(ROWS) * 0.5, "s": ["a", None] * (ROWS // 2)})


def _polars() -> Any:
    pl = pytest.importorskip("polars")
    return pl.DataFrame(
        {"x": np.arange(ROWS) * 0.5, "s": ["a long string, not inline", None] * (ROWS // 2)}
    )


def _tensors() -> Any:
    torch = pytest.importorskip("torch", reason="needs the extra [torch]")
    return torch.nn.Linear(ROWS, 2).state_dict()


# what is stored → what reads it, alone, and what it finds
OPENED: dict[str, tuple[Callable[[], Any], str, Any]] = {
    "npy": (_array, "import numpy; out = numpy.load(path, mmap_mode='r')[-1].tolist()", [39996.0, 39997.0, 39998.0, 39999.0]),
    "pandas": (_frame, "import pandas; f = pandas.read_feather(path); out = [float(f.x.sum()), int(f.s.isna().sum()), list(f)]", [399990000.0, 20000, ["x", "s"]]),
    "pandas in pyarrow": (_frame, "import pyarrow as pa; t = pa.ipc.open_file(path).read_all(); out = [t.num_rows, t['s'].null_count]", [40000, 20000]),
    "pandas in polars": (_frame, "import polars; f = polars.read_ipc(path); out = [f.height, f['s'].null_count()]", [40000, 20000]),
    "arrow": (lambda: pa.table({"x": range(ROWS)}), "import pyarrow as pa; out = pa.ipc.open_file(pa.memory_map(path)).read_all()['x'][7].as_py()", 7),
    "arrow in pandas": (lambda: pa.table({"x": range(ROWS)}), "import pandas; out = int(pandas.read_feather(path).x[7])", 7),
    "polars": (_polars, "import polars; f = polars.read_ipc(path); out = [f['x'].sum(), f['s'].null_count(), f['s'][0]]", [399990000.0, 20000, "a long string, not inline"]),
    "polars in pyarrow": (_polars, "import pyarrow as pa; t = pa.ipc.open_file(path).read_all(); out = [t.num_rows, t['s'][0].as_py()]", [40000, "a long string, not inline"]),
    "polars in pandas": (_polars, "import pandas; out = pandas.read_feather(path).s[0]", "a long string, not inline"),
    "safetensors": (_tensors, "import safetensors.numpy; t = safetensors.numpy.load_file(path); out = sorted((n, a.shape) for n, a in t.items())", [["bias", [2]], ["weight", [2, 40000]]]),
    "json": (lambda: {"a": [0.5] * ROWS}, "import json; out = len(json.load(open(path))['a'])", ROWS),
    "text": (lambda: "é" * ROWS, "out = len(open(path, encoding='utf-8').read())", ROWS),
    "bytes": (lambda: b"ab" * ROWS, "out = open(path, 'rb').read()[-2:].decode()", "ab"),
    "pickle": (lambda: (1, np.arange(ROWS)), "import pickle; a, b = pickle.load(open(path, 'rb')); out = [a, int(b[-1])]", [1, 39999]),
}  # fmt: skip
PROLOGUE = """
import json, sys
class Barred:
    def find_spec(self, name, *rest):
        assert name.partition(".")[0] != "prefect_mlpipe", "not alone"
sys.meta_path.insert(0, Barred())
path = sys.argv[1]
"""


def opened(path: object, code: str) -> Any:
    """What a process finds in a file that must not import this package."""
    script = f"{PROLOGUE}{code}\nprint(json.dumps(out))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", OPENED)
def test_a_stored_file_opens_without_us(name: str, tmp_path: Path) -> None:
    make, code, expected = OPENED[name]
    if "polars" in code:
        pytest.importorskip("polars")
    store = Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))
    stored = store.put(make())
    assert stored.format == name.partition(" ")[0]
    assert opened(store.local_path(stored), code) == expected


def test_files_and_folders_are_stored_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "a.csv").write_text("x\n1\n")
    store = Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))
    read = "import pathlib; out = pathlib.Path(path{}).read_text()"
    for value, inside in (
        (File(tmp_path / "data" / "sub" / "a.csv"), ""),
        (Folder(tmp_path / "data"), " + '/sub/a.csv'"),
    ):
        assert opened(store.local_path(store.put(value)), read.format(inside)) == "x\n1\n"
