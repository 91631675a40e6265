"""What is known of an output without loading it, and where it comes from.

Knows outputs and digests. Knows nothing of stored values and of keys.
"""

from __future__ import annotations

from typing import NamedTuple

from prefect_mlpipe.core.graph import Output
from prefect_mlpipe.core.record import HeldCode


class Reference(NamedTuple):
    """What is known of an output without loading it.

    Attributes:
        digest: of its value.
        owners: distributions that own the types in it.
        held: the user's code in it.
    """

    digest: str
    owners: tuple[str, ...]
    held: tuple[HeldCode, ...] = ()

    def __mlpipe_digest__(self) -> tuple[str, str]:
        """Count as the output's digest."""
        return ("output", self.digest)


def source_of(outputs: list[Output]) -> str:
    """Return where an argument comes from, as reasons say it."""
    names = list(dict.fromkeys(map(source_of_output, outputs)))
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def source_of_output(output: Output) -> str:
    """Return where an output comes from: its node, and its field."""
    field = output._mlpipe_field
    node = output._mlpipe_node.name
    return node if field is None else f"{node}.{field}"
