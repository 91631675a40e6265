"""Encode torch tensors.

Knows dtypes, devices and layouts of tensors. Modules and optimizers are objects like any other.
Imported only once a tensor turns up.

Worth arguing: the kind of device counts (a step sees it, and can fail on it), its number does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from prefect_mlpipe.core.encoding.encode import Encoder, Handler, as_branch
from prefect_mlpipe.core.encoding.pieces import Piece, octets, record, scalar, text


def find(kind: type) -> Handler | None:
    """Return how a type of torch is encoded, if it is a tensor."""
    return as_branch(_tensor) if issubclass(kind, torch.Tensor) else None


def _tensor(encoder: Encoder, value: Any) -> Sequence[Piece]:
    header = [
        encoder.encode(type(value)),
        text(str(value.dtype)),
        text(f"{value.layout} {value.device.type}"),
        scalar(tuple(value.shape)),
        scalar(value.requires_grad),
    ]
    state = encoder.encode(value.__dict__ or None)
    return record("torch.tensor", *header, state, *_elements(encoder, value.detach()))


def _elements(encoder: Encoder, value: Any) -> list[Piece]:
    if value.layout is torch.sparse_coo:
        value = value.coalesce()
        return [encoder.encode(value.indices()), encoder.encode(value.values())]
    if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
        raise encoder.refuse(value, f"a {value.layout} tensor on {value.device} cannot be read")
    plain = value.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    if not plain.numel():
        return [octets(encoder.buffers, b"")]
    return [octets(encoder.buffers, plain.view(torch.uint8).numpy())]
