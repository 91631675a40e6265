"""Keys are the same wherever, whenever and however the same code is started on the same values."""

from __future__ import annotations

import compileall
import itertools
import shutil
import sys
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.reuse.independent import (
    HELPERS,
    MAIN,
    PLACE,
    STEPS,
    TELL,
    TYPES,
    files,
    keys,
    main_module,
    program,
)
from tests.reuse.lab import HEADER, Lab, Outcome, Zygote


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> tuple[Outcome, str]:
    """What came of the first run, and its store."""
    lab = Lab(tmp_path_factory.mktemp("first"), zygote)
    lab.write(files())
    outcome = lab.run()
    assert sorted(keys(outcome)) == outcome.ran == ["finish", "load", "rate"]
    return outcome, lab.store


@pytest.fixture
def first(lab: Lab, filled: tuple[Outcome, str]) -> Outcome:
    """The first run; the project is written, at another place, and the store is as it left it."""
    outcome, store = filled
    shutil.copytree(store, lab.store)
    lab.write(files())
    return outcome


def assert_same(first: Outcome, second: Outcome) -> None:
    assert keys(second) == keys(first)
    assert second.value == first.value
    assert second.ran == []


def assert_told(first: Outcome, told: tuple[list[object], list[str]]) -> None:
    """What a program of its own told is what came of a run by import; nothing ran again."""
    (value, found), ran = told
    assert found == keys(first)
    assert f"builtins.float {value!r}" == first.value
    assert ran == []


# The interpreter and its surroundings

FLAGS = [
    "-X dev -X utf8 -X no_debug_ranges -X frozen_modules=off -b -s -u",
    "-W error::SyntaxWarning --check-hash-based-pycs never -X utf8=0 -X int_max_str_digits=0 -B -q",
]


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_of_the_interpreter_do_not_count(lab: Lab, first: Outcome, flags: str) -> None:
    lab.flags = flags.split()
    assert_same(first, lab.run())


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "a hash seed, Tokyo, the C locale": {
        "PYTHONHASHSEED": "0",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "LANG": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
    },
    "another, New York, UTF-8": {
        "PYTHONHASHSEED": "4711",
        "TZ": "America/New_York",
        "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
        "PYTHONUTF8": "1",
    },
    "an encoding, another user, one processor": {
        "PYTHONIOENCODING": "latin-1",
        "LANG": "de_DE.ISO-8859-1",
        "PYTHONDEVMODE": "1",
        "USER": "eve",
        "LOGNAME": "eve",
        "HOSTNAME": "elsewhere",
        "EDITOR": "vi",
        "PYTHON_CPU_COUNT": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONMALLOC": "debug",
    },
}


@pytest.mark.parametrize("environ", ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
def test_environment_variables_do_not_count(
    lab: Lab, first: Outcome, environ: dict[str, str]
) -> None:
    assert_same(first, lab.run(environ=environ, fresh=True))


def test_the_home_of_the_user_does_not_count(lab: Lab, first: Outcome, tmp_path: Path) -> None:
    home = tmp_path / "home of eve"
    home.mkdir()
    environ = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(home)}
    assert_same(first, lab.run(environ=environ, fresh=True))


def test_a_forked_process_and_an_interpreter_of_its_own_agree(lab: Lab, first: Outcome) -> None:
    assert_same(first, lab.run(fresh=True))
    assert_same(first, lab.run(fresh=False))


def test_optimised_code_has_keys_of_its_own(lab: Lab, first: Outcome) -> None:
    for flag in ("-O", "-OO"):
        lab.flags = [flag]
        other = lab.run()
        assert other.ran == ["finish", "load", "rate"], flag
        assert not set(keys(other).values()) & set(keys(first).values())
        assert_same(other, lab.run())
    lab.flags = []
    assert_same(first, lab.run())


