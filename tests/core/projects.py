"""Tiny projects written to disk and imported afresh, to read the code of their steps."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from prefect_mlpipe.core.code import Code, CodeReader

Files = Mapping[str, str]


class Project:
    """A folder on `sys.path`; every `load` imports what it holds now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = set(sys.modules)

    def write(self, files: Files) -> None:
        for name, source in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)

    def modules(self) -> list[str]:
        """Return the names of modules that came from this folder."""
        inside = str(self.folder)
        return [
            name
            for name in set(sys.modules) - self.before
            if (getattr(sys.modules[name], "__file__", None) or inside).startswith(inside)
        ]

    def forget(self) -> None:
        for name in self.modules():
            del sys.modules[name]
        importlib.invalidate_caches()

    def load(self, files: Files | str, module: str = "steps") -> ModuleType:
        self.forget()
        self.write({"steps.py": files} if isinstance(files, str) else files)
        return importlib.import_module(module)

    def read(self, files: Files | str, name: str = "steps.step", **options: object) -> Code:
        module, _, function = name.rpartition(".")
        step = getattr(self.load(files, module), function)
        return CodeReader().read(step, **options)  # type: ignore[arg-type]
