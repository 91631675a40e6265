"""What a pipeline adds to the deployments of a Prefect flow.

Data triggers and completion triggers are bound to its store, the API refuses parameters that it
does not have, and `deploy` keeps its code as a version. Knows nothing of how a pipeline runs.

All that it needs of `deploy/` is imported when something is deployed: Prefect's deployments take
longer to import than all of the rest.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from uuid import UUID

from prefect.flows import Flow

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.parameters import close_schema

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

    from prefect_mlpipe.deploy.frozen import FrozenCode
    from prefect_mlpipe.deploy.versions import Versions

P = ParamSpec("P")
R = TypeVar("R")


class Deployable(Flow[P, R], Generic[P, R]):
    """A flow with a store, whose deployments are ours to complete."""

    frozen: FrozenCode | None = None  # of one that is being deployed

    @abstractmethod
    def open_store(self) -> Store:
        """Return the store of the pipeline."""

    if not TYPE_CHECKING:  # a type checker shall see Prefect's own signatures

        def to_deployment(self, *args: Any, **options: Any) -> Any:
            """As Prefect's; a `DataChangeTrigger` keeps its state in the pipeline's store."""
            made = super().to_deployment(*args, **self._bound(options))
            return self._made_later(made) if inspect.isawaitable(made) else self._made(made)

        async def ato_deployment(self, *args: Any, **options: Any) -> Any:
            """As Prefect's; a `DataChangeTrigger` keeps its state in the pipeline's store."""
            made = await super().ato_deployment(*args, **self._bound(options))
            return self._made(made)

        def deploy(self, name: str, *args: Any, **options: Any) -> Any:
            """As Prefect's; without an image or a storage of one's own the code is frozen.

            The deployment then runs the code as it is now, whatever becomes of the working copy:
            see `versions`.

            Raises:
                CannotFreeze: the code cannot be made a version; nothing was deployed.
            """
            frozen, options = self._freeze(args, options)
            made = super(Deployable, frozen).deploy(name, **options)
            return (
                frozen._deployed_later(made)
                if inspect.isawaitable(made)
                else frozen._deployed(made)
            )

        async def adeploy(self, name: str, *args: Any, **options: Any) -> Any:
            """As `deploy`, to be awaited."""
            if self.frozen is not None:
                return await super().adeploy(name, *args, **options)
            frozen, options = await asyncio.to_thread(self._freeze, args, options)
            return frozen._deployed(await super(Deployable, frozen).adeploy(name, **options))

    @property
    def versions(self) -> Versions:
        """The frozen versions of this pipeline in its store."""
        from prefect_mlpipe.deploy.versions import Versions

        return Versions(self.open_store(), self.name)

    def _freeze(
        self, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Deployable[P, R], dict[str, Any]]:
        from prefect_mlpipe.deploy.deployments import frozen_for, is_ours_to_freeze

        names = [*inspect.signature(Flow.deploy).parameters][2:]  # without self and name
        options = {**dict(zip(names, args, strict=False)), **options}
        if not is_ours_to_freeze(self, options):
            return self, options
        self._bound(options)  # what cannot be deployed leaves no version
        return frozen_for(self, options)

    def _made(self, deployment: RunnerDeployment) -> RunnerDeployment:
        from prefect_mlpipe.deploy.completion_trigger import taken_parameters

        if self.frozen is not None:
            deployment.storage = self.frozen
            deployment.entrypoint = self.frozen.entrypoint
        return close_schema(deployment, taken_parameters(deployment.triggers))

    async def _made_later(self, deployment: Any) -> RunnerDeployment:
        return self._made(await deployment)

    def _deployed(self, deployment_id: UUID) -> UUID:
        if self.frozen is not None:
            from prefect_mlpipe.deploy.deployments import note_deployed

            note_deployed(self.open_store(), self.name, self.frozen.version)
        return deployment_id

    async def _deployed_later(self, deployment_id: Any) -> UUID:
        return self._deployed(await deployment_id)

    def _bound(self, options: dict[str, Any]) -> dict[str, Any]:
        from prefect_mlpipe.deploy.fitting import fitted

        return fitted(self, self.open_store, options)
