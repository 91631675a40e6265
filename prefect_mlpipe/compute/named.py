"""Computes that the settings name: from what stands in a file or variable to targets.

Knows the kinds of targets by name. Starts nothing.

    [tool.prefect-mlpipe.compute.gpu]             # in pyproject.toml
    kind = "cuda"                                 # threads, dask or cuda
    rmm_pool_size = "20GiB"                       # fields of that target

    PREFECT_MLPIPE_COMPUTE='{"gpu": {"kind": "threads"}}'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from prefect_mlpipe.compute.cuda import Cuda
from prefect_mlpipe.compute.dask import Dask
from prefect_mlpipe.compute.targets import Target, Threads
from prefect_mlpipe.errors import InvalidCompute
from prefect_mlpipe.settings import NamedCompute, Settings

_KINDS: Final[Mapping[str, type[Target]]] = {"threads": Threads, "dask": Dask, "cuda": Cuda}
_ADVICE: Final = "Correct it there. What the call or the pipeline says of that name goes before."


def named_computes(settings: Settings) -> dict[str, Target]:
    """Return name → target for all computes that the settings name.

    Raises:
        InvalidCompute: one has no such kind or field; says where it stands.
    """
    return {name: _target(name, each) for name, each in settings.compute.items()}


def _target(name: str, named: NamedCompute) -> Target:
    said = dict(named.said) if isinstance(named.said, Mapping) else {}
    kind = said.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        found = "none" if kind is None else repr(kind)
        facts = {"in": named.where, "kind": found, "kinds": ", ".join(_KINDS)}
        raise InvalidCompute(f"The settings name a compute '{name}' of no kind.", facts, _ADVICE)
    target = _KINDS[kind]
    try:
        return target(**said)
    except ValidationError as error:
        wrong = error.errors()[0]
        facts = {
            "in": named.where,
            "field": ".".join(map(str, wrong["loc"])) or "several",
            "problem": wrong["msg"],
            "fields": ", ".join(target.model_fields),
        }
        raise InvalidCompute(
            f"The settings say something of compute '{name}' that {target.__name__} cannot take.",
            facts,
            _ADVICE,
        ) from None
