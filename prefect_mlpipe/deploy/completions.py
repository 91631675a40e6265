"""What waits for the outputs of another pipeline, as a value and as labels of an automation.

Knows nothing of how outputs are compared, or of who does it.

As with `deploy.watches`, it is kept nowhere but in the automation, as labels that the event must
carry; so a `prefect.yaml` can ask for it in Prefect's own words:

    triggers:
      - type: event
        expect: [prefect-mlpipe.outputs.changed]
        match:
          prefect.resource.id: prefect-mlpipe.outputs.score-digits   # any name of its own
          prefect-mlpipe.pipeline: digits
          prefect-mlpipe.takes: model                                # several: model, threshold
        parameters: {model: "{{ event.payload.taken.model }}"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from prefect_mlpipe.deploy.watches import LABEL, RESOURCE_ID, Asked, otherwise, plain_labels

EVENT = "prefect-mlpipe.outputs.changed"
RESOURCE = "prefect-mlpipe.outputs."


class Completion(BaseModel):
    """Which outputs are waited for; see `CompletionTrigger` for what each word means.

    Attributes:
        name: its identity: what was taken last is kept under it.
        pipeline: name of the pipeline that makes them.
        takes: names of returned values; none for all that is returned.
        asked: its labels as somebody has spelled them, where that is not how we do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    pipeline: str = Field(min_length=1)
    takes: tuple[str, ...] = ()
    only_if_changed: bool = True
    asked: Asked = ()

    def labels(self) -> dict[str, str]:
        """The labels of its events' resource: those that an automation waits for, to the letter."""
        labels = {
            RESOURCE_ID: f"{RESOURCE}{self.name}",
            f"{LABEL}pipeline": self.pipeline,
            f"{LABEL}only_if_changed": str(self.only_if_changed),
        }
        if self.takes:
            labels[f"{LABEL}takes"] = ", ".join(self.takes)
        return {**labels, **dict(self.asked)}

    @classmethod
    def from_labels(cls, labels: Mapping[str, str | Sequence[str]]) -> Completion:
        """What has these labels.

        Raises:
            pydantic.ValidationError: a label is missing, unknown or has an impossible value.
        """
        plain = plain_labels(labels)
        said: dict[str, object] = {
            label.removeprefix(LABEL): value for label, value in plain.items()
        }
        said.pop(RESOURCE_ID, None)
        if isinstance(takes := said.get("takes"), str):
            said["takes"] = tuple(part.strip() for part in takes.split(",") if part.strip())
        name = plain.get(RESOURCE_ID, "").removeprefix(RESOURCE)
        completion = cls.model_validate({"name": name, **said})
        return completion.model_copy(update={"asked": otherwise(plain, completion.labels())})
