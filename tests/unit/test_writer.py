"""Writer and Output, driven by hand: when bytes leave, in which order, by how many system calls, and whose they are.

A connection writes to one end of a socket pair.  Where that keeps packets apart, each packet is one system call; where
it is a full stream, the transport queues what the kernel did not take, and keeps a view of it as both loops do.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import random
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from tests.apart import MIB, at_most, needs_scarcity, run_apart
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, encode_frame
from tests.unit.test_connection import RESPONSE, Transport, TurningLoop
from wsev._core.connection import Connection
from wsev._core.dispatch import Callbacks
from wsev._core.loop import LoopState, ServerState
from wsev._core.writer import deliver, encode_message
from wsev.options import Options

DEADLINE = 0.010
LARGE = 20_000  # bytes: more than write_buffer_size, so kept by reference

Conn = Connection[Any]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: Unix sockets that keep packets apart")


class PairTransport(Transport):
    """Around one end of a socket pair, to which the connection writes itself until that is full."""

    def __init__(self, kind: socket.SocketKind, send_buffer: int | None = None) -> None:
        super().__init__()
        self.ours, self.peer = socket.socketpair(socket.AF_UNIX, kind)
        self.ours.setblocking(False)
        self.peer.setblocking(False)
        if send_buffer is not None:
            self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._extra: dict[str, object] = {"socket": self.ours, "peername": ""}
        self.queue: list[memoryview] = []

    def write(self, data: Any) -> None:
        self.queue.append(memoryview(data))
        self.conn.pause_writing()

    @property
    def conn(self) -> Conn:
        assert isinstance(self.protocol, Connection)
        return self.protocol

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.queue))

    def send_queued(self) -> None:
        """The socket can be written to."""
        while self.queue:
            try:
                sent = self.ours.send(self.queue[0])
            except BlockingIOError:
                return
            self.queue[0] = self.queue[0][sent:]
            if not self.queue[0]:
                del self.queue[0]
        self.conn.resume_writing()

    def abort(self) -> None:
        super().abort()
        self.queue.clear()


class Line:
    """One connection, and its peer's end."""

    def __init__(self, room: Room, transport: Transport, callbacks: dict[str, Any]) -> None:
        self.room = room
        self.transport = transport
        self.conn: Conn = Connection(room.server, Callbacks(**callbacks), transport, None, None, None)
        transport.protocol = self.conn
        self.conn.open(RESPONSE, b"")
        room.loop.turn()
        room.loop.pass_time(room.deadline)  # nothing of it is left in any queue
        assert b"".join(self.calls()) == RESPONSE

    def receive(self, data: bytes) -> None:
        """One read event."""
        buffer = self.conn.get_buffer(-1)
        buffer[: len(data)] = data
        self.conn.buffer_updated(len(data))

    def calls(self) -> list[bytes]:
        """What came at the peer's end since the last time: a packet for each system call."""
        if not isinstance(self.transport, PairTransport):
            written, self.transport.written = self.transport.written, b""
            return [written]
        found = []
        with contextlib.suppress(BlockingIOError):
            while data := self.transport.peer.recv(1 << 20):
                found.append(data)
        return found

    def in_kernel(self) -> int:
        """Bytes that are with the kernel and that the peer has not read."""
        assert isinstance(self.transport, PairTransport)
        answer = fcntl.ioctl(self.transport.peer, termios.FIONREAD, bytes(4))
        (size,) = struct.unpack("i", answer)
        assert isinstance(size, int)
        return size

    def block(self) -> None:
        """Its socket is full."""
        self.conn.pause_writing()

    def unblock(self) -> None:
        self.conn.resume_writing()


class Room:
    """Connections of one server in one loop, which is turned by hand."""

    def __init__(self, kind: socket.SocketKind | None = None, send_buffer: int | None = None, **options: Any) -> None:
        self.kind = kind
        self.send_buffer = send_buffer
        self.loop = TurningLoop()
        self.state = LoopState.of(self.loop)
        self.hooks: Any = SimpleNamespace(opened=lambda conn: None, closed=lambda conn: None)
        self.deadline: float = options.get("write_buffer_deadline", 0.0)
        self.server: Any = ServerState(self.state, self.hooks, Options.of(**options))
        self.lines: list[Line] = []
        self.pairs: list[PairTransport] = []

    def open(self, **callbacks: Any) -> Line:
        transport = Transport()
        if self.kind is not None:
            transport = PairTransport(self.kind, self.send_buffer)
            self.pairs.append(transport)
        self.lines.append(Line(self, transport, callbacks))
        return self.lines[-1]

    @property
    def connections(self) -> list[Conn]:
        return [line.conn for line in self.lines]

    def close(self) -> None:
        for pair in self.pairs:
            pair.ours.close()
            pair.peer.close()


class Rooms(Protocol):
    def __call__(
        self, *, kind: socket.SocketKind | None = socket.SOCK_SEQPACKET, send_buffer: int | None = None, **options: Any
    ) -> Room: ...


