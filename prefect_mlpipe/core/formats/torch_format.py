"""Tensors of torch, and mappings of them, as safetensors files.

Knows torch and the layout of safetensors, which is short enough to be written by hand: so tensors
are neither copied nor loaded twice. What others must know is in the file as they expect it; what
only we need (the order of names, gradients asked for, kinds of mappings) stands in its metadata.

What would not come back as it was is left to pickle: tensors that share memory (tied weights),
that do not lie in C order, that have attributes or classes of their own.

The kind of device counts in a digest, so a tensor of a GPU goes back to the GPU, through host
memory. Where this process has none it stays in host memory; see `core.encoding.tensors`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
import torch
from typing_extensions import override

from prefect_mlpipe.core.encoding.tensors import host_copy, rebuilt
from prefect_mlpipe.core.formats.base import Format, Part, is_json

_KEY: Final = "prefect_mlpipe"
_ALONE: Final = "tensor"  # the name of a tensor that stands alone
_ALIGNMENT: Final = 64
_LONGEST_HEADER: Final = 100_000_000  # bytes; safetensors reads no longer one
_CODES: Final = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_DTYPES: Final = {code: dtype for dtype, code in _CODES.items()}
_KINDS: Final = {torch.Tensor: "tensor", torch.nn.Parameter: "parameter"}
_MAPPINGS: Final = {dict: "dict", OrderedDict: "OrderedDict"}

Json = Any
Tensors = Mapping[str, torch.Tensor]


class Safetensors(Format):
    """A tensor, or a dict of tensors by name, as `module.state_dict()` gives it."""

    name, suffix, maps = "safetensors", ".safetensors", True

    @override
    def accepts(self, value: object) -> bool:
        if isinstance(value, torch.Tensor):
            return _fits(value)
        return (
            isinstance(value, dict)
            and type(value) in _MAPPINGS
            and len(value) > 0
            and all(type(name) is str and is_json(name) for name in value)
            and "__metadata__" not in value
            and all(map(_fits, value.values()))
            and _are_apart(value.values())
            and _fits_attributes(value)
        )

    @override
    def exact(self, value: object) -> bool:
        return True

    @override
    def dump(self, value: object) -> Sequence[Part]:
        tensors = _by_name(value)
        # The widest first, as safetensors does: then all are aligned, with no holes between.
        order = sorted(tensors, key=lambda name: -tensors[name].element_size())
        places, at = {}, 0
        for name in order:
            places[name] = [at, at := at + tensors[name].nbytes]
        header: dict[str, Json] = {"__metadata__": {_KEY: orjson.dumps(_ours(value)).decode()}}
        for name, tensor in tensors.items():
            code, shape = _CODES[tensor.dtype], list(tensor.shape)
            header[name] = {"dtype": code, "shape": shape, "data_offsets": places[name]}
        text = orjson.dumps(header)
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        buffers = [_octets(tensors[name]) for name in order if tensors[name].nbytes]
        return [len(text).to_bytes(8, "little") + text, *buffers]

    @override
    def load(self, data: memoryview) -> object:
        header, body = _header(data), data[8 + _header_size(data) :]
        ours = orjson.loads(header.pop("__metadata__")[_KEY])
        tensors = {
            name: _restored(body, described, kept)
            for (name, described), kept in zip(header.items(), ours["tensors"], strict=True)
        }
        if ours["mapping"] is None:
            return tensors[_ALONE]
        if ours["mapping"] == "dict":
            return tensors
        found = OrderedDict(tensors)
        if ours["metadata"] is not None:
            found._metadata = OrderedDict(ours["metadata"])  # type: ignore[attr-defined]
        return found

    @override
    def split(self, data: memoryview) -> list[memoryview]:
        try:
            header = _header(data)
            header.pop("__metadata__", None)
            spans = sorted(tuple(described["data_offsets"]) for described in header.values())
        except (ValueError, TypeError, KeyError, AttributeError):
            return [data]
        start = 8 + _header_size(data)
        parts, at = [data[:start]], 0
        for first, last in spans:
            if first != at or not isinstance(last, int) or not first <= last <= len(data) - start:
                return [data]
            parts += [data[start + first : start + last]] if first < last else []
            at = last
        return parts if start + at == len(data) else [data]


def _fits(value: object) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and type(value) in _KINDS
        and value.dtype in _CODES
        and value.layout is torch.strided
        and value.device.type in ("cpu", "cuda")
        and value.is_contiguous()
        and not (value.is_conj() or value.is_neg() or value.is_quantized or value.is_inference())
        and not vars(value)
        and not value._backward_hooks
    )


def _are_apart(tensors: Any) -> bool:
    """Tell whether no two tensors share memory: written one by one, they would no longer."""
    places = [
        (tensor.device, tensor.untyped_storage().data_ptr()) for tensor in tensors if tensor.nbytes
    ]
    return len(set(places)) == len(places)


def _fits_attributes(value: Any) -> bool:
    """A state says which releases its modules are of; anything else goes to pickle."""
    if type(value) is dict:
        return True
    found = vars(value).get("_metadata")
    return vars(value).keys() <= {"_metadata"} and (
        found is None or (type(found) is OrderedDict and not vars(found) and is_json(dict(found)))
    )


def _by_name(value: Any) -> Tensors:
    return {_ALONE: value} if isinstance(value, torch.Tensor) else value


def _ours(value: Any) -> Json:
    mapping = None if isinstance(value, torch.Tensor) else _MAPPINGS[type(value)]
    found = getattr(value, "_metadata", None) if mapping == "OrderedDict" else None
    return {
        "mapping": mapping,
        "metadata": None if found is None else list(found.items()),
        "tensors": [
            [_KINDS[type(tensor)], tensor.requires_grad, tensor.device.type]
            for tensor in _by_name(value).values()
        ],
    }


def _octets(tensor: torch.Tensor) -> memoryview:
    octets: memoryview = host_copy(tensor).reshape(-1).view(torch.uint8).numpy().data
    return octets


def _restored(body: memoryview, described: Json, kept: Json) -> torch.Tensor:
    kind, needs_gradient, device = kept
    first, last = described["data_offsets"]
    shape, dtype = described["shape"], _DTYPES[described["dtype"]]
    if math.prod(shape):
        octets: np.ndarray[Any, Any] = np.frombuffer(body[first:last], np.uint8)
        tensor = torch.from_numpy(octets).view(dtype).reshape(shape)
    else:
        tensor = torch.empty(shape, dtype=dtype)
    return rebuilt(tensor, device, kind == "parameter", needs_gradient, {})


def _header_size(data: memoryview) -> int:
    return int.from_bytes(data[:8], "little")


def _header(data: memoryview) -> dict[str, Json]:
    size = _header_size(data)
    if size > min(_LONGEST_HEADER, len(data) - 8):
        raise ValueError(f"a header of {size} bytes in {len(data)}")
    found: dict[str, Json] = orjson.loads(data[8 : 8 + size])
    return found
