"""Where a step call finds the pipeline body that is being traced, if any.

One context variable below both steps and tracing, so that neither needs the other. Tracing holds
in the body's own thread only: a context that is copied into a worker thread must not make nodes
there.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from threading import get_ident
from typing import Any, Protocol


class TracerLike(Protocol):
    """What step calls need of a tracer."""

    thread: int

    def call(self, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add a node."""

    def map(self, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add a mapped node."""

    def inline(self, pipeline: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Trace another pipeline's body as a group."""

    def resolve(self, value: Any) -> Any:
        """Return a value with its outputs replaced by what they stand for."""


_tracer: ContextVar[TracerLike | None] = ContextVar("prefect_mlpipe_tracer", default=None)


def active_tracer() -> TracerLike | None:
    """Return the tracer of the body that this very thread is in, `None` elsewhere."""
    tracer = _tracer.get()
    return tracer if tracer is not None and tracer.thread == get_ident() else None


def start(tracer: TracerLike) -> Token[TracerLike | None]:
    """Trace from here on in this context."""
    return _tracer.set(tracer)


def stop(token: Token[TracerLike | None]) -> None:
    """Undo `start`."""
    _tracer.reset(token)


def leave() -> None:
    """Be outside any body in this context: inside a step a step call is the plain function."""
    _tracer.set(None)
