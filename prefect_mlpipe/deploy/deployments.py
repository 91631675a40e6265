"""Deployments in Prefect that run a version: how one is made, and how all are moved to another.

Knows Prefect's deployments and what a version says. A deployment runs a version of ours if its pull
step is `restore`; all others are left alone.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.logging import get_logger
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.callables import parameter_schema

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.deploy.defaults import absolute_parameters
from prefect_mlpipe.deploy.freezing import freeze
from prefect_mlpipe.deploy.frozen import RESTORE, FrozenCode
from prefect_mlpipe.parameters import closed, taken_in

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse

logger = get_logger("mlpipe")

_PAGE = 100


def is_ours_to_freeze(pipeline: Any, options: Mapping[str, Any]) -> bool:
    """Return whether `deploy` was given no place of the user's own for the code."""
    by_module = options.get("entrypoint_type") is EntrypointType.MODULE_PATH
    elsewhere = pipeline._storage is not None or options.get("image") is not None
    return pipeline.frozen is None and not elsewhere and not by_module


def frozen_for(pipeline: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a pipeline with a version of its code, and the options of its deployment.

    Args:
        pipeline: to be deployed.
        options: of `deploy`.

    Raises:
        CannotFreeze: its code cannot be made a version.
    """
    store = pipeline.open_store()
    document = freeze(pipeline, store, options.get("version"))
    parameters = absolute_parameters(pipeline, options.get("parameters") or {})
    given = {name: parameters[name] for name in options.get("parameters") or {}}
    document["defaults"] = {n: value for n, value in parameters.items() if n not in given}
    document["schema"] = closed(parameter_schema(pipeline).model_dump(exclude_unset=True))
    store.versions.write(pipeline.name, document["name"], document)
    made = copy.copy(pipeline)
    made.frozen = FrozenCode(pipeline.name, document["name"], document["entrypoint"], _url(store))
    return made, {**options, "version": document["name"], "parameters": parameters}


def _url(store: Store) -> str:
    """Return where a worker, which works in another folder, finds a store."""
    return os.path.abspath(os.path.expanduser(store.url)) if store.is_local else store.url


def note_deployed(store: Store, pipeline: str, version: str) -> None:
    """Make a version the default of its pipeline."""
    deployed = store.versions.deployed(pipeline)
    if deployed[-1:] != [version]:
        store.versions.deploy(pipeline, [*deployed, version])
    logger.info("Pipeline '%s' is deployed as version '%s'.", pipeline, version)


def move_deployments(store: Store, pipeline: str, version: str) -> None:
    """Have all deployments of a pipeline that run a version run another one."""
    target = store.versions.read(pipeline, version) or {}
    with get_client(sync_client=True) as client:
        for deployment in _ours(client, pipeline):
            present = store.versions.read(pipeline, deployment.version or "") or {}
            taken = taken_in(deployment.parameter_openapi_schema or {})
            code = FrozenCode(pipeline, version, target["entrypoint"], _store_of(deployment))
            client.update_deployment(
                deployment.id,
                DeploymentUpdate(
                    version=version,
                    entrypoint=code.entrypoint,
                    pull_steps=[code.to_pull_step()],
                    parameters=_parameters(deployment.parameters, present, target),
                    parameter_openapi_schema=closed(target["schema"], taken),
                ),
            )


def _parameters(
    now: Mapping[str, Any], present: Mapping[str, Any], target: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parameters of a deployment under another version of its code.

    What its deployment has set stays, where there is such a parameter; what came from the
    signature is that of the other version.
    """
    known = target["schema"].get("properties", {})
    came = present.get("defaults", {})
    said = {n: v for n, v in now.items() if n in known and not (n in came and came[n] == v)}
    return {**target["defaults"], **said}


def _ours(client: Any, pipeline: str) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    of_it = FlowFilter(name=FlowFilterName(any_=[pipeline]))
    while True:
        page = client.read_deployments(flow_filter=of_it, limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            return [each for each in found if _is_ours(each)]


def _is_ours(deployment: DeploymentResponse) -> bool:
    return any(RESTORE in step for step in deployment.pull_steps or ())


def _store_of(deployment: DeploymentResponse) -> str:
    said = next(step[RESTORE] for step in deployment.pull_steps or () if RESTORE in step)
    return str(said["store"])
