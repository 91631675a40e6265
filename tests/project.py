"""A place for little pipelines: a store of their own, and a log of what ran.

What ran is written down by the steps themselves, in a file that only the environment names: a list
would be a global that they reach, and each line in it a change of their code.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from prefect_mlpipe.core.store import Store

P = TypeVar("P")
_LOG = "MLPIPE_TESTS_LOG"


def ran(name: str) -> None:
    """Called by a step: write its name down; not seen by the lint of `plan()`."""
    with open(vars(os)["environ"][_LOG], "a") as log:
        log.write(f"{name}\n")


class Project:
    """A folder with a store and a log."""

    def __init__(self, folder: Path) -> None:
        from prefect_mlpipe.core.store import Store

        self.folder = folder
        self.store: Store = Store(str(folder / "store"), cache_folder=str(folder / "cache"))
        self._log = folder / "ran.txt"
        self._modules: set[str] = set()
        os.environ[_LOG] = str(self._log)

    def own(self, pipeline: P, **options: Any) -> P:
        """The pipeline with this project's store."""
        found: P = pipeline.with_options(store=self.store, **options)  # type: ignore[attr-defined]
        return found

    def ran(self) -> list[str]:
        """The names of what ran since the last call, in alphabetical order."""
        names = self._log.read_text().split() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return sorted(names)

    def module(self, name: str, source: str) -> ModuleType:
        """Write a module and load it anew, as a new process would."""
        path = self.folder / f"{name}.py"
        path.write_text(dedent(source))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        self._modules.add(name)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
        finally:
            sys.dont_write_bytecode = before
        return module

    def stored_files(self) -> list[Path]:
        """The files of stored values, without those that stand in their records."""
        found = (self.folder / "store" / "values").rglob("*")
        return [path for path in found if path.is_file()]

    def close(self) -> None:
        for name in self._modules:
            sys.modules.pop(name, None)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    made.close()
