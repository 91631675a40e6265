"""Encode torch tensors, and take those apart for pickle that live on a device.

Knows dtypes, devices and layouts of tensors. Modules and optimizers are objects like any other.
Imported only once a tensor turns up.

Worth arguing: the kind of device counts, as the class of an array does (`cupy.ndarray` is not
`numpy.ndarray`): a step sees it, and can fail on it. Its number does not: which GPU a worker has is
chance. Where a process has no such device, the tensor stays in host memory, so that a machine
without a GPU can read what one with a GPU has trained. It is then what it is there, a tensor of the
CPU; only who asks for the digest of the value as it was made is told that of the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from prefect_mlpipe.core.encoding.encode import Encoder, Handler, as_branch
from prefect_mlpipe.core.encoding.host_copies import on_host
from prefect_mlpipe.core.encoding.pieces import Piece, octets, record, scalar, text

# Tensors that stayed in host memory for want of their kind of device, by that kind.
_stranded: Any = WeakTensorKeyDictionary()


def find(kind: type) -> Handler | None:
    """Return how a type of torch is encoded, if it is a tensor."""
    return as_branch(_tensor) if issubclass(kind, torch.Tensor) else None


def host_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of a tensor in host memory: the same ones if they are there already."""
    if tensor.device.type == "cpu":
        return tensor.detach()
    found: torch.Tensor = on_host(tensor, lambda: tensor.detach().cpu())
    return found


def on_device(tensor: torch.Tensor, kind: str) -> torch.Tensor:
    """Return a tensor of host memory on the current device of a kind, if this process has one."""
    if kind == "cpu":
        return tensor
    if torch.get_device_module(kind).is_available():
        return tensor.to(kind)
    _stranded[tensor] = kind
    return tensor


def reduced(tensor: torch.Tensor) -> Any:
    """Take a tensor apart for pickle so that any process can read it, with a device or without.

    torch itself writes down the number of the device, and refuses to read where there is no such.
    `NotImplemented` where its own way will do.
    """
    fits = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    if not fits or tensor._backward_hooks or tensor.device.type in ("cpu", "meta"):
        return NotImplemented
    parameter = type(tensor) is torch.nn.Parameter
    facts = (tensor.device.type, parameter, tensor.requires_grad, vars(tensor))
    return rebuilt, (host_copy(tensor), *facts)


def rebuilt(
    tensor: torch.Tensor, kind: str, parameter: bool, needs_gradient: bool, state: dict[str, Any]
) -> torch.Tensor:
    """Return the tensor that `reduced` took apart, on the current device of its kind."""
    found = on_device(tensor, kind)
    if parameter:
        found = torch.nn.Parameter(found, requires_grad=needs_gradient)
        if tensor in _stranded:
            _stranded[found] = kind
    else:
        found.requires_grad_(needs_gradient)
    found.__dict__.update(state)
    return found


def _tensor(encoder: Encoder, value: Any) -> Sequence[Piece]:
    kind = value.device.type
    if encoder.as_made:
        kind = _stranded.get(value, kind)
    header = [
        encoder.encode(type(value)),
        text(str(value.dtype)),
        text(f"{value.layout} {kind}"),
        scalar(tuple(value.shape)),
        scalar(value.requires_grad),
    ]
    state = encoder.encode(value.__dict__ or None)
    return record("torch.tensor", *header, state, *_elements(encoder, value))


def _elements(encoder: Encoder, tensor: Any) -> list[Piece]:
    value = tensor.detach()
    if value.layout is torch.sparse_coo:
        value = value.coalesce()
        return [encoder.encode(value.indices()), encoder.encode(value.values())]
    if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
        raise encoder.refuse(value, f"a {value.layout} tensor on {value.device} cannot be read")
    plain = host_copy(tensor).resolve_conj().resolve_neg().contiguous().reshape(-1)
    if not plain.numel():
        return [octets(encoder.buffers, b"")]
    return [octets(encoder.buffers, plain.view(torch.uint8).numpy())]
