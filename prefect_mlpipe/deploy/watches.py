"""What is to be watched, as a value and as labels of a Prefect automation.

Knows nothing of how a place is looked at, or of who does it.

A watch is kept nowhere but in the automation that waits for its event: as the labels that the
event must carry. So whoever can read the automations of a Prefect server knows what there is to
watch, a watch ends when its deployment does, and a `prefect.yaml` can ask for one in its own words:

    triggers:
      - type: event
        expect: [prefect-mlpipe.data.changed]
        match:
          prefect.resource.id: prefect-mlpipe.data.raw-digits   # any name of its own
          prefect-mlpipe.uri: s3://raw/digits/
          prefect-mlpipe.every: "300"
        parameters: {csv: "{{ event.payload.path }}"}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

EVENT = "prefect-mlpipe.data.changed"
RESOURCE = "prefect-mlpipe.data."
LABEL = "prefect-mlpipe."
RESOURCE_ID = "prefect.resource.id"

Per = Literal["run", "file"]


def _as_seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


def as_uri(value: object) -> object:
    """A URL as it is; a path as an absolute one, since the watcher may work in another folder."""
    if not isinstance(value, str | os.PathLike):
        return value
    text = os.fspath(value).removeprefix("file://")
    if "://" in text or not text:
        return text
    absolute = os.path.abspath(os.path.expanduser(text))
    return absolute + "/" if text.endswith("/") and absolute != "/" else absolute


def _matches_itself(value: str) -> str:
    if value.startswith("!"):
        raise ValueError("may not begin with '!': Prefect reads that as 'not'")
    return value


Seconds = Annotated[float, BeforeValidator(_as_seconds)]
Uri = Annotated[str, BeforeValidator(as_uri), Field(min_length=1), AfterValidator(_matches_itself)]
Pattern = Annotated[str, AfterValidator(_matches_itself)]


Asked = tuple[tuple[str, str], ...]


def plain_labels(labels: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """Labels that an automation waits for, which may stand in lists."""
    return {label: value if isinstance(value, str) else value[0] for label, value in labels.items()}


def otherwise(asked: Mapping[str, str], ours: Mapping[str, str]) -> Asked:
    """The labels that are spelled otherwise than we would, as `300` for `300.0`."""
    return tuple((label, value) for label, value in asked.items() if ours.get(label) != value)


class Watch(BaseModel):
    """A place to watch; see `DataChangeTrigger` for what each word means.

    Attributes:
        name: its identity: what was seen is kept under it.
        store: URL of the store where what was seen is kept; default: that of the watcher.
        asked: its labels as somebody has spelled them, where that is not how we do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    uri: Uri
    every: Seconds = Field(default=60.0, gt=0)
    pattern: Pattern | None = None
    recursive: bool = True
    settle: Seconds = Field(default=2.0, ge=0)
    per: Per = "run"
    on_delete: bool = False
    store: str | None = None
    asked: Asked = ()

    def labels(self) -> dict[str, str]:
        """The labels of its events' resource: those that an automation waits for, to the letter."""
        said = self.model_dump(mode="json", exclude={"name", "asked"}, exclude_none=True)
        plain = {f"{LABEL}{word}": str(value) for word, value in said.items()}
        return {RESOURCE_ID: f"{RESOURCE}{self.name}", **plain, **dict(self.asked)}

    @classmethod
    def from_labels(cls, labels: Mapping[str, str | Sequence[str]]) -> Watch:
        """The watch that has these labels.

        Raises:
            pydantic.ValidationError: a label is missing, unknown or has an impossible value.
        """
        plain = plain_labels(labels)
        said = {label.removeprefix(LABEL): value for label, value in plain.items()}
        name = said.pop(RESOURCE_ID, "").removeprefix(RESOURCE)
        watch = cls.model_validate({"name": name, **said})
        return watch.model_copy(update={"asked": otherwise(plain, watch.labels())})
