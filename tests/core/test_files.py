from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from blake3 import blake3
from pydantic import BaseModel, TypeAdapter, ValidationError

from prefect_mlpipe.core import files as files_module
from prefect_mlpipe.core.files import (
    File,
    Folder,
    fingerprint_state,
    hash_of,
    missing,
    stat_index,
    use_stat_index,
)
from prefect_mlpipe.core.places import copies
from prefect_mlpipe.core.places.stat_index import StatIndex, state_of
from prefect_mlpipe.errors import InputChanged, InputError, MissingFile


@pytest.fixture(autouse=True)
def index(tmp_path: Path) -> Iterator[StatIndex]:
    """An index of this test's own, whose clock is an hour ahead: every file is settled."""
    before = stat_index()
    index = StatIndex(str(tmp_path / "index"), clock_ns=lambda: time.time_ns() + 3600 * 10**9)
    use_stat_index(index)
    yield index
    use_stat_index(before)
    index.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often content was really read."""
    seen: list[int] = []
    original = files_module.hash_open

    def counting(handle: int) -> str:
        seen.append(handle)
        return original(handle)

    monkeypatch.setattr(files_module, "hash_open", counting)
    return seen


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(copies, "_folder", str(tmp_path / "cache"))
    yield f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").store.clear()


def content_of(path: Path) -> str:
    return hash_of(str(path), lambda: missing(File(path)))


# --- File and Folder as paths --------------------------------------------------------------------


def test_a_file_is_a_path_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    monkeypatch.chdir(tmp_path)
    file = File("a.csv")
    assert os.fspath(file) == str(file) == file.path == "a.csv"
    assert Path(file).read_text() == "1,2"
    assert repr(file) == "File('a.csv')"


def test_making_a_file_looks_at_nothing() -> None:
    assert File("/nowhere/a.csv").name == "a.csv"


@pytest.mark.parametrize(
    ("path", "name"),
    [("data/a.csv", "a.csv"), ("data/", "data"), ("data/./x/..", "data"), ("s3://b/k/", "k")],
)
def test_the_name_is_the_final_one(path: str, name: str) -> None:
    assert Folder(path).name == name


def test_the_name_of_the_working_folder_is_that_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder(".").name == tmp_path.name


def test_files_are_equal_by_kind_and_path() -> None:
    assert File("a") == File(Path("a")) == File(File("a")) == File("a")
    assert len({File("a"), File("a"), Folder("a"), File("b")}) == 3
    assert File("a") != "a"


def test_a_file_travels_and_cannot_be_changed() -> None:
    assert pickle.loads(pickle.dumps(File("a"))) == File("a")
    with pytest.raises(AttributeError):
        File("a").path = "b"


@pytest.mark.parametrize("path", ["", b"a", 3, None])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(TypeError):
        File(path)  # type: ignore[arg-type]


def test_a_file_url_is_the_path(tmp_path: Path) -> None:
    assert File(f"file://{tmp_path}/a").path == f"{tmp_path}/a"


# --- pydantic ------------------------------------------------------------------------------------


class Parameters(BaseModel):
    csv: File = File("data/a.csv")
    images: Folder | None = None


def test_pydantic_takes_strings_paths_and_files() -> None:
    take = TypeAdapter(File).validate_python
    assert take("x.csv") == take(Path("x.csv")) == take(File("x.csv")) == File("x.csv")
    assert TypeAdapter(File).validate_json('"x.csv"') == File("x.csv")


@pytest.mark.parametrize("value", ["", 3, None, Folder("x"), ["x"]])
def test_pydantic_refuses_everything_else(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(File).validate_python(value)


def test_a_file_parameter_is_a_plain_string_in_schemas_and_json() -> None:
    schema = Parameters.model_json_schema()["properties"]
    assert schema["csv"]["type"] == "string"
    assert schema["csv"]["default"] == "data/a.csv"
    assert {"type": "string", "format": "directory-path"} in schema["images"]["anyOf"]
    model = Parameters(csv=File("b.csv"), images=Folder("c"))
    assert model.model_dump_json() == '{"csv":"b.csv","images":"c"}'
    assert model.model_dump() == {"csv": File("b.csv"), "images": Folder("c")}
    assert Parameters.model_validate_json(model.model_dump_json()) == model


# --- content -------------------------------------------------------------------------------------


def test_a_file_counts_by_content_and_final_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_text("1")
    (tmp_path / "b" / "y.csv").write_text("1")
    (tmp_path / "b" / "z.csv").write_text("2")

    def content(name: str) -> object:
        return File(tmp_path / name).__mlpipe_digest__()

    assert content("a/x.csv") == content("b/x.csv")
    assert len({content("b/x.csv"), content("b/y.csv"), content("b/z.csv")}) == 3


def test_the_hash_of_content_is_plain_blake3(tmp_path: Path) -> None:
    for size in (0, 1, 1 << 20, (1 << 20) + 1, 3_000_000):
        data = os.urandom(size)
        (tmp_path / "x").write_bytes(data)
        assert content_of(tmp_path / "x") == blake3(data).hexdigest()


def test_a_folder_counts_by_relative_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str], empty: tuple[str, ...] = ()) -> object:
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        for path in empty:
            (tmp_path / name / path).mkdir(parents=True)
        return Folder(tmp_path / name).__mlpipe_digest__()

    first = folder("a", {"x": "1", "s/y": "2"})
    assert folder("b", {"s/y": "2", "x": "1"}) == first
    others = [
        folder("c", {"x": "2", "s/y": "1"}),
        folder("d", {"x": "1", "y": "2"}),
        folder("e", {"x": "1", "s/y": "2"}, empty=("t",)),
        folder("f", {"x": "1", "s/y": "2", "z": ""}),
        folder("g", {}, empty=("",)),
    ]
    assert len({first, *others}) == 6


def test_links_in_a_folder_count_by_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").symlink_to(tmp_path / "a" / "x")
    assert Folder(tmp_path / "a").__mlpipe_digest__() == Folder(tmp_path / "b").__mlpipe_digest__()


def test_a_folder_that_contains_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="contains itself"):
        Folder(tmp_path / "a").__mlpipe_digest__()


def test_names_that_are_not_utf8_count_too(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff")).write_text("1")
    assert len(list(Folder(tmp_path / "a").contents())) == 1


@pytest.mark.parametrize("kind", [File, Folder])
def test_a_path_that_does_not_exist_is_an_error_naming_it_and_the_ways_out(
    kind: type[File] | type[Folder],
) -> None:
    with pytest.raises(MissingFile) as caught:
        kind("nowhere/a.csv").__mlpipe_digest__()
    assert "'nowhere/a.csv'" in str(caught.value)
    assert os.path.abspath("nowhere/a.csv") in str(caught.value)
    assert "str(path)" in caught.value.advice
    assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_given_as_a_file_is_an_error_saying_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"Pass Folder\("):
        File(tmp_path).__mlpipe_digest__()
    (tmp_path / "a").write_text("")
    with pytest.raises(MissingFile, match=r"Pass File\("):
        Folder(tmp_path / "a").__mlpipe_digest__()


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        with pytest.raises(InputError, match="neither a file nor a folder"):
            File(tmp_path / "pipe").__mlpipe_digest__()
    finally:
        os.close(writer)


# --- the stat index ------------------------------------------------------------------------------


def test_an_unchanged_file_is_read_once(tmp_path: Path, reads: list[int]) -> None:
    (tmp_path / "x").write_text("1")
    assert content_of(tmp_path / "x") == content_of(tmp_path / "x")
    assert len(reads) == 1


def test_the_index_outlives_the_process(tmp_path: Path, reads: list[int], index: StatIndex) -> None:
    (tmp_path / "x").write_text("1")
    content_of(tmp_path / "x")
    again = pickle.loads(pickle.dumps(index))
    use_stat_index(again)
    content_of(tmp_path / "x")
    again.close()
    assert len(reads) == 1


def test_a_moved_file_is_not_read_again(tmp_path: Path, index: StatIndex) -> None:
    (tmp_path / "x").write_text("1")
    before = os.stat(tmp_path / "x")
    content_of(tmp_path / "x")
    assert index.get(state_of(before)) == blake3(b"1").hexdigest()


@pytest.mark.parametrize("change", ["append", "rewrite", "keep size and times", "replace"])
def test_changed_content_is_seen_however_it_came_about(
    tmp_path: Path, change: str, reads: list[int]
) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    facts = os.stat(path)
    first = content_of(path)
    time.sleep(0.02)  # a tick of the kernel's clock
    match change:
        case "append":
            path.write_text("before!")
        case "rewrite":
            path.write_text("beforE")
        case "keep size and times":
            path.write_text("beforE")
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        case _:
            (tmp_path / "y").write_text("beforE")
            os.utime(tmp_path / "y", ns=(facts.st_atime_ns, facts.st_mtime_ns))
            os.replace(tmp_path / "y", path)
    assert content_of(path) != first
    assert len(reads) == 2


def test_a_file_that_was_just_written_is_not_trusted_to_stay(
    tmp_path: Path, reads: list[int]
) -> None:
    (tmp_path / "x").write_text("1")
    written = os.stat(tmp_path / "x").st_ctime_ns
    use_stat_index(StatIndex(None, clock_ns=lambda: written + 1_000_000))
    content_of(tmp_path / "x")
    content_of(tmp_path / "x")
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    original = files_module.hash_open
    texts = iter(["new!"])

    def racing(handle: int) -> str:
        found = original(handle)
        for text in texts:
            path.write_text(text)
        return found

    monkeypatch.setattr(files_module, "hash_open", racing)
    assert content_of(path) == blake3(b"new!").hexdigest()


def test_a_file_that_never_stops_changing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("x")

    def racing(handle: int) -> str:
        path.write_text(path.read_text() + "x")
        return ""

    monkeypatch.setattr(files_module, "hash_open", racing)
    with pytest.raises(InputChanged, match="being written"):
        content_of(path)


# --- what changed while a step ran ---------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "x").write_text("2"),
        lambda folder: (folder / "new").write_text(""),
        lambda folder: (folder / "x").unlink(),
        lambda folder: (folder / "x").rename(folder / "y"),
    ],
)
def test_a_snapshot_of_a_folder_tells_that_it_changed(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    (tmp_path / "x").write_text("1")
    folder = Folder(tmp_path)
    before = fingerprint_state(folder)
    assert fingerprint_state(folder) == before
    time.sleep(0.02)
    change(tmp_path)
    assert fingerprint_state(folder) != before


def test_a_snapshot_of_a_file_tells_that_it_changed_or_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    before = fingerprint_state(File(path))
    assert fingerprint_state(File(path)) == before
    time.sleep(0.02)
    path.write_text("2")
    assert fingerprint_state(File(path)) != before
    path.unlink()
    assert fingerprint_state(File(path)) is None


# --- URLs ----------------------------------------------------------------------------------------


def test_a_remote_file_counts_as_a_local_one_of_that_name_and_content(
    tmp_path: Path, memory: str
) -> None:
    fsspec.filesystem("memory").pipe_file(f"{memory}/a.csv", b"1,2")
    (tmp_path / "a.csv").write_bytes(b"1,2")
    remote = File(f"{memory}/a.csv")
    assert remote.__mlpipe_digest__() == File(tmp_path / "a.csv").__mlpipe_digest__()
    assert Path(remote).read_bytes() == b"1,2"
    assert Path(remote).name == "a.csv"


def test_a_remote_folder_counts_as_a_local_one(tmp_path: Path, memory: str) -> None:
    (tmp_path / "f" / "s").mkdir(parents=True)
    for name in ("x", "s/y"):
        fsspec.filesystem("memory").pipe_file(f"{memory}/f/{name}", name.encode())
        (tmp_path / "f" / name).write_text(name)
    remote = Folder(f"{memory}/f/")
    assert remote.__mlpipe_digest__() == Folder(tmp_path / "f").__mlpipe_digest__()
    assert Path(remote, "s", "y").read_text() == "s/y"


def test_a_new_version_of_a_remote_file_is_another_value_and_another_copy(memory: str) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file(f"{memory}/a.csv", b"old")
    file = File(f"{memory}/a.csv")
    before, old = file.__mlpipe_digest__(), os.fspath(file)
    state = fingerprint_state(file)
    files.pipe_file(f"{memory}/a.csv", b"new")
    assert fingerprint_state(file) != state
    assert file.__mlpipe_digest__() != before
    assert Path(file).read_bytes() == b"new"
    assert Path(old).read_bytes() == b"old"


def test_an_unchanged_remote_file_is_fetched_once(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file(f"{memory}/a.csv", b"1")
    File(f"{memory}/a.csv").__mlpipe_digest__()
    monkeypatch.setattr(type(files), "get_file", None)
    assert Path(File(f"{memory}/a.csv")).read_bytes() == b"1"
    File(f"{memory}/a.csv").__mlpipe_digest__()


@pytest.mark.parametrize("kind", [File, Folder])
def test_a_remote_path_that_does_not_exist_is_an_error(
    memory: str, kind: type[File] | type[Folder]
) -> None:
    with pytest.raises(MissingFile, match="nowhere"):
        kind(f"{memory}/nowhere").__mlpipe_digest__()
