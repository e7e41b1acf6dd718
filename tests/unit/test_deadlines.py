"""Deadlines: many members, one timer."""

from __future__ import annotations

from tests.recorded import ManualLoop
from wsev.handshake.deadlines import Deadlines


def test_each_member_expires_once_in_the_order_of_their_adding() -> None:
    loop, expired = ManualLoop(), list[str]()
    deadlines = Deadlines(loop, 10.0, expired.append)
    deadlines.add("a")
    loop.pass_time(4.0)
    deadlines.add("b")
    loop.pass_time(5.9)
    assert expired == []
    loop.pass_time(0.1)
    assert expired == ["a"]
    loop.pass_time(100.0)
    assert expired == ["a", "b"]


def test_a_member_that_was_discarded_does_not_expire() -> None:
    loop, expired = ManualLoop(), list[str]()
    deadlines = Deadlines(loop, 10.0, expired.append)
    deadlines.add("a")
    deadlines.add("b")
    deadlines.discard("a")
    deadlines.discard("never in")
    loop.pass_time(10.0)
    assert expired == ["b"]


def test_there_is_one_timer_and_none_without_members() -> None:
    loop = ManualLoop()
    deadlines = Deadlines[int](loop, 10.0, lambda member: None)
    for member in range(100):
        deadlines.add(member)
        loop.pass_time(0.001)
    assert len(loop.timers) == 1
    loop.pass_time(20.0)
    assert loop.timers == []


def test_the_timer_fires_at_most_twenty_times_in_a_timeout() -> None:
    loop, calls = ManualLoop(), list[float]()
    deadlines = Deadlines[int](loop, 10.0, lambda member: calls.append(loop.now))
    for member in range(1000):
        deadlines.add(member)
        loop.pass_time(0.01)
    loop.pass_time(20.0)
    assert len(calls) == 1000
    assert len(set(calls)) <= 21


def test_without_a_timeout_nothing_expires() -> None:
    loop = ManualLoop()
    deadlines = Deadlines[int](loop, None, lambda member: None)
    deadlines.add(1)
    assert loop.timers == []


def test_what_becomes_of_one_may_discard_and_add_others() -> None:
    loop, expired = ManualLoop(), list[str]()

    def expire(member: str) -> None:
        expired.append(member)
        if member == "a":
            deadlines.discard("b")
            deadlines.add("c")

    deadlines = Deadlines(loop, 10.0, expire)
    deadlines.add("a")
    deadlines.add("b")
    loop.pass_time(10.0)
    assert expired == ["a"]
    loop.pass_time(10.0)
    assert expired == ["a", "c"]
    assert loop.timers == []


def test_after_close_nothing_expires() -> None:
    loop, expired = ManualLoop(), list[str]()
    deadlines = Deadlines(loop, 10.0, expired.append)
    deadlines.add("a")
    deadlines.close()
    loop.pass_time(20.0)
    assert expired == []
