"""What a user may set once instead of at every call.

A call wins over the pipeline's `with_options`, that over `PREFECT_MLPIPE_*` in the environment,
that over `[tool.prefect-mlpipe]` in the nearest `pyproject.toml`. Knows nothing of what the
settings do. Read anew at each pipeline call: a notebook that sets an environment variable expects
it to count.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from prefect_mlpipe.core.storing.seals import SHORTEST_KEY

Failures = Literal["finish", "stop", "cancel"]


def _in_prefect_home(name: str) -> str:
    home = os.environ.get("PREFECT_HOME") or Path.home() / ".prefect"
    return str(Path(home).expanduser() / name)


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
        return (init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls))
