"""From a pipeline to a version of it in the store.

Knows where the source of a pipeline lies and what a version says. Knows nothing of deployments.

The files are taken as they are on disk, and then looked at in a process that has nothing else: what
is imported there must be the code that is loaded here. So a version holds what its author has just
seen, or there is none.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prefect_mlpipe.core.bundling import archive
from prefect_mlpipe.core.bundling.archive import NAME_DIGITS
from prefect_mlpipe.core.bundling.reached import Module, module_at, reached_from
from prefect_mlpipe.core.encoding.pieces import Undigestible
from prefect_mlpipe.core.environment import user_modules, versions
from prefect_mlpipe.core.files import File
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.looking import code_of, facts_of, is_looking
from prefect_mlpipe.errors import CannotFreeze

_SETTINGS: Final = "pyproject.toml"
_SETTINGS_DEPTH: Final = 8  # as far up as the settings look for it
_LOCKS: Final = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "requirements.lock")
_PATIENCE_S: Final = 600
_RUNS_AS: Final = ("prefect-mlpipe", "prefect")


def freeze(pipeline: Any, store: Store, name: str | None = None) -> dict[str, Any]:
    """Keep the code of a pipeline in the store as a version, and return what is kept of it.

    The same code makes the same version.

    Args:
        pipeline: to be frozen.
        store: where the version is kept.
        name: of the version; default: the first digits of its digest.

    Raises:
        CannotFreeze: its code is in no file, cannot be imported elsewhere, or has changed since it
            was loaded.
    """
    start = _module_of(pipeline)
    files, distributions = _files(pipeline, start)
    entrypoint = _entrypoint(pipeline, start)
    seen = _seen_elsewhere(pipeline, files, entrypoint)
    packages = {*distributions, *seen["packages"], *_RUNS_AS}
    facts = {
        "pipeline": pipeline.name,
        "name": name,
        "entrypoint": entrypoint,
        "python": seen["python"],
        "packages": {each: version for each, version in versions(packages).items() if version},
        "functions": seen["functions"],
        "lock": _lock(start.root),
    }
    packed = archive.pack(files, facts)
    digest = archive.digest_of(packed)
    name = name or digest[:NAME_DIGITS]
    _refuse_other(pipeline, store, name, digest)
    commit, dirty = _commit(start.root)
    known = store.versions.read(pipeline.name, name) or {}
    return {
        **facts,
        "name": name,
        "digest": digest,
        "created": known.get("created", time.time()),
        "commit": commit,
        "dirty": dirty,
        "archive": _kept(packed, store),
    }


def _refuse_other(pipeline: Any, store: Store, name: str, digest: str) -> None:
    known = store.versions.read(pipeline.name, name)
    if known is not None and known["digest"] != digest:
        raise CannotFreeze(
            f"Pipeline '{pipeline.name}' has a version '{name}' already, of other code.",
            {
                "version": name,
                "its digest": known["digest"][:NAME_DIGITS],
                "now": digest[:NAME_DIGITS],
            },
            "Give this one another name: a version never changes. Nothing was deployed.",
        )


def _kept(packed: bytes, store: Store) -> Any:
    with tempfile.TemporaryDirectory(prefix="mlpipe-") as folder:
        path = Path(folder) / "code.zip"
        path.write_bytes(packed)
        return store.put(File(path)).to_json()


# What goes into it


def _module_of(pipeline: Any) -> Module:
    body = pipeline.body
    file = inspect.unwrap(body).__code__.co_filename
    if is_looking():
        raise CannotFreeze(
            f"Pipeline '{pipeline.name}' is deployed by the import of its own module.",
            {"file": file},
            'Call deploy below `if __name__ == "__main__":`; workers import the module.',
        )
    if not file.endswith(".py") or not os.path.isfile(file) or "<" in body.__qualname__:
        raise CannotFreeze(
            f"Pipeline '{pipeline.name}' cannot be frozen: it is not at the top of a module.",
            {"defined in": file, "as": body.__qualname__},
            "Write it into a .py file, at the top level: workers import it by its name. "
            "Nothing was deployed.",
        )
    return module_at(file, body.__module__)


def _entrypoint(pipeline: Any, module: Module) -> str:
    """Return how Prefect finds it: by module where there can be one of that name."""
    name = pipeline.body.__qualname__
    if all(part.isidentifier() for part in module.name.split(".")):
        return f"{module.name}.{name}"
    return f"{module.place}:{name}"


def _files(pipeline: Any, start: Module) -> tuple[dict[str, bytes], set[str]]:
    """Return name → content of the files that go into the archive, and what these import."""
    reached = reached_from([start, *_modules_of_code(pipeline, start)])
    files = {each.place: Path(each.file).read_bytes() for each in reached.modules.values()}
    compiled = sorted(name for name in files if not name.endswith(".py"))
    if compiled:
        raise CannotFreeze(
            f"Pipeline '{pipeline.name}' cannot be frozen: it uses a compiled module that is not "
            "installed.",
            {"module": reached.modules[_named(reached.modules, compiled[0])].file},
            "Build a wheel of it and install that, here and where workers run. "
            "Nothing was deployed.",
        )
    settings = next(_above(Path.cwd(), (_SETTINGS,)), None)
    if settings is not None:
        files[_SETTINGS] = settings.read_bytes()
    return files, reached.distributions


def _named(modules: Mapping[str, Module], place: str) -> str:
    return next(name for name, module in modules.items() if module.place == place)


def _modules_of_code(pipeline: Any, start: Module) -> Iterator[Module]:
    """Yield the modules of all functions that are reached, whatever imports them."""
    try:
        code = code_of(pipeline.body)
    except Undigestible as error:
        raise CannotFreeze(
            f"Pipeline '{pipeline.name}' cannot be frozen: its code reaches something without "
            "content.",
            {"the way there": error.path, "type": error.type, "because": error.why},
            "Make it inside the step that needs it. Nothing was deployed.",
        ) from error
    for name in sorted(user_modules(code.parts) - {"__main__", start.name}):
        file = getattr(sys.modules[name], "__file__", None)
        if file and os.path.isfile(file):
            yield module_at(file, name)


def _above(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield the files of some names in a folder and those above it, the nearest first."""
    for here in (folder, *folder.parents[:_SETTINGS_DEPTH]):
        for name in names:
            if (here / name).is_file():
                yield here / name