@pytest.fixture
def rooms() -> Iterator[Rooms]:
    """`room = rooms(**options)`: by default with sockets that keep the system calls apart."""
    made: list[Room] = []

    def make(
        *, kind: socket.SocketKind | None = socket.SOCK_SEQPACKET, send_buffer: int | None = None, **options: Any
    ) -> Room:
        made.append(Room(kind, send_buffer, **options))
        return made[-1]

    yield make
    for room in made:
        room.close()


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """The server's."""
    return encode_frame(opcode, payload, masked=False)


def publish(connections: Iterable[Conn], message: Any, text: bool = False) -> int:
    """As a server does to the subscribers of a topic, and to all."""
    return deliver(connections, encode_message(message, text))


# When it leaves: write_buffer_deadline=0


def test_what_is_sent_in_its_own_read_event_leaves_by_one_system_call_at_its_end(rooms: Rooms) -> None:
    early: list[bytes] = []

    def said(conn: Conn, message: str) -> None:
        conn.send(message)
        publish([conn], message.encode())
        early.extend(line.calls())

    line = rooms().open(on_message=said)
    line.receive(encode_frame(TEXT, b"again") * 16)
    assert line.calls() == [(frame(TEXT, b"again") + frame(BINARY, b"again")) * 16]
    assert early == []


def test_what_is_sent_from_elsewhere_leaves_by_one_system_call_when_the_loop_turns(rooms: Rooms) -> None:
    room = rooms()
    line = room.open()
    for _ in range(10):
        line.conn.send("m")
    assert line.calls() == []
    room.loop.turn()
    assert line.calls() == [frame(TEXT, b"m") * 10]


def test_what_is_sent_to_another_in_a_read_event_leaves_when_the_loop_turns(rooms: Rooms) -> None:
    room = rooms()
    other = room.open()
    line = room.open(on_message=lambda conn, message: other.conn.send(message))
    line.receive(encode_frame(TEXT, b"m") * 10)
    assert other.calls() == []
    room.loop.turn()
    assert other.calls() == [frame(TEXT, b"m") * 10]
    assert line.calls() == []


def test_a_loop_is_asked_for_one_turn_however_many_connections_were_sent_to(rooms: Rooms) -> None:
    room = rooms()
    for _ in range(20):
        room.open()
    for conn in room.connections * 3:
        conn.send("m")
    assert len(room.loop.ready) == 1


def test_what_is_sent_while_the_others_are_flushed_leaves_too(rooms: Rooms) -> None:
    room = rooms(high_water=1000)
    first, third = room.open(), room.open()
    second = room.open(on_drain=lambda conn: [each.send("drained") for each in room.connections])
    second.block()
    second.conn.send(bytes(2000))
    second.conn.flush()
    for conn in (first.conn, third.conn):
        conn.send("m")
    second.unblock()
    second.calls()
    room.loop.turn()
    assert b"".join(first.calls()) == b"".join(third.calls()) == frame(TEXT, b"m") + frame(TEXT, b"drained")
    assert second.calls() == [frame(TEXT, b"drained")]


@pytest.mark.parametrize("deadline", [0.0, DEADLINE], ids=["without a deadline", "with a deadline"])
def test_a_full_buffer_leaves_at_once(rooms: Rooms, deadline: float) -> None:
    room = rooms(write_buffer_size=1000, write_buffer_deadline=deadline)
    line = room.open()
    for _ in range(10):
        line.conn.send(bytes(98))
    assert line.calls() == []
    line.conn.send(bytes(98))
    assert line.calls() == [frame(BINARY, bytes(98)) * 10]
    room.loop.turn()
    room.loop.pass_time(deadline)
    assert line.calls() == [frame(BINARY, bytes(98))]


def test_what_is_sent_to_all_and_to_each_is_one_system_call_for_each_connection_and_turn(rooms: Rooms) -> None:
    room = rooms()
    for _ in range(5):
        room.open()
    for turn in range(3):
        for number in range(10):
            assert publish(room.connections, b"%d to all" % number) == 5
            for line in room.lines[:2]:
                line.conn.send(b"%d to each" % number)
        room.loop.turn()
        calls = [line.calls() for line in room.lines]
        assert [[call.count(b"to all") for call in each] for each in calls] == [[10]] * 5, turn
        assert [[call.count(b"to each") for call in each] for each in calls] == [[10]] * 2 + [[0]] * 3, turn


# When it leaves: write_buffer_deadline > 0


@pytest.mark.parametrize("where", ["in its read event", "elsewhere"])
def test_with_a_deadline_it_waits_so_long_from_the_first_unsent_byte_on(rooms: Rooms, where: str) -> None:
    room = rooms(write_buffer_deadline=DEADLINE)
    line = room.open(on_message=lambda conn, message: conn.send(message))
    for _ in range(4):
        if where == "elsewhere":
            line.conn.send("m")
        else:
            line.receive(encode_frame(TEXT, b"m"))
        room.loop.turn()
        room.loop.pass_time(DEADLINE / 4 - 1e-6)
        assert line.calls() == []
    room.loop.pass_time(2e-5)
    assert line.calls() == [frame(TEXT, b"m") * 4]


def test_a_loop_has_one_timer_however_many_connections_wait(rooms: Rooms) -> None:
    room = rooms(write_buffer_deadline=DEADLINE)
    for _ in range(20):
        room.open()
    idle = len(room.loop.timers)
    for _ in range(3):
        for conn in room.connections:
            conn.send("m")
            room.loop.pass_time(DEADLINE / 40)
            assert len(room.loop.timers) == idle + 1
    room.loop.pass_time(DEADLINE)
    assert all(line.calls() for line in room.lines)
    assert len(room.loop.timers) == idle