@pytest.mark.parametrize("core", ["ctrace", "pytrace", "sysmon"])
def test_coverage_does_not_count(lab: Lab, first: Outcome, core: str) -> None:
    pytest.importorskip("coverage", reason="needs the extra [dev]")
    if core == "sysmon" and sys.version_info < (3, 12):
        pytest.skip("sys.monitoring is of Python 3.12")
    data = lab.place / "coverage"
    branches = ["--branch"] if core == "ctrace" else []
    options = [*branches, f"--data-file={data}", f"--include={lab.folder}/*"]
    lab.flags = ["-m", "coverage", "run", *options]
    second = lab.run(environ={"COVERAGE_CORE": core})
    assert_same(first, second)
    assert data.exists(), second.printed


# What happened before in the same process

TRACED = """
    import sys
    def trace(frame, event, argument):
        frame.f_trace_opcodes = True
        return trace
    sys.settrace(trace)
"""
DEBUGGED = """
    import bdb
    class Debugger(bdb.Bdb):
        def user_line(self, frame):
            self.set_continue() if self.quitting else self.set_step()
    debugger = Debugger()
    assert debugger.set_break(helpers.__file__, helpers.measure.__code__.co_firstlineno + 1) is None
    debugger.set_trace()
"""
MONITORED = """
    import sys
    if sys.version_info >= (3, 12):
        watch = sys.monitoring
        watch.use_tool_id(3, "test")
        watch.register_callback(3, watch.events.LINE, lambda code, line: None)
        watch.register_callback(3, watch.events.INSTRUCTION, lambda code, offset: None)
        watch.set_events(3, watch.events.LINE)
        for function in (helpers.measure, helpers.slow.__wrapped__, load.__mlpipe_function__):
            watch.set_local_events(3, function.__code__, watch.events.INSTRUCTION)
            function.__code__.co_code
"""
USED = """
    import functools, re, warnings
    settings = Settings(4)
    for _ in range(100):
        rate(load(PLACE, {"city", "day"}).table, ["a"], settings)
    assert vars(helpers.SQUARE)["corners"] and helpers.slow.cache_info().currsize
    helpers.describe(True), helpers.describe(1.5), isinstance(helpers.SQUARE, helpers.Figure)
    helpers.Settings.__hash__, repr(settings), settings == Settings(4)
    helpers.Colour("two"), helpers.Colour["RED"], list(helpers.Colour)
    helpers.__warningregistry__["version"]
"""
SETTINGS = """
    import decimal, gc, locale, logging, random, signal, sys, warnings
    import numpy, pandas
    numpy.set_printoptions(precision=2), numpy.seterr(all="ignore"), numpy.random.seed(3)
    pandas.set_option("display.max_rows", 3), pandas.set_option("display.precision", 2)
    random.seed(3), decimal.getcontext(), gc.set_threshold(5), gc.freeze()
    sys.setrecursionlimit(5000), sys.setswitchinterval(0.0001)
    logging.basicConfig(level="DEBUG"), helpers.LOGGER.setLevel("ERROR")
    helpers.LOGGER.addHandler(logging.NullHandler()), logging.captureWarnings(True)
    warnings.simplefilter("ignore"), warnings.filterwarnings("once", "measured")
    locale.setlocale(locale.LC_ALL, "C")
"""
RELOADED = """
    import importlib, sys
    for name in ("helpers", "log", "told", "main"):
        importlib.reload(sys.modules[name])
    main = sys.modules["main"].main
"""
IMPORTED = """
    import sklearn.tree, polars, distributed, tblib.pickling_support, pyarrow.parquet, joblib
    import doctest, unittest.mock, xml.dom.minidom, tkinter.constants, curses.ascii
    tblib.pickling_support.install()
"""
SUBCLASSED = """
    import copy, dataclasses, inspect, pickle, typing
    class Cube(helpers.Square):
        def size(self): return 5
    isinstance(1, helpers.Figure), issubclass(int, helpers.Figure), helpers.Figure.__subclasses__()
    typing.get_type_hints(Score), inspect.signature(helpers.measure), dataclasses.fields(Score)
    copy.deepcopy(helpers.SQUARE), pickle.dumps(helpers.SQUARE), copy.copy(helpers.SQUARE)
    inspect.signature(helpers.Settings), dir(helpers), helpers.Settings.__match_args__
    inspect.getsource(helpers.measure), helpers.measure.__annotations__, helpers.measure.__doc__
    helpers.unrelated = 5
"""
BEFORE = {
    "a tracer that sees every instruction": TRACED,
    "a debugger that steps": DEBUGGED,
    "monitoring": MONITORED,
    "uses that filled caches": USED,
    "settings of libraries": SETTINGS,
    "a reload of unchanged modules": RELOADED,
    "imports of other libraries": IMPORTED,
    "subclasses, copies and looks": SUBCLASSED,
    "no collector": "import gc; gc.disable()",
    "one processor": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "plans": "[main.plan() for _ in range(3)]; main.graph()",
    "a store of its own": "main.with_options(store=PLACE + '.store').local()",
}


