"""What the golden files hold: digests for all Pythons, code and keys for one minor."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.manifest import Manifest
from tests.core.golden.functions import arithmetic, golden_functions
from tests.core.golden.values import golden_values

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
DIGESTS = Path(__file__).parent / "digests.json"
KEYS = Path(__file__).parent / f"keys-{MINOR}.json"


def found_digests() -> dict[str, str]:
    """Digests of values; they hold for all Pythons."""
    return {name: digest(value) for name, value in golden_values().items()}


def found_keys() -> dict[str, str]:
    """Digests of code, and keys that are made of it; they hold for one Python minor."""
    code = {name: digest(value) for name, value in golden_functions().items()}
    read = CodeReader().read(arithmetic)
    manifests = {
        "key of a step": _manifest(read.digest),
        "key of another version": _manifest(read.digest, version="2"),
        "key with what is read": _manifest(read.digest, reads={"EnvVar('LANG')": digest("C")}),
    }
    return {**code, "a step": read.digest, **{name: one.key() for name, one in manifests.items()}}


def _manifest(
    code: str, version: str | None = None, reads: dict[str, str] | None = None
) -> Manifest:
    inputs = {"a": digest(1), "rows": digest([1.5, None])}
    environment = {"python": MINOR, "pandas": "3.1"}
    return Manifest("functions.step", code, inputs, reads or {}, version, environment, {}, {})
