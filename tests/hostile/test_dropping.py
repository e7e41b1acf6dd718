"""Peers that vanish, one by one and all at once."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

import pytest

from tests.hostile.conftest import LATENCY, Attacked
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, encode_frame, upgrade_request

STAGES = {
    "open": b"",
    "in a header": encode_frame(BINARY, bytes(300))[:3],
    "in a payload": encode_frame(BINARY, bytes(300_000))[:100_000],
    "in a message": encode_frame(BINARY, bytes(300), fin=False),
    "in an echo": encode_frame(BINARY, bytes(1_000_000)),
    "while closing": encode_frame(CLOSE),
}


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("data", STAGES.values(), ids=STAGES)
async def test_a_peer_that_vanishes_is_told_once_and_harms_nobody(attacked: Attacked, data: bytes, how: str) -> None:
    await attacked.start()
    other = await attacked.open()
    peer = await attacked.open(receive_buffer=4096)
    peer.pause()
    await peer.send(data)
    if how == "RST":
        peer.reset()
    else:
        await peer.close()
    await attacked.end()
    await other.send_frame(TEXT, b"hello")
    await other.expect_frame(TEXT, b"hello")
    assert attacked.ends.empty()
    assert len(attacked.server.connections) == 1


async def test_descriptors_that_are_used_again_at_once_serve_their_new_connection(attacked: Attacked) -> None:
    await attacked.start()
    for round_ in range(30):
        peers = [await attacked.open() for _ in range(5)]
        for number, peer in enumerate(peers):
            await peer.send_frame(TEXT, b"%d of %d" % (number, round_))
            if number % 2:
                await peer.expect_frame(TEXT, b"%d of %d" % (number, round_))
            peer.reset()


async def test_no_byte_of_a_connection_is_seen_by_another(attacked: Attacked) -> None:
    await attacked.start()

    async def talk(number: int) -> None:
        peer = await attacked.open()
        for size in (1, 50, 126, 5000, 70_000):
            payload = b"%04d" % number * size
            if number % 10 == 3:
                await peer.send(encode_frame(BINARY, payload)[: size + 2])
                peer.reset()
                return
            frame = encode_frame(BINARY, payload, fin=False)
            await peer.send(frame[: len(frame) // 2])
            await asyncio.sleep(0)  # the others' turn, with half of a frame here
            await peer.send(frame[len(frame) // 2 :] + encode_frame(PING, payload[:100]) + encode_frame(0, b"."))
            await peer.expect_frame(PONG, payload[:100])
            await peer.expect_frame(BINARY, payload + b".")
        reason = f"number {number}"
        await peer.send_close(4000 + number, reason)
        await peer.expect_close(4000 + number, "")

    await asyncio.gather(*(talk(number) for number in range(100)))


CLIENTS = """
import socket, struct, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
request = sys.stdin.buffer.read()
clients = []
for number in range(count):
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(request)
    clients.append(client)
for client in clients:
    received = b""
    while b"\\r\\n\\r\\n" not in received:
        received += client.recv(4096)
    assert b" 101 " in received, received
print("open", flush=True)
for number, client in enumerate(clients):
    if number % 2:  # RST, else FIN
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
"""


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_ten_thousand_connections_closed_at_once_are_all_freed_and_nobody_notices(attacked: Attacked) -> None:
    count = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    await attacked.start()
    other = await attacked.open()
    before = open_descriptors()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CLIENTS,
        str(attacked.server.port),
        str(count),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(upgrade_request())
    process.stdin.close()
    assert await process.stdout.readline() == b"open\n"
    assert attacked.server.stats().handshakes == {101: count + 1}
    for _ in range(count):
        await attacked.end()
    async with asyncio.timeout(LATENCY):
        await other.send_frame(TEXT, b"hello")
        await other.expect_frame(TEXT, b"hello")
    assert await process.wait() == 0
    assert attacked.ends.empty()
    assert len(attacked.server.connections) == 1
    assert attacked.server.stats().closes == {1006: count}
    assert open_descriptors() <= before + 10


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