def test_each_connection_leaves_at_its_own_deadline_first_come_first_served(rooms: Rooms) -> None:
    room = rooms(write_buffer_deadline=DEADLINE)
    for _ in range(5):
        room.open()
    order = [3, 0, 4, 1, 2]
    for number in order:
        room.lines[number].conn.send("m")
        room.loop.pass_time(0.001)
        room.lines[order[0]].conn.send("more")  # who waits already keeps its place
    left: list[list[int]] = []
    room.loop.pass_time(DEADLINE - 0.0059)  # a moment before the first is due
    for _ in order:
        room.loop.pass_time(0.001)
        left.append([number for number, line in enumerate(room.lines) if line.calls()])
    assert left == [[number] for number in order]


def test_connections_of_one_moment_leave_in_the_order_of_their_first_bytes(rooms: Rooms) -> None:
    room = rooms(kind=None, write_buffer_deadline=DEADLINE)
    left: list[Line] = []

    def record(line: Line) -> None:
        line.transport.write = lambda data: left.append(line)  # type: ignore[method-assign]  # the fake's, not ours

    for _ in range(5):
        record(room.open())
    order = [room.lines[number] for number in (3, 0, 4, 1, 2)]
    for line in order * 2:
        line.conn.send("m")
    room.loop.pass_time(DEADLINE)
    assert left == order


def test_servers_of_one_loop_have_deadlines_of_their_own(rooms: Rooms) -> None:
    room = rooms(write_buffer_deadline=DEADLINE)
    slow = room.open()
    room.server = ServerState(room.state, room.hooks, Options.of(write_buffer_deadline=DEADLINE / 2))
    fast = room.open()
    slow.conn.send("m")
    fast.conn.send("m")
    room.loop.pass_time(DEADLINE / 2)
    assert (len(slow.calls()), len(fast.calls())) == (0, 1)
    room.loop.pass_time(DEADLINE / 2)
    assert (len(slow.calls()), len(fast.calls())) == (1, 0)


def test_who_ends_while_it_waits_is_passed_over(rooms: Rooms) -> None:
    room = rooms(write_buffer_deadline=DEADLINE)
    ended, other = room.open(), room.open()
    ended.conn.send("m")
    other.conn.send("m")
    ended.conn.abort()
    ended.conn.connection_lost(None)
    room.loop.pass_time(DEADLINE)
    assert (ended.calls(), other.calls()) == ([], [frame(TEXT, b"m")])


NEVER_WAIT: dict[str, tuple[Callable[[Line], object], bytes]] = {
    "pong": (lambda line: line.receive(encode_frame(PING, b"p")), frame(PONG, b"p")),
    "Close": (lambda line: line.conn.close(1000), frame(CLOSE, b"\x03\xe8")),
    "Close in a read event": (lambda line: line.receive(encode_frame(TEXT, b"close")), frame(CLOSE, b"\x03\xe8")),
    "answer to Close": (lambda line: line.receive(encode_frame(CLOSE, b"\x03\xe9")), frame(CLOSE, b"\x03\xe9")),
    "violation": (lambda line: line.receive(encode_frame(TEXT, b"m", masked=False)), frame(CLOSE, b"\x03\xea")),
    "flush": (lambda line: line.conn.flush(), b""),
    "flush in a read event": (lambda line: line.receive(encode_frame(TEXT, b"flush")), b""),
}


@pytest.mark.parametrize("call, expected", NEVER_WAIT.values(), ids=NEVER_WAIT)
def test_pongs_close_frames_and_flush_wait_for_no_deadline_and_take_along_what_was_before(
    rooms: Rooms, call: Callable[[Line], object], expected: bytes
) -> None:
    line = rooms(write_buffer_deadline=DEADLINE).open(on_message=lambda conn, message: getattr(conn, message)())
    line.conn.send("before")
    call(line)
    assert line.calls() == [frame(TEXT, b"before") + expected]


def test_flush_in_a_read_event_does_not_wait_for_its_end(rooms: Rooms) -> None:
    early: list[bytes] = []

    def said(conn: Conn, message: str) -> None:
        conn.send(message)
        conn.flush()
        early.extend(line.calls())

    line = rooms().open(on_message=said)
    line.receive(encode_frame(TEXT, b"m") * 3)
    assert early == [frame(TEXT, b"m")] * 3


def test_the_answer_to_the_handshake_waits_for_no_deadline(rooms: Rooms) -> None:
    room = rooms(kind=None, write_buffer_deadline=DEADLINE)
    transport = Transport()
    conn: Conn = Connection(room.server, Callbacks(), transport, None, None, None)
    conn.open(RESPONSE, b"")
    assert transport.written == RESPONSE


def test_a_message_larger_than_the_buffer_waits_for_no_deadline(rooms: Rooms) -> None:
    line = rooms(write_buffer_deadline=DEADLINE).open()
    line.conn.send(bytes(LARGE))
    assert line.calls() == [frame(BINARY, bytes(LARGE))]


