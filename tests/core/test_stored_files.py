from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.places import copies
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.storing import stored_files
from prefect_mlpipe.errors import InputChanged, MissingFile, ValueDamaged, ValueMissing
from tests.core.stores import (
    flip,
    forced,
    reopened,
)


def test_a_file_is_stored_under_its_name_and_comes_back_as_a_file(store: Store, tree: Path) -> None:
    stored = store.put(File(tree / "a[1].csv"))
    assert (stored.format, stored.name, stored.size) == ("file", "a[1].csv", 3)
    for reader in (store, reopened(store, "elsewhere")):
        file = reader.get(stored)
        assert type(file) is File
        assert Path(file).read_text() == "1,2"
        assert Path(file).name == "a[1].csv"
        assert digest(file) == stored.digest == digest(File(tree / "a[1].csv"))
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o444
        assert reader.has(stored)


def test_a_folder_is_stored_with_its_relative_names(store: Store, tree: Path) -> None:
    stored = store.put(Folder(tree))
    assert (stored.format, stored.name, stored.size) == ("folder", "tree", 2_000_003)
    for reader in (store, reopened(store, "elsewhere")):
        folder = reader.get(stored)
        assert type(folder) is Folder
        names = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
        assert names == ["a[1].csv", "empty", "sub", "sub/model.bin"]
        assert digest(folder) == stored.digest == digest(Folder(tree))
        assert reader.has(stored)


def test_a_stored_file_does_not_follow_the_original(store: Store, tree: Path) -> None:
    stored = store.put(File(tree / "sub" / "model.bin"))
    with open(tree / "sub" / "model.bin", "r+b") as original:
        original.write(b"changed")
    (tree / "sub" / "model.bin").unlink()
    assert digest(store.get(stored)) == stored.digest
    store.check(stored)


def test_a_stored_file_can_be_stored_again_and_is_not_copied(local: Store, tree: Path) -> None:
    stored = local.put(File(tree / "sub" / "model.bin"))
    before = os.stat(local.get(stored))
    assert local.put(local.get(stored)) == stored
    assert os.stat(local.get(stored)) == before


def test_the_same_content_under_two_names_is_two_values(local: Store, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")
    first, second = local.put(File(tmp_path / "a")), local.put(File(tmp_path / "b"))
    assert first.digest != second.digest
    assert Path(local.get(first)).name == "a"
    assert Path(local.get(second)).name == "b"


def test_an_empty_folder_is_a_value(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    stored = store.put(Folder(tmp_path / "empty"))
    folder = reopened(store, "elsewhere").get(stored)
    assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: forced(flip, folder / "sub" / "model.bin"),
        lambda folder: (folder / "sub" / "model.bin").unlink(),
        lambda folder: (folder / "new").write_text(""),
        lambda folder: (folder / "empty").rmdir(),
        lambda folder: (folder / "a[1].csv").rename(folder / "b.csv"),
    ],
)
def test_damage_in_a_stored_folder_is_found_and_mended(
    local: Store, tree: Path, damage: Callable[[Path], object]
) -> None:
    stored = local.put(Folder(tree))
    folder = Path(local.get(stored))
    time.sleep(0.02)
    damage(folder)
    for reader in (local, reopened(local)):
        with pytest.raises(ValueDamaged, match="expected"):
            reader.get(stored)
    local.put(Folder(tree))
    assert digest(local.get(stored)) == stored.digest


def test_a_stored_folder_that_is_gone_is_missing(local: Store, tree: Path) -> None:
    stored = local.put(Folder(tree))
    shutil.rmtree(Path(local.get(stored)))
    assert not local.has(stored)
    with pytest.raises(ValueMissing):
        local.get(stored)


def test_a_file_of_a_remote_store_that_is_gone_is_missing(remote: Store, tree: Path) -> None:
    stored = remote.put(Folder(tree))
    remote._backend.delete(f"values/{stored.checksum[:2]}/{stored.checksum}/sub/model.bin")
    with pytest.raises(ValueMissing, match=r"model\.bin"):
        reopened(remote, "elsewhere").get(stored)


