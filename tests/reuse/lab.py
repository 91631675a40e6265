"""Tiny projects that are run, changed, and run again in a fresh process.

A project is a folder of modules; `main.py` has a pipeline `main`. Steps that want to be counted say
`ran("name")` (from the module `log`, which is always there). What is right is what the very same
project gives without any cache: the oracle.

    lab.write({"main.py": "..."})
    first = lab.run()
    lab.write({"main.py": "..."})
    assert lab.run().ran == []
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.reuse.child import LOG_MODULE

ROOT = Path(__file__).parents[2]
FRESH = os.environ.get("MLPIPE_TESTS_FRESH") == "1"  # an interpreter of its own for every run
HEADER = """\
from __future__ import annotations

from log import ran
from prefect_mlpipe import EnvVar, File, Folder, pipeline, resolve, step, unmapped
"""

Files = Mapping[str, str | bytes | None]


class Zygote:
    """The process that forks the others; see `tests.reuse.zygote`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reuse.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._line() == "ready"

    def run(self, job_file: Path) -> int:
        return int(self._ask("run", str(job_file)))

    def wait(self, process: int) -> int:
        return int(self._ask("wait", process))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _ask(self, what: str, argument: object) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, argument]) + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        value: what the pipeline returned, as text with its type.
        ran: names of what ran, in alphabetical order, as the steps themselves wrote them down.
        error: type and message, `None` if all went well.
        plan: step → action and reasons, as `plan()` said before the run.
        steps: step → state, reasons, error, key, explain.
        extra: what `after` gave.
        printed: what the process printed, `plan` as a table not included.
        plan_printed: the plan as a table.
        plan_explained: step → what the plan said when asked to explain it.
    """

    value: str | None
    ran: list[str]
    error: str | None
    plan: dict[str, tuple[str, list[str]]]
    steps: dict[str, dict[str, Any]]
    extra: Any = None
    printed: str = ""
    plan_printed: str = ""
    plan_explained: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cause: str | None = None
    traceback: str = ""

    def reasons(self, step: str | None = None) -> list[str]:
        """Why a step ran; without a name, of the only one that ran."""
        if step is None:
            (step,) = [name for name, one in self.steps.items() if one["state"] == "ran"]
        found: list[str] = self.steps[step]["reasons"]
        return found


class Process:
    """A job that is under way in a process of its own."""

    def __init__(self, lab: Lab, job_file: Path, log: Path, fresh: bool, environ: Any) -> None:
        self._lab, self._job_file, self._log = lab, job_file, log
        self._popen: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        if fresh:
            with open(f"{job_file}.printed", "wb") as printed:
                self._popen = subprocess.Popen(
                    [sys.executable, *lab.flags, "-m", "tests.reuse.child", str(job_file)],
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env={**os.environ, **environ},
                )
            self.pid = self._popen.pid
        else:
            self.pid = lab.zygote.run(job_file)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, how)

    def wait(self) -> int:
        """The exit status; negative for a signal."""
        if self._status is None:
            self._status = self._popen.wait() if self._popen else self._lab.zygote.wait(self.pid)
        return self._status

    def end(self) -> None:
        """Kill it if nobody has waited for its end."""
        if self._status is None:
            self.kill()
            self.wait()

    def ran(self) -> list[str]:
        """What has run so far."""
        return sorted(self._log.read_text().split()) if self._log.exists() else []

    def printed(self) -> str:
        """What it has printed so far."""
        file = Path(f"{self._job_file}.printed")
        return file.read_text(errors="replace") if file.exists() else ""

    def outcome(self) -> Outcome:
        """Wait for the end and say what came of it."""
        status = self.wait()
        printed = Path(f"{self._job_file}.printed").read_text(errors="replace")
        file = Path(f"{self._job_file}.answer")
        assert file.exists(), f"the process ended with {status}:\n{printed}"
        answer = json.loads(file.read_text())
        return Outcome(
            answer["value"],
            self.ran(),
            answer["error"],
            {name: (action, reasons) for name, (action, reasons) in answer["plan"].items()},
            answer["steps"],
            answer["extra"],
            printed,
            answer.get("printed", ""),
            answer.get("plan_explained", {}),
            answer.get("warnings", []),
            answer.get("cause"),
            answer.get("traceback", ""),
        )


class Lab:
    """A project, a store, and processes that run the one against the other.

    Attributes:
        folder: where the modules of the project are; it is on `sys.path` and the working directory.
        store: where the store is.
        flags: given to interpreters of their own, as `-O`.
    """

    def __init__(self, place: Path, zygote: Zygote) -> None:
        self.place, self.zygote = place, zygote
        self.folder = place / "project"
        self.store = str(place / "store")
        self.flags: list[str] = []
        self._count = itertools.count()
        self.folder.mkdir()

    def write(self, files: Files | str) -> None:
        """Write files of the project; a text alone is `main.py`, below the usual imports.

        `None` removes a file. Sources are dedented.
        """
        if isinstance(files, str):
            files = {"main.py": files}
        for name, content in {"log.py": LOG_MODULE, **files}.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif name == "main.py":
                path.write_text(HEADER + dedent(content))
            else:
                path.write_text(dedent(content))

    def move(self, name: str) -> None:
        """Move the project to another folder."""
        target = self.place / name
        shutil.move(self.folder, target)
        self.folder = target

    def start(
        self,
        arguments: str = "",
        *,
        how: str = "local",
        plan: bool = False,
        verify: bool = False,
        options: str = "",
        module: str = "main",
        pipeline: str = "main",
        setup: str = "",
        after: str = "",
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        fresh: bool | None = None,
    ) -> Process:
        """Start a process that imports the project and runs its pipeline.

        Args:
            arguments: of the pipeline, as in a call, in the words of the project's main module.
            how: `local`, `plan`, or `oracle`: no cache and no engine, steps are plain functions.
            plan: whether to ask for the plan first.
            verify: whether that is to look at the stored values too.
            options: of `with_options`, as in a call.
            setup: statements for the namespace of the main module, before anything else.
            after: an expression in that namespace, evaluated after the run; plain JSON.
            fresh: a new interpreter instead of a fork; needed for a hash seed of its own, or flags.
                The oracle has neither keys nor a store: it is forked unless this says otherwise.
        """
        if fresh is None:
            fresh = FRESH and how != "oracle"
        number = next(self._count)
        job_file = self.place / f"job-{number}"
        log = self.place / f"ran-{number}"
        environ = dict(environ or {})
        job = {
            "folder": str(self.folder),
            "cwd": str(cwd or self.folder),
            "store": self.store,
            "log": str(log),
            "arguments": arguments,
            "how": how,
            "plan": plan,
            "verify": verify,
            "options": options,
            "module": module,
            "pipeline": pipeline,
            "setup": setup,
            "after": after,
            "environ": environ,
        }
        job_file.write_text(json.dumps(job))
        return Process(self, job_file, log, fresh or bool(self.flags), environ)

    def run(self, arguments: str = "", **options: Any) -> Outcome:
        """Run the pipeline in a fresh process and say what came of it."""
        return self.start(arguments, **options).outcome()

    def oracle(self, arguments: str = "", **options: Any) -> str:
        """What the pipeline gives without any cache."""
        outcome = self.run(arguments, how="oracle", **options)
        assert outcome.error is None, outcome.traceback
        assert outcome.value is not None
        return outcome.value


@dataclass(frozen=True)
class Row:
    """A project, a change of it, and what is right then.

    Attributes:
        name: the case, as a sentence says it.
        before: files of the project; a text alone is `main.py`.
        after: what of them is different afterwards.
        want: `rerun` or `reuse`.
        why: reason of the step that runs again, word by word.
        ran: what runs again; everything that ran at first unless said otherwise.
        arguments, arguments_after: of the pipeline.
        same_value: the change runs a step again, though its value is the same.
        environ, environ_after: variables; they make it an interpreter of its own.
    """

    name: str
    before: Files | str
    after: Files | str
    want: str
    why: str | tuple[str, ...] = ()
    ran: tuple[str, ...] | None = None
    arguments: str = ""
    arguments_after: str | None = None
    same_value: bool = False
    environ: Mapping[str, str] | None = None
    environ_after: Mapping[str, str] | None = None


def check(lab: Lab, row: Row) -> Outcome:
    """Run a row's project, run it again, change it, and run it once more, each time afresh.

    Returns what came of the last run.
    """
    later = row.arguments if row.arguments_after is None else row.arguments_after
    first_options: dict[str, Any] = {}
    second_options: dict[str, Any] = {}
    if row.environ is not None or row.environ_after is not None:
        first_options = {"environ": row.environ or {}, "fresh": True}
        second_options = {"environ": row.environ_after or row.environ or {}, "fresh": True}
    lab.write(row.before)
    right = lab.oracle(row.arguments, **first_options)
    first = lab.run(row.arguments, **first_options)
    assert first.error is None, first.traceback
    assert first.value == right
    assert first.ran, "no step wrote its name down"
    again = lab.run(row.arguments, **first_options)
    assert (again.value, again.ran, again.error) == (right, [], None), again.steps

    lab.write(row.after)
    changed = lab.oracle(later, **second_options)
    outcome = lab.run(later, plan=True, **second_options)
    assert outcome.error is None, outcome.traceback
    assert outcome.value == changed
    if row.want == "reuse":
        assert changed == right, "the change is seen: nothing may be reused"
        assert outcome.ran == list(row.ran or ()), outcome.steps
        if row.ran is None:
            assert {action for action, _ in outcome.plan.values()} == {"reuse"}
        return outcome
    assert (changed == right) == row.same_value, "the change must be seen"
    assert outcome.ran == (first.ran if row.ran is None else sorted(row.ran)), outcome.steps
    ran = {name: one["reasons"] for name, one in outcome.steps.items() if one["state"] == "ran"}
    said = {name: reasons for name, (action, reasons) in outcome.plan.items() if action == "run"}
    assert said
    assert {name: ran[name] for name in said} == said
    expected = [row.why] if isinstance(row.why, str) else list(row.why)
    assert expected, "say why it runs again"
    assert expected in said.values(), said
    return outcome
