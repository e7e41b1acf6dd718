"""Hostile use of permessage-deflate: bombs, broken streams, and what belongs to other connections."""

from __future__ import annotations

import asyncio
import os
import zlib
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.peer import BINARY, Peer, encode_frame

Server = wsev.Server[Any]

MODES = pytest.mark.parametrize("mode", ["shared", "dedicated"])
TAIL = b"\x00\x00\xff\xff"
LIMIT = 1 << 20


async def serve_echo(serve: Serve, **options: Any) -> Server:
    server: Server = wsev.Server(**options)
    server.on_message(lambda conn, message: conn.send(message, compress=False))
    return await serve(server)


async def agreed(raw: Raw, server: Server) -> Peer:
    peer = await raw(server)
    await peer.upgrade("/", {"Sec-WebSocket-Extensions": "permessage-deflate"})
    return peer


def stream(data: bytes, *, before: bytes = b"") -> bytes:
    """``data`` compressed; what stood ``before`` it is referred to, and not in the stream."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, before)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def frame(payload: bytes, opcode: int = BINARY, **how: Any) -> bytes:
    return encode_frame(opcode, payload, rsv=4, **how)


@pytest.mark.slow
@MODES
@pytest.mark.parametrize("size", [LIMIT + 1, 4 * LIMIT, 256 * LIMIT], ids=["limit and one", "four limits", "256 MiB"])
async def test_a_bomb_is_closed_with_1009_and_exactly_the_limit_is_not(
    serve: Serve, raw: Raw, mode: Any, size: int
) -> None:
    server = await serve_echo(serve, compression=mode)
    peer = await agreed(raw, server)
    await peer.send(frame(stream(bytes(LIMIT))))
    assert (await peer.read_frame()).payload == bytes(LIMIT)
    await peer.send(frame(stream(bytes(size))))
    await peer.expect_close(1009)
    assert server.stats().limits == {"max_message_size": 1}


@pytest.mark.slow
async def test_a_bomb_in_fragments_and_twenty_at_once(serve: Serve, raw: Raw) -> None:
    server = await serve_echo(serve, compression="shared")
    bomb = stream(bytes(64 * LIMIT))
    peers = [await agreed(raw, server) for _ in range(20)]

    async def throw(peer: Peer) -> None:
        await peer.send(frame(bomb[:1000], fin=False) + encode_frame(0, bomb[1000:2000], fin=False))
        await peer.send(encode_frame(0, bomb[2000:]))
        await peer.expect_close(1009)

    await asyncio.gather(*(throw(peer) for peer in peers))


async def test_more_compressed_bytes_than_the_limit_and_a_thousandth_are_refused_on_the_header(
    serve: Serve, raw: Raw
) -> None:
    server = await serve_echo(serve, compression="shared", max_message_size=100_000)
    peer = await agreed(raw, server)
    noise = os.urandom(100_000)
    await peer.send(frame(stream(noise)))  # does not get smaller
    assert (await peer.read_frame()).payload == noise
    await peer.send(frame(bytes(100_165))[:10])
    await peer.expect_close(1009)


BROKEN = {
    "noise": b"\xff" * 50,
    "a block of no type": b"\x07",
    "a distance before the beginning": stream(b"far away", before=b"far away" + bytes(100)),
    "cut inside a block": stream(b"Hello, Hello, Hello")[:5],
    "very many ends": b"\x03\x00" * 200_000,
    "a header of zlib's": zlib.compress(b"Hello"),
}


@MODES
@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
async def test_a_broken_stream_is_closed_with_1007(serve: Serve, raw: Raw, mode: Any, payload: bytes) -> None:
    server = await serve_echo(serve, compression=mode)
    peer, other = await agreed(raw, server), await agreed(raw, server)
    await peer.send(frame(stream(b"good")) + frame(payload))
    assert (await peer.read_frame()).payload == b"good"
    await peer.expect_close(1007)
    await other.send(frame(stream(b"still served")))
    assert (await other.read_frame()).payload == b"still served"


@MODES
async def test_nothing_of_another_connection_can_be_referred_to(serve: Serve, raw: Raw, mode: Any) -> None:
    server = await serve_echo(serve, compression=mode)
    victim, thief = await agreed(raw, server), await agreed(raw, server)
    await victim.send(frame(stream(b"the password is swordfish")))
    assert (await victim.read_frame()).payload == b"the password is swordfish"
    reference = stream(b"the password is swordfish", before=b"the password is swordfish")
    assert len(reference) < 9, "a length and a distance"
    await thief.send(frame(reference))
    await thief.expect_close(1007)


@pytest.mark.slow
async def test_a_hundred_connections_that_share_a_compressor_see_their_own_alone(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(compression="shared")
    server.on_message(lambda conn, message: conn.send(message, compress=True))
    await serve(server)
    peers = [await agreed(raw, server) for _ in range(100)]

    async def talk(number: int, peer: Peer) -> None:
        own = b"%03d" % number * 200
        for _ in range(10):
            await peer.send(frame(stream(own)))
            first, second = await peer.reader.readexactly(2)
            assert (first, second < 126) == (0xC2, True)
            payload = await peer.reader.readexactly(second)
            assert zlib.decompressobj(-15).decompress(payload + TAIL) == own
        if number % 3 == 0:
            await peer.send(frame(b"\xff" * 20))
            await peer.expect_close(1007)

    await asyncio.gather(*(talk(number, peer) for number, peer in enumerate(peers)))
