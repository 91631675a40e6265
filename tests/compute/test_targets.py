"""Computes as settings: nothing here starts a cluster."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest
from pydantic import ValidationError

from prefect_mlpipe import Resources, step
from prefect_mlpipe.compute import Cuda, Dask, Target, Threads
from prefect_mlpipe.compute.offers import Needs, Offer, needs_of, no_such_worker, restrictions
from prefect_mlpipe.errors import ComputeUnavailable, InvalidStep

GIB = 2**30

TARGETS = [
    Threads(max_workers=2),
    Dask(n_workers=2, threads_per_worker=1, memory_limit="2GiB", resources={"GPU": 1}),
    Dask(address="tcp://10.0.0.4:8786", shared_store=True),
    Dask(cluster_class="dask_jobqueue.SLURMCluster", cluster_kwargs={"cores": 4}, adapt={}),
    Cuda(devices=(0, 1), rmm_pool_size="20GiB", device_memory_limit=0.8, protocol="ucx"),
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_a_target_survives_pickling_and_copying_with_every_field(target: Target) -> None:
    for other in (pickle.loads(pickle.dumps(target)), target.model_copy()):
        assert type(other) is type(target)
        assert other == target


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_a_target_cannot_be_changed_and_has_no_unknown_settings(target: Target) -> None:
    with pytest.raises(ValidationError):
        setattr(target, next(iter(type(target).model_fields)), None)
    with pytest.raises(ValidationError):
        type(target)(workers=2)


def test_the_settings_import_neither_dask_nor_prefect() -> None:
    code = "import sys, prefect_mlpipe.compute; print(*{n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"dask", "distributed", "dask_cuda"} & set(done.stdout.split())


@pytest.mark.parametrize("kind", [Dask, Cuda])
def test_an_address_and_something_to_start_exclude_each_other(kind: type[Target]) -> None:
    with pytest.raises(ValidationError, match="leave one of them out"):
        kind(address="tcp://10.0.0.4:8786", threads_per_worker=2)


@pytest.mark.parametrize(
    ("target", "remote"),
    [
        (Dask(), False),
        (Dask(address="tcp://127.0.0.1:8786"), False),
        (Dask(address="localhost:8786"), False),
        (Dask(address="tcp://[::1]:8786"), False),
        (Dask(address="tcp://10.0.0.4:8786"), True),
        (Dask(address="tls://scheduler.example:8786"), True),
        (Dask(cluster_class="dask_jobqueue.SLURMCluster"), True),
        (Dask(cluster_class="distributed.LocalCluster"), False),
        (Cuda(), False),
        (Cuda(address="tcp://10.0.0.7:8786"), True),
    ],
    ids=repr,
)
def test_workers_are_elsewhere_unless_they_are_surely_here(target: Dask, remote: bool) -> None:
    assert target.remote is remote


def test_a_cluster_class_that_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(ComputeUnavailable, match=r"Install the distribution .*no_such_package"):
        Dask(cluster_class="no_such_package.Cluster").start()


def test_a_cluster_class_needs_its_module() -> None:
    with pytest.raises(ValidationError, match="no dotted name"):
        Dask(cluster_class="SLURMCluster")


def test_gpu_workers_without_dask_cuda_say_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with pytest.raises(ComputeUnavailable) as caught:
        Cuda().start()
    assert "prefect-mlpipe[gpu]" in str(caught.value)
    assert "Threads()" in str(caught.value)


class NVMLError_LibraryNotFound(Exception):
    """As pynvml raises it where there is no driver."""


def test_gpu_workers_without_a_gpu_say_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        @staticmethod
        def LocalCUDACluster(**settings: object) -> None:
            assert settings["CUDA_VISIBLE_DEVICES"] == [3]
            assert settings["resources"] == {"GPU": 1}
            raise NVMLError_LibraryNotFound("NVML Shared Library Not Found")

    monkeypatch.setitem(sys.modules, "dask_cuda", Module)
    with pytest.raises(ComputeUnavailable, match="an NVIDIA GPU and its driver"):
        Cuda(devices=(3,)).start()


def test_the_words_of_cuda_are_those_of_dask_cuda() -> None:
    dask_cuda = pytest.importorskip(
        "dask_cuda", reason="needs the extra [gpu]", exc_type=ImportError
    )
    target = Cuda(
        devices=(0,),
        rmm_pool_size="1GiB",
        enable_cudf_spill=True,
        device_memory_limit=0.8,
        protocol="tcp",
        threads_per_worker=1,
        memory_limit="1GiB",
    )
    own = {"resources", "dashboard_address"}  # of dask's LocalCluster, which takes the rest
    known = inspect.signature(dask_cuda.LocalCUDACluster.__init__).parameters
    assert target._arguments().keys() - own <= known.keys()


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * GIB), ("1.5 GB", 1_500_000_000), ("500MB", 500_000_000), ("64k", 64_000)],
)
def test_memory_is_written_as_people_write_it(text: str, size: int) -> None:
    assert needs_of("train", Resources(memory=text)).memory == size


def test_memory_that_is_no_size_is_refused_with_the_step() -> None:
    with pytest.raises(InvalidStep, match="'train'"):
        needs_of("train", Resources(memory="much"))


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        (Needs(), True),
        (Needs(gpus=1), True),
        (Needs(gpus=2), False),
        (Needs(cpus=4, memory=4 * GIB), True),
        (Needs(cpus=5), False),
        (Needs(memory=5 * GIB), False),
    ],
    ids=str,
)
def test_a_worker_fits_if_it_has_all_that_a_step_needs(needs: Needs, fits: bool) -> None:
    assert Offer(4, 4 * GIB, {"GPU": 1}).fits(needs) is fits


def test_resources_that_workers_declare_are_taken_from_them() -> None:
    offers = {"a": Offer(4, 4 * GIB, {"GPU": 1, "MEMORY": 4 * GIB}), "b": Offer(4, 4 * GIB, {})}
    needs = Needs(gpus=1, memory=GIB)
    assert restrictions(needs, offers) == {"resources": {"GPU": 1, "MEMORY": GIB}}


def test_workers_are_named_only_where_an_undeclared_limit_tells_them_apart() -> None:
    offers = {"small": Offer(4, 4 * GIB, {}), "large": Offer(4, 64 * GIB, {})}
    assert restrictions(Needs(memory=8 * GIB), offers) == {"workers": ["large"]}
    assert restrictions(Needs(memory=GIB), offers) == {}


def test_the_error_says_what_is_needed_and_what_is_offered() -> None:
    offers = [Offer(8, 32 * GIB, {})] * 4
    needs = Needs(gpus=1, memory=40 * GIB)
    error = no_such_worker("train", "gpu", needs, "tcp://10.0.0.4:8786", offers)
    assert str(error) == (
        "Step 'train' needs resources that no worker offers.\n"
        "    needs    gpus=1  memory=40GiB\n"
        "    compute  gpu\n"
        "    cluster  tcp://10.0.0.4:8786\n"
        "    offers   4 x (cpus=8, memory=32GiB)\n"
        "Give compute 'gpu' a target with such workers, or lower the request on the step."
    )


def test_resources_do_not_count_in_the_key() -> None:
    @step(resources=Resources(gpus=1))
    def train(x: int) -> int:
        return x

    assert train.with_options(resources=Resources()).fn is train.fn