def test_files_inside_other_values_are_stored_with_their_content(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(copies, "_folder", str(tmp_path / "here"))
    value = {
        "files": [File(tree / "a[1].csv"), File(tree / "sub" / "model.bin")],
        "all": Folder(tree),
    }
    stored = store.put(value)
    assert stored.size > 4_000_000
    shutil.rmtree(tree)
    monkeypatch.setattr(copies, "_folder", str(tmp_path / "there"))
    again = reopened(store).get(stored)
    assert digest(again) == stored.digest
    assert Path(again["files"][0]).read_text() == "1,2"
    assert (Path(again["all"]) / "empty").is_dir()
    assert str(tmp_path / "there") in again["files"][1].path


def test_changed_copies_of_files_inside_values_are_made_again(
    local: Store, tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(copies, "_folder", str(tmp_path / "here"))
    stored = local.put([File(tree / "a[1].csv"), Folder(tree)])
    file, folder = local.get(stored)
    time.sleep(0.02)
    for path in (Path(file), Path(folder, "sub", "model.bin")):
        forced(lambda path: path.write_text("changed"), path)
    assert digest(local.get(stored)) == stored.digest


def test_a_file_inside_a_value_that_is_not_there_is_an_error(local: Store) -> None:
    with pytest.raises(MissingFile, match="nowhere"):
        local.put([File("nowhere")])


def test_changed_copies_of_remote_files_are_fetched_again(remote: Store, tree: Path) -> None:
    stored = remote.put(Folder(tree))
    folder = Path(remote.get(stored))
    forced(flip, folder / "sub" / "model.bin")
    (folder / "new").write_text("")
    assert digest(remote.get(stored)) == stored.digest


@pytest.mark.parametrize("names", [b"{", b"[]", b"[1]"])
def test_a_remote_folder_whose_list_of_names_is_damaged_is_damaged(
    remote: Store, tree: Path, names: bytes
) -> None:
    stored = remote.put(Folder(tree))
    marker = f"values/{stored.checksum[:2]}/{stored.checksum}.names.json"
    remote._backend.replace(marker, names)
    with pytest.raises(ValueDamaged, match=r"names\.json"):
        reopened(remote, "elsewhere").get(stored)


def test_a_remote_file_that_is_damaged_is_damaged_and_mended(remote: Store, tree: Path) -> None:
    stored = remote.put(Folder(tree))
    name = f"values/{stored.checksum[:2]}/{stored.checksum}/a[1].csv"
    remote._backend.replace(name, b"1,3")
    elsewhere = reopened(remote, "elsewhere")
    with pytest.raises(ValueDamaged):
        elsewhere.get(stored)
    elsewhere.put(Folder(tree))
    assert digest(reopened(remote, "third").get(stored)) == stored.digest


def test_a_file_that_changes_while_it_is_stored_is_refused(
    local: Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = stored_files._copy

    def racing(source: str, target: str) -> None:
        Path(source).write_text("9,9")
        original(source, target)

    monkeypatch.setattr(stored_files, "_copy", racing)
    with pytest.raises(InputChanged, match="while it was being stored"):
        local.put(File(tree / "a[1].csv"))


@pytest.mark.parametrize("way", ["_cloned", "_copied"])
def test_files_are_copied_whatever_the_file_system_offers(
    local: Store, tree: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(stored_files, "_cloned", lambda source, target: False)
    monkeypatch.setattr(stored_files, way, lambda source, target: False)
    stored = local.put(Folder(tree))
    assert digest(local.get(stored)) == stored.digest


def test_what_cannot_be_read_is_said(local: Store, tree: Path) -> None:
    with pytest.raises(MissingFile, match="nowhere"):
        local.put(Folder("nowhere"))
