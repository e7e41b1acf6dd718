"""Floods, and readers that do not read: bounded, while others are served."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import pytest

from tests.hostile.conftest import LATENCY, Attacked
from tests.peer import BINARY, MASKING_KEY, PING, TEXT, Peer, encode_frame
from wsev import ProtocolError


async def flood(peer: Peer, data: bytes) -> None:
    """Send for as long as the server takes it; read nothing."""
    with contextlib.suppress(ConnectionError):
        while True:
            await peer.send(data)


FLOODS = {
    "small echoes": encode_frame(TEXT, b"a" * 20) * 1000,
    "large echoes": encode_frame(BINARY, bytes(500_000)),
    "one byte each": encode_frame(BINARY, b"a") * 5000,
}


@pytest.mark.slow
@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS)
async def test_a_flooder_that_reads_nothing_is_paused_and_others_are_served(attacked: Attacked, data: bytes) -> None:
    server = await attacked.start()
    flooders = [await attacked.open(receive_buffer=4096, send_buffer=65_536) for _ in range(3)]
    for flooder in flooders:
        flooder.pause()
    floods = [asyncio.ensure_future(flood(flooder, data)) for flooder in flooders]
    other = await attacked.open()
    for _ in range(100):
        async with asyncio.timeout(LATENCY):
            await other.send_frame(TEXT, b"hello")
            await other.expect_frame(TEXT, b"hello")
    # high_water, and the one message that passed it; what one read event brought waits unparsed.
    assert all(conn.buffered_amount < 64 * 1024 + 2 * len(data) for conn in server.connections)
    for task in floods:
        task.cancel()
    await asyncio.wait(floods)
    for flooder in flooders:
        flooder.reset()


@pytest.mark.slow
async def test_pings_past_their_rate_end_the_connection_though_nobody_reads_the_pongs(attacked: Attacked) -> None:
    server = await attacked.start()
    peer = await attacked.open(receive_buffer=4096)
    peer.pause()
    await flood(peer, encode_frame(PING, bytes(125)) * 100)
    await peer.close()
    error = await attacked.end()
    assert isinstance(error, ProtocolError)
    assert error.close_code == 1008
    assert server.stats().limits == {"max_control_rate": 1}
    assert server.stats().unsent == 0


async def test_a_frame_in_two_thousand_packets_is_one_message(attacked: Attacked) -> None:
    await attacked.start()
    peer = await attacked.open()
    for byte in encode_frame(BINARY, bytes(2000)):
        await peer.send(bytes([byte]))
    await peer.expect_frame(BINARY, bytes(2000))


async def test_a_reader_that_pauses_gets_every_echo_in_order(attacked: Attacked) -> None:
    await attacked.start(high_water=10_000, max_queue=2)
    peer = await attacked.open(receive_buffer=4096)
    peer.pause()
    sending = asyncio.ensure_future(
        peer.send(b"".join(encode_frame(BINARY, struct.pack("!I", number) * 500) for number in range(2000)))
    )
    await (await attacked.open()).fence()
    peer.resume()
    for number in range(2000):
        await peer.expect_frame(BINARY, struct.pack("!I", number) * 500)
    await sending


@pytest.mark.slow
async def test_headers_that_claim_the_limit_take_no_more_memory_than_what_came(attacked: Attacked) -> None:
    await attacked.start()
    claim = bytes([0x80 | BINARY, 0x80 | 127]) + struct.pack("!Q", 1 << 20) + MASKING_KEY + bytes(1024)
    peers = [await attacked.open() for _ in range(200)]
    before = resident_size()
    for peer in peers:
        await peer.send(claim)
    await asyncio.sleep(0)
    await (await attacked.open()).fence()
    assert resident_size() - before < 16 << 20
    assert attacked.got == []


def resident_size() -> int:
    """Bytes of this process's memory; of the test's own clients, too."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
