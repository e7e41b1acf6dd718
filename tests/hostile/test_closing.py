"""The closing handshake with peers that do not play along."""

from __future__ import annotations

import asyncio
import logging
import ssl as tls
import struct
from typing import Any

import pytest
import trustme

from tests.conftest import Connect, Serve
from tests.hostile.conftest import Attacked
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, encode_frame
from wsev import CallbackError, Connection, ProtocolError, Server, TimedOut

GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("code", [None, *GOOD_CODES])
async def test_a_close_frame_is_answered_with_its_code(attacked: Attacked, code: int | None) -> None:
    await attacked.start()
    peer = await attacked.open()
    await peer.send_close(code, "so it ends" if code else "")
    await peer.expect_close(code, None if code is None else "")
    assert await attacked.end() is None


@pytest.mark.parametrize("code", BAD_CODES)
async def test_a_close_code_that_may_not_be_sent_is_a_violation(attacked: Attacked, code: int) -> None:
    await attacked.start()
    peer = await attacked.open()
    await peer.send_close(code)
    await peer.expect_close(1002)
    await peer.close()
    assert isinstance(await attacked.end(), ProtocolError)


BEHIND = {
    "a message": encode_frame(TEXT, b"never"),
    "a ping": encode_frame(PING, b"never"),
    "another Close": encode_frame(CLOSE, b"\x03\xe9"),
    "a violation": encode_frame(TEXT, b"never", masked=False),
    "many messages": encode_frame(BINARY, bytes(1000)) * 100,
}


@pytest.mark.parametrize("data", BEHIND.values(), ids=BEHIND)
async def test_what_comes_behind_a_close_frame_is_neither_delivered_nor_answered(
    attacked: Attacked, data: bytes
) -> None:
    await attacked.start()
    peer = await attacked.open()
    await peer.send(encode_frame(CLOSE, b"\x03\xe8") + data)
    await peer.expect_close(1000)
    assert attacked.got == []


async def test_a_close_frame_between_fragments_is_answered(attacked: Attacked) -> None:
    await attacked.start()
    peer = await attacked.open()
    await peer.send(encode_frame(TEXT, b"a", fin=False) + encode_frame(CLOSE) + encode_frame(CONTINUATION, b"b"))
    await peer.expect_close(None)
    assert attacked.got == []


# Our own Close, and a peer that does something else than to answer


async def close_of(attacked: Attacked, **options: Any) -> tuple[Server[Any], Any]:
    """A peer that has got the server's own Close."""
    server = await attacked.start(**options)
    peer = await attacked.open()
    (conn,) = server.connections
    conn.close(4000, "enough")
    frame = await peer.read_frame()
    assert frame == (True, CLOSE, struct.pack("!H", 4000) + b"enough")
    return server, peer


async def test_a_peer_that_never_answers_our_close_is_ended(attacked: Attacked) -> None:
    _, peer = await close_of(attacked, close_timeout=0.1)
    await peer.read_eof()
    error = await attacked.end()
    assert isinstance(error, TimedOut)
    assert error.kind == "close"


async def test_a_peer_that_goes_on_sending_after_our_close_is_not_heard_and_ended(attacked: Attacked) -> None:
    _, peer = await close_of(attacked, close_timeout=0.2)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        while True:
            await peer.send_frame(TEXT, b"a" * 1000)
            await peer.send_frame(PING, b"?")
            await asyncio.sleep(0)
    await attacked.end()
    assert attacked.got == []


async def test_a_peer_that_half_closes_instead_of_an_answer_is_gone(attacked: Attacked) -> None:
    _, peer = await close_of(attacked)
    peer.send_eof()
    await peer.read_eof()
    assert isinstance(await attacked.end(), ConnectionResetError)


async def test_an_answer_with_more_behind_it_ends_all_the_same(attacked: Attacked) -> None:
    _, peer = await close_of(attacked)
    await peer.send(encode_frame(CLOSE, struct.pack("!H", 4000)) + encode_frame(TEXT, b"never") * 1000)
    await peer.read_eof()
    await peer.close()
    assert await attacked.end() is None
    assert attacked.got == []