def _lock(root: str) -> dict[str, str] | None:
    """Return name and digest of the nearest lock file."""
    found = next(_above(Path(root), _LOCKS), None)
    if found is None:
        return None
    return {"file": found.name, "sha256": hashlib.sha256(found.read_bytes()).hexdigest()}


def _commit(root: str) -> tuple[str | None, bool]:
    """Return the git commit of a folder, and whether something is not committed."""
    commit = _git(root, "rev-parse", "HEAD")
    return commit or None, bool(commit and _git(root, "status", "--porcelain"))


def _git(folder: str, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True)
    except FileNotFoundError:  # git is not installed
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


# The look at it


def _seen_elsewhere(pipeline: Any, files: Mapping[str, bytes], entrypoint: str) -> dict[str, Any]:
    """Import the files in an empty place and return what was found there.

    Raises:
        CannotFreeze: they cannot be imported, or are not what is loaded here.
    """
    with tempfile.TemporaryDirectory(prefix="mlpipe-") as folder:
        place = Path(folder) / "code"
        place.mkdir()
        archive.write(files, place)
        answer = Path(folder) / "answer.json"
        done = _run_look(place, entrypoint, answer)
        if not answer.is_file():
            raise _not_importable(pipeline, done.stderr[-4000:] or f"exit status {done.returncode}")
        told: dict[str, Any] = json.loads(answer.read_text())
    if "error" in told:
        raise _not_importable(pipeline, str(told["error"]))
    for name, file in told["elsewhere"].items():
        raise CannotFreeze(
            f"Pipeline '{pipeline.name}' cannot be frozen: it needs a module of yours that cannot "
            "be found from its imports.",
            {"module": name, "file": file},
            "Import it by its name where it is used. Nothing was deployed.",
        )
    found: dict[str, Any] = told["found"]
    _refuse_difference(pipeline, facts_of(pipeline), found)
    return found


def _run_look(place: Path, entrypoint: str, answer: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [
            *(sys.executable, *subprocess._args_from_interpreter_flags()),  # type: ignore[attr-defined]
            *(
                "-m",
                "prefect_mlpipe.deploy.looking",
                str(place),
                entrypoint,
                os.getcwd(),
                str(answer),
            ),
        ],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )


def _not_importable(pipeline: Any, text: str) -> CannotFreeze:
    last = text.strip().splitlines()[-1]
    return CannotFreeze(
        f"Pipeline '{pipeline.name}' cannot be imported from its source files alone.",
        {"error": last},
        "Files that are no Python modules are not part of a version: pass data as a File, install "
        f"the rest as a package. Nothing was deployed.\n\n{text.strip()}",
    )


def _refuse_difference(
    pipeline: Any, here: Mapping[str, Any], there: Mapping[str, Mapping[str, str]]
) -> None:
    for option, value in here["options"].items():
        if there["options"].get(option) != value:
            raise CannotFreeze(
                f"Pipeline '{pipeline.name}' has an option that its module does not give it.",
                {"option": option, "here": value, "in the module": there["options"].get(option)},
                "Set it in @pipeline(...) of the module: workers import the pipeline from there. "
                "Nothing was deployed.",
            )
    if here["code"] != there["code"]:
        changed = {
            name for name, digest in there["functions"].items() if digest != _digest(here, name)
        }
        raise CannotFreeze(
            f"Pipeline '{pipeline.name}' was edited after it was imported, or is changed while it "
            "runs.",
            {"differs": ", ".join(sorted(changed)) or "how the parts are put together"},
            "Deploy from a fresh process. Nothing was deployed.",
        )


def _digest(facts: Mapping[str, Any], label: str) -> str | None:
    """Return the digest of a part, which a script has under another name."""
    functions: Mapping[str, str] = facts["functions"]
    return functions.get(label) or functions.get(f"__main__.{label.rpartition('.')[2]}")
