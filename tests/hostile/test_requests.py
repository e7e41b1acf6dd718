"""Requests from hostile peers, on real sockets.

Each attack gets its answer, and then a fresh client is served.  What the rules are is tested without sockets in
tests/unit/test_opening.py and test_upgrade.py; here it is about bytes, packets, time and the end of TCP.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme

from tests.answers import Answer, parse_answer, parse_upgrade
from tests.conftest import Connect, Raw, Serve
from tests.peer import PING, TEXT, Peer, encode_frame
from tests.requests import CHROME, FIREFOX, PLAIN, SAFARI, request, wire
from wsev import Accept, Request, Response, Server

PIECE = 64 * 1024


def echo(**options: Any) -> Server[Any]:
    server: Server[Any] = Server(**options)
    server.on_message(lambda conn, message: conn.send(message))
    return server


@pytest.fixture
async def check_served(connect: Connect) -> Callable[[Server[Any]], Awaitable[None]]:
    """`await check_served(server)`: a fresh client is served within a second."""

    async def check(server: Server[Any]) -> None:
        async with asyncio.timeout(1.0):
            client = await connect(server)
            await client.send("still there?")
            assert await client.recv() == "still there?"

    return check


CheckServed = Callable[[Server[Any]], Awaitable[None]]


async def read_all(peer: Peer) -> bytes:
    """All that the server sends until the end of TCP, which may be a reset once it has had enough."""
    received = b""
    try:
        while data := await peer.reader.read(PIECE):
            received += data
    except ConnectionResetError:
        pass
    return received


async def answer_to(peer: Peer, *pieces: bytes) -> Answer:
    """The one answer to the pieces, each sent by itself; the server ends the connection after it."""
    for piece in pieces:
        await peer.send(piece)
    return parse_answer(await read_all(peer), to_head=pieces[0].startswith(b"HEAD "))


async def check_echo(peer: Peer) -> None:
    """Read the 101, and have a message echoed."""
    parse_upgrade(await peer.reader.readuntil(b"\r\n\r\n"))
    await peer.send_frame(TEXT, b"hello")
    assert await peer.read_frame() == (True, TEXT, b"hello")


# ------------------------------------------------------------------------------------------ group 1: what must be taken


@pytest.mark.parametrize("text", [FIREFOX, CHROME, SAFARI], ids=["firefox", "chrome", "safari"])
async def test_a_browsers_request_opens_a_connection(serve: Serve, raw: Raw, text: str) -> None:
    peer = await raw(await serve(echo()))
    await peer.send(wire(text))
    await check_echo(peer)


async def test_a_request_byte_by_byte_opens_a_connection(serve: Serve, raw: Raw) -> None:
    peer = await raw(await serve(echo()))
    for byte in wire(FIREFOX):
        await peer.send(bytes([byte]))
    await check_echo(peer)


@pytest.mark.parametrize(
    "data",
    [
        request(cookie="a=" + "b" * 10_000),
        request("GET /?" + "a" * 7_000 + " HTTP/1.1"),
        request("GET / HTTP/1.1", **{f"x-{n}": "a" for n in range(85)}),
        request("GET http://example.com/ HTTP/1.1"),
    ],
    ids=["cookies", "target", "fields", "absolute-form"],
)
async def test_a_large_but_right_request_opens_a_connection(serve: Serve, raw: Raw, data: bytes) -> None:
    peer = await raw(await serve(echo()))
    await peer.send(data)
    await check_echo(peer)


# ---------------------------------------------------------------------------------- groups 2 to 5: refused, and the end

REFUSED = {
    "plain": (wire(PLAIN), 426),
    "version 12": (request(sec_websocket_version="12"), 426),
    "foreign origin": (request(origin="http://evil.example"), 403),
    "no key": (request(sec_websocket_key=None), 400),
    "no Host": (request(host=None), 400),
    "POST": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405),
    "HEAD": (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "a body": (request(content_length="5") + b"hello", 400),
    "chunks": (request(transfer_encoding="chunked") + b"0\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "bare LF": (request().replace(b"\r\n", b"\n"), 400),
    "obs-fold": (request(x_note="a\r\n b"), 400),
    "7,000 spaces": (request(sec_websocket_protocol="b" + " " * 7_000 + "x"), 400),
    "unterminated quotes": (request(sec_websocket_extensions='a; b="' + '\\"' * 3_500), 400),
    "a 64 KB subprotocol": (request(sec_websocket_protocol="a" * 65_536), 431),
    "garbage": (bytes(range(256)), 400),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    "behind", [b"", encode_frame(TEXT, b"x") + request() + wire(PLAIN)], ids=["alone", "with more"]
)
async def test_a_refused_request_gets_one_answer_and_the_end(
    serve: Serve, raw: Raw, check_served: CheckServed, data: bytes, status: int, behind: bytes
) -> None:
    server = await serve(echo())
    answer = await answer_to(await raw(server), data + behind)
    assert answer.status == status
    assert not list(server.connections)
    assert server.stats().handshakes[status] == 1
    await check_served(server)


@pytest.mark.parametrize(
    "fields",
    [
        {"connection": ",".join(["a"] * 3_500 + ["upgrade"])},
        {"sec_websocket_extensions": ",".join(["a"] * 3_500)},
        {"sec_websocket_extensions": "a" + ";b" * 3_500},
    ],
    ids=["elements", "offers", "parameters"],
)
async def test_long_lists_are_taken(serve: Serve, raw: Raw, fields: dict[str, str]) -> None:
    peer = await raw(await serve(echo()))
    await peer.send(request("GET / HTTP/1.1", **fields))
    await check_echo(peer)


async def test_a_second_request_behind_an_accepted_one_is_a_protocol_error(serve: Serve, raw: Raw) -> None:
    peer = await raw(await serve(echo()))
    await peer.send(request() + request())
    parse_upgrade(await peer.reader.readuntil(b"\r\n\r\n"))
    await peer.expect_close(1002)


# ------------------------------------------------------------------------------- group 6: frames along with the request


async def test_frames_in_the_requests_packet_are_handled_in_order(serve: Serve, raw: Raw) -> None:
    peer = await raw(await serve(echo()))
    frames = [encode_frame(TEXT, b"%d" % number) for number in range(100)]
    half = encode_frame(TEXT, b"the last")
    await peer.send(request() + b"".join(frames) + half[:5])
    parse_upgrade(await peer.reader.readuntil(b"\r\n\r\n"))
    for number in range(100):
        assert await peer.read_frame() == (True, TEXT, b"%d" % number)
    await peer.send(half[5:])
    assert await peer.read_frame() == (True, TEXT, b"the last")


async def test_frames_that_come_while_on_upgrade_waits_are_kept(serve: Serve, raw: Raw) -> None:
    server, go_on, begun = echo(), asyncio.Event(), asyncio.Event()

    @server.on_upgrade
    async def wait(request: Request) -> None:
        begun.set()
        await go_on.wait()

    peer = await raw(await serve(server))
    await peer.send(request() + encode_frame(TEXT, b"1"))
    await begun.wait()
    await peer.send(encode_frame(TEXT, b"2"))
    go_on.set()
    parse_upgrade(await peer.reader.readuntil(b"\r\n\r\n"))
    assert [(await peer.read_frame()).payload for _ in range(2)] == [b"1", b"2"]


# ---------------------------------------------------------------------------------------------- group 7: without an end


@pytest.mark.parametrize(
    ("begin", "more", "status"),
    [
        (b"GET /", b"a" * PIECE, 414),
        (b"GET / HTTP/1.1\r\nHost: ", b"a" * PIECE, 431),
        (b"GET / HTTP/1.1\r\n", b"a" * PIECE, 431),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * (PIECE // 6), 431),
        (b"", b"\r\n" * (PIECE // 2), 400),
        (b"", b"\xff\0" * (PIECE // 2), 400),
    ],
    ids=["target", "value", "name", "fields", "blank lines", "garbage"],
)
async def test_what_has_no_end_is_refused_at_its_limit(
    serve: Serve, raw: Raw, check_served: CheckServed, begin: bytes, more: bytes, status: int
) -> None:
    server = await serve(echo())
    peer = await raw(server)
    await peer.send(begin)

    async def flood() -> None:
        try:
            for _ in range(20 * 1024 * 1024 // PIECE):
                await peer.send(more)
        except ConnectionError:
            pass  # it had enough

    flooding = asyncio.ensure_future(flood())
    answer = parse_answer(await read_all(peer))
    assert answer.status == status
    await check_served(server)
    await flooding


# -------------------------------------------------------------------------------------------------------- group 8: time


@pytest.mark.parametrize("data", [b"", b"G", request()[:-1]], ids=["silence", "a byte", "nearly all"])
async def test_a_request_that_does_not_come_ends_at_the_deadline(serve: Serve, raw: Raw, data: bytes) -> None:
    peer = await raw(await serve(echo(handshake_timeout=0.05)))
    await peer.send(data)
    received = await read_all(peer)
    if data:
        assert parse_answer(received).status == 408
    else:
        assert received == b""


async def test_two_hundred_that_drip_end_at_the_deadline_and_hinder_nobody(
    serve: Serve, raw: Raw, check_served: CheckServed
) -> None:
    server = await serve(echo(handshake_timeout=2.0))  # time for all of them to begin, on a busy machine too
    peers = [await raw(server) for _ in range(200)]
    for peer in peers:
        await peer.send(b"GET / HTTP/1.1\r\n")
    await check_served(server)

    async def drip(peer: Peer) -> int:
        reading = asyncio.ensure_future(read_all(peer))
        while not reading.done():
            peer.writer.write(b"X: y\r\n")
            await asyncio.wait([reading], timeout=0.02)  # the drip's pace, not a wait for anything
        return parse_answer(await reading).status

    assert set(await asyncio.gather(*map(drip, peers))) == {408}


async def test_an_open_connection_is_not_subject_to_the_deadline(serve: Serve, raw: Raw) -> None:
    server = await serve(echo(handshake_timeout=0.5))
    early, late = await raw(server), await raw(server)
    await early.upgrade()
    await read_all(late)  # the deadline is over
    await early.send_frame(TEXT, b"hello")
    assert await early.read_frame() == (True, TEXT, b"hello")


async def test_on_upgrade_that_takes_too_long_is_503(serve: Serve, raw: Raw) -> None:
    server = echo(upgrade_timeout=0.05)
    ended = asyncio.Event()

    @server.on_upgrade
    async def hang(request: Request) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    answer = await answer_to(await raw(await serve(server)), request())
    assert answer.status == 503
    await ended.wait()


# ---------------------------------------------------------------------------------------------- group 16: who goes away


@pytest.mark.parametrize("data", [b"", b"GET / HT", wire(PLAIN), request(sec_websocket_key=None)], ids=len)
@pytest.mark.parametrize("how", ["FIN", "RST", "half"])
async def test_who_goes_in_the_middle_leaves_nothing(
    serve: Serve, raw: Raw, check_served: CheckServed, data: bytes, how: str
) -> None:
    server = await serve(echo())
    for _ in range(20):
        peer = await raw(server)
        await peer.send(data)
        if how == "RST":
            peer.reset()
        elif how == "FIN":
            peer.writer.close()
        else:
            peer.send_eof()
            await read_all(peer)
    await check_served(server)


async def test_who_goes_while_on_upgrade_runs_is_not_connected(
    serve: Serve, raw: Raw, check_served: CheckServed
) -> None:
    server: Server[Any] = echo(idle_timeout=0.2)
    begun, go_on = asyncio.Event(), asyncio.Event()
    ended: list[int] = []

    @server.on_upgrade
    async def wait(request: Request) -> None:
        begun.set()
        await go_on.wait()

    server.on_disconnect(lambda conn, error: ended.append(conn.id))
    peer = await raw(await serve(server))
    await peer.send(request())
    await begun.wait()
    peer.reset()
    go_on.set()
    await check_served(server)


# -------------------------------------------------------------------------------------------------------- group 24: TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
async def test_within_tls_a_refused_request_gets_one_answer_and_the_end(
    serve: Serve,
    raw: Raw,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    data: bytes,
    status: int,
) -> None:
    server = await serve(echo(), ssl=server_context)
    answer = await answer_to(await raw(server, ssl=client_context), data)
    assert answer.status == status


async def test_within_tls_a_request_opens_a_connection(
    serve: Serve, raw: Raw, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    peer = await raw(await serve(echo(), ssl=server_context), ssl=client_context)
    await peer.send(wire(FIREFOX) + encode_frame(PING, b"1"))
    parse_upgrade(await peer.reader.readuntil(b"\r\n\r\n"))
    assert (await peer.read_frame()).payload == b"1"


@pytest.mark.parametrize(
    "data", [b"", request(), b"\x16\x03\x01\x02\x00\x01"], ids=["silence", "plain", "cut ClientHello"]
)
async def test_what_is_no_tls_ends_by_the_deadline(
    serve: Serve, raw: Raw, server_context: ssl.SSLContext, data: bytes
) -> None:
    server = await serve(echo(handshake_timeout=0.1), ssl=server_context)
    peer = await raw(server)
    await peer.send(data)
    assert b"HTTP" not in await read_all(peer)


# ------------------------------------------------------------------------------------- group 26: the application's side


async def test_what_the_application_returns_cannot_inject_a_field(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord]
) -> None:
    server = echo()

    @server.on_upgrade
    def accept(request: Request) -> Accept:
        return Accept(headers={"X-Name": request.query["name"]})

    answer = await answer_to(await raw(await serve(server)), request("GET /?name=a%0d%0aSet-Cookie:%20b HTTP/1.1"))
    assert answer.status == 500
    assert "set-cookie" not in answer
    (record,) = expected_errors
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_a_callback_that_raises_is_500_one_record_and_no_harm(
    serve: Serve, raw: Raw, check_served: CheckServed, expected_errors: list[logging.LogRecord]
) -> None:
    server = echo()

    @server.on_upgrade
    def accept(request: Request) -> Response | None:
        if "x-fail" in request.headers:
            raise RuntimeError("secret")
        return None

    await serve(server)
    answer = await answer_to(await raw(server), request(x_fail="yes"))
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert len(expected_errors) == 1
    await check_served(server)


async def test_past_max_connections_it_is_503_with_retry_after(serve: Serve, raw: Raw) -> None:
    server = await serve(echo(max_connections=1))
    first = await raw(server)
    await first.upgrade()
    answer = await answer_to(await raw(server), request())
    assert answer.status == 503
    assert int(answer["retry-after"]) > 0
