"""Prefect tasks that the tests of the task runner run; workers import this module by name."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.settings import get_current_settings

from prefect_mlpipe import Resources
from prefect_mlpipe.compute import on
from tests.compute.work import WrongNumber, _first_time


@task(tags=on("cpu"))
def number(value: int) -> int:
    return value


@task(tags=on("cpu"))
def where(*others: object) -> int:
    return os.getpid()


@task
def here(*others: object) -> int:
    return os.getpid()


@task(tags=on("cpu"))
def add(*numbers: object) -> int:
    return sum(map(_sum, numbers))


@task
def add_here(*numbers: object) -> int:
    return sum(map(_sum, numbers))


def _sum(value: object) -> int:
    if isinstance(value, int):
        return value
    return sum(map(_sum, value.values() if isinstance(value, dict) else value))  # type: ignore[attr-defined,call-overload]


@task(tags=on("cpu"))
async def add_later(first: int, second: int) -> int:
    await asyncio.sleep(0)
    return first + second


@task(tags=on("cpu"))
def fail(value: int) -> int:
    raise WrongNumber(value)


@task(tags=on("cpu"), log_prints=True)
def talk(value: int) -> tuple[int, str]:
    print("in process", os.getpid())
    get_run_logger().info("got %d", value)
    create_markdown_artifact("# told on a worker", key=f"told-{os.getpid()}")
    return os.getpid(), str(get_current_settings().api.url)


@task(tags=on("cpu"), retries=1)
def flaky(mark: str) -> str:
    if _first_time(mark):
        raise WrongNumber(1)
    return "second"


@task(tags=on("cpu"))
def dies(mark: str) -> str:
    if _first_time(mark):
        time.sleep(0.3)
        os._exit(3)
    return "alive"


@task(tags=on("cpu"))
def exits(value: int) -> int:
    raise SystemExit(value)


@task(tags=on("cpu"))
def waits(mark: str) -> str:
    Path(mark).touch()
    for _ in range(600):  # or until the test takes the mark away
        if not Path(mark).exists():
            break
        time.sleep(0.1)
    return mark


@task(tags=on("cpu", Resources(gpus=1)))
def on_gpu(value: int) -> int:
    return value + 1


@task(tags=on("cpu", Resources(gpus=64)))
def on_many_gpus(value: int) -> int:
    return value + 1


@task(tags=on("cpu"))
def gives_a_socket() -> object:
    import socket

    return socket.socket()


@task
def nested(value: int) -> int:
    return number.submit(value).result() + 1
