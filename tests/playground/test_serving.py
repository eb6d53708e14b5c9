"""`python app.py` until it is ended."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from threading import Lock

import pytest

from app import Playground, serve

ENDS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """As `main` has it: a signal is an exception wherever the program is."""
    before = {number: signal.signal(number, lambda *_: sys.exit(0)) for number in ENDS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Launched:
    """A page that takes a lock while it is launched, and meanwhile signals come."""

    def __init__(self, *signals: int) -> None:
        self.signals, self.lock, self.done = signals, Lock(), False

    def launch(self, **_options: object) -> tuple[None, str, None]:
        self.lock.acquire()
        for number in self.signals:
            signal.raise_signal(number)
        self.lock.release()
        self.done = True
        return None, "http://127.0.0.1", None

    def block_thread(self) -> None:
        pytest.fail("the signal was lost")


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_while_the_page_is_launched_ends_it_with_no_lock_taken(number: int) -> None:
    page, usual = Launched(number), signal.getsignal(number)
    with pytest.raises(SystemExit):
        serve(page, Playground())
    assert page.done
    assert not page.lock.locked()
    assert signal.getsignal(number) is usual


def test_a_second_signal_does_not_wait_for_the_launch() -> None:
    page = Launched(signal.SIGTERM, signal.SIGTERM)
    with pytest.raises(SystemExit):
        serve(page, Playground())
    assert not page.done
