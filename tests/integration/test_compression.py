"""Permessage-deflate, between a server and an independent client, and as raw frames."""

from __future__ import annotations

import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate

import wsev
from tests.conftest import Raw, Serve
from tests.peer import BINARY, CLOSE, TEXT, Frame, Peer, encode_frame

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]

MODES = pytest.mark.parametrize("mode", ["shared", "dedicated"])
TAIL = b"\x00\x00\xff\xff"
NEWS = "The quick brown fox jumps over the lazy dog. " * 20

OFFERS: dict[str, dict[str, Any]] = {
    "as a browser": {"client_max_window_bits": True},
    "plain": {"client_max_window_bits": None},
    "no server context": {"server_no_context_takeover": True},
    "no client context": {"client_no_context_takeover": True},
    "no contexts": {"server_no_context_takeover": True, "client_no_context_takeover": True},
    "small windows": {"server_max_window_bits": 9, "client_max_window_bits": 9},
    "a small window of ours": {"server_max_window_bits": 10},
}


def echo(**options: Any) -> Server:
    server: Server = wsev.Server(**options)
    server.on_connect(lambda conn: conn.subscribe("room"))
    server.on_message(lambda conn, message: conn.send(message))
    return server


def deflated(data: bytes, **how: Any) -> bytes:
    """A client's compressed frame, by a compressor that has seen nothing."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    payload = (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    return encode_frame(how.pop("opcode", BINARY), payload, rsv=4, **how)


Dial = Callable[..., Awaitable[ClientConnection]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """`client = await dial(server, **offer)`: one that offers permessage-deflate."""
    async with AsyncExitStack() as stack:

        async def open_client(server: Server, **offer: Any) -> ClientConnection:
            factory = ClientPerMessageDeflateFactory(**offer)
            client = connect(
                f"ws://127.0.0.1:{server.port}", compression=None, extensions=[factory], max_size=None, proxy=None
            )
            return await stack.enter_async_context(client)

        yield open_client


@pytest.fixture
async def agree(raw: Raw) -> Callable[[Server], Awaitable[Peer]]:
    """`peer = await agree(server)`: one that has agreed on permessage-deflate."""

    async def open_peer(server: Server) -> Peer:
        peer = await raw(server)
        head = await peer.upgrade("/", {"Sec-WebSocket-Extensions": "permessage-deflate"})
        assert head["sec-websocket-extensions"].startswith("permessage-deflate")
        return peer

    return open_peer


Agree = Callable[[Server], Awaitable[Peer]]


async def read_compressed(peer: Peer) -> tuple[int, bytes]:
    """The opcode and the payload of a frame with RSV1."""
    first, second = await peer.reader.readexactly(2)
    assert first & 0xF0 == 0xC0, "FIN and RSV1"
    size = second
    if size >= 126:
        size = int.from_bytes(await peer.reader.readexactly(2 if size == 126 else 8), "big")
    return first & 15, await peer.reader.readexactly(size)


async def read_inflated(peer: Peer) -> tuple[int, bytes]:
    """The same, inflated by itself."""
    opcode, payload = await read_compressed(peer)
    return opcode, zlib.decompressobj(-15).decompress(payload + TAIL)


@MODES
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_what_a_client_offers_is_agreed_on_and_messages_come_back(
    serve: Serve, dial: Dial, mode: Any, offer: dict[str, Any]
) -> None:
    server = await serve(echo(compression=mode))
    client = await dial(server, **offer)
    assert [type(extension) for extension in client.protocol.extensions] == [PerMessageDeflate]
    messages: list[str | bytes] = [
        "",
        b"",
        "a",
        "ü" * 500,
        NEWS,
        NEWS,
        os.urandom(5000),
        b"\0" * 1_000_000,
        NEWS.encode(),
    ]
    for message in messages * 2:
        await client.send(message)
        assert await client.recv() == message
    fragments = [NEWS[:100], "", NEWS[100:]]
    await client.send(fragments)
    assert await client.recv() == NEWS
    assert server.stats().bytes_out < 30_000


@pytest.mark.parametrize("offer", [None, "x-webkit-deflate-frame", "permessage-deflate; unknown"])
async def test_without_agreement_nothing_is_compressed(serve: Serve, raw: Raw, offer: str | None) -> None:
    server = await serve(echo(compression="shared"))
    peer = await raw(server)
    head = await peer.upgrade("/", {"Sec-WebSocket-Extensions": offer})
    assert "sec-websocket-extensions" not in head
    await peer.send_frame(TEXT, NEWS.encode())
    await peer.expect_frame(TEXT, NEWS.encode())
    await peer.send(deflated(b"Hello"))
    await peer.expect_close(1002)


async def test_off_is_the_default(serve: Serve, raw: Raw) -> None:
    server = await serve(echo())
    peer = await raw(server)
    assert "sec-websocket-extensions" not in await peer.upgrade(
        "/", {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    )
    await peer.send(deflated(b"Hello"))
    await peer.expect_close(1002)


async def test_small_messages_go_as_they_are(serve: Serve, agree: Agree) -> None:
    server = await serve(echo(compression="shared", compression_threshold=100))
    peer = await agree(server)
    await peer.send(deflated(b"a" * 99))
    assert await peer.read_frame() == Frame(True, BINARY, b"a" * 99)
    await peer.send(encode_frame(BINARY, b"a" * 100))
    assert await read_inflated(peer) == (BINARY, b"a" * 100)


async def test_send_may_ask_for_compression_or_against_it(serve: Serve, agree: Agree) -> None:
    server: Server = wsev.Server(compression="shared")

    @server.on_message
    def said(conn: Conn, message: str | bytes) -> None:
        assert conn.send(b"a" * 50, compress=True)
        assert conn.send("b" * 5000, compress=False)
        assert conn.send(bytearray(b"c" * 5000))
        assert conn.send(b"d" * 5000, text=True)
        with pytest.raises(TypeError):
            conn.send(3)  # type: ignore[arg-type]  # the claim

    await serve(server)
    peer = await agree(server)
    await peer.send_frame(TEXT, b"go")
    assert await read_inflated(peer) == (BINARY, b"a" * 50)
    await peer.expect_frame(TEXT, b"b" * 5000)
    assert await read_inflated(peer) == (BINARY, b"c" * 5000)
    assert await read_inflated(peer) == (TEXT, b"d" * 5000)


@MODES
async def test_a_publish_reaches_those_who_compress_and_those_who_do_not(
    serve: Serve, dial: Dial, raw: Raw, mode: Any
) -> None:
    server = await serve(echo(compression=mode))
    clients = [await dial(server, **offer) for offer in OFFERS.values()]
    plain = await raw(server)
    await plain.upgrade()
    for client in clients:
        await client.send("here")
        assert await client.recv() == "here"
    assert await plain.fence() == []
    news: list[str | bytes] = [NEWS, "short", b"\1" * 70_000, NEWS]
    for message in news:
        assert server.publish("room", message) == len(clients) + 1
        for client in clients:
            assert await client.recv() == message
        payload = message.encode() if isinstance(message, str) else message
        await plain.expect_frame(TEXT if isinstance(message, str) else BINARY, payload)


async def test_a_published_message_is_compressed_once_for_all_who_share_parameters(
    serve: Serve, agree: Agree, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = wsev.deflate.Compressor.compress

    def compress(self: Any, payload: bytes) -> bytes | None:
        calls.append(len(payload))
        return real(self, payload)

    monkeypatch.setattr(wsev.deflate.Compressor, "compress", compress)
    server = await serve(echo(compression="shared"))
    peers = [await agree(server) for _ in range(5)]
    for peer in peers:
        assert await peer.fence() == []
    server.publish("room", NEWS)
    server.broadcast(NEWS)
    received = [[await read_compressed(peer) for _ in range(2)] for peer in peers]
    assert all(frames == received[0] for frames in received)
    assert calls == [len(NEWS)] * 2


@MODES
@pytest.mark.parametrize("decode_text", [True, False])
async def test_compressed_text_is_validated(serve: Serve, agree: Agree, mode: Any, decode_text: bool) -> None:
    server = await serve(echo(compression=mode, decode_text=decode_text))
    peer = await agree(server)
    await peer.send(deflated("ä".encode() * 10, opcode=TEXT))
    assert (await peer.read_frame()).payload == "ä".encode() * 10
    await peer.send(deflated(b"a\xff", opcode=TEXT))
    await peer.expect_close(1007)


@pytest.mark.parametrize("opcode", [CLOSE, 9, 10, 0])
async def test_only_the_first_frame_of_a_message_may_have_rsv1(serve: Serve, agree: Agree, opcode: int) -> None:
    peer = await agree(await serve(echo(compression="shared")))
    if opcode == 0:
        await peer.send(encode_frame(TEXT, b"a", fin=False))
    await peer.send(encode_frame(opcode, b"", rsv=4))
    await peer.expect_close(1002)


async def test_a_compressed_message_in_fragments_is_one_stream(serve: Serve, agree: Agree) -> None:
    peer = await agree(await serve(echo(compression="shared")))
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    payload = (deflater.compress(b"Hello " * 5) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    for at in range(len(payload)):
        await peer.send(encode_frame(BINARY if at == 0 else 0, payload[at : at + 1], fin=False, rsv=0 if at else 4))
        await peer.send(encode_frame(9, b"between"))
        await peer.expect_frame(10, b"between")
    await peer.send(encode_frame(0, b""))
    await peer.expect_frame(BINARY, b"Hello " * 5)


@pytest.mark.slow
async def test_a_message_that_was_refused_is_not_in_the_context(serve: Serve, raw: Raw) -> None:
    server = await serve(echo(compression="dedicated", slow_consumer="drop", max_buffered_amount=50_000))
    peer = await raw(server, receive_buffer=4096)
    await peer.upgrade("/", {"Sec-WebSocket-Extensions": "permessage-deflate"})
    assert await peer.fence() == []
    (conn,) = server.connections
    peer.pause()
    taken: list[bytes] = []
    while server.stats().dropped < 5:
        message = os.urandom(20_000)
        if conn.send(message):
            taken.append(message)
    peer.resume()
    inflater = zlib.decompressobj(-15)
    for message in taken:
        assert inflater.decompress((await read_compressed(peer))[1] + TAIL) == message
    while not conn.send(taken[-1][-2000:]):  # what it refers to has been sent
        await conn.drain()
    opcode, payload = await read_compressed(peer)
    assert (opcode, inflater.decompress(payload + TAIL)) == (BINARY, taken[-1][-2000:])
    assert len(payload) < 1000