def test_after_a_flush_the_next_byte_is_the_first_again(rooms: Rooms) -> None:
    room = rooms(write_buffer_deadline=DEADLINE)
    line = room.open()
    line.conn.send("m")
    room.loop.pass_time(DEADLINE / 2)
    line.conn.flush()
    line.calls()
    line.conn.send("m")
    room.loop.pass_time(DEADLINE * 0.9)
    assert line.calls() == []
    room.loop.pass_time(DEADLINE * 0.1)
    assert line.calls() == [frame(TEXT, b"m")]


def test_what_a_callback_sends_in_its_turn_does_not_put_off_those_that_wait(rooms: Rooms) -> None:
    room = rooms(write_buffer_deadline=DEADLINE, high_water=1000)
    told, waiting = room.open(), room.open()
    line = room.open(on_drain=lambda conn: told.conn.send("drained"))
    line.block()
    line.conn.send(bytes(2000))
    line.conn.flush()
    room.loop.pass_time(DEADLINE / 2)
    waiting.conn.send("m")
    room.loop.pass_time(DEADLINE / 2 - 1e-4)
    line.unblock()
    room.loop.pass_time(1e-4)  # the turn of `line`, and on_drain
    room.loop.pass_time(DEADLINE / 2)
    assert waiting.calls() == [frame(TEXT, b"m")]


# The order


