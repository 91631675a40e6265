from __future__ import annotations

import logging
import threading

import pytest

from prefect_mlpipe.core.leases.heart import Heart
from prefect_mlpipe.errors import StoreUnavailable

PATIENCE_S = 120.0


class Beating:
    """Counts its renewals; the first ones fail."""

    def __init__(self, fails: int = 0) -> None:
        self.expires_s = 0.06
        self.beats = 0
        self.fails = fails
        self.beaten, self.tidied = threading.Event(), threading.Event()

    def renew(self) -> None:
        self.beats += 1
        if self.beats <= self.fails:
            raise StoreUnavailable("the store cannot be used") if self.beats % 2 else OSError("no")
        if self.beats >= self.fails + 3:
            self.beaten.set()

    def tidy(self) -> None:
        self.tidied.set()

    def close(self) -> None:
        self.beaten.clear()


def test_what_is_added_is_renewed_again_and_again_until_it_is_removed() -> None:
    heart, one, other = Heart(), Beating(), Beating()
    heart.add(one)
    heart.add(other)
    thread = heart._thread
    assert thread is not None
    assert one.beaten.wait(PATIENCE_S)
    assert other.beaten.wait(PATIENCE_S)
    heart.remove(one)
    heart.remove(other)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    heart.add(one)
    one.beaten.clear()
    assert one.beaten.wait(PATIENCE_S)
    heart.remove(one)


def test_a_renewal_that_fails_is_said_and_keeps_no_other_from_being_renewed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heart, broken, sound = Heart(), Beating(fails=4), Beating()
    with caplog.at_level(logging.WARNING):
        heart.add(broken)
        heart.add(sound)
        assert broken.beaten.wait(PATIENCE_S)
        assert sound.beaten.wait(PATIENCE_S)
    assert caplog.text.count("a lease could not be renewed") == 4
    heart.remove(broken)
    heart.remove(sound)


def test_what_could_wait_is_done_as_soon_as_it_is_asked_for() -> None:
    heart, slow = Heart(), Beating()
    slow.expires_s = 1e6  # its next renewal is days away
    heart.add(slow)
    assert slow.tidied.wait(PATIENCE_S)
    slow.tidied.clear()
    heart.wake()
    assert slow.tidied.wait(PATIENCE_S)
    heart.remove(slow)
    heart.wake()
    thread = heart._thread
    if thread is not None:
        thread.join(PATIENCE_S)
    assert heart._thread is None
