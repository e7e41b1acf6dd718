"""A server's life with clients: admission, on_error, and what a stop waits for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
import trustme
import uvloop

import wsev
from tests.apart import run_apart
from tests.conftest import Connect, Raw, Serve
from tests.peer import CLOSE, TEXT, upgrade_request

Server = wsev.Server[Any]


def echo_server(**options: Any) -> Server:
    server: Server = wsev.Server(**options)
    server.on_message(lambda conn, message: conn.send(message))
    return server


# Admission.


async def test_past_max_connections_503_says_when_to_come_back(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server(max_connections=1))
    first = await raw(server)
    await first.upgrade()
    second = await raw(server)
    head, _ = await second.read_answer()
    assert (head.status, head["retry-after"]) == (503, "5")
    assert server.stats().limits == {"max_connections": 1}


@pytest.mark.parametrize("option", ["max_connections", "max_handshakes", "max_connections_per_address"])
async def test_the_log_names_the_option_that_left_no_room(
    serve: Serve, raw: Raw, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsev.handshake")
    server = await serve(echo_server(**{option: 1}))
    await raw(server)
    head, body = await (await raw(server)).read_answer()
    assert head.status == 503
    assert option.encode() not in body
    (message,) = (record.getMessage() for record in caplog.records if record.name == "wsev.handshake")
    assert f"option {option}." in message
    assert server.stats().limits == {option: 1}


async def test_limits_of_a_request_are_counted_in_the_stats(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server(max_request_line=64, max_headers=2))
    for data in (b"GET /" + b"a" * 64, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 3 + b"\r\n"):
        peer = await raw(server)
        await peer.send(data)
        await peer.read_answer()
    assert server.stats().limits == {"max_request_line": 1, "max_headers": 1}


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the server and for clients."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("option", ["max_connections", "max_handshakes"])
async def test_a_tls_handshake_counts_as_a_handshake_and_as_a_connection(
    serve: Serve, raw: Raw, option: str, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server = await serve(echo_server(**{option: 1}), ssl=contexts[0])
    silent = await raw(server)
    assert (await (await raw(server, ssl=contexts[1])).read_answer())[0].status == 503
    assert server.stats().limits == {option: 1}
    await silent.send(b"no TLS")
    assert b"HTTP" not in await silent.reader.read()
    gc.collect()  # before Python 3.13 asyncio leaves a failed TLS handshake to it
    peer = await raw(server, ssl=contexts[1])
    assert (await peer.upgrade()).status == 101


async def test_a_tls_handshake_that_does_not_come_is_counted_and_logged(
    serve: Serve, raw: Raw, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    told = asyncio.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "handshake_timeout" in record.getMessage():
                told.set()

    logger, handler = logging.getLogger("wsev.handshake"), Told()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        server = await serve(echo_server(handshake_timeout=0.05), ssl=contexts[0])
        await raw(server)
        await told.wait()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert server.stats().limits == {"handshake_timeout": 1}


async def test_who_leaves_makes_room(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server(max_connections=1))
    for _ in range(3):
        peer = await raw(server)
        assert (await peer.upgrade()).status == 101
        await peer.send_close()
        await peer.expect_close(1000)
        await peer.read_eof()
    assert server.stats().limits == {}


async def test_a_handshake_counts_as_a_connection(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server(max_connections=1))
    first = await raw(server)
    second = await raw(server)
    assert (await second.read_answer())[0].status == 503
    assert (await first.upgrade()).status == 101


async def test_past_max_handshakes_503(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server(max_handshakes=1))
    first = await raw(server)
    second = await raw(server)
    assert (await second.read_answer())[0].status == 503
    assert (await first.upgrade()).status == 101
    assert (await (await raw(server)).upgrade()).status == 101
    assert server.stats().limits == {"max_handshakes": 1}


async def test_past_max_connections_per_address_503(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server(max_connections_per_address=1))
    first = await raw(server)
    await first.upgrade()
    second = await raw(server)
    assert (await second.read_answer())[0].status == 503
    await first.send_close()
    await first.expect_close(1000)
    await first.read_eof()
    assert (await (await raw(server)).upgrade()).status == 101
    assert server.stats().limits == {"max_connections_per_address": 1}


# Connections.


async def test_connections_are_those_that_are_open(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server())
    peer = await raw(server)
    await peer.upgrade()
    await peer.fence()
    (conn,) = server.connections
    assert (len(server.connections), conn in server.connections) == (1, True)
    for each in server.connections:
        each.abort()
    await conn.wait_closed()
    assert (len(server.connections), conn in server.connections) == (0, False)


# What callbacks raise.


async def test_what_a_callback_raises_is_given_to_on_error(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord]
) -> None:
    server: Server = wsev.Server()
    given: list[tuple[Any, bool]] = []
    server.on_message(lambda conn, message: message[1000])
    server.on_error(lambda error, is_fatal: given.append((error, is_fatal)))
    await serve(server)
    peer = await raw(server)
    await peer.upgrade()
    await peer.send_frame(TEXT, b"hello")
    await peer.expect_close(1011)
    ((error, is_fatal),) = given
    assert (type(error), error.callback, type(error.__cause__)) == (wsev.CallbackError, "on_message", IndexError)
    assert is_fatal is False
    (record,) = expected_errors
    assert "on_message raised: IndexError" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error.__cause__


async def test_an_async_on_error_is_awaited_and_what_it_raises_is_logged(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord]
) -> None:
    server: Server = wsev.Server()
    server.on_message(lambda conn, message: 1 / 0)

    @server.on_error
    async def failed(error: Exception, is_fatal: bool) -> None:
        await asyncio.sleep(0)
        raise LookupError("no pager")

    await serve(server)
    peer = await raw(server)
    await peer.upgrade()
    await peer.send_frame(TEXT, b"hello")
    await peer.expect_close(1011)
    await peer.close()
    await server.stop()
    assert [record.getMessage() for record in expected_errors] == [
        "on_message raised: ZeroDivisionError: division by zero",
        "on_error raised: LookupError: no pager",
    ]


# The stop.


async def test_a_stop_closes_with_its_code_and_reason(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server())
    peer = await raw(server)
    await peer.upgrade()
    stopping = asyncio.create_task(server.stop(1012, "new version"))
    assert await peer.read_frame() == (True, CLOSE, b"\x03\xf4new version")
    await peer.send_close(1012)
    await peer.read_eof()
    await stopping


async def test_a_stop_waits_for_an_async_on_disconnect_and_leaves_the_lifespan_after_it(
    serve: Serve, connect: Connect
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        yield
        events.append("lifespan left")

    server: Server = wsev.Server(lifespan=lifespan)

    @server.on_disconnect
    async def left(conn: Any, error: Exception | None) -> None:
        events.append(f"disconnecting {error}")
        await asyncio.sleep(0)
        events.append("disconnected")

    await serve(server)
    client = await connect(server)
    await server.stop()
    await client.wait_closed()
    assert events == ["disconnecting None", "disconnected", "lifespan left"]


async def test_what_runs_longer_than_stop_timeout_is_cancelled(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(stop_timeout=0.05)
    events: list[str] = []

    @server.on_message
    async def said(conn: Any, message: Any) -> None:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    @server.on_disconnect
    async def left(conn: Any, error: Exception | None) -> None:
        events.append("disconnecting")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled too")

    await serve(server)
    peer = await raw(server)
    await peer.upgrade()
    await peer.send_frame(TEXT, b"hello")
    await peer.fence()
    await server.stop()
    assert events == ["begun", "cancelled", "disconnecting", "cancelled too"]


async def test_a_callback_may_begin_the_stop_as_a_task(serve: Serve, connect: Connect) -> None:
    server: Server = wsev.Server()
    stopping: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()
    server.on_message(lambda conn, message: stopping.set_result(asyncio.create_task(server.stop())))
    await serve(server)
    client = await connect(server)
    await client.send("stop")
    await (await stopping)
    await client.wait_closed()
    assert client.close_code == 1001


async def test_a_stop_that_a_connections_own_task_awaits_goes_on_when_that_task_is_cancelled_with_it(
    serve: Serve, connect: Connect
) -> None:
    log: list[str] = []
    ended = asyncio.Event()

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        yield
        log.append("lifespan left")
        ended.set()

    async def stop() -> None:
        try:
            await server.stop()
        except asyncio.CancelledError:
            log.append("task cancelled")
            raise

    server: Server = wsev.Server(lifespan=lifespan)
    server.on_disconnect(lambda conn, error: log.append("disconnected"))

    @server.on_message
    def said(conn: Any, message: Any) -> None:
        conn.create_task(stop())

    await serve(server)
    client = await connect(server)
    await client.send("stop")
    await client.wait_closed()
    await ended.wait()
    assert client.close_code == 1001
    assert log == ["task cancelled", "disconnected", "lifespan left"]


async def test_a_callback_that_awaits_the_stop_of_its_own_server_is_cancelled_after_stop_timeout(
    serve: Serve, connect: Connect
) -> None:
    log: list[str] = []
    server: Server = wsev.Server(stop_timeout=0.05)

    @server.on_message
    async def said(conn: Any, message: Any) -> None:
        try:
            await server.stop()
        finally:
            log.append("callback ended")

    server.on_disconnect(lambda conn, error: log.append("disconnected"))
    await serve(server)
    client = await connect(server)
    await client.send("stop")
    await client.wait_closed()
    await server.stop()
    assert client.close_code == 1001
    assert (log, repr(server)) == (["callback ended", "disconnected"], "<Server IDLE, 0 connections>")


async def test_a_handshake_in_progress_ends_with_the_stop(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server())
    silent, begun, other = [await raw(server) for _ in range(3)]
    await begun.send(b"GET / HTTP/1.1\r\n")
    await other.request()  # a fence: the others were accepted before it
    await other.close()
    stopping = asyncio.create_task(server.stop())
    await silent.read_eof()
    head, _ = await begun.read_answer()
    assert head.status == 503
    await begun.close()
    await stopping


async def test_a_stop_that_is_cancelled_goes_on(serve: Serve, raw: Raw) -> None:
    server = await serve(echo_server())
    peer = await raw(server)
    await peer.upgrade()
    stopping = asyncio.create_task(server.stop())
    assert await peer.read_frame() == (True, CLOSE, b"\x03\xe9")
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert server.port is None
    await peer.send_close(1001)
    await server.stop()
    assert repr(server) == "<Server IDLE, 0 connections>"


# A loop that is closed without a stop.


def finish_drain(conn: wsev.Connection[Any]) -> None:
    with contextlib.suppress(StopIteration):
        conn.drain().send(None)


AFTER_THE_LOOP: dict[str, Callable[[wsev.Connection[Any]], object]] = {
    "flush": lambda conn: conn.flush(),
    "close": lambda conn: conn.close(),
    "many sends": lambda conn: [conn.send("x" * 1000) for _ in range(50)],
    "a large send": lambda conn: [conn.send("x" * 50_000), conn.send("x" * 50_000)],
    "a ping": lambda conn: conn.ping(b"x"),
    "publish": lambda conn: wsev.broadcast([conn] * 50, "x" * 1000),
    "drain": finish_drain,
}
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def use_connections_after_their_loop_was_closed(loop_name: str, transport: Literal["auto", "loop"]) -> None:
    found = {name: sent_after_the_loop(loop_name, transport, use) for name, use in AFTER_THE_LOOP.items()}
    assert found == dict.fromkeys(AFTER_THE_LOOP, b""), found


def sent_after_the_loop(
    loop_name: str, transport: Literal["auto", "loop"], use: Callable[[wsev.Connection[Any]], object]
) -> bytes:
    """What comes to the client, and at sockets that were opened later, one of them with the connection's number."""

    async def start() -> None:
        await server.start(0)
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, upgrade_request())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await loop.sock_recv(client, 1024)

    server: Server = wsev.Server(transport=transport)
    loop = LOOPS[loop_name]()
    client = socket.socket()
    client.setblocking(False)
    loop.run_until_complete(start())
    (conn,) = server.connections
    number = conn.get_extra_info("socket").fileno()
    conn.send("a secret")  # in the queue of a loop that will not turn
    loop.close()
    others = [each for _ in range(32) for each in socket.socketpair()]
    if (loop_name, transport) == ("uvloop", "loop"):  # which closes what is open
        assert number in [other.fileno() for other in others]
    use(conn)
    got = b""
    for other in [client, *others]:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            got += other.recv(1 << 16)
    return got


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["auto", "loop"])
@pytest.mark.parametrize("loop_name", LOOPS)
def test_after_its_loop_was_closed_a_connection_sends_nothing(loop_name: str, transport: str) -> None:
    run_apart(use_connections_after_their_loop_was_closed, loop_name, transport)


# Threads.


async def test_in_debug_mode_a_call_from_another_thread_raises(serve: Serve) -> None:
    asyncio.get_running_loop().set_debug(True)
    server = await serve(echo_server())
    raised: list[str] = []

    def call() -> None:
        for method in (lambda: server.publish("room", "m"), lambda: server.broadcast("m"), server.stats):
            try:
                method()
            except RuntimeError as error:
                raised.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(raised) == 3
    assert all("server.loop.call_soon_threadsafe" in text for text in raised)
    assert server.publish("room", "m") == 0
