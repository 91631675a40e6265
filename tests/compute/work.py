"""Steps and pipelines that the tests of computes run; workers import this module by name."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
from prefect.logging import get_run_logger

from prefect_mlpipe import File, Resources, log_metrics, pipeline, step


class WrongNumber(Exception):
    """An error of a step's own, with arguments that pickle cannot guess."""

    def __init__(self, number: int, *, hint: str = "") -> None:
        super().__init__(f"{number} is wrong")
        self.number = number
        self.hint = hint


@step
def load(numbers: File) -> list[int]:
    return [int(line) for line in Path(numbers).read_text().split()]


@step(log_prints=True)
def total(numbers: list[int], offset: int) -> int:
    print("in process", os.getpid())
    log_metrics(count=len(numbers))
    return sum(numbers) + offset


@step
def double(number: int) -> int:
    return 2 * number


@pipeline
def sums(numbers: File, offset: int = 0) -> tuple[int, int]:
    added = total(load(numbers), offset)
    return added, double(added)


@step
def log(number: int) -> int:
    get_run_logger().info("got %d", number)
    return number


@pipeline
def logging_sums(numbers: File) -> int:
    return log(total(load(numbers), 1))


@step
def fail(number: int) -> int:
    raise WrongNumber(number)


@pipeline
def failing(number: int) -> int:
    return double(fail(number))


def _first_time(mark: str) -> bool:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


@step(retries=1)
def flaky(mark: str) -> str:
    if _first_time(mark):
        raise WrongNumber(1)
    return "second"


@pipeline
def retrying(mark: str) -> str:
    return flaky(mark)


@step
def dies(mark: str, *, always: bool) -> str:
    if _first_time(mark) or always:
        time.sleep(0.3)
        os._exit(3)
    return "alive"


@step(cache=False)
def dies_uncached(mark: str) -> str:
    return dies(mark, always=False)


@pipeline
def dying(mark: str, always: bool = False) -> tuple[str, int]:
    return dies(mark, always=always), double(4)


@pipeline
def dying_uncached(mark: str) -> str:
    return dies_uncached(mark)


@step(resources=Resources(gpus=1))
def on_gpu(number: int) -> int:
    return number + 1


@step(resources=Resources(gpus=64, memory="1GiB"))
def on_many_gpus(number: int) -> int:
    return number + 1


@step(resources=Resources(memory="9000TiB"))
def in_much_memory(number: int) -> int:
    return number + 1


@pipeline
def with_gpu(number: int) -> int:
    return on_gpu(number)


@pipeline
def with_many_gpus(number: int) -> int:
    return on_many_gpus(number)


@pipeline
def with_much_memory(number: int) -> int:
    return in_much_memory(number)


@step(timeout_seconds=1)
def blocks(number: int) -> int:
    time.sleep(60)
    return number


@pipeline
def blocking(number: int) -> int:
    return blocks(number)


@step
def make(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float64)


@step
def summed(array: np.ndarray) -> float:
    return float(array.sum())


@pipeline
def arrays(count: int) -> float:
    return summed(make(count))


@step
def wait(mark: str) -> str:
    Path(mark).touch()
    time.sleep(60)
    return mark


@pipeline
def waiting(mark: str) -> str:
    return wait(mark)


@step
def noted(log: str, number: int) -> int:
    """Write down that it ran; other than `ran`, in a file that workers know of."""
    with open(log, "a") as lines:
        lines.write(f"{number}\n")
    get_run_logger().info("item %d", number)
    return 2 * number


@pipeline
def noting(log: str, count: int) -> list[int]:
    return noted.map(log, range(count))


@step
def mortal(mark: str, number: int, deadly: int) -> int:
    with open(f"{mark}.log", "a") as lines:
        lines.write(f"{number}\n")
    time.sleep(0.01)
    if number == deadly and _first_time(f"{mark}.once"):
        os._exit(3)
    return number


@pipeline
def mortals(mark: str, count: int, deadly: int) -> list[int]:
    return mortal.map(mark, range(count), deadly)


@step
def poisoned(number: int) -> int:
    if number == 11:
        os._exit(3)
    return number


@pipeline
def poisoning(count: int) -> list[int]:
    return poisoned.map(range(count), allowed_failures=1, drop_failed=True)


@step
def picky(number: int, array: np.ndarray) -> float:
    if number == 7:
        raise WrongNumber(number)
    return float(array[number])


@pipeline
def picking(count: int) -> list[float]:
    array = np.arange(100_000, dtype=np.float64)
    return picky.map(range(count), array, allowed_failures=1, drop_failed=True)


def shout(text: str) -> str:
    """Raise the voice."""
    return text.upper()


class Speaker:
    """Speaks."""

    def speak(self) -> str:
        return shout("hello")


@step
def makes_code(by: str) -> dict[str, object]:
    def greet(name: str) -> str:
        """Greet somebody."""
        return shout(f"{by} {name}")

    return {"made": greet, "named": shout, "object": Speaker()}


@step
def asks_code(code: dict[str, object]) -> list[str | None]:
    return [code["made"].__doc__, code["named"].__doc__, type(code["object"]).__doc__]


@pipeline
def code_passed_on(by: str) -> list[str | None]:
    return asks_code(makes_code(by))


@step(resources=Resources(gpus=1))
def root_on_gpu(number: int) -> float:
    return math.sqrt(number)


@pipeline
def root(number: int) -> float:
    return root_on_gpu(number)


@pipeline
def roots(number: int) -> list[float]:
    return root_on_gpu.map([number, number, number])