@pytest.mark.parametrize("is_blocked", [False, True], ids=["free", "blocked"])
@pytest.mark.parametrize("where", ["in its read event", "elsewhere"])
def test_sends_and_publishes_of_any_size_leave_in_the_order_of_the_calls(
    rooms: Rooms, where: str, is_blocked: bool
) -> None:
    sizes = [5, LARGE, 5, LARGE, LARGE, 5, 5, 16_000, 5, 0, LARGE, 300, 16_370, LARGE, 5]
    expected: list[bytes] = []

    def send_all(conn: Conn, message: object) -> None:
        for number, size in enumerate(sizes):
            payload = b"%d" % number * (size // len(b"%d" % number))
            if number % 3 == 0:
                conn.send(payload)
            elif number % 3 == 1:
                publish([conn], payload)
            else:
                conn.send(bytearray(payload))
            expected.append(frame(BINARY, payload))

    room = rooms(max_buffered_amount=None)
    line = room.open(on_message=send_all)
    if is_blocked:
        line.block()
    if where == "elsewhere":
        send_all(line.conn, None)
    else:
        line.receive(encode_frame(TEXT, b"m"))
    room.loop.turn()
    if is_blocked:
        assert line.calls() == []
        line.unblock()
    assert b"".join(line.calls()) == b"".join(expected)


def test_sixty_four_parts_are_one_system_call(rooms: Rooms) -> None:
    line = rooms(write_buffer_size=256, max_buffered_amount=None).open()
    line.block()
    for number in range(96):
        line.conn.send(b"%03d" % number * 100)  # two parts: its header, and the message where it lies
    assert line.calls() == []
    line.unblock()
    calls = line.calls()
    assert b"".join(calls) == b"".join(frame(BINARY, b"%03d" % number * 100) for number in range(96))
    assert len(calls) == 2 * 96 / 64


@pytest.mark.parametrize("seed", range(30))
def test_however_little_the_socket_takes_everything_arrives_in_order_and_is_accounted_for(
    rooms: Rooms, seed: int
) -> None:
    chance = random.Random(seed)
    room = rooms(
        kind=socket.SOCK_STREAM,
        send_buffer=chance.choice([4608, 20_000]),
        write_buffer_size=chance.choice([256, 1000, 16_384]),
        high_water=chance.choice([None, 5000]),
        max_buffered_amount=None,
    )
    lines = [room.open(), room.open()]  # buffers that one gives back are the other's next
    sent, got = {line: bytearray() for line in lines}, {line: bytearray() for line in lines}

    def send(line: Line) -> None:
        size = chance.choice([0, 1, 125, 126, 300, 1000, 5000, 16_380, LARGE])
        payload = bytearray(chance.randbytes(1) * size)
        kind = chance.choice([bytes, bytearray, memoryview, None])
        if kind is None:
            publish([line.conn], payload)
        else:
            line.conn.send(kind(payload))
        sent[line] += frame(BINARY, bytes(payload))

    def read(line: Line) -> None:
        with contextlib.suppress(BlockingIOError):
            got[line] += line.transport.peer.recv(chance.choice([1, 100, 5000, 100_000]))  # type: ignore[attr-defined]

    def free(line: Line) -> None:
        line.transport.send_queued()  # type: ignore[attr-defined]  # of PairTransport

    def turn(line: Line) -> None:
        room.loop.turn()

    for _ in range(300):
        line = chance.choice(lines)
        chance.choice([send, send, send, read, read, free, turn])(line)
        for each in lines:
            unsent = len(sent[each]) - len(got[each]) - each.in_kernel()
            assert each.conn.buffered_amount == unsent
    for line in lines:
        while line.conn.buffered_amount or line.in_kernel():
            got[line] += b"".join(line.calls())
            turn(line)
            free(line)
        assert got[line] == sent[line]
    assert room.state.pool.lent == 0


def test_what_the_kernel_refuses_is_dropped_and_the_end_is_found_by_reading(rooms: Rooms) -> None:
    ends: list[object] = []
    room = rooms()
    line = room.open(on_disconnect=lambda conn, error: ends.append(error))
    line.transport.peer.close()  # type: ignore[attr-defined]  # of PairTransport
    for message in ("m", bytes(LARGE)):
        assert line.conn.send(message)
        room.loop.turn()
        assert (line.conn.is_open, line.conn.buffered_amount, room.state.pool.lent) == (True, 0, 0)
    line.conn.eof_received()
    line.conn.connection_lost(None)
    room.loop.turn()
    (error,) = ends
    assert isinstance(error, ConnectionResetError)


# Whose memory it is


class Keeping(Transport):
    """Keeps the very objects that it is given, unsent."""

    def __init__(self) -> None:
        super().__init__(is_stuck=False)
        self.given: list[Any] = []

    def write(self, data: Any) -> None:
        self.given.append(data)
        self.unsent += len(data)


def keeping(room: Room) -> tuple[Conn, Keeping]:
    transport = Keeping()
    conn: Conn = Connection(room.server, Callbacks(), transport, None, None, None)
    transport.protocol = conn
    conn.open(RESPONSE, b"")
    room.loop.turn()
    transport.given.clear()
    transport.unsent = 0
    conn.resume_writing()
    return conn, transport


@pytest.mark.parametrize(
    "make, references",
    [
        pytest.param(lambda: bytes(LARGE), 1, id="large bytes"),
        pytest.param(lambda: "é" * LARGE, 1, id="large str"),
        pytest.param(lambda: bytes(1000), 0, id="small bytes"),
        pytest.param(lambda: "é" * 100, 0, id="small str"),
        pytest.param(lambda: bytearray(LARGE), 0, id="large bytearray"),
    ],
)
def test_what_does_not_fit_the_buffer_is_kept_by_reference_until_it_is_sent(
    rooms: Rooms, make: Callable[[], Any], references: int
) -> None:
    line = rooms(max_buffered_amount=None).open()
    message = make()
    before = sys.getrefcount(message)
    line.block()
    for _ in range(3):
        line.conn.send(message)
    queued = sys.getrefcount(message)
    line.unblock()
    assert (queued - before, sys.getrefcount(message) - before) == (3 * references, 0)


def test_a_large_message_to_many_is_one_object(rooms: Rooms) -> None:
    room = rooms()
    for _ in range(5):
        room.open().block()
    message = encode_message(bytes(LARGE))
    before = sys.getrefcount(message.frame)
    assert deliver(room.connections, message) == 5
    after = sys.getrefcount(message.frame)
    assert after - before == 5


@pytest.mark.parametrize("kind", [bytearray, memoryview])
@pytest.mark.parametrize("size", [100, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("how", ["send", "publish"])
def test_a_buffer_may_be_changed_and_resized_at_once(rooms: Rooms, kind: Any, size: int, how: str) -> None:
    room = rooms()
    line = room.open()
    buffer = bytearray(b"a" * size)
    message = kind(buffer)
    assert SEND[how](line.conn, message, False)
    buffer[:] = b"b" * size
    if kind is memoryview:
        message.release()
    buffer.clear()  # a BufferError if somebody still looked at it
    room.loop.turn()
    assert b"".join(line.calls()) == frame(BINARY, b"a" * size)


def test_what_a_transport_keeps_is_immutable_and_in_no_other_use(rooms: Rooms) -> None:
    room = rooms(kind=None)
    conn, transport = keeping(room)
    other = room.open()
    conn.send(b"a" * 100)
    room.loop.turn()
    for _ in range(10):
        other.conn.send(b"b" * 100)  # takes the buffers that the first gave back
        room.loop.turn()
    assert transport.given == [frame(BINARY, b"a" * 100)]
    assert all(memoryview(data).readonly for data in transport.given)


def test_a_transport_is_given_a_header_and_its_payload_in_one_write(rooms: Rooms) -> None:
    # Of two writes TLS makes two records, and a transport perhaps two system calls.
    room = rooms(kind=None)
    conn, transport = keeping(room)
    message = bytes(LARGE)
    conn.send(message)
    room.loop.turn()
    assert transport.given == [frame(BINARY, message)]


def test_a_transport_is_given_a_large_message_itself(rooms: Rooms) -> None:
    room = rooms(kind=None)
    conn, transport = keeping(room)
    message = bytes(65_536)
    conn.send(message)
    room.loop.turn()
    transport.unsent = 0
    conn.resume_writing()
    assert transport.given[-1].obj is message


# What runs in the middle: finalizers, and what fails


class Mourned(str):
    """A message with a finalizer, which runs when the last reference goes."""

    def __new__(cls, text: str, finalizer: Callable[[], object]) -> Mourned:
        made = super().__new__(cls, text)
        made.finalizer = finalizer
        return made

    finalizer: Callable[[], object]

    def __del__(self) -> None:
        self.finalizer()


def test_what_a_finalizer_sends_in_a_flush_leaves_behind_it_and_before_what_is_sent_next(rooms: Rooms) -> None:
    room = rooms()
    line = room.open()
    line.conn.send(Mourned("a" * LARGE, lambda: line.conn.send("gone")))
    line.conn.flush()
    for _ in range(5):
        line.conn.send("x" * 300)
    room.loop.turn()
    expected = [frame(TEXT, b"a" * LARGE), frame(TEXT, b"gone"), *[frame(TEXT, b"x" * 300)] * 5]
    assert b"".join(line.calls()) == b"".join(expected)
    assert (line.conn.buffered_amount, room.state.pool.lent) == (0, 0)


def test_what_a_finalizer_sends_alone_leaves_when_the_loop_turns(rooms: Rooms) -> None:
    room = rooms()
    line = room.open()
    line.conn.send(Mourned("a" * LARGE, lambda: line.conn.send("gone")))
    line.conn.flush()
    line.calls()
    room.loop.turn()
    assert line.calls() == [frame(TEXT, b"gone")]


def test_what_a_finalizer_sends_leaves_behind_what_the_socket_did_not_take(rooms: Rooms) -> None:
    room = rooms(kind=socket.SOCK_STREAM, send_buffer=4608, max_buffered_amount=None)
    line = room.open()
    line.block()
    line.conn.send(Mourned("a" * LARGE, lambda: line.conn.send("gone")))
    line.conn.send("b" * 500_000)  # the socket takes a part of it
    line.conn.send("c" * LARGE)
    line.unblock()
    assert line.conn.buffered_amount > 400_000
    got = b""
    while line.conn.buffered_amount:
        got += b"".join(line.calls())
        line.transport.send_queued()  # type: ignore[attr-defined]  # of PairTransport
        room.loop.turn()
    got += b"".join(line.calls())
    expected = ["a" * LARGE, "b" * 500_000, "c" * LARGE, "gone"]
    assert got == b"".join(frame(TEXT, each.encode()) for each in expected)
    assert room.state.pool.lent == 0


def test_what_a_finalizer_sends_when_a_send_flushes_leaves_before_what_is_sent(rooms: Rooms) -> None:
    room = rooms()
    line = room.open()
    line.conn.send(Mourned("a" * LARGE, lambda: line.conn.send("gone")))
    line.conn.send("b" * LARGE)
    room.loop.turn()
    expected = ["a" * LARGE, "gone", "b" * LARGE]
    assert b"".join(line.calls()) == b"".join(frame(TEXT, each.encode()) for each in expected)


@pytest.mark.parametrize("size", [100, LARGE], ids=["small", "large"])
def test_no_message_follows_the_close_frame_of_a_finalizer_that_runs_when_a_send_flushes(
    rooms: Rooms, size: int
) -> None:
    room = rooms()
    line = room.open()
    line.conn.send(Mourned("a" * LARGE, lambda: line.conn.close()))
    assert line.conn.send("b" * size) is False
    room.loop.turn()
    close = frame(CLOSE, struct.pack("!H", 1000))  # "MUST NOT send any more data frames" (RFC 6455 section 5.5.1)
    assert b"".join(line.calls()) == frame(TEXT, b"a" * LARGE) + close


def test_a_finalizer_that_is_run_in_the_transports_write_may_send(rooms: Rooms) -> None:
    room = rooms(kind=None)
    line = room.open()
    dead = [Mourned("", lambda: line.conn.send("gone"))]
    line.transport.in_write = dead.clear  # as the collector may, which runs where it likes
    line.conn.send("first")
    line.conn.flush()
    for _ in range(5):
        line.conn.send("x" * 300)
    room.loop.turn()
    assert line.calls() == [frame(TEXT, b"first") + frame(TEXT, b"gone") + frame(TEXT, b"x" * 300) * 5]
    assert room.state.pool.lent == 0


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, None], ids=["directly", "by the transport"])
@pytest.mark.parametrize("what", ["flush", "close", "abort"])
def test_a_finalizer_in_a_flush_may_flush_and_end_the_connection(
    rooms: Rooms, kind: socket.SocketKind | None, what: str
) -> None:
    room = rooms(kind=kind)
    line = room.open()

    def act() -> None:
        line.conn.send("gone")
        getattr(line.conn, what)()

    line.block()
    line.conn.send(Mourned("a" * LARGE, act))
    line.conn.send("b" * LARGE)
    line.unblock()
    room.loop.turn()
    got = b"".join(line.calls())
    whole = frame(TEXT, b"a" * LARGE) + frame(TEXT, b"b" * LARGE)
    if what == "flush":
        assert got == whole + frame(TEXT, b"gone")
    elif what == "close":
        assert got == whole + frame(TEXT, b"gone") + frame(CLOSE, struct.pack("!H", 1000))
    else:
        assert whole.startswith(got)
    line.conn.connection_lost(None)
    room.loop.turn()
    assert (line.conn.buffered_amount, room.state.pool.lent) == (0, 0)


@pytest.mark.parametrize("end", ["abort", "lost"])
def test_what_a_finalizer_sends_when_the_unsent_is_dropped_at_the_end_is_refused(rooms: Rooms, end: str) -> None:
    room = rooms()
    line = room.open()
    answers: list[bool] = []
    line.block()
    for _ in range(3):
        line.conn.send(Mourned("a" * LARGE, lambda: answers.append(line.conn.send("gone"))))
        line.conn.send("b" * 100)
    if end == "abort":
        line.conn.abort()
    line.conn.connection_lost(None)
    assert answers == [False] * 3
    assert (line.conn.buffered_amount, room.state.pool.lent) == (0, 0)


def test_what_finalizers_send_when_a_slow_consumers_messages_are_dropped_leaves_before_1013(rooms: Rooms) -> None:
    room = rooms(high_water=None, max_buffered_amount=100_000)
    line = room.open()
    answers: list[bool] = []
    line.block()
    while line.conn.send(Mourned("a" * LARGE, lambda: answers.append(line.conn.send("gone")))):
        line.conn.send("b" * 100)
    assert answers == [True] * 5 + [False]  # of those that were dropped, and of the one that was refused
    assert line.conn.buffered_amount < 100
    line.unblock()
    assert b"".join(line.calls()) == frame(TEXT, b"gone") * 5 + frame(CLOSE, struct.pack("!H", 1013))
    assert room.state.pool.lent == 0


def send_a_large_message_without_memory() -> None:
    room = Room()
    line = room.open()
    large = bytearray(32 * MIB)  # it may change, so it has to be copied
    with pytest.raises(MemoryError), at_most(8 * MIB):
        line.conn.send(large)
    assert (line.conn.is_open, line.conn.buffered_amount, room.state.pool.lent) == (True, 0, 0)
    assert line.conn.send("small")
    room.loop.turn()
    assert line.calls() == [frame(TEXT, b"small")]


@pytest.mark.slow
@needs_scarcity
def test_of_a_message_for_which_there_is_no_memory_not_even_the_header_is_sent() -> None:
    run_apart(send_a_large_message_without_memory)


# What may be sent


SEND: dict[str, Callable[[Conn, Any, bool], int]] = {
    "send": lambda conn, message, text: conn.send(message, text=text),
    "publish": lambda conn, message, text: publish([conn], message, text),
}


class Text(str):
    __slots__ = ()


class Binary(bytes):
    __slots__ = ()


class Buffer(bytearray):
    __slots__ = ()


NUMBERS = memoryview(array.array("H", [1, 2, 3, 4]))
TABLE = memoryview(b"abcdef").cast("B", (2, 3))
MESSAGES: dict[str, tuple[Any, bool, int, bytes]] = {
    "str": ("schön", False, TEXT, "schön".encode()),
    "str of any plane": (
        "\0\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff",
        False,
        TEXT,
        "\0\x7f\x80߿ࠀ\uffff𐀀\U0010ffff".encode(),
    ),
    "str subclass": (Text("s"), False, TEXT, b"s"),
    "str as text": ("s", True, TEXT, b"s"),
    "bytes": (b"b", False, BINARY, b"b"),
    "bytes as text": (b"b", True, TEXT, b"b"),
    "bytes that are not UTF-8 as text": (b"\xff", True, TEXT, b"\xff"),
    "bytes subclass": (Binary(b"b"), False, BINARY, b"b"),
    "bytes subclass as text": (Binary(b"b"), True, TEXT, b"b"),
    "bytearray": (bytearray(b"b"), False, BINARY, b"b"),
    "bytearray as text": (bytearray(b"b"), True, TEXT, b"b"),
    "bytearray subclass": (Buffer(b"b"), False, BINARY, b"b"),
    "memoryview": (memoryview(b"b"), False, BINARY, b"b"),
    "memoryview as text": (memoryview(b"b"), True, TEXT, b"b"),
    "memoryview of a part": (memoryview(bytearray(b"abcdef"))[2:4], False, BINARY, b"cd"),
    "memoryview of numbers": (NUMBERS, False, BINARY, NUMBERS.tobytes()),
    "memoryview of a table": (TABLE, False, BINARY, b"abcdef"),
    "large memoryview of numbers": (
        memoryview(array.array("I", [7] * LARGE)),
        False,
        BINARY,
        array.array("I", [7] * LARGE).tobytes(),
    ),
    "empty str": ("", False, TEXT, b""),
    "empty bytes": (b"", False, BINARY, b""),
    "empty bytes as text": (b"", True, TEXT, b""),
    "empty bytearray": (bytearray(), False, BINARY, b""),
    "empty memoryview": (memoryview(b""), False, BINARY, b""),
}


@pytest.mark.parametrize("how", ["send", "publish"])
@pytest.mark.parametrize("message, text, opcode, payload", MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_the_frame_of_its_type_and_bytes(
    rooms: Rooms, how: str, message: Any, text: bool, opcode: int, payload: bytes
) -> None:
    room = rooms()
    line = room.open()
    assert SEND[how](line.conn, message, text) == 1
    room.loop.turn()
    assert line.calls() == [frame(opcode, payload)]


NO_MESSAGES: dict[str, tuple[Any, type[Exception]]] = {
    "None": (None, TypeError),
    "int": (1, TypeError),
    "float": (1.5, TypeError),
    "list": ([b"b"], TypeError),
    "dict": ({"a": 1}, TypeError),
    "array": (array.array("B", b"b"), TypeError),
    "lone surrogate": ("a\ud800b", UnicodeEncodeError),
    "lone low surrogate": ("\udfff", UnicodeEncodeError),
    "large with a lone surrogate": ("é" * LARGE + "\ud800", UnicodeEncodeError),
    "str subclass with a lone surrogate": (Text("\ud800"), UnicodeEncodeError),
    "memoryview with gaps": (memoryview(b"abcdef")[::2], BufferError),
    "memoryview backwards": (memoryview(b"abcdef")[::-1], BufferError),
}


@pytest.mark.parametrize("how", ["send", "publish"])
@pytest.mark.parametrize("message, error", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_is_an_error_and_sends_nothing(
    rooms: Rooms, how: str, message: Any, error: type[Exception]
) -> None:
    room = rooms()
    line = room.open()
    with pytest.raises(error):
        SEND[how](line.conn, message, False)
    assert (line.conn.buffered_amount, room.state.pool.lent, room.server.messages_out) == (0, 0, 0)
    line.conn.send("next")
    room.loop.turn()
    assert line.calls() == [frame(TEXT, b"next")]


def test_a_released_memoryview_is_a_value_error_and_sends_nothing(rooms: Rooms) -> None:
    line = rooms().open()
    view = memoryview(b"b")
    view.release()
    with pytest.raises(ValueError, match="released"):
        line.conn.send(view)
    assert line.conn.buffered_amount == 0


def test_the_type_error_names_the_type_and_what_is_taken(rooms: Rooms) -> None:
    with pytest.raises(TypeError, match="str, bytes, bytearray or memoryview, not int"):
        rooms().open().conn.send(1)  # type: ignore[arg-type]  # as said


@pytest.mark.parametrize("compress", [None, True, False])
def test_compress_is_taken_and_without_the_extension_of_no_effect(rooms: Rooms, compress: bool | None) -> None:
    room = rooms()
    line = room.open()
    assert line.conn.send("m" * 100, compress=compress)
    room.loop.turn()
    assert line.calls() == [frame(TEXT, b"m" * 100)]


def end_slow_consumer(line: Line) -> None:
    line.block()
    line.conn.send(bytes(3_000_000))
    line.conn.send(b"one too many")


ENDS: dict[str, Callable[[Line], object]] = {
    "close": lambda line: line.conn.close(),
    "abort": lambda line: line.conn.abort(),
    "Close": lambda line: line.receive(encode_frame(CLOSE)),
    "FIN": lambda line: line.conn.eof_received(),
    "reset": lambda line: line.conn.connection_lost(ConnectionResetError()),
    "violation": lambda line: line.receive(encode_frame(TEXT, b"m", masked=False)),
    "slow consumer": end_slow_consumer,
}


@pytest.mark.parametrize("is_over", [False, True], ids=["at once", "after TCP"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_after_the_end_send_is_false_and_sends_nothing(
    rooms: Rooms, end: Callable[[Line], object], is_over: bool
) -> None:
    room = rooms()
    line = room.open()
    end(line)
    room.loop.turn()
    if is_over:
        line.conn.connection_lost(None)
        room.loop.turn()
    line.calls()
    before = line.conn.buffered_amount, room.server.messages_out
    for message in ("m", b"m", bytes(LARGE), bytearray(b"m")):
        assert line.conn.send(message) is False
        assert publish([line.conn], message) == 0
    assert (line.conn.buffered_amount, room.server.messages_out) == before
    room.loop.turn()
    assert line.calls() == []


# buffered_amount


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536], ids=str)
def test_buffered_amount_is_what_was_taken_and_is_not_with_the_kernel_headers_included(rooms: Rooms, size: int) -> None:
    room = rooms(max_buffered_amount=None)
    line = room.open()
    one = len(frame(BINARY, bytes(size)))
    amounts = [line.conn.buffered_amount]
    line.conn.send(bytes(size))
    amounts.append(line.conn.buffered_amount)
    room.loop.turn()
    amounts.append(line.conn.buffered_amount)
    assert amounts == [0, one, 0]
    line.block()
    for number in (1, 2, 3):
        line.conn.send(bytes(size))
        room.loop.turn()
        assert line.conn.buffered_amount == number * one
    line.unblock()
    assert line.conn.buffered_amount == 0


def test_buffered_amount_in_a_read_event_counts_what_waits_for_its_end(rooms: Rooms) -> None:
    amounts: list[int] = []

    def said(conn: Conn, message: str) -> None:
        conn.send(message)
        amounts.append(conn.buffered_amount)

    line = rooms().open(on_message=said)
    line.receive(encode_frame(TEXT, b"m") * 3)
    assert [*amounts, line.conn.buffered_amount] == [3, 6, 9, 0]


@pytest.mark.parametrize("end", ["abort", "lost", "slow consumer"])
def test_buffered_amount_is_0_when_what_was_unsent_has_been_dropped(rooms: Rooms, end: str) -> None:
    room = rooms(kind=socket.SOCK_STREAM, send_buffer=4608)
    line = room.open()
    line.conn.send(bytes(2_000_000))
    line.conn.flush()
    assert line.conn.buffered_amount > 1_000_000
    if end == "abort":
        line.conn.abort()
    elif end == "slow consumer":
        line.conn.send("one too many")
        line.conn.connection_lost(None)
    else:
        line.conn.connection_lost(None)
    assert line.conn.buffered_amount == 0
