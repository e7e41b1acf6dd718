"""Signals as bytes to read: which come, in which order, and what is as before afterwards."""

from __future__ import annotations

import select
import signal
from collections.abc import Iterator

import pytest

from wsev.workers.signals import Signals


@pytest.fixture
def before() -> Iterator[None]:
    """Two signals with other handlers than Python's own, which must be there again."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    assert {number: signal.getsignal(number) for number in handlers} == dict.fromkeys(handlers, signal.SIG_IGN)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def is_readable(signals: Signals) -> bool:
    return bool(select.select([signals], [], [], 0)[0])


def test_each_signal_that_comes_is_read_once_in_its_order(before: None) -> None:
    with Signals([signal.SIGUSR1, signal.SIGUSR2]) as signals:
        assert not is_readable(signals)
        for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1):
            signal.raise_signal(number)
        assert is_readable(signals)
        assert signals.read() == [signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1]
        assert signals.read() == []


def test_one_that_others_handle_is_not_read(before: None) -> None:
    with Signals([signal.SIGUSR1]) as signals:
        handler = signal.signal(signal.SIGUSR2, lambda number, frame: None)
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)
        assert signals.read() == [signal.SIGUSR1]
        signal.signal(signal.SIGUSR2, handler)


def test_what_was_ignored_before_is_known(before: None) -> None:
    handler = signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    with Signals([signal.SIGUSR1, signal.SIGUSR2]) as signals:
        assert signals.was_ignored(signal.SIGUSR1)
        assert not signals.was_ignored(signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, handler)


def test_a_blocked_signal_comes_afterwards(before: None) -> None:
    with Signals([signal.SIGUSR1]) as signals:
        with signals.blocked():
            signal.raise_signal(signal.SIGUSR1)
            assert not is_readable(signals)
        assert signals.read() == [signal.SIGUSR1]


def test_the_wakeup_descriptor_is_the_one_from_before_again(before: None) -> None:
    with Signals([signal.SIGUSR1]) as outer:
        with Signals([signal.SIGUSR2]):
            pass
        signal.raise_signal(signal.SIGUSR1)
        assert outer.read() == [signal.SIGUSR1]
    assert signal.set_wakeup_fd(-1) == -1
