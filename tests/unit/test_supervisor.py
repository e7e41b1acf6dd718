"""The supervisor's decisions that need no process; the others are tested in processes/."""

from __future__ import annotations

import threading

import pytest

from wsev.options import Listening
from wsev.workers.supervisor import Backoff, Supervisor


def test_a_worker_that_dies_is_started_again_at_once_and_then_later_and_later() -> None:
    backoff = Backoff()
    assert [backoff.next_delay(served=0.1) for _ in range(10)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_one_that_never_served_counts_as_one_that_died_at_once() -> None:
    backoff = Backoff()
    assert [backoff.next_delay(served=0) for _ in range(3)] == [0, 0.5, 1]


def test_a_healthy_run_begins_anew() -> None:
    backoff = Backoff()
    for _ in range(6):
        backoff.next_delay(served=9.9)
    assert [backoff.next_delay(served) for served in (10.0, 0.1, 3600.0)] == [0, 0.5, 0]


def test_it_stays_at_the_longest_delay_however_often_it_dies() -> None:
    backoff = Backoff()
    assert [backoff.next_delay(served=0) for _ in range(5000)][-1] == 30


def test_it_is_run_in_the_main_thread_only() -> None:
    raised: list[str] = []

    def run() -> None:
        try:
            Supervisor(lambda place: pytest.fail("a worker was started"), Listening.of(0), 2).run()
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert raised == ["several workers are run from the main thread only: it alone gets signals"]