async def test_a_peer_that_reads_nothing_is_ended_though_our_close_does_not_get_out(attacked: Attacked) -> None:
    server = await attacked.start(close_timeout=0.1, max_buffered_amount=None)
    peer = await attacked.open(receive_buffer=4096)
    peer.pause()
    (conn,) = server.connections
    conn.send(bytes(8_000_000))
    conn.close()
    assert isinstance(await attacked.end(), TimedOut)
    assert conn.buffered_amount == 0


async def test_sixty_four_megabytes_behind_a_violation_are_not_kept(attacked: Attacked) -> None:
    await attacked.start(close_timeout=0.3)
    peer = await attacked.open()
    await peer.send_frame(TEXT, b"x", masked=False)
    try:
        for _ in range(64):
            await peer.send(bytes(1 << 20))
    except ConnectionError:
        pass  # the server took it for so long, and no longer
    assert isinstance(await attacked.end(), ProtocolError)
    assert attacked.got == []


@pytest.mark.parametrize("stage", ["at once", "in a header", "in a payload", "in a message"])
async def test_a_peer_that_half_closes_gets_what_was_under_way_and_the_end(attacked: Attacked, stage: str) -> None:
    await attacked.start()
    peer = await attacked.open()
    await peer.send_frame(TEXT, b"under way")
    unfinished = {
        "at once": b"",
        "in a header": encode_frame(BINARY, bytes(300))[:3],
        "in a payload": encode_frame(BINARY, bytes(300))[:100],
        "in a message": encode_frame(BINARY, bytes(300), fin=False),
    }
    await peer.send(unfinished[stage])
    peer.send_eof()
    await peer.expect_frame(TEXT, b"under way")
    await peer.read_eof()
    assert isinstance(await attacked.end(), ConnectionResetError)
    assert attacked.got == ["under way"]


# The application's side


async def test_a_callback_that_raises_closes_its_connection_alone(
    attacked: Attacked, connect: Connect, expected_errors: list[logging.LogRecord]
) -> None:
    await attacked.start()
    other = await attacked.open()
    peer = await attacked.open()
    attacked.fails_at = "fail"
    await peer.send_frame(TEXT, b"fail")
    await peer.expect_close(1011)
    await peer.close()
    assert isinstance(await attacked.end(), CallbackError)
    await other.send_frame(TEXT, b"hello")
    await other.expect_frame(TEXT, b"hello")
    assert len(expected_errors) == 1
    assert expected_errors[0].exc_info


async def test_a_callback_that_never_returns_holds_back_its_own_connection_alone(attacked: Attacked) -> None:
    await attacked.start(stop_timeout=0.05, max_queue=10)
    forever = asyncio.get_running_loop().create_future()
    attacked.waits_at = ("wait", forever)
    peer = await attacked.open()
    await peer.send(encode_frame(TEXT, b"wait") + encode_frame(TEXT, b"behind") * 1000)
    other = await attacked.open()
    await other.send_frame(TEXT, b"hello")
    await other.expect_frame(TEXT, b"hello")
    peer.reset()
    await attacked.server.stop()
    assert forever.cancelled()
    assert "behind" not in attacked.got
    await attacked.server.start(0)


async def test_tls_ends_with_on_disconnect_and_its_addresses(serve: Serve, connect: Connect) -> None:
    authority = trustme.CA()
    ours = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    theirs = tls.create_default_context()
    authority.configure_trust(theirs)
    ended: asyncio.Future[tuple[Connection[Any], BaseException | None]] = asyncio.get_running_loop().create_future()
    server: Server[Any] = Server()
    server.on_disconnect(lambda conn, error: ended.set_result((conn, error)))
    await serve(server, ssl=ours)
    client = await connect(server, ssl=theirs)
    port = client.local_address[1]
    await client.close()
    conn, error = await ended
    assert error is None
    assert conn.remote_address == ("127.0.0.1", port)
    assert conn.local_address == ("127.0.0.1", server.port)
    conn.get_extra_info("cipher")


async def test_pings_and_pongs_go_on_while_a_callback_waits(attacked: Attacked) -> None:
    await attacked.start()
    going_on = asyncio.get_running_loop().create_future()
    attacked.waits_at = ("wait", going_on)
    peer = await attacked.open()
    await peer.send_frame(TEXT, b"wait")
    await peer.send_frame(PING, b"?")
    await peer.expect_frame(PONG, b"?")
    await peer.send_close(1000)
    await peer.expect_close(1000)
    going_on.set_result(None)
    assert await attacked.end() is None