@pytest.mark.parametrize("setup", BEFORE.values(), ids=BEFORE.keys())
def test_what_happened_before_does_not_count(lab: Lab, first: Outcome, setup: str) -> None:
    second = lab.run(setup=textwrap.dedent(setup))
    assert keys(second) == keys(first)
    assert second.value == first.value
    # What `setup` itself ran is written down too; the pipeline's own steps are all reused.
    assert {step["state"] for step in second.steps.values()} == {"reused"}


THREADED = """
    import threading
    def in_thread(work):
        found = []
        thread = threading.Thread(target=lambda: found.append(work()))
        thread.start()
        thread.join()
        return found[0]
    def keys(pipe):
        pipe.local()
        return {step.name: [step.state, step.key] for step in pipe.runs.last()}
"""


def test_the_thread_does_not_count(lab: Lab, first: Outcome) -> None:
    kept = f"main.with_options(store={lab.store!r})"
    second = lab.run(
        setup=textwrap.dedent(THREADED),
        after=f"[in_thread(lambda: [s.action for s in {kept}.plan()]),"
        f" in_thread(lambda: keys({kept}))]",
    )
    expected = {name: ["reused", key] for name, key in keys(first).items()}
    assert second.extra == [["reuse"] * 3, expected]


PICKLED = """
    import cloudpickle, pickle
    def keys(pipe):
        pipe = pipe.with_options(store=STORE)
        pipe.local()
        return {step.name: [step.state, step.key] for step in pipe.runs.last()}
    def copies():
        yield pickle.loads(pickle.dumps(main))
        yield cloudpickle.loads(cloudpickle.dumps(main))
        yield cloudpickle.loads(cloudpickle.dumps(cloudpickle.loads(cloudpickle.dumps(main))))
"""


def test_copies_of_a_pipeline_have_its_keys(lab: Lab, first: Outcome) -> None:
    setup = f"import sys\nSTORE = {lab.store!r}\n{textwrap.dedent(PICKLED)}"
    second = lab.run(setup=setup, after="[keys(pipe) for pipe in copies()]")
    assert second.error is None, second.traceback
    assert second.extra == [{name: ["reused", key] for name, key in keys(first).items()}] * 3


DIGESTS = """
told = {str(at): [1, CodeReader().read(each).digest] for at, each in enumerate(functions)}
print("TOLD " + json.dumps([1, told]))
"""
DUMPED = """
import json, sys
sys.path.insert(0, FOLDER)
import cloudpickle, helpers, log, main
from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.core.shipping import ship
for module in (helpers, log, main):
    cloudpickle.register_pickle_by_value(module)
functions = [main.load.fn, main.finish.fn, helpers.tidy, helpers.TWICE]
with open(COPY, "wb") as file:
    file.write(ship(functions))
"""
LOADED = """
import json, pickle, sys
from prefect_mlpipe.core.code import CodeReader
with open(COPY, "rb") as file:
    functions = pickle.load(file)
assert not {"helpers", "main"} & set(sys.modules)
"""


