"""What a user may set once instead of at every call.

A call wins over the pipeline's `with_options`, that over `PREFECT_MLPIPE_*` in the environment,
that over `[tool.prefect-mlpipe]` in the nearest `pyproject.toml`. Knows nothing of what the
settings do. Read anew at each pipeline call: a notebook that sets an environment variable expects
it to count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ByteSize, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import override

from prefect_mlpipe.core.storing.seals import SHORTEST_KEY
from prefect_mlpipe.errors import InvalidCompute

Failures = Literal["finish", "stop", "cancel"]


def _in_prefect_home(name: str) -> str:
    home = os.environ.get("PREFECT_HOME") or Path.home() / ".prefect"
    return str(Path(home).expanduser() / name)


@dataclass(frozen=True)
class NamedCompute:
    """What was said of one compute, as it stands there.

    Whole, so that a name in the environment takes the place of that in the file, with all it says.

    Attributes:
        said: the kind of compute and its settings.
        where: the file or variable, for people.
    """

    said: Any
    where: str


class Settings(BaseSettings):
    """Settings of `prefect_mlpipe`, from the environment and `pyproject.toml`.

    Attributes:
        store: any fsspec URL or a local path. Default `$PREFECT_HOME/mlpipe`.
        cache: a folder of this machine: copies of remote values, and which files were read before.
        signing_key: a secret of 16 characters or more, the same for all who use the store: what is
            not signed with it is not believed. For the environment, not for a file in a repository.
        cache_size: what the copies may take, as `50 GiB`; what a step was given stays for a day.
        failures: what happens to the rest of a run when a step fails.
        max_workers: threads of the default compute; default as `concurrent.futures` chooses.
        compute: name → where steps run that ask for it, if neither call nor pipeline says so; a
            table for each in the file, JSON in the environment. See `compute.named`.
        progress: show what a run is doing on the terminal.
        report_natively: report reused steps one by one through Prefect's ordinary API calls
            instead of in bulk; default: in bulk where the API takes it.
    """

    model_config = SettingsConfigDict(
        env_prefix="PREFECT_MLPIPE_",
        pyproject_toml_table_header=("tool", "prefect-mlpipe"),
        pyproject_toml_depth=8,
        extra="forbid",
        frozen=True,
    )

    store: str = Field(default_factory=lambda: _in_prefect_home("mlpipe"))
    cache: str = Field(default_factory=lambda: _in_prefect_home("mlpipe-cache"))
    signing_key: SecretStr | None = Field(default=None, min_length=SHORTEST_KEY)
    cache_size: ByteSize = Field(default=ByteSize(50 << 30), gt=0)
    failures: Failures = "finish"
    max_workers: int | None = Field(default=None, ge=1)
    compute: dict[str, NamedCompute] = {}
    progress: bool = True
    report_natively: bool | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then the nearest `pyproject.toml` above the working directory."""
        return (init_settings, _Environment(settings_cls), _File(settings_cls))


class _Environment(EnvSettingsSource):
    @override
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        if field_name != "compute":
            return super().decode_complex_value(field_name, field, value)
        where = "PREFECT_MLPIPE_COMPUTE"
        try:
            said = super().decode_complex_value(field_name, field, value)
        except ValueError as error:
            raise _no_computes(where, f"it is no JSON: {error}") from error
        return _named(said, where, lambda name: where)


class _File(PyprojectTomlConfigSettingsSource):
    @override
    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        if "compute" not in found:
            return found
        table = ".".join(self.toml_table_header)
        path = self.toml_file_path
        computes = _named(
            found["compute"],
            f"{path} [{table}]",
            lambda name: f"{path} [{table}.compute.{name}]",
        )
        return {**found, "compute": computes}


def _named(said: Any, where: str, place: Callable[[str], str]) -> dict[str, NamedCompute]:
    if not isinstance(said, Mapping):
        raise _no_computes(where, f"it is a {type(said).__name__}")
    return {name: NamedCompute(each, place(name)) for name, each in said.items()}


def _no_computes(where: str, why: str) -> InvalidCompute:
    return InvalidCompute(
        "The setting 'compute' does not say name → compute.",
        {"in": where, "because": why},
        'Write [tool.prefect-mlpipe.compute.gpu] with kind = "cuda" in pyproject.toml, or\n'
        'PREFECT_MLPIPE_COMPUTE=\'{"gpu": {"kind": "cuda"}}\' in the environment.',
    )
