"""What a pipeline is made of, as far as a version must agree with it; and a look at one that was
imported in an empty place.

`python -m prefect_mlpipe.deploy.looking <folder> <entrypoint> <home> <answer>` is run by
`deploy.freezing` in a process of its own: only there nothing is found that the archive does not
hold. Knows nothing of stores.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import traceback
from pathlib import Path
from types import FunctionType
from typing import Any, Final

from prefect.flows import load_flow_from_entrypoint

from prefect_mlpipe.core.code import Code, CodeReader
from prefect_mlpipe.core.encoding.pieces import Undigestible
from prefect_mlpipe.core.environment import owner_of
from prefect_mlpipe.core.files import File, Folder

_FLOW_OPTIONS: Final = (
    "name",
    "retries",
    "retry_delay_seconds",
    "timeout_seconds",
    "log_prints",
    "description",
)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")

_SCRIPTS: Final = ("__main__", "__mp_main__")  # this one

_looking = False


def is_looking() -> bool:
    """Return whether this process only looks whether a pipeline can be imported."""
    return _looking


def code_of(body: Any) -> Code:
    """Return the code that a pipeline reaches, all its steps included.

    A global without content, which its steps leave out of their keys, is left out here, too.

    Raises:
        Undigestible: there is something without content that cannot be left out.
    """
    ignored: set[str] = set()
    bare = _without_files(body)
    while True:
        try:
            return CodeReader().read(bare, ignore=tuple(ignored))
        except Undigestible as error:
            name = re.match(r"[\w.]+", error.path.rpartition("→")[2].strip())
            if name is None or name[0] in ignored:
                raise
            ignored.add(name[0])


def _without_files(body: Any) -> Any:
    """Return a copy of a function whose defaults have paths as text: their content is no code."""

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, File | Folder) else value

    defaults = tuple(map(plain, body.__defaults__ or ())) or None
    made = FunctionType(body.__code__, body.__globals__, body.__name__, defaults, body.__closure__)
    made.__kwdefaults__ = {n: plain(value) for n, value in (body.__kwdefaults__ or {}).items()}
    made.__module__, made.__qualname__ = body.__module__, body.__qualname__
    return made


def options_of(pipeline: Any) -> dict[str, str]:
    """Return the options of a pipeline as text, but for the store, which a deployment carries."""
    found = {name: getattr(pipeline, name) for name in _FLOW_OPTIONS}
    ours = type(pipeline.options).model_fields.keys() - {"store"}
    found |= {name: getattr(pipeline.options, name) for name in sorted(ours)}
    return {name: _ADDRESS.sub("", repr(value)) for name, value in found.items()}


def facts_of(pipeline: Any) -> dict[str, Any]:
    """Return what two imports of the same pipeline agree in."""
    code = code_of(pipeline.body)
    return {
        "code": code.digest,
        "functions": dict(code.parts),
        "packages": dict(code.environment),
        "options": options_of(pipeline),
        "python": platform.python_version(),
    }


def _look(folder: str, entrypoint: str, home: str) -> dict[str, Any]:
    try:
        # No placeholder: it would stand for what cannot be imported.
        pipeline: Any = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except Exception:  # an import may raise whatever it likes
        return {"error": traceback.format_exc()}
    os.chdir(home)  # where globals that are files lie
    return {"found": facts_of(pipeline), "elsewhere": _from_elsewhere(os.path.realpath(folder))}


def _from_elsewhere(folder: str) -> dict[str, str]:
    """Return user's modules that were not imported from a folder: name → file."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name in _SCRIPTS or owner_of(name, file).kind != "user":
            continue
        if not os.path.realpath(file).startswith(folder + os.sep):
            found[name] = file
    return found


def main(folder: str, entrypoint: str, home: str, answer: str) -> None:
    """Import a pipeline and write down what it is, or why it could not be imported."""
    global _looking
    _looking = True
    Path(answer).write_text(json.dumps(_look(folder, entrypoint, home)))


if __name__ == "__main__":
    from prefect_mlpipe.deploy import looking  # the module that pipelines ask, not this script

    looking.main(*sys.argv[1:])
