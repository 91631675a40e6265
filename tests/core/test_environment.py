"""Whose a module is, and which versions count."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import numpy
import pytest

from prefect_mlpipe.core import environment
from prefect_mlpipe.core.environment import owner_of, python_environment, versions


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, item in list(vars(environment).items()):
        if hasattr(item, "cache_clear"):
            monkeypatch.setattr(environment, name, functools.cache(item.__wrapped__))


def test_the_standard_library_counts_as_itself() -> None:
    for name in ("json", "builtins", "sys", "collections.abc", "importlib._bootstrap", "math"):
        __import__(name)
        assert owner_of(name) == environment.STANDARD, name


def test_what_is_installed_belongs_to_its_distribution() -> None:
    import sklearn.linear_model
    import yaml

    assert owner_of("numpy.linalg") == ("installed", ("numpy",))
    assert owner_of(sklearn.linear_model.__name__) == ("installed", ("scikit-learn",))
    assert owner_of(yaml.__name__).distributions[0].lower() == "pyyaml"


def test_we_count_as_ourselves_however_we_are_installed() -> None:
    assert owner_of("prefect_mlpipe.core.digest") == environment.OURS


def package(folder: Path, name: str, metadata: str | None, **files: str) -> str:
    (folder / name).mkdir(parents=True)
    module = folder / name / "__init__.py"
    module.write_text("")
    if metadata is not None:
        info = folder / f"{name}-1.0.{metadata}"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n")
        (info / "top_level.txt").write_text(name)
        for file, text in files.items():
            (info / file).write_text(text)
    return str(module)


def test_a_folder_of_ones_own_is_user_code_even_with_an_egg_info(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert owner_of("plain_one", package(tmp_path, "plain_one", None)) == environment.USER
    assert owner_of("egg_one", package(tmp_path, "egg_one", "egg-info")) == environment.USER


def test_a_copy_installed_into_a_folder_is_not_user_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = package(tmp_path, "vendored", "dist-info")
    assert owner_of("vendored", file) == ("installed", ("vendored",))


def test_an_editable_install_is_user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(str(folder))
    told = {"direct_url.json": json.dumps({"url": "file:///x", "dir_info": {"editable": True}})}
    edited = package(folder, "edited_one", "dist-info", **told)
    assert owner_of("edited_one", edited) == environment.USER
    assert owner_of("copied_one", package(folder, "copied_one", "dist-info")).kind == "installed"


def test_versions_are_of_what_is_installed() -> None:
    assert versions(["numpy", "numpy", "no-such"]) == {"no-such": "", "numpy": numpy.__version__}
    assert list(versions(["pandas", "numpy"])) == ["numpy", "pandas"]


def test_the_minor_version_of_python_and_its_optimisation_count() -> None:
    expected = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    if sys.flags.optimize:
        expected["optimize"] = str(sys.flags.optimize)
    assert python_environment() == expected
