from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, settings

from prefect_mlpipe.core.store import Store
from tests.core.projects import Project
from tests.s3 import S3

# The same examples every time; with MLPIPE_TESTS_SEARCH=1 others, to find what nobody thought of.
settings.register_profile(
    "core",
    derandomize=os.environ.get("MLPIPE_TESTS_SEARCH") != "1",
    deadline=None,
    max_examples=30,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("core")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Modules of a user's that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    project = Project(tmp_path)
    yield project
    project.forget()


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """A store in a folder."""
    return Store(tmp_path / "store", cache_folder=str(tmp_path / "cache"))


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Store]:
    """A store behind fsspec."""
    yield Store(f"memory://{tmp_path.name}", cache_folder=str(tmp_path / "cache"))
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def on_rclone(tmp_path: Path, rclone: S3) -> Store:
    """A store on an S3 server that ignores create-once."""
    return Store(rclone.make_bucket(), cache_folder=str(tmp_path / "cache"), **rclone.options)


@pytest.fixture
def on_moto(tmp_path: Path, moto: S3) -> Store:
    """A store on an S3 server that honours create-once, not at the root of its bucket."""
    url = f"{moto.make_bucket()}/ml/store"
    return Store(url, cache_folder=str(tmp_path / "cache"), **moto.options)


@pytest.fixture(params=["local", "remote", "on_rclone", "on_moto"])
def store(request: pytest.FixtureRequest) -> Store:
    """All of them, one after the other."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Store)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "empty").mkdir()
    (tmp_path / "tree" / "a[1].csv").write_text("1,2")
    (tmp_path / "tree" / "sub" / "model.bin").write_bytes(os.urandom(2_000_000))
    return tmp_path / "tree"
