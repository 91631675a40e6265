"""Cases that a hostile reader adds: what is installed, how, notebooks, and compiled code."""

from __future__ import annotations

import base64
import hashlib
import importlib.machinery
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import edited, rerun, reuse, work

CLEAN = "def clean(x): return x + 1\ndef other(x): return x\n"
SITE = """
import site, sys
from pathlib import Path
site.addsitedir(str(Path(__file__).parent / "site-packages"))
"""
NOTEBOOK = """
import linecache, os, sys, types
from cells import CELLS

space = types.ModuleType("__main__")
sys.modules["__main__"] = space
for number, source in enumerate(CELLS, 1):
    name = f"/tmp/ipykernel_{os.getpid()}/{number}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), vars(space))
main = space.main
"""
CELLS = [
    "from prefect_mlpipe import pipeline, step\nfrom log import ran\nK = 3",
    "def clean(x): return x + K",
    "@step\ndef work(x: int) -> int:\n    ran('work')\n    return clean(x)",
    "@pipeline\ndef main(x: int = 1) -> int:\n    return work(x)",
]


def notebook(*cells: str) -> dict[str, str]:
    """Cells, run one after the other as IPython runs them."""
    return {"main.py": NOTEBOOK, "cells.py": f"CELLS = {[*cells]!r}"}


