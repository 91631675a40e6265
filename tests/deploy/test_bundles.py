"""What goes into a version: the user's source files that a pipeline needs, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.types.entrypoint import EntrypointType

from prefect_mlpipe import File, pipeline
from prefect_mlpipe.core.bundling import archive
from prefect_mlpipe.core.bundling.reached import module_at, reached_from
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.deployments import is_ours_to_freeze
from prefect_mlpipe.deploy.freezing import freeze
from prefect_mlpipe.deploy.frozen import packed
from prefect_mlpipe.errors import CannotFreeze, VersionNotFound

Write = Callable[..., Path]

FLOW = """
    from prefect_mlpipe import pipeline, step

    @step
    def inc(x: int) -> int:
        return x + 1

    @pipeline
    def mine(x: int = 1) -> int:
        return inc(x)
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes files into a folder, which is the working folder and on the path."""
    folder = tmp_path / "copy"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = folder.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(dedent(text))
        return folder

    yield write
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), cache_folder=str(tmp_path / "cache"))


def reached(file: Path) -> set[str]:
    return set(reached_from([module_at(str(file))]).modules)


def test_imports_are_followed_wherever_they_stand(write: Write) -> None:
    folder = write(
        flow="import a\ndef f():\n    from b import c\n",
        a="import json, numpy\nfrom tools.deep import here",
        b="c = 1",
        tools__deep__here="from . import beside\nfrom .. import above",
        tools__deep__beside="",
        tools__above="import nowhere",
        other="",
    )
    found = reached_from([module_at(str(folder / "flow.py"))])
    assert set(found.modules) == {
        "flow",
        "a",
        "b",
        "tools.deep.here",
        "tools.deep.beside",
        "tools.above",
    }
    assert found.distributions == {"numpy"}


def test_a_package_is_taken_whole_without_what_is_no_module_of_it(write: Write) -> None:
    folder = write(
        work__init="",
        work__flow="",
        work__models__tree="",
        work__venv__hidden="",
        work__node_modules__hidden="",
    )
    (folder / "work" / "init.py").rename(folder / "work" / "__init__.py")
    (folder / "work" / "venv" / "pyvenv.cfg").touch()
    for name in (".env", "data.csv", ".hidden.py", "key.pem"):
        (folder / "work" / name).write_text("secret")
    assert reached(folder / "work" / "flow.py") == {"work", "work.flow", "work.models.tree"}


def test_the_same_files_make_the_same_archive_and_others_another(tmp_path: Path) -> None:
    files = {"b.py": b"2", "a.py": b"1"}
    made = archive.pack(files, {"python": "3"})
    assert archive.pack(dict(reversed(files.items())), {"python": "3"}) == made
    assert archive.pack({**files, "a.py": b"3"}, {"python": "3"}) != made
    assert archive.pack(files, {"python": "4"}) != made
    assert archive.files_in(made) == files


def test_an_unpacked_archive_that_somebody_edited_is_unpacked_anew(tmp_path: Path) -> None:
    made = archive.pack({"a/b.py": b"1"}, {})
    folder = archive.unpack(made, tmp_path)
    (folder / "a" / "b.py").write_text("2")
    assert archive.unpack(made, tmp_path) == folder
    assert (folder / "a" / "b.py").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == [archive.digest_of(made)]


def test_many_unpack_at_the_same_time_and_what_stands_stays(tmp_path: Path) -> None:
    made = archive.pack({f"m{number}.py": b"1" for number in range(50)}, {})
    start, inodes = threading.Barrier(8), set()

    def unpack() -> None:
        start.wait()
        inodes.add(archive.unpack(made, tmp_path).stat().st_ino)

    threads = [threading.Thread(target=unpack) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inodes) == 1
    assert [path.name for path in tmp_path.iterdir()] == [archive.digest_of(made)]


def loaded(folder: Path, entrypoint: str = "flow.mine") -> Any:
    return load_flow_from_entrypoint(entrypoint)


def test_a_version_has_the_files_the_commit_and_what_is_reached(write: Write, store: Store) -> None:
    folder = write(flow=FLOW, unused="")
    (folder / "pyproject.toml").write_text("[tool.prefect-mlpipe]\nmax_workers = 2\n")
    (folder / "uv.lock").write_text("locked")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "flow.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    version = freeze(loaded(folder), store)

    files = archive.files_in(store_archive(store, version))
    assert set(files) == {"flow.py", "pyproject.toml"}
    assert set(version["functions"]) == {"flow.inc", "flow.mine"}
    assert version["entrypoint"] == "flow.mine"
    assert version["lock"]["file"] == "uv.lock"
    assert len(version["commit"]) == 40
    assert version["dirty"]
    assert freeze(loaded(folder), store)["digest"] == version["digest"]


def store_archive(store: Store, version: dict[str, Any]) -> bytes:
    store.versions.write("mine", version["name"], version)
    return packed(store, "mine", version["name"])


def test_a_damaged_archive_is_an_error_and_not_code(write: Write, store: Store) -> None:
    version = freeze(loaded(write(flow=FLOW)), store)
    store_archive(store, version)
    (path,) = Path(store.url, "values").rglob("code.zip")
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes().replace(b"x + 1", b"x + 2"))
    with pytest.raises(VersionNotFound, match="not whole"):
        packed(store, "mine", version["name"])


def test_a_version_stays_whatever_is_pruned(write: Write, store: Store) -> None:
    version = freeze(loaded(write(flow=FLOW)), store)
    made = store_archive(store, version)
    store.put(File("flow.py"))  # nothing refers to it
    for path in Path(store.url).rglob("*"):
        os.utime(path, (10_000_000, 10_000_000))
    assert store.prune(keep_last=0).counts == {"values": 1}
    assert store_archive(store, version) == made
    assert store.verify().problems == ()


def refused(pipeline: Any, store: Store) -> str:
    with pytest.raises(CannotFreeze) as raised:
        freeze(pipeline, store)
    assert not Path(store.url, "versions").exists()
    return str(raised.value)


def test_what_cannot_be_imported_from_its_files_alone_is_refused(
    write: Write, store: Store
) -> None:
    folder = write(
        flow=f"import os\nTEXT = open(os.path.dirname(__file__) + '/words.txt')\n{dedent(FLOW)}"
    )
    (folder / "words.txt").touch()
    assert "words.txt" in refused(loaded(folder), store)


def test_a_module_that_no_import_names_is_refused_by_its_name(write: Write, store: Store) -> None:
    source = f"import importlib\nfound = importlib.import_module('hid' + 'den')\n{dedent(FLOW)}"
    folder = write(flow=source, hidden="")
    sys.path.remove(str(folder))  # else the look would not find it either
    os.environ["PYTHONPATH"] = str(folder)
    try:
        sys.path.insert(0, str(folder))
        assert "hidden" in refused(loaded(folder), store)
    finally:
        del os.environ["PYTHONPATH"]


def test_a_file_that_was_edited_after_its_import_is_refused(write: Write, store: Store) -> None:
    found = loaded(write(flow=FLOW))
    write(flow=FLOW.replace("x + 1", "x + 2"))
    assert "flow.inc" in refused(found, store)


def test_options_that_a_worker_would_not_find_are_refused(write: Write, store: Store) -> None:
    found = loaded(write(flow=FLOW)).with_options(failures="stop")
    assert "failures" in refused(found, store)


def test_a_pipeline_in_a_function_is_refused(store: Store) -> None:
    @pipeline
    def inner() -> None: ...

    assert "top" in refused(inner, store)


def test_a_module_that_deploys_when_it_is_imported_is_refused(write: Write, store: Store) -> None:
    deploys = """
    from prefect_mlpipe.deploy.looking import is_looking
    if is_looking():
        mine.deploy("a", "b")
    """
    assert "__main__" in refused(loaded(write(flow=FLOW + deploys)), store)


def test_a_place_of_the_users_own_for_the_code_is_left_to_prefect(write: Write) -> None:
    found = loaded(write(flow=FLOW))
    assert is_ours_to_freeze(found, {"work_pool_name": "a"})
    assert not is_ours_to_freeze(found, {"image": "registry/image"})
    assert not is_ours_to_freeze(found, {"entrypoint_type": EntrypointType.MODULE_PATH})
    sourced = Flow.from_source(".", "flow.py:mine")
    assert not is_ours_to_freeze(sourced, {"work_pool_name": "a"})


def test_a_version_has_one_content_for_ever(write: Write, store: Store) -> None:
    version = freeze(loaded(write(flow=FLOW)), store, "1.0")
    store.versions.write("mine", "1.0", version)
    del sys.modules["flow"]
    found = loaded(write(flow=FLOW.replace("x + 1", "x + 22")))
    with pytest.raises(CannotFreeze, match=r"'1.0' already"):
        freeze(found, store, "1.0")
