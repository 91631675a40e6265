"""The deployments of `prefect.yaml` without a work pool: one process that serves, watches and runs.

python deployments/served.py /data/digits
"""

from __future__ import annotations

import sys

from pipelines import retrain, score
from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from prefect_mlpipe import CompletionTrigger, DataChangeTrigger


def deployments(data: str) -> list[RunnerDeployment]:
    """Return what is served."""
    new_data = DataChangeTrigger(f"{data}/", pattern="*.csv", every=60, parameter="more")
    new_model = CompletionTrigger(retrain, takes={"model": "model"})
    made = [
        retrain.to_deployment(
            "nightly",
            schedules=[Cron("0 3 * * *", timezone="Europe/Paris")],
            parameters={"more": data},
            tags=["digits"],
        ),
        retrain.to_deployment("new-data", triggers=[new_data], tags=["digits"]),
        score.to_deployment("new-model", triggers=[new_model], tags=["digits"]),
    ]
    # to Prefect's types they could be coroutines, which they are inside a running loop only
    return [one for one in made if isinstance(one, RunnerDeployment)]


if __name__ == "__main__":
    serve(*deployments(sys.argv[1]))
