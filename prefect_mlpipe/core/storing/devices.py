"""Tells values that cannot be loaded for want of a GPU, or of its memory, from damaged ones.

Knows how the libraries of GPUs say so. The value is sound then: making it again would not help.
"""

from __future__ import annotations

from typing import Final

from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.errors import NoDevice

_LIBRARIES: Final = frozenset(
    {"cuda", "cudf", "cupy", "cupy_backends", "cupyx", "cuml", "numba_cuda", "pylibcudf", "rmm"}
)
_OF_TORCH: Final = frozenset({"AcceleratorError", "OutOfMemoryError"})
_ADVICE: Final = (
    "Let the step run where there is one (compute='gpu', resources=Resources(gpus=1)), or let the\n"
    "step above return what host memory holds: cupy.asnumpy(array), frame.to_pandas()."
)


def lacks_device(error: BaseException) -> bool:
    """Whether a value could not be loaded for want of a GPU, of its library, or of its memory."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or "").partition(".")[0] in _LIBRARIES
    library = type(error).__module__.partition(".")[0]
    return library in _LIBRARIES or (library == "torch" and type(error).__name__ in _OF_TORCH)


def no_device(stored: StoredValue, error: BaseException) -> NoDevice:
    """Return the error for a value that lives on a GPU, where it cannot be brought to one."""
    return NoDevice(
        f"A value of type {stored.type} lives on a GPU, and cannot be brought to one here.",
        {"because": f"{type(error).__name__}: {error}"},
        _ADVICE,
    )


def for_step(step: str, error: NoDevice) -> NoDevice:
    """Return the error with the step that was to be given the value."""
    return NoDevice(
        f"Step '{step}' cannot be given its input. {error.sentence}", error.facts, error.advice
    )
