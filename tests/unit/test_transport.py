"""Transport, Acceptor and Poller, as asyncio protocols see them.

Each claim is held against the event loop's own transports, too: what a protocol finds is the same.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.apart import needs_scarcity, run_apart
from wsev._core.loop import LoopState

if sys.platform == "linux":
    from wsev._core.acceptor import Acceptor
    from wsev._core.poller import Poller

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: epoll")

MUCH = bytes(range(256)) * (1 << 15)  # 8 MiB, more than a socket takes at once


class Recorder(asyncio.Protocol):
    """Keeps what its transport told it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.received = b""
        self.keeps_open = False
        self.changed = asyncio.Event()
        self.transport: Any = None

    def tell(self, what: str) -> None:
        self.log.append(what)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def until_log(self, what: str) -> None:
        await self.until(lambda: what in self.log)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.tell("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.received += data
        self.changed.set()

    def eof_received(self) -> bool:
        self.tell("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.tell("pause")

    def resume_writing(self) -> None:
        self.tell("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.tell(f"lost {type(exc).__name__}" if exc else "lost")


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = bytearray(16)
        self.received = b""
        self.lost = asyncio.Event()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Serve(Protocol):
    async def __call__(
        self, factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket | None = None
    ) -> tuple[str, int] | str: ...


@pytest.fixture(params=["own", "loop"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """`address = await serve(factory)`: protocols of that factory for who connects there."""
    loop = asyncio.get_running_loop()
    opened: list[Any] = []

    async def start(
        factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket | None = None
    ) -> tuple[str, int] | str:
        if sock is None:
            sock = socket.create_server(("127.0.0.1", 0))
        name = sock.getsockname()
        if request.param == "own":
            acceptor = Acceptor(LoopState.of(loop), sock, factory, lambda error: None)
            acceptor.start()
            opened.extend((acceptor, sock))
        elif isinstance(name, str):
            opened.append(await loop.create_unix_server(factory, sock=sock))
        else:
            opened.append(await loop.create_server(factory, sock=sock))
        return name if isinstance(name, str) else (name[0], name[1])

    yield start
    for each in opened:
        each.close()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Any], Any]]:
    """`sock = await connect(address)`: a client's socket, which does not block."""
    opened: list[socket.socket] = []

    async def open_client(address: tuple[str, int] | str, *, receive_buffer: int | None = None) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        opened.append(sock)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, address)
        return sock

    yield open_client
    for sock in opened:
        sock.close()


Connect = Callable[..., Any]


async def pair(serve: Serve, connect: Connect, **options: Any) -> tuple[Recorder, socket.socket]:
    """A recording protocol, and its peer."""
    recorder = Recorder()
    sock = await connect(await serve(lambda: recorder), **options)
    await recorder.until_log("made")
    return recorder, sock


async def read_to_end(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    found = bytearray()
    while data := await loop.sock_recv(sock, 1 << 20):
        found += data
    return bytes(found)


async def read(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    found = bytearray()
    while len(found) < size:
        found += await loop.sock_recv(sock, size - len(found))
    return bytes(found)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


# Receiving.


async def test_what_the_peer_sends_is_received(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    await send(sock, MUCH)
    await recorder.until(lambda: len(recorder.received) == len(MUCH))
    assert recorder.received == MUCH


async def test_a_buffered_protocol_receives_into_its_own_buffer(serve: Serve, connect: Connect) -> None:
    protocol = Buffered()
    sock = await connect(await serve(lambda: protocol))
    await send(sock, MUCH[:1000])
    sock.close()
    await protocol.lost.wait()
    assert protocol.received == MUCH[:1000]


async def test_while_reading_is_paused_nothing_is_received(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.transport.pause_reading()
    assert not recorder.transport.is_reading()
    await send(sock, b"later")
    other, other_sock = await pair(serve, connect)
    await send(other_sock, b"a fence")
    await other.until(lambda: other.received == b"a fence")
    assert recorder.received == b""
    recorder.transport.resume_reading()
    await recorder.until(lambda: recorder.received == b"later")


async def test_another_protocol_receives_what_comes_from_then_on(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    await send(sock, b"to the first")
    await recorder.until(lambda: recorder.received == b"to the first")
    second = Recorder()
    recorder.transport.set_protocol(second)
    assert recorder.transport.get_protocol() is second
    await send(sock, b"to the second")
    await second.until(lambda: second.received == b"to the second")
    recorder.transport.close()
    await second.until_log("lost")
    assert (recorder.received, recorder.log) == (b"to the first", ["made"])


# The peer's end.


async def test_behind_the_peers_fin_the_transport_closes_itself(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    await send(sock, b"last words")
    sock.shutdown(socket.SHUT_WR)
    await recorder.until_log("lost")
    assert (recorder.received, recorder.log) == (b"last words", ["made", "eof", "lost"])
    assert await read_to_end(sock) == b""


async def test_a_protocol_may_go_on_writing_behind_the_peers_fin(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.keeps_open = True
    sock.shutdown(socket.SHUT_WR)
    await recorder.until_log("eof")
    recorder.transport.write(b"an answer")
    assert await read(sock, 9) == b"an answer"
    recorder.transport.close()
    assert await read_to_end(sock) == b""
    await recorder.until_log("lost")
    assert recorder.log == ["made", "eof", "lost"]


async def test_a_reset_is_told_as_connection_reset_error(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    reset(sock)
    await recorder.until(lambda: len(recorder.log) > 1)
    assert recorder.log == ["made", "lost ConnectionResetError"]


async def test_a_reset_while_reading_is_paused_is_found_when_it_is_resumed(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.transport.pause_reading()
    reset(sock)
    other, other_sock = await pair(serve, connect)
    await send(other_sock, b"a fence")
    await other.until(lambda: other.received == b"a fence")
    recorder.transport.resume_reading()
    await recorder.until(lambda: len(recorder.log) > 1)
    assert recorder.log == ["made", "lost ConnectionResetError"]


# Writing.


async def test_what_the_kernel_does_not_take_is_queued_and_sent_in_order(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.transport.write(MUCH)
    assert recorder.transport.get_write_buffer_size() > 0
    recorder.transport.write(bytearray(b"behind it"))
    recorder.transport.writelines([b" and", memoryview(b" this")])
    assert await read(sock, len(MUCH) + 18) == MUCH + b"behind it and this"
    assert recorder.transport.get_write_buffer_size() == 0
    assert recorder.log == ["made", "pause", "resume"]


async def test_a_protocol_is_paused_above_high_and_resumed_at_low(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    transport = recorder.transport
    transport.set_write_buffer_limits(high=len(MUCH) * 2)
    assert transport.get_write_buffer_limits() == (len(MUCH) // 2, len(MUCH) * 2)
    transport.write(MUCH)
    transport.write(MUCH)
    assert recorder.log == ["made"]
    transport.write(MUCH)
    assert recorder.log == ["made", "pause"]
    await read(sock, 3 * len(MUCH))
    await recorder.until_log("resume")
    assert recorder.log == ["made", "pause", "resume"]


async def test_with_limits_of_zero_resume_tells_that_all_is_out(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.transport.set_write_buffer_limits(high=0)
    recorder.transport.write(MUCH)
    assert recorder.log == ["made", "pause"]
    await read(sock, len(MUCH))
    await recorder.until_log("resume")
    assert recorder.transport.get_write_buffer_size() == 0


async def test_limits_that_contradict_each_other_are_refused(serve: Serve, connect: Connect) -> None:
    recorder, _ = await pair(serve, connect)
    with pytest.raises(ValueError, match="high"):
        recorder.transport.set_write_buffer_limits(high=1, low=2)


async def test_only_bytes_can_be_written(serve: Serve, connect: Connect) -> None:
    recorder, _ = await pair(serve, connect)
    with pytest.raises(TypeError):
        recorder.transport.write("text")


async def test_fin_goes_behind_what_is_queued_and_reading_goes_on(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    assert recorder.transport.can_write_eof()
    recorder.transport.write(MUCH)
    recorder.transport.write_eof()
    with pytest.raises(RuntimeError):
        recorder.transport.write(b"too late")
    assert await read_to_end(sock) == MUCH
    await send(sock, b"still heard")
    await recorder.until(lambda: recorder.received == b"still heard")


async def test_a_reset_while_something_is_queued_ends_it(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.transport.pause_reading()
    recorder.transport.write(MUCH)
    reset(sock)
    await recorder.until(lambda: any(entry.startswith("lost") for entry in recorder.log))
    assert recorder.log[-1] in ("lost ConnectionResetError", "lost BrokenPipeError")


# Our end.


async def test_close_sends_what_is_queued_first(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.transport.write(MUCH)
    recorder.transport.close()
    recorder.transport.close()
    assert recorder.transport.is_closing()
    assert await read_to_end(sock) == MUCH
    await recorder.until_log("lost")
    assert recorder.log.count("lost") == 1


async def test_connection_lost_does_not_come_from_inside_close(serve: Serve, connect: Connect) -> None:
    recorder, _ = await pair(serve, connect)
    recorder.transport.close()
    assert recorder.log == ["made"]
    await recorder.until_log("lost")


async def test_behind_close_nothing_more_is_received(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.transport.write(MUCH)
    recorder.transport.close()
    await send(sock, b"too late")
    with suppress(ConnectionResetError):  # since it was not read
        await read_to_end(sock)
    await recorder.until(lambda: recorder.log[-1].startswith("lost"))
    assert recorder.received == b""


async def test_abort_drops_what_is_queued(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    recorder.transport.write(MUCH)
    recorder.transport.abort()
    await recorder.until_log("lost")
    assert recorder.transport.is_closing()
    assert len(await read_to_end(sock)) < len(MUCH)
    assert recorder.log.count("lost") == 1


# What it tells about itself.


async def test_extra_info_names_the_socket_and_both_ends(serve: Serve, connect: Connect) -> None:
    recorder, sock = await pair(serve, connect)
    transport = recorder.transport
    assert transport.get_extra_info("peername") == sock.getsockname()
    assert transport.get_extra_info("sockname") == sock.getpeername()
    assert transport.get_extra_info("sslcontext") is None
    assert transport.get_extra_info("unknown", 7) == 7
    own = transport.get_extra_info("socket")
    assert own.getpeername() == sock.getsockname()
    transport.abort()
    await recorder.until_log("lost")


async def test_a_unix_socket_without_a_name_has_an_empty_one(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    recorder = Recorder()
    sock = await connect(await serve(lambda: recorder, listener))
    await recorder.until_log("made")
    assert recorder.transport.get_extra_info("peername") == ""
    assert recorder.transport.get_extra_info("sockname") == path
    await send(sock, b"heard")
    await recorder.until(lambda: recorder.received == b"heard")


# What is not asyncio's: the set, and accepting.


async def own_pair(connect: Connect) -> tuple[Recorder, socket.socket]:
    recorder = Recorder()
    acceptor, listener = acceptor_for(lambda: recorder)
    sock = await connect(listener.getsockname())
    await recorder.until_log("made")
    acceptor.close()
    listener.close()
    return recorder, sock


async def test_a_protocol_that_raises_loses_its_connection_and_no_other(connect: Connect) -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    broken, sock = await own_pair(connect)
    well, well_sock = await own_pair(connect)

    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    broken.data_received = fail  # type: ignore[method-assign]  # a protocol with a defect
    await send(sock, b"x")
    await broken.until(lambda: len(broken.log) > 1)
    loop.set_exception_handler(handler)
    assert [type(each["exception"]) for each in complaints] == [ZeroDivisionError]
    assert broken.log == ["made", "lost ZeroDivisionError"]
    await send(well_sock, b"x")
    await well.until(lambda: well.received == b"x")


async def test_what_was_written_may_be_changed_at_once(connect: Connect) -> None:
    recorder, sock = await own_pair(connect)
    recorder.transport.write(MUCH)
    changing = bytearray(b"this")
    recorder.transport.write(changing)
    changing[:] = b"that"
    recorder.transport.close()
    assert await read_to_end(sock) == MUCH + b"this"
    await recorder.until_log("lost")


async def test_its_socket_is_of_no_use_after_the_end(connect: Connect) -> None:
    recorder, _ = await own_pair(connect)
    own = recorder.transport.get_extra_info("socket")
    assert own.fileno() >= 0
    recorder.transport.abort()
    await recorder.until_log("lost")
    assert own.fileno() == -1


def acceptor_for(factory: Callable[[], asyncio.BaseProtocol]) -> tuple[Acceptor, socket.socket]:
    sock = socket.create_server(("127.0.0.1", 0), backlog=512)
    acceptor = Acceptor(LoopState.of(asyncio.get_running_loop()), sock, factory, lambda error: None)
    acceptor.start()
    return acceptor, sock


async def test_while_nothing_is_watched_there_is_no_set(connect: Connect) -> None:
    poller = Poller.of(LoopState.of(asyncio.get_running_loop()))
    recorder = Recorder()
    acceptor, listener = acceptor_for(lambda: recorder)
    await connect(listener.getsockname())
    await recorder.until_log("made")
    assert poller.count == 2
    acceptor.close()
    listener.close()
    recorder.transport.abort()
    await recorder.until_log("lost")
    assert poller.count == 0  # and the guard of every test sees that its descriptor is closed


async def test_a_factory_that_raises_loses_that_connection_and_no_other(connect: Connect) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    recorder = Recorder()
    answers: list[Any] = [ZeroDivisionError(), recorder]

    def make() -> asyncio.BaseProtocol:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, asyncio.BaseProtocol)
        return answer

    acceptor, listener = acceptor_for(make)
    first = await connect(listener.getsockname())
    assert await read_to_end(first) == b""
    await connect(listener.getsockname())
    await recorder.until_log("made")
    acceptor.close()
    listener.close()
    recorder.transport.abort()
    await recorder.until_log("lost")
    assert [type(each["exception"]) for each in complaints] == [ZeroDivisionError]


async def test_slow_callbacks_leave_other_callbacks_of_the_loop_their_turns(connect: Connect) -> None:
    loop = asyncio.get_running_loop()
    recorders: list[Recorder] = []

    class Slow(Recorder):
        def data_received(self, data: bytes) -> None:
            end = time.monotonic() + 0.001
            while time.monotonic() < end:
                pass
            super().data_received(data)

    def make() -> Recorder:
        recorders.append(Slow())
        return recorders[-1]

    acceptor, listener = acceptor_for(make)
    socks = [await connect(listener.getsockname()) for _ in range(100)]
    for sock in socks:
        assert sock.send(b"x") == 1
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not all(recorder.received for recorder in recorders):
            loop.call_soon(turn)

    turn()
    for recorder in recorders:
        await recorder.until(lambda recorder=recorder: bool(recorder.received))  # type: ignore[misc]  # bound at once
    assert turns > 8  # of 100 connections, at most 8 after each look at a clock that says 2 ms
    acceptor.close()
    listener.close()
    for recorder in recorders:
        recorder.transport.abort()
        await recorder.until_log("lost")


async def test_descriptors_that_are_reused_at_once_are_served(connect: Connect) -> None:
    live: list[Recorder] = []

    def make() -> Recorder:
        live.append(Recorder())
        return live[-1]

    acceptor, listener = acceptor_for(make)
    for number in range(50):
        sock = await connect(listener.getsockname())
        await send(sock, b"%d" % number)
        if number % 2:
            reset(sock)
        else:
            sock.close()
    for number, recorder in enumerate(live):
        await recorder.until(lambda recorder=recorder: recorder.log[-1].startswith("lost"))  # type: ignore[misc]  # bound
        if number % 2 == 0:
            assert recorder.received == b"%d" % number
    acceptor.close()
    listener.close()


def accept_without_descriptors() -> None:
    import errno
    import resource

    async def run() -> None:
        loop = asyncio.get_running_loop()
        reported: list[OSError] = []
        was_reported = asyncio.Event()

        def report(error: OSError) -> None:
            reported.append(error)
            was_reported.set()

        recorder = Recorder()
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.socket()
        client.setblocking(False)
        acceptor = Acceptor(LoopState.of(loop), listener, lambda: recorder, report)
        acceptor.start()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))  # all numbers below are taken
        spare = []
        try:
            while True:
                spare.append(socket.socket())
        except OSError:
            pass
        await loop.sock_connect(client, listener.getsockname())
        await was_reported.wait()
        assert [error.errno for error in reported] == [errno.EMFILE]
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        await recorder.until_log("made")
        assert len(reported) == 1
        acceptor.close()
        listener.close()
        recorder.transport.abort()
        await recorder.until_log("lost")
        for sock in (client, *spare):
            sock.close()

    asyncio.run(run())


@pytest.mark.slow
@needs_scarcity
def test_without_descriptors_accepting_is_reported_once_and_tried_again() -> None:
    run_apart(accept_without_descriptors)
