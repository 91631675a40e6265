"""Checks of the places where steps run: computes of the settings, and GPUs of this machine.

Dask is imported when a compute needs it. Asks a running cluster, starts none.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.compute.cuda import Cuda
from prefect_mlpipe.compute.dask import Dask
from prefect_mlpipe.compute.named import named_computes
from prefect_mlpipe.compute.targets import Target
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.doctor.findings import Finding, Look, Notes
from prefect_mlpipe.errors import ComputeUnavailable
from prefect_mlpipe.settings import Settings
from prefect_mlpipe.stores import open_store

CONNECT_S: Final = 5.0
SMI_S: Final = 15.0
_ALIKE: Final = ("dask", "distributed", "prefect-mlpipe", "prefect", "cloudpickle", "numpy")
_MUST_BE: Final = frozenset({"Python", "dask", "distributed", "prefect-mlpipe"})


def computes(look: Look) -> Finding:
    """The computes that the settings name: whether they are there, and alike this process."""
    notes = Notes()
    store = open_store(look.store)
    for name, target in named_computes(Settings()).items():
        _look_at(notes, name, target, store)
    if not notes.facts:
        notes.fact(
            "named", "none, so steps run on threads, unless a call or pipeline says otherwise"
        )
    return notes.finding()


def _look_at(notes: Notes, name: str, target: Target, store: Store) -> None:
    notes.fact(name, type(target).__name__)
    if not isinstance(target, ClusterTarget):
        return
    if store.is_local and target.remote and not target.shared_store:
        notes.fact(f"{name}: store", f"{store.url}, which workers elsewhere cannot see")
        notes.problem(
            f"Use a store that the workers of '{name}' reach, as s3://..., or say "
            "shared_store = true if they see that folder."
        )
    if target.address is not None:
        _ask(notes, name, target.address)
    elif isinstance(target, Dask) and target.cluster_class is not None:
        notes.fact(name, f"Dask, {target.cluster_class}")
        try:
            target.find_class()
        except ComputeUnavailable as error:
            notes.fact(f"{name}: class", error.facts["error"])
            notes.problem(f"{error.sentence} {error.advice}")


def _ask(notes: Notes, name: str, address: str) -> None:
    """Connect to a scheduler, and compare what its workers have with what is here."""
    from distributed import Client

    notes.fact(name, address)
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        notes.fact(f"{name}: answer", said)
        notes.problem(f"Start the scheduler of compute '{name}', or correct its address.")
        return
    try:
        workers = client.run(platform.python_version)
        notes.fact(f"{name}: workers", len(workers))
        if not workers:
            notes.warn(f"Start workers for compute '{name}': steps wait for them.")
        _compare(notes, name, "Python", workers, platform.python_version())
        for distribution in _ALIKE:
            found = client.run(metadata.version, distribution, on_error="return")
            _compare(notes, name, distribution, found, metadata.version(distribution))
    finally:
        client.close(timeout=CONNECT_S)  # type: ignore[no-untyped-call]


def _compare(notes: Notes, name: str, what: str, theirs: Mapping[str, Any], ours: str) -> None:
    said = {"none" if isinstance(each, Exception) else str(each) for each in theirs.values()}
    if what == "Python":  # the minor is what counts
        said, ours = {_minor(each) for each in said}, _minor(ours)
    others = sorted(said - {ours})
    if not others:
        return
    notes.fact(f"{name}: {what}", f"{', '.join(others)}; here {ours}")
    mend = f"Install the same {what} on the workers of '{name}' as here."
    (notes.problem if what in _MUST_BE else notes.warn)(mend)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def gpu(look: Look) -> Finding:
    """GPUs of this machine, and what workers on them need."""
    notes = Notes()
    named = named_computes(Settings())
    wanted = sorted(n for n, t in named.items() if isinstance(t, Cuda) and t.address is None)
    found = {"driver": _smi(notes), "NVML": _nvml(notes), "dask-cuda": _dask_cuda(notes)}
    missing = [what for what, there in found.items() if not there]
    if wanted and missing:
        notes.problem(
            f"Compute '{wanted[0]}' needs {', '.join(missing)}: install an NVIDIA driver and "
            'prefect-mlpipe[gpu], or name another place for it, as kind = "threads".'
        )
    elif found["driver"] and missing:
        notes.warn("Install prefect-mlpipe[gpu] to run steps on the GPUs of this machine.")
    return notes.finding()


def _smi(notes: Notes) -> bool:
    """Look for GPUs by NVIDIA's own tool."""
    program = shutil.which("nvidia-smi")
    if program is None:
        notes.fact("GPUs", "none (no nvidia-smi)")
        return False
    query = "--query-gpu=name,memory.total,driver_version"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=SMI_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        notes.fact("GPUs", f"nvidia-smi: {error}")
        return False
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not lines:
        notes.fact("GPUs", f"nvidia-smi: {(done.stdout + done.stderr).strip()[:200] or 'none'}")
        return False
    notes.fact("GPUs", "; ".join(lines))
    return True


def _nvml(notes: Notes) -> bool:
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # NVML has exceptions of its own, made when it is loaded
        notes.fact("NVML", f"{type(error).__name__}: {error}")
        return False
    notes.fact("NVML", f"{nvml.nvmlDeviceGetCount()} devices")
    nvml.nvmlShutdown()
    return True


def _dask_cuda(notes: Notes) -> bool:
    try:
        importlib.import_module("dask_cuda")
    except Exception as error:  # beside ImportError what the libraries of CUDA raise
        notes.fact("dask-cuda", f"{type(error).__name__}: {error}")
        return False
    notes.fact("dask-cuda", metadata.version("dask-cuda"))
    return True
