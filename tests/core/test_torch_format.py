"""Tensors of torch go to safetensors as they are; what would not come back as it was is pickled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")

from prefect_mlpipe.compute.worker import check_class  # noqa: E402
from prefect_mlpipe.core.digest import digest, digest_as_made  # noqa: E402
from prefect_mlpipe.core.encoding import tensors  # noqa: E402
from prefect_mlpipe.core.formats import torch_format  # noqa: E402
from prefect_mlpipe.core.formats.torch_format import Safetensors  # noqa: E402
from prefect_mlpipe.core.store import Store  # noqa: E402
from prefect_mlpipe.errors import CodeMismatch  # noqa: E402
from tests.core.formatting import dumped, loaded  # noqa: E402

nn = torch.nn


def conv() -> Any:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))


def tied() -> dict[str, Any]:
    weight = torch.ones(4, 4)
    return {"a": weight, "b": weight}


def with_attribute() -> Any:
    tensor = torch.ones(3)
    tensor.origin = "here"
    return tensor


class Own(torch.Tensor):
    pass


KEPT: dict[str, Callable[[], Any]] = {
    "a tensor": lambda: torch.arange(6).reshape(2, 3),
    "a number": lambda: torch.tensor(3.5),
    "bool": lambda: torch.tensor([True, False]),
    "bfloat16": lambda: torch.arange(5).bfloat16(),
    "half": lambda: torch.arange(5).half(),
    "complex64": lambda: torch.tensor([1 + 2j]),
    "unsigned": lambda: torch.arange(3).to(torch.uint16),
    "float8": lambda: torch.arange(4).to(torch.float8_e5m2),
    "nothing in it": lambda: torch.empty(0, 3),
    "part of a larger one": lambda: torch.arange(100.0).reshape(10, 10)[3],
    "gradient asked for": lambda: torch.ones(3, requires_grad=True),
    "computed with a gradient": lambda: torch.ones(3, requires_grad=True) * 2,
    "a parameter": lambda: nn.Parameter(torch.ones(3)),
    "a frozen parameter": lambda: nn.Parameter(torch.ones(3), requires_grad=False),
    "a state": lambda: conv().state_dict(),
    "a state without releases": lambda: OrderedDict(conv().state_dict()),
    "parameters by name": lambda: dict(conv().named_parameters()),
    "names out of order": lambda: {
        "z": torch.ones(3).half(),
        "a": torch.ones(3).double(),
        "é": torch.tensor(1),
    },
}
PICKLED: dict[str, Callable[[], Any]] = {
    "tied": tied,
    "rows of one tensor": lambda: dict(zip("ab", torch.ones(2, 3), strict=True)),
    "turned": lambda: torch.arange(6).reshape(2, 3).T,
    "channels last": lambda: torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "stretched": lambda: torch.ones(1).expand(5),
    "complex128": lambda: torch.tensor([1 + 2j], dtype=torch.complex128),
    "conjugated": lambda: torch.tensor([1 + 2j]).conj(),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "with an attribute": with_attribute,
    "of a class of its own": lambda: torch.ones(3).as_subclass(Own),
    "a number among tensors": lambda: {"weight": torch.ones(3), "epoch": 3},
    "numbers as names": lambda: {1: torch.ones(3)},
    "a module": conv,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))


def tensors_in(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize("name", KEPT)
def test_tensors_come_back_as_they_are(name: str, store: Store) -> None:
    value = KEPT[name]()
    stored = store.put(value, inline=False)
    again = store.get(stored)
    assert stored.format == "safetensors"
    assert digest(again) == digest(value) == stored.digest
    assert type(again) is type(value)
    assert getattr(again, "_metadata", None) == getattr(value, "_metadata", None)
    for one, other in zip(tensors_in(value), tensors_in(again), strict=True):
        assert (other.stride(), other.device, other.is_leaf) == (one.stride(), one.device, True)
    if isinstance(value, dict):
        assert list(again) == list(value)


@pytest.mark.parametrize("name", KEPT)
def test_safetensors_reads_what_we_write(name: str) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra [torch]")
    value = KEPT[name]()
    found = safetensors.load(dumped(value)[1])
    named = value if isinstance(value, dict) else {"tensor": value}
    assert found.keys() == named.keys()
    for key, tensor in named.items():
        assert digest(found[key]) == digest(tensor.detach())


@pytest.mark.parametrize("name", PICKLED)
def test_what_would_not_come_back_as_it_was_is_pickled(name: str, store: Store) -> None:
    value = PICKLED[name]()
    stored = store.put(value)
    assert stored.format == "pickle"
    assert digest(store.get(stored)) == digest(value)


def test_a_loaded_tensor_is_a_view_of_the_file_and_the_readers_own() -> None:
    value = {"a": torch.arange(10_000.0), "b": torch.ones(7).half()}
    format, data = dumped(value)
    own = bytearray(data)
    again = format.load(memoryview(own))
    again["a"][3] = -1
    assert bytes(own) != data
    assert loaded(format, data)["a"][3] == 3
    assert all(tensor.data_ptr() % 8 == 0 for tensor in (again["a"],))


def test_the_buffers_of_tensors_are_handed_over_as_they_lie() -> None:
    value = {"a": torch.arange(10_000.0), "b": torch.ones(70_000).half()}
    parts = Safetensors().parts(value)
    places = {np.frombuffer(part, "u1").ctypes.data for part in parts[1:]}
    assert places == {tensor.data_ptr() for tensor in value.values()}


@pytest.mark.parametrize("name", KEPT)
def test_the_parts_are_found_again(name: str) -> None:
    format, parts = Safetensors(), Safetensors().parts(KEPT[name]())
    data = b"".join(map(bytes, parts))
    assert [bytes(part) for part in format.split(memoryview(data))] == list(map(bytes, parts))


def test_damaged_headers_give_other_parts_and_no_error() -> None:
    format, data = dumped(KEPT["a state"]())
    for at in range(400):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        assert sum(part.nbytes for part in format.split(memoryview(broken))) <= len(data)
    assert format.split(memoryview(b"short"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.layer.weight.origin = "first"
        self.again = self.layer
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, values: Any) -> Any:
        return self.layer(values - self.mean)


@pytest.fixture
def of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored says that it was made on a GPU, as a machine with one would have written it.

    Parameters only where they are pickled. All else is real: this machine has no GPU.
    """

    def ours(value: Any) -> Any:
        found = written(value)
        return {**found, "tensors": [[*kept[:2], "cuda"] for kept in found["tensors"]]}

    def reduced(tensor: Any) -> Any:
        if type(tensor) is not nn.Parameter:
            return NotImplemented
        state = (True, tensor.requires_grad, vars(tensor))
        return tensors.rebuilt, (tensor.detach(), "cuda", *state)

    written = torch_format._ours
    monkeypatch.setattr(torch_format, "_ours", ours)
    monkeypatch.setattr(tensors, "reduced", reduced)


WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@WITHOUT_GPU
@pytest.mark.parametrize("make", [KEPT["a tensor"], KEPT["a parameter"], KEPT["a state"], Net])
@pytest.mark.usefixtures("of_a_gpu")
def test_what_was_made_on_a_gpu_is_read_where_there_is_none(
    make: Callable[[], Any], store: Store
) -> None:
    value = make()
    stored = store.put(value, inline=False)
    again = store.get(stored)
    assert digest(again) == digest(value)
    assert digest_as_made(again) != digest(again)
    assert digest_as_made(again) == digest_as_made(store.get(stored))
    assert digest_as_made(value) == digest(value)


@WITHOUT_GPU
@pytest.mark.usefixtures("of_a_gpu")
def test_a_module_of_a_gpu_stays_what_it_is_where_there_is_none(store: Store) -> None:
    net = Net()
    again: Any = store.get(store.put(net))
    assert again.again is again.layer
    assert type(again.layer.weight) is nn.Parameter
    assert again.layer.weight.origin == "first"
    torch.testing.assert_close(again(torch.ones(2)), net(torch.ones(2)))


@WITHOUT_GPU
@pytest.mark.usefixtures("of_a_gpu")
def test_a_worker_without_gpu_does_not_take_a_model_of_a_gpu_for_other_code(store: Store) -> None:
    stored = store.put(Net())
    found = store.get(stored)
    on_gpu = stored._replace(digest=digest_as_made(found))
    check_class("tcp://10.0.0.4:8786", "evaluate", on_gpu, found)
    with pytest.raises(CodeMismatch, match="Net"):
        check_class("tcp://10.0.0.4:8786", "evaluate", stored._replace(digest="0" * 64), found)


def test_a_state_goes_into_a_module_again(store: Store) -> None:
    state = store.get(store.put(conv().state_dict()))
    module = conv()
    module.load_state_dict(state)
    assert digest(module.state_dict()) == digest(state)
