"""What is wrong with this process, its settings and its store is found; nothing is changed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.doctor import examining
from prefect_mlpipe.doctor.computes import computes, gpu
from prefect_mlpipe.doctor.findings import Check, Finding, Look
from prefect_mlpipe.doctor.here import cache, installed, settings
from prefect_mlpipe.doctor.stores import signing_key, store
from tests.reuse.faults import NO_PRIVILEGES
from tests.s3 import S3
from tests.server import free_port

KEY = "a-signing-key-of-many-letters"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store and a cache of the settings, neither of which is there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_MLPIPE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PREFECT_MLPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def found(check: Check, state: str, look: Look | None = None) -> Finding:
    finding = examining.asked(check, look or Look())
    assert finding.state == state, finding
    assert bool(finding.mend) == (state in ("warning", "problem"))
    return finding


def test_what_is_installed_here_is_well() -> None:
    assert found(installed, "ok").facts["Python"]


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("SQLAlchemy", "2.1.9", "never fire"),
        ("fastapi", "0.165.0", "does not start"),
        ("prefect", "4.0.0", "prefect"),
        ("distributed", "2026.8.0", "same release"),
    ],
)
def test_another_version_than_we_build_on_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, why: str
) -> None:
    folder = tmp_path / "site" / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    finding = found(installed, "problem")
    assert version in finding.facts[name.lower()]
    assert why in finding.mend


def test_a_variable_that_is_no_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found(settings, "ok")
    monkeypatch.setenv("PREFECT_MLPIPE_STOR", "/data")
    assert "PREFECT_MLPIPE_STOR " in found(settings, "warning").mend


def test_a_setting_that_cannot_be_is_told_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_MLPIPE_SIGNING_KEY", "short")
    monkeypatch.setenv("PREFECT_MLPIPE_FAILURES", "abort")
    finding = found(settings, "problem")
    assert "PREFECT_MLPIPE_SIGNING_KEY" in finding.mend
    assert "'finish', 'stop' or 'cancel'" in finding.facts["failures"]
    assert "short" not in str(finding)


def test_a_compute_of_no_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_MLPIPE_COMPUTE", '{"gpu": {"kind": "gpus"}}')
    assert "'gpu' of no kind" in found(settings, "problem").mend


def test_a_cache_that_cannot_be_written_is_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "cache").mkdir()
    (home / "cache" / "copy").write_bytes(bytes(2048))
    assert found(cache, "ok").facts["holds"].startswith("2.0 KiB of")
    monkeypatch.setenv("PREFECT_MLPIPE_CACHE", str(home / "cache" / "copy" / "below"))
    found(cache, "problem")


def test_where_there_is_no_store_none_is_made(home: Path) -> None:
    assert "not yet" in found(store, "ok").facts["there"]
    assert not (home / "store").exists()
    assert not (home / "cache").exists()


def test_a_store_is_as_it_was_afterwards(home: Path) -> None:
    Store(home / "store").prepare()
    before = {path for path in (home / "store").rglob("*") if path.is_file()}
    assert found(store, "ok").facts["create-once"] == "honoured"
    assert {path for path in (home / "store").rglob("*") if path.is_file()} == before


def test_a_store_that_is_a_file_or_something_else_is_a_problem(home: Path) -> None:
    (home / "file").write_text("no folder")
    found(store, "problem", Look(str(home / "file")))
    (home / "other").mkdir()
    (home / "other" / "format").write_text("something else")
    finding = found(store, "problem", Look(str(home / "other")))
    assert "does not know" in finding.facts["found"]


def test_a_store_that_is_read_only_is_a_problem(home: Path) -> None:
    Store(home / "store").prepare()
    for path in [home / "store", *(home / "store").rglob("*")]:
        if path.is_dir():
            path.chmod(0o555)
    code = (
        f"{NO_PRIVILEGES}\n"
        "from prefect_mlpipe.doctor.examining import asked\n"
        "from prefect_mlpipe.doctor.findings import Look\n"
        "from prefect_mlpipe.doctor.stores import store\n"
        "print(asked(store, Look()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (home / "store").chmod(0o755)
    assert "state='problem'" in done.stdout, done.stderr
    assert "Change its permissions" in done.stdout


def test_runs_that_are_not_signed_with_our_key_are_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Store(home / "store")
    opened.runs.write("digits", "one", {"id": "one", "started": time.time()})
    found(store, "ok")
    monkeypatch.setenv("PREFECT_MLPIPE_SIGNING_KEY", KEY)
    finding = found(store, "problem")
    assert "not believed" in finding.facts
    assert KEY not in str(finding)


def test_a_key_that_stands_in_a_file_is_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(signing_key, "ok")
    (home / "pyproject.toml").write_text(f'[tool.prefect-mlpipe]\nsigning_key = "{KEY}"\n')
    assert KEY not in str(found(signing_key, "problem"))
    monkeypatch.setenv("PREFECT_MLPIPE_SIGNING_KEY", KEY)
    found(signing_key, "ok")


def test_a_remote_store_says_whether_it_honours_create_once(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.use(monkeypatch)
    url = f"{s3.make_bucket()}/store"
    assert "not yet" in found(store, "ok", Look(url)).facts["there"]
    Store(url).prepare()
    found(store, "ok" if s3.honours_create else "warning", Look(url))
    assert "can run code" in found(signing_key, "warning", Look(url)).mend


def test_a_remote_store_that_is_not_there_or_not_ours_is_a_problem(
    moto: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.use(monkeypatch)
    monkeypatch.setenv("PREFECT_MLPIPE_STORE", "s3://no-such-bucket/store")
    [examined] = [each for each in examining.examine().checks if each.name == "store"]
    assert examined.finding.state == "problem"
    assert "bucket" in examined.finding.mend
    assert moto.options["secret"] not in str(examined)


def test_gpus_are_a_problem_only_where_a_compute_asks_for_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))  # no nvidia-smi
    found(gpu, "ok")
    monkeypatch.setenv("PREFECT_MLPIPE_COMPUTE", '{"gpu": {"kind": "cuda"}}')
    assert "prefect-mlpipe[gpu]" in found(gpu, "problem").mend


def test_a_tool_of_nvidia_that_fails_is_no_gpu(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = home / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/bin:/usr/bin")
    assert "no devices" in found(gpu, "ok").facts["GPUs"]


def test_a_compute_whose_class_or_address_leads_nowhere_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found(computes, "ok")
    named = '{"far": {"kind": "dask", "cluster_class": "no_such.Cluster"}}'
    monkeypatch.setenv("PREFECT_MLPIPE_COMPUTE", named)
    finding = found(computes, "problem")
    assert "no_such" in finding.mend
    assert "cannot see" in finding.facts["far: store"]
    address = f"tcp://127.0.0.1:{free_port()}"
    named = f'{{"near": {{"kind": "dask", "address": "{address}"}}}}'
    monkeypatch.setenv("PREFECT_MLPIPE_COMPUTE", named)
    assert "Start the scheduler of compute 'near'" in found(computes, "problem").mend


def test_a_cluster_that_is_there_is_asked_what_its_workers_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        named = f'{{"near": {{"kind": "dask", "address": "{address}"}}}}'
        monkeypatch.setenv("PREFECT_MLPIPE_COMPUTE", named)
        assert found(computes, "ok").facts["near: workers"] == "1"
        monkeypatch.setattr("prefect_mlpipe.doctor.computes.platform.python_version", _other)
        assert "Python" in found(computes, "problem").mend


def _other() -> str:
    """Stands for the Python here, and for another in a worker, a thread of this process."""
    import threading

    return "3.9.1" if threading.current_thread() is threading.main_thread() else "3.11.1"


# -- the whole ----------------------------------------------------------------------------------


def only(monkeypatch: pytest.MonkeyPatch, check: Callable[[Look], Finding]) -> None:
    """Let there be one check beside those that all others need."""
    monkeypatch.setattr(examining, "OF_THE_SETTINGS", [check])
    monkeypatch.setattr(examining, "OF_THE_SERVER", [])


def test_a_check_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hanging(look: Look) -> Finding:
        """Something that never answers."""
        time.sleep(60)
        return Finding()

    only(monkeypatch, hanging)
    report = examining.examine(timeout_s=5)
    last = report.checks[-1]
    assert (last.name, last.about) == ("hanging", "Something that never answers.")
    assert last.finding.facts == {"found": "no answer within 5 s"}
    assert not report


def test_an_error_of_any_library_is_a_problem_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_MLPIPE_SIGNING_KEY", KEY)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "admin:pass-of-admin")

    def leaking(look: Look) -> Finding:
        raise RuntimeError(f"cannot sign with {KEY}, nor log in as admin:pass-of-admin")

    only(monkeypatch, leaking)
    finding = examining.examine().checks[-1].finding
    assert finding.facts == {"error": "RuntimeError: cannot sign with ***, nor log in as ***"}


def test_settings_that_cannot_be_are_told_once_and_what_needs_them_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_MLPIPE_FAILURES", "abort")
    states = {each.name: each.finding.state for each in examining.examine().checks}
    assert states["settings"] == "problem"
    assert states["store"] == states["schedules"] == "skipped"


def test_every_check_has_a_name_and_a_sentence() -> None:
    checks = [*examining.FIRST, *examining.OF_THE_SETTINGS, *examining.OF_THE_SERVER]
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert len({check.__name__ for check in checks}) == len(checks)
    for check in checks:
        assert check.__doc__
        assert f"| `{check.__name__}` |" in page
