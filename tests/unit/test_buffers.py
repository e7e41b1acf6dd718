"""Pool: what connections that send and receive take from it, and that all of it comes back.

Buffers have no Python of their own, so connections are driven by hand; the pool's two counters tell.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from tests.peer import BINARY, TEXT, encode_frame
from tests.unit.test_writer import LARGE, Line, Room, frame, publish
from wsev._core.buffers import Pool

KIB = 1024
TICK = 0.25  # seconds between two calls of trim()


def counters(room: Room) -> tuple[int, int]:
    return room.state.pool.lent, room.state.pool.idle_bytes


def test_a_new_pool_holds_nothing_and_has_nothing_to_trim() -> None:
    pool = Pool()
    pool.trim()
    assert (pool.lent, pool.idle_bytes) == (0, 0)


# What is taken


def test_a_connection_with_nothing_unsent_holds_no_buffer() -> None:
    room = Room()
    line = room.open()
    line.receive(encode_frame(TEXT, b"m" * 1000))
    assert room.state.pool.lent == 0


@pytest.mark.parametrize(
    "messages, buffers",
    [
        pytest.param(1, [256], id="one small"),
        pytest.param(2, [256], id="full"),
        pytest.param(3, [256, 512], id="one more"),
        pytest.param(30, [256, 512, 1024, 2048, 4096], id="many"),
        pytest.param(1000, [256, 512, 1024, 2048, 4096, 8192, 16_384], id="more than write_buffer_size"),
    ],
)
def test_a_write_buffer_starts_with_256_bytes_and_doubles_up_to_write_buffer_size(
    messages: int, buffers: list[int]
) -> None:
    room = Room(write_buffer_size=16 * KIB)
    line = room.open()
    for _ in range(messages):
        line.conn.send(bytes(110))
        assert room.state.pool.lent == 1
    room.loop.turn()
    assert counters(room) == (0, sum(buffers))


def test_what_came_back_is_used_again() -> None:
    room = Room()
    lines = [room.open() for _ in range(3)]
    for line in lines * 10:
        line.conn.send(bytes(5000))
        room.loop.turn()
        assert counters(room) == (0, 256 + 8192)


def test_a_message_that_is_kept_by_reference_takes_a_small_buffer_for_its_header() -> None:
    room = Room()
    line = room.open()
    line.block()
    line.conn.send(bytes(LARGE))
    assert room.state.pool.lent == 2
    line.unblock()
    assert counters(room) == (0, 256)


@pytest.mark.parametrize("size, idle", [(300_000, 256 + 512 * KIB), (600_000, 256)], ids=["kept", "too large"])
def test_a_buffer_over_512_kib_is_given_back_at_once(size: int, idle: int) -> None:
    room = Room(write_buffer_size=1024 * KIB)
    line = room.open()
    line.conn.send(bytes(size))
    room.loop.turn()
    assert counters(room) == (0, idle)


def test_what_a_buffer_held_before_is_never_sent() -> None:
    room = Room()
    former, line = room.open(), room.open()
    former.conn.send(b"secret" * 30)
    room.loop.turn()
    line.conn.send(b"m")
    room.loop.turn()
    assert line.calls() == [frame(BINARY, b"m")]


# A burst


def test_a_publish_of_64_bytes_takes_at_most_600_bytes_for_each_subscriber() -> None:
    room = Room()
    for _ in range(300):
        room.open()
    assert publish(room.connections, bytes(64)) == 300
    assert room.state.pool.lent == 300
    room.loop.turn()
    lent, idle = counters(room)
    assert lent == 0
    assert 300 * 64 < idle < 300 * (600 - 50)  # 48 bytes of a buffer are not counted


def test_what_a_burst_left_is_given_back_while_its_connections_stay() -> None:
    room = Room()
    for _ in range(300):
        room.open()
    publish(room.connections, bytes(5000))
    room.loop.turn()
    idle = []
    for _ in range(15):
        room.loop.pass_time(TICK)
        idle.append(room.state.pool.idle_bytes)
    assert idle == sorted(idle, reverse=True)
    assert idle[-1] == 0
    assert publish(room.connections, b"m") == 300


def test_what_is_needed_between_two_trims_is_kept() -> None:
    room = Room()
    for _ in range(100):
        room.open()
    for _ in range(20):
        publish(room.connections, bytes(64))
        room.loop.turn()
        room.loop.pass_time(TICK)
        assert counters(room) == (0, 100 * 256)


def test_without_connections_the_pool_empties_and_then_no_timer_is_left() -> None:
    room = Room()
    lines = [room.open() for _ in range(20)]
    publish(room.connections, bytes(64))
    room.loop.turn()
    for line in lines:
        line.conn.abort()
        line.conn.connection_lost(None)
    room.loop.turn()
    room.loop.pass_time(10 * TICK)
    assert counters(room) == (0, 0)
    assert room.loop.timers == []


# The end


def send_many(line: Line) -> None:
    for size in [5, LARGE, 9000, 9000, 9000] * 10:
        line.conn.send(bytes(size))


def hold_what_was_received(line: Line) -> None:
    line.conn.send(bytes(LARGE * 5))
    line.conn.flush()  # more than high_water
    line.receive(encode_frame(TEXT, b"m") * 9)


def pass_the_limit(line: Line) -> None:
    for _ in range(3):
        line.conn.send(bytes(6_000_000))
    assert not line.conn.is_open
    line.conn.connection_lost(None)


UNSENT: dict[str, tuple[Callable[[Line], object], int]] = {  # and how many buffers that takes
    "small": (lambda line: line.conn.send("m"), 1),
    "large": (lambda line: line.conn.send(bytes(LARGE)), 2),
    "many": (send_many, 1 + 10 * 4),
    "published": (lambda line: publish([line.conn], bytes(LARGE)), 1),
    "and received": (hold_what_was_received, 3),
}
ENDS: dict[str, Callable[[Line], object]] = {
    "abort": lambda line: line.conn.abort(),
    "loss": lambda line: line.conn.connection_lost(ConnectionResetError()),
    "slow consumer": pass_the_limit,
    "stop_timeout": lambda line: line.conn._cancel(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("queue, taken", UNSENT.values(), ids=UNSENT)
def test_an_end_gives_back_what_is_unsent(
    queue: Callable[[Line], object], taken: int, end: Callable[[Line], object]
) -> None:
    room = Room(max_buffered_amount=10_000_000)
    line = room.open()
    line.block()
    queue(line)
    assert room.state.pool.lent == taken
    end(line)
    assert room.state.pool.lent == 0


@pytest.mark.parametrize("queue, taken", UNSENT.values(), ids=UNSENT)
def test_a_loop_that_is_dropped_gives_back_what_its_connections_had_unsent(
    queue: Callable[[Line], object], taken: int
) -> None:
    room = Room()
    pool = room.state.pool
    line = room.open()
    line.block()
    queue(line)
    assert pool.lent == taken
    del room, line
    gc.collect()
    assert pool.lent == 0