def test_copies_by_value_have_the_same_code_where_the_modules_are_not(lab: Lab) -> None:
    lab.write(files())
    names = f"FOLDER = {str(lab.folder)!r}\nCOPY = {str(lab.place / 'copy')!r}\n"
    here, _ = program(lab, "-c", names + DUMPED + DIGESTS)
    there, _ = program(lab, "-c", names + LOADED + DIGESTS, cwd=lab.place)
    assert here == there


# Where the project lies, and how it is written


def test_the_path_of_the_project_does_not_count(lab: Lab, first: Outcome) -> None:
    for name in ("moved", "with a space", "größe-日本", "deep/er/and/deeper"):
        (lab.place / name).parent.mkdir(parents=True, exist_ok=True)
        lab.move(name)
        assert_same(first, lab.run())


def test_a_link_to_the_project_does_not_count(lab: Lab, first: Outcome) -> None:
    link = lab.place / "link"
    link.symlink_to(lab.folder)
    lab.folder = link
    assert_same(first, lab.run())


def test_the_working_directory_does_not_count(lab: Lab, first: Outcome, tmp_path: Path) -> None:
    for cwd in (tmp_path, Path("/"), lab.folder / "data"):
        assert_same(first, lab.run(cwd=cwd))


def test_compiled_files_do_not_count(lab: Lab, first: Outcome) -> None:
    assert compileall.compile_dir(lab.folder, quiet=1)
    assert_same(first, lab.run())
    assert compileall.compile_dir(lab.folder, quiet=1, force=True, legacy=True, ddir="elsewhere")
    shutil.rmtree(lab.folder / "__pycache__")
    for source in lab.folder.glob("*.py"):
        source.unlink()
    assert_same(first, lab.run())


def test_a_project_in_a_zip_file_has_the_same_keys(lab: Lab, first: Outcome) -> None:
    rows = lab.folder / "data/rows.csv"
    packed = lab.place / "project.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for source in lab.folder.rglob("*.py"):
            file.write(source, source.relative_to(lab.folder))
            source.unlink()
    start = f"import sys; sys.path.insert(0, {str(packed)!r}); import main, told"
    told = f"told.tell(main.main, csv=main.File({str(rows)!r}))"
    assert_told(first, program(lab, "-c", f"{start}; {told}", cwd=lab.place))


def test_the_order_in_which_steps_are_defined_does_not_count(lab: Lab, first: Outcome) -> None:
    for steps in itertools.permutations(STEPS):
        lab.write(files(main_module(steps)))
        assert_same(first, lab.run())


OTHER = """
    @step
    def other(x: int) -> int:
        return x + len(UNRELATED)

    UNRELATED = [1, 2, 3]
    other_rate = rate.with_options(name="other")

    class Unrelated(Score): ...
"""


def test_other_steps_comments_and_line_numbers_do_not_count(lab: Lab, first: Outcome) -> None:
    lab.write(files(main_module([*STEPS, OTHER])))
    assert_same(first, lab.run())
    moved = "\n\n    # A comment.\n".join(["", TYPES, *STEPS, PLACE, MAIN, TELL])
    lab.write({**files(moved), "helpers.py": "\n" * 300 + textwrap.dedent(HELPERS)})
    assert_same(first, lab.run())


def test_the_order_of_imports_does_not_count(lab: Lab, first: Outcome) -> None:
    for number, order in enumerate(itertools.permutations(("helpers", "told", "main", "log"))):
        name = f"start_{number}"
        lines = [f"import {module}" for module in order]
        lab.write({f"{name}.py": "\n".join([*lines, "from main import File, main"])})
        assert_same(first, lab.run(module=name))


# How it was started


PACKAGED = {
    "import helpers\n": "from . import helpers\n",
    "from helpers": "from .helpers",
    "from told": "from .told",
}