def installed(
    name: str, version: str, files: dict[str, str], direct_url: str = ""
) -> dict[str, str]:
    """A distribution as pip installs it: files and metadata, digests of files included."""
    info = f"site-packages/{name.replace('-', '_')}-{version}.dist-info"
    record = [f"{path},sha256={_sha256(source)},{len(source)}\n" for path, source in files.items()]
    found = {
        **{f"site-packages/{path}": source for path, source in files.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/RECORD": "".join(record) + f"{info.partition('/')[2]}/METADATA,,\n",
    }
    if direct_url:
        found[f"{info}/direct_url.json"] = direct_url
    return found


def _sha256(source: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(source.encode()).digest()).decode().strip("=")


def without(files: dict[str, str], folder: str) -> dict[str, str | None]:
    """Remove what lies in a folder."""
    return {name: None for name in files if name.startswith(folder)}


MAIN = work("tidy.clean(x)", SITE + "import tidy")
FIRST = installed("tidy", "1.0", {"tidy/__init__.py": CLEAN})
LOCAL = '{"url": "file:///home/somebody/tidy", "dir_info": {}}'
EDITABLE = '{"url": "file:///home/somebody/tidy", "dir_info": {"editable": true}}'
BY_PATH = {
    **MAIN,
    **installed("tidy", "1.0", {"tidy.pth": "import sys; sys.path.append('src')\n"}, EDITABLE),
    "src/tidy.py": CLEAN,
}
BY_FINDER = {
    **MAIN,
    **installed(
        "tidy",
        "1.0",
        {
            "__editable__.tidy.pth": "import __editable___tidy; __editable___tidy.install()\n",
            "__editable___tidy.py": """
import sys
from importlib.util import spec_from_file_location

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return spec_from_file_location(name, "src/tidy.py") if name == "tidy" else None

def install():
    sys.meta_path.append(Finder)
""",
        },
        EDITABLE,
    ),
    "src/tidy.py": CLEAN,
}
SHARED = {
    **work("firm.far.clean(x) + firm.near.clean(x)", SITE + "import firm.far, firm.near"),
    **installed("firm-far", "1.0", {"firm/far.py": CLEAN}),
    "firm/near.py": CLEAN,
}
PLUGINS = {
    **work(
        "[each(x) for each in PLUGINS]",
        SITE
        + """
from importlib.metadata import entry_points
PLUGINS = [each.load() for each in entry_points(group="tidy.plugins")]
""",
    ),
    **installed("plug", "1.0", {"plug.pth": "import sys; sys.path.append('src')\n"}, EDITABLE),
    "site-packages/plug-1.0.dist-info/entry_points.txt": "[tidy.plugins]\nclean = plug:clean\n",
    "src/plug.py": CLEAN,
}
UFUNC = """
import numpy as np
def clean(x): return x + 1
every = np.frompyfunc(clean, 1, 1)
"""
WRAPT = """
import wrapt

def doubled(by):
    @wrapt.decorator
    def wrapper(wrapped, instance, args, kwargs):
        return wrapped(*args, **kwargs) * by
    return wrapper

@doubled(2)
def clean(x):
    return x + 1
"""

ROWS = [
    Row(
        "an installed library gets another version",
        {**MAIN, **FIRST},
        {
            **without(FIRST, "site-packages/tidy-1.0"),
            **installed("tidy", "2.0", {"tidy/__init__.py": CLEAN.replace("+ 1", "+ 2")}),
        },
        "rerun",
        "environment changed: tidy 1.0 → 2.0",
    ),
    Row(
        "an installed library is only written otherwise",
        {**MAIN, **FIRST},
        {"site-packages/tidy/__init__.py": CLEAN + "# the end\n"},
        "reuse",
    ),
    Row(
        "what was installed from a folder is installed again without a new version",
        {**MAIN, **installed("tidy", "1.0", {"tidy/__init__.py": CLEAN}, LOCAL)},
        installed("tidy", "1.0", {"tidy/__init__.py": CLEAN.replace("+ 1", "+ 2")}, LOCAL),
        "rerun",
        "environment changed: tidy 1.0 (files 3e6fe818) → 1.0 (files 96dc8cb0)",
    ),
    Row(
        "the same is installed from another folder",
        {**MAIN, **installed("tidy", "1.0", {"tidy/__init__.py": CLEAN}, LOCAL)},
        installed("tidy", "1.0", {"tidy/__init__.py": CLEAN}, LOCAL.replace("somebody", "another")),
        "reuse",
    ),
    rerun(
        "an editable install that adds a path changes",
        BY_PATH,
        "+ 1",
        "+ 2",
        "code changed: tidy.clean",
        file="src/tidy.py",
    ),
    rerun(
        "an editable install that has a finder changes",
        BY_FINDER,
        "+ 1",
        "+ 2",
        "code changed: tidy.clean",
        file="src/tidy.py",
    ),
    reuse(
        "what the step does not reach changes in an editable install",
        BY_FINDER,
        "return x\n",
        "return -x\n",
        file="src/tidy.py",
    ),
    rerun(
        "the user's part of a namespace changes that is shared with an installed one",
        SHARED,
        "+ 1",
        "+ 2",
        "code changed: firm.near.clean",
        file="firm/near.py",
    ),
    Row(
        "the installed part of a namespace gets another version",
        SHARED,
        {
            **without(SHARED, "site-packages/firm_far"),
            **installed("firm-far", "1.1", {"firm/far.py": CLEAN.replace("+ 1", "+ 2")}),
        },
        "rerun",
        "environment changed: firm-far 1.0 → 1.1",
    ),
    rerun(
        "a plugin that was found by its entry point changes",
        PLUGINS,
        "+ 1",
        "+ 2",
        "code changed: plug.clean",
        file="src/plug.py",
    ),
    Row(
        "an entry point leads to another plugin",
        PLUGINS,
        edited(
            PLUGINS,
            "site-packages/plug-1.0.dist-info/entry_points.txt",
            "plug:clean",
            "plug:other",
        ),
        "rerun",
        "code changed: main.PLUGINS",
    ),
    Row(
        "a cell of a notebook changes a helper",
        notebook(*CELLS),
        notebook(CELLS[0], "def clean(x): return x - K", *CELLS[2:]),
        "rerun",
        "code changed: __main__.clean",
    ),
    Row(
        "a later cell of a notebook defines a helper anew",
        notebook(*CELLS),
        notebook(*CELLS, "def clean(x): return x - K"),
        "rerun",
        "code changed: __main__.clean",
    ),
    Row(
        "a later cell of a notebook sets a constant",
        notebook(*CELLS),
        notebook(*CELLS, "K = 4"),
        "rerun",
        "code changed: __main__.K",
    ),
    Row(
        "cells of a notebook are moved and others come between",
        notebook(*CELLS),
        notebook("print('hello')", CELLS[1], *CELLS, "L = 4"),
        "reuse",
    ),
    Row(
        "a notebook becomes a module",
        notebook(*CELLS),
        {"main.py": "\n".join(CELLS)},
        "reuse",
    ),
    rerun(
        "what numpy.frompyfunc was made of changes",
        work("every([x, 2]).tolist()", UFUNC),
        "x + 1",
        "x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "numpy.frompyfunc gets another identity",
        work("every.identity", UFUNC),
        "clean, 1, 1",
        "clean, 1, 1, identity=3",
        "code changed: main.every",
    ),
    reuse(
        "the docstring in a numpy.frompyfunc changes",
        work("every([x, 2]).tolist()", UFUNC),
        "def clean(x): return x + 1",
        'def clean(x):\n    "Clean."\n    return x + 1',
    ),
    rerun(
        "a ufunc of numpy is exchanged for another",
        work("int(op(x, 3))", "import numpy as np\nop = np.add"),
        "np.add",
        "np.multiply",
        "code changed: main.op",
    ),
    rerun(
        "what numpy.vectorize was told changes",
        work(
            "every([x, 2]).dtype.name",
            "import numpy as np\nevery = np.vectorize(abs, otypes='d')",
        ),
        "otypes='d'",
        "otypes='f'",
        "code changed: main.every",
    ),
]
PROXIES = [
    rerun(
        "a function below a decorator made with wrapt changes",
        work("clean(x)", WRAPT),
        "x + 1",
        "x + 2",
        "code changed: main.clean",
    ),
    rerun(
        "a decorator made with wrapt changes",
        work("clean(x)", WRAPT),
        "* by",
        "- by",
        "code changed: main.doubled.<locals>.wrapper",
    ),
]
EXTENSION = """
#include <Python.h>
static PyObject *clean(PyObject *self, PyObject *x) {
    return PyLong_FromLong(PyLong_AsLong(x) + 1);
}
static PyMethodDef methods[] = {{"clean", clean, METH_O, "Clean."}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "fast", NULL, -1, methods};
PyMODINIT_FUNC PyInit_fast(void) { return PyModule_Create(&module); }
"""
LIBRARY = "int clean(int x) { return x + 1; }"
LOADED = """
import ctypes, os
FAST = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fast.so"))
FAST.clean.argtypes = [ctypes.c_int]
"""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_installed(lab: Lab, row: Row) -> None:
    check(lab, row)


@pytest.mark.parametrize("row", PROXIES, ids=lambda row: row.name)
def test_proxies(lab: Lab, row: Row) -> None:
    pytest.importorskip("wrapt")
    check(lab, row)


def _compiled(source: str, place: Path) -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc")
    headers = Path(sysconfig.get_paths()["include"])
    if compiler is None or not (headers / "Python.h").exists():
        pytest.skip("no compiler, or no headers of Python")
    (place / "fast.c").write_text(source)
    target = place / "compiled.so"
    command = [compiler, "-shared", "-fPIC", f"-I{headers}", "fast.c", "-o", str(target)]
    subprocess.run(command, cwd=place, check=True)
    return target.read_bytes()


def _rows(lab: Lab, source: str, main: dict[str, str], file: str, why: str) -> list[Row]:
    before = _compiled(source, lab.place)
    after = _compiled(source.replace("+ 1", "+ 2"), lab.place)
    return [
        Row("", {**main, file: before}, {file: after}, "rerun", why),
        Row("", {**main, file: before}, {"notes.txt": "no code"}, "reuse"),
    ]


@pytest.mark.parametrize("at", [0, 1], ids=["changes", "stays"])
def test_a_compiled_module_counts_as_a_whole(lab: Lab, at: int) -> None:
    file = f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    main = work("fast.clean(x)", "import fast")
    check(lab, _rows(lab, EXTENSION, main, file, "code changed: fast")[at])


@pytest.mark.parametrize("at", [0, 1], ids=["changes", "stays"])
def test_a_library_loaded_by_ctypes_counts_by_its_file(lab: Lab, at: int) -> None:
    main = work("FAST.clean(x)", LOADED)
    check(lab, _rows(lab, LIBRARY, main, "fast.so", "code changed: main.FAST")[at])


def test_what_a_function_of_ctypes_was_told_counts(lab: Lab) -> None:
    files = {**work("str(FAST.clean(x))", LOADED), "fast.so": _compiled(LIBRARY, lab.place)}
    told = "FAST.clean.restype = ctypes.c_bool\n" + "FAST.clean.argtypes"
    change = edited(files, "main.py", "FAST.clean.argtypes", told)  # type: ignore[arg-type]
    check(lab, Row("", files, change, "rerun", "code changed: main.FAST"))
