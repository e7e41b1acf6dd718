"""Wheel: members that only say when they were looked at, and a clock that is an argument.

FlushQueue, whose members the core alone can call: connections whose transports are recorded.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import pytest

from tests.peer import TEXT
from tests.unit.test_writer import DEADLINE, Room, frame
from wsev._core.loop import LoopMember, Wheel

TICK = 250


class Member(LoopMember):
    def __init__(self, expire: Callable[[int], int] = lambda now: 0) -> None:
        self.looks: list[int] = []
        self.on_expire = expire

    def expire(self, now: int) -> int:
        self.looks.append(now)
        return self.on_expire(now)


def test_a_member_is_looked_at_once_not_early_and_at_most_one_tick_late() -> None:
    chance = random.Random(1)
    for step in (1, 7, TICK, 1000, 500_000):
        wheel = Wheel()
        dues = [chance.randrange(1, 300_000) for _ in range(300)]
        members = [Member() for _ in dues]
        for member, due in zip(members, dues, strict=True):
            wheel.schedule(member, due)
        assert wheel.count == 300
        for now in range(0, 300_000 + 2 * max(step, TICK), max(step, 25)):
            wheel.advance(now)
        for member, due in zip(members, dues, strict=True):
            (look,) = member.looks
            assert due <= look <= due + TICK + max(step, 25)
        assert wheel.count == 0


def test_the_earlier_of_two_times_stands() -> None:
    wheel = Wheel()
    earlier, later = Member(), Member()
    wheel.schedule(earlier, 5000)
    wheel.schedule(earlier, 1000)
    wheel.schedule(later, 1000)
    wheel.schedule(later, 5000)
    wheel.advance(1250)
    assert (len(earlier.looks), len(later.looks), wheel.count) == (1, 1, 0)


def test_a_removed_member_is_not_looked_at() -> None:
    wheel = Wheel()
    members = [Member() for _ in range(3)]
    for member in members:
        wheel.schedule(member, 1000)
    wheel.remove(members[1])
    wheel.remove(members[1])
    wheel.advance(2000)
    assert [len(member.looks) for member in members] == [1, 0, 1]


def test_expire_says_when_to_look_next() -> None:
    wheel = Wheel()
    member = Member(lambda now: now + 1000 if now < 3500 else 0)
    wheel.schedule(member, 1000)
    for now in range(0, 10_000, TICK):
        wheel.advance(now)
    assert member.looks == [1000, 2000, 3000, 4000]


def test_a_member_may_remove_others_and_itself_while_the_wheel_advances() -> None:
    wheel = Wheel()
    members: list[Member] = []

    def remove_all(now: int) -> int:
        for member in members:
            wheel.remove(member)
        return 0

    members += [Member(remove_all) for _ in range(5)]
    for member in members:
        wheel.schedule(member, 1000)
    wheel.advance(2000)
    assert sum(len(member.looks) for member in members) == 1
    assert wheel.count == 0


def test_a_time_past_the_wheels_end_is_kept() -> None:
    wheel = Wheel()
    member = Member()
    wheel.schedule(member, 3_600_000)
    for now in range(0, 3_600_000, 10_000):
        wheel.advance(now)
    assert member.looks == []
    wheel.advance(3_600_250)
    assert len(member.looks) == 1


def test_a_finer_granularity_keeps_the_times() -> None:
    wheel = Wheel()
    member = Member()
    wheel.advance(10_000)
    wheel.schedule(member, 10_400)
    wheel.set_granularity(5)
    wheel.advance(10_399)
    assert member.looks == []
    wheel.advance(10_405)
    assert len(member.looks) == 1


def test_a_member_that_fails_is_logged_and_the_others_are_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    def fail(now: int) -> int:
        raise MemoryError

    wheel = Wheel()
    members = [Member(), Member(fail), Member()]
    for member in members:
        wheel.schedule(member, 1000)
    caplog.set_level(logging.CRITICAL + 1, logger="")
    with caplog.at_level(logging.CRITICAL + 1, logger="wsev.connection"):
        wheel.advance(2000)
    assert [len(member.looks) for member in members] == [1, 1, 1]
    assert wheel.count == 0


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
def test_an_exit_out_of_the_wheel_waits_until_the_others_were_looked_at(wish: type[BaseException]) -> None:
    def leave(now: int) -> int:
        raise wish

    wheel = Wheel()
    members = [Member(), Member(leave), Member(), Member(leave), Member(lambda now: 3000 if now < 3000 else 0)]
    for member in members:
        wheel.schedule(member, 1000)
    with pytest.raises(wish):
        wheel.advance(1500)
    assert [len(member.looks) for member in members] == [1, 1, 1, 1, 1]
    assert wheel.count == 1
    for member in members[:4]:
        wheel.schedule(member, 3000)  # it forgot nobody
    with pytest.raises(wish):
        wheel.advance(3500)
    assert [len(member.looks) for member in members] == [2, 2, 2, 2, 2]


# FlushQueue


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("deadline", [0.0, DEADLINE], ids=["without a deadline", "with a deadline"])
def test_an_exit_out_of_a_flush_waits_until_the_others_have_been_flushed(
    wish: type[BaseException], deadline: float
) -> None:
    def leave() -> None:
        raise wish

    room = Room(write_buffer_deadline=deadline)
    lines = [room.open() for _ in range(5)]
    for line in (lines[1], lines[3]):
        line.transport.in_write = leave
    for line in lines:
        line.conn.send("m")
    with pytest.raises(wish):
        room.loop.turn()
        room.loop.pass_time(deadline)
    assert [line.calls() for line in lines] == [[frame(TEXT, b"m")], [b""]] * 2 + [[frame(TEXT, b"m")]]
    assert room.state.pool.lent == 0
    lines[0].conn.send("next")
    room.loop.turn()
    room.loop.pass_time(deadline)
    assert lines[0].calls() == [frame(TEXT, b"next")]