def packaged() -> dict[str, str]:
    """The project as a package of modules that import each other relatively."""
    found = files()
    for before, after in PACKAGED.items():
        found["main.py"] = found["main.py"].replace(before, after)
    found["main.py"] = HEADER + textwrap.dedent(found["main.py"])
    return {"shop/__init__.py": "", **{f"shop/{name}": text for name, text in found.items()}}


RUNPY = "import runpy, sys; sys.path.insert(0, FOLDER); runpy.run_{}, run_name='__main__')"
ENTRYPOINT = """
import os, sys
from prefect.flows import load_flow_from_entrypoint
sys.path.insert(0, FOLDER)
os.chdir(FOLDER)
pipe = load_flow_from_entrypoint(ENTRYPOINT)
from told import tell
tell(pipe)
"""
CELLS = """
import __future__, pathlib, sys
sys.path.insert(0, FOLDER)
flags = __future__.annotations.compiler_flag  # as IPython, which keeps it from cell to cell
names = vars(sys.modules["__main__"])
names.pop("__file__", None)
source = pathlib.Path(FOLDER, "main.py").read_text().replace("__file__", repr(FOLDER + "/main.py"))
for number, cell in enumerate(source.split("@step")):
    cell = cell if number == 0 else "@step" + cell
    exec(compile(cell, f"<ipython-input-{number}-abc>", "exec", flags), names)
"""
STARTS: Mapping[str, tuple[str, ...]] = {
    "in cells": ("-c", CELLS),
    "as a script": ("FOLDER/main.py",),
    "as a script by its name": ("main.py",),
    "by -m": ("-m", "main"),
    "by an import in a program": ("-c", "import main, told; told.tell(main.main)"),
    "by runpy of a path": ("-c", RUNPY.format("path(FOLDER + '/main.py'")),
    "by runpy of a module": ("-c", RUNPY.format("module('main'")),
    "by an entrypoint of a path": ("-c", ENTRYPOINT.replace("ENTRYPOINT", "'main.py:main'")),
    "by an absolute path": ("-c", ENTRYPOINT.replace("ENTRYPOINT", "FOLDER + '/main.py:main'")),
    "by an entrypoint of a module": ("-c", ENTRYPOINT.replace("ENTRYPOINT", "'main.main'")),
}


def started(lab: Lab, command: tuple[str, ...]) -> tuple[str, ...]:
    folder = str(lab.folder)
    if command[0] == "-c":
        return ("-c", command[1].replace("FOLDER", repr(folder)))
    return tuple(word.replace("FOLDER", folder) for word in command)


@pytest.mark.parametrize("command", STARTS.values(), ids=STARTS.keys())
def test_how_it_was_started_does_not_count(
    lab: Lab, first: Outcome, command: tuple[str, ...]
) -> None:
    assert_told(first, program(lab, *started(lab, command)))


@pytest.mark.parametrize("start", ["in cells", "as a script", "by an absolute path"])
def test_what_another_start_left_is_reused_after_an_import(lab: Lab, start: str) -> None:
    lab.write(files())
    (value, found), ran = program(lab, *started(lab, STARTS[start]))
    assert ran == ["finish", "load", "rate"]
    second = lab.run()
    assert (second.ran, keys(second)) == ([], found)
    assert second.value == f"builtins.float {value!r}"


PACKAGE_STARTS: Mapping[str, tuple[str, ...]] = {
    "by -m": ("-m", "shop.main"),
    "by an import": ("-c", "from shop import main, told; told.tell(main.main)"),
    "by runpy of a module": ("-c", RUNPY.format("module('shop.main'")),
}


@pytest.mark.parametrize("command", PACKAGE_STARTS.values(), ids=PACKAGE_STARTS.keys())
def test_modules_moved_into_a_package_keep_their_keys(
    lab: Lab, first: Outcome, command: tuple[str, ...]
) -> None:
    lab.write(packaged())
    assert_told(first, program(lab, *started(lab, command)))
