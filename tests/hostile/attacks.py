"""The attacks, each once: for the tests, which hold its fate, and for the report, which shows what it cost the others.

An attack is a function of a port of 127.0.0.1; what it returns is its fate in a few words: the status that it was
answered with, the close code, or what else became of it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from tests.peer import BINARY, CLOSE, PING, TEXT, Peer, encode_frame, upgrade_request

LIMIT = 1 << 20  # max_message_size
MIB = 1 << 20
CROWD = 200


Run = Callable[[int], Coroutine[Any, Any, str]]


class Attack(NamedTuple):
    group: int  # of what hostile peers do
    name: str
    fate: str
    run: Run


ATTACKS: list[Attack] = []


def attack(group: int, name: str, fate: str) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        ATTACKS.append(Attack(group, name, fate, run))
        return run

    return register


async def dial(port: int, *, receive_buffer: int | None = None) -> Peer:
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return Peer(*await asyncio.open_connection(sock=sock))


async def upgraded(port: int, headers: dict[str, str | None] | None = None, **how: int) -> Peer:
    peer = await dial(port, **how)
    await peer.upgrade("/", headers)
    return peer


async def end_of(peer: Peer) -> str:
    """What the server says last, until the end of TCP: a status, a close code, or nothing."""
    last = "ended"
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            frame = await peer.read_frame()
            if frame.opcode == CLOSE:
                last = f"Close {int.from_bytes(frame.payload[:2], 'big')}"
    await peer.close()
    return last


async def answer_of(port: int, data: Iterable[bytes]) -> str:
    """The status that a request is answered with, and that one answer only."""
    peer = await dial(port)
    with suppress(ConnectionError):
        for piece in data:
            await peer.send(piece)
    head, _ = await peer.read_answer()
    await peer.close()
    return str(head.status)


async def together(attempts: Iterable[Awaitable[str]]) -> str:
    """The one fate of many; or what became of how many."""
    fates = Counter(await asyncio.gather(*attempts))
    return next(iter(fates)) if len(fates) == 1 else ", ".join(f"{count} x {fate}" for fate, count in fates.items())


# ------------------------------------------------------------------------------------------------------------ requests


@attack(4, "3,500 extension offers", "101")
async def offers(port: int) -> str:
    peer = await dial(port)
    head = await peer.request("/", {"Sec-WebSocket-Extensions": "a," * 3500})
    await peer.close()
    return str(head.status)


@attack(4, "7,000 spaces in an extension", "400")
async def spaces(port: int) -> str:
    return await answer_of(port, [upgrade_request("/", {"Sec-WebSocket-Extensions": "b" + " " * 7000 + "x"})])


@attack(5, "a body behind the request for upgrade", "400")
async def body(port: int) -> str:
    return await answer_of(port, [upgrade_request("/", {"Content-Length": "5"}) + b"12345"])


@attack(5, "a second request behind a refused one", "400")
async def second(port: int) -> str:
    refused = upgrade_request("/", {"Sec-WebSocket-Key": "short"})
    return await answer_of(port, [refused + upgrade_request()])


@attack(6, "a violation in the request's packet", "Close 1002")
async def early(port: int) -> str:
    peer = await dial(port)
    await peer.send(upgrade_request() + encode_frame(TEXT, b"a", masked=False))
    await peer.read_head()
    return await end_of(peer)


@attack(7, "20 MB of target", "414")
async def target(port: int) -> str:
    return await answer_of(port, [b"GET /", *[b"a" * MIB] * 20])


@attack(7, "20 MB of one field", "431")
async def field(port: int) -> str:
    return await answer_of(port, [b"GET / HTTP/1.1\r\nX: ", *[b"a" * MIB] * 20])


@attack(8, "200 requests that never end", "408")
async def unfinished(port: int) -> str:
    return await together(answer_of(port, [upgrade_request()[:-2]]) for _ in range(CROWD))


# -------------------------------------------------------------------------------------------------------------- frames

VIOLATIONS = [
    encode_frame(TEXT, b"a", masked=False),
    encode_frame(TEXT, b"a", rsv=2),
    encode_frame(3, b""),
    encode_frame(11, b""),
    encode_frame(PING, b"", fin=False),
    encode_frame(PING, b"a" * 126),
    encode_frame(0, b"a"),
    encode_frame(TEXT, b"a", fin=False) + encode_frame(TEXT, b"b"),
    b"\x82\xfe\x00\x05",
    b"\x82\xff" + b"\xff" * 8,
    encode_frame(CLOSE, b"\x03"),
    encode_frame(CLOSE, struct.pack("!H", 1005)),
]


@attack(9, "every violation of framing", "Close 1002")
async def violations(port: int) -> str:
    async def violate(data: bytes) -> str:
        peer = await upgraded(port)
        await peer.send(encode_frame(TEXT, b"good") + data)
        await peer.expect_frame(TEXT, b"good")
        return await end_of(peer)

    return await together(violate(data) for data in VIOLATIONS)


@attack(9, "64 MB behind a violation", "Close 1002")
async def behind(port: int) -> str:
    peer = await upgraded(port)
    with suppress(ConnectionError):
        await peer.send(VIOLATIONS[0])
        for _ in range(64):
            await peer.send(bytes(MIB))
    return await end_of(peer)


@attack(10, "200 headers that claim the limit, 1 KB each", "Close 1008")
async def claims(port: int) -> str:
    async def claim() -> str:
        peer = await upgraded(port)
        await peer.send(b"\x82\xff" + struct.pack("!Q", LIMIT) + b"keys" + bytes(1024))
        return await end_of(peer)

    return await together(claim() for _ in range(CROWD))


@attack(10, "a length of the limit and one", "Close 1009")
async def too_long(port: int) -> str:
    peer = await upgraded(port)
    await peer.send(b"\x82\xff" + struct.pack("!Q", LIMIT + 1))
    return await end_of(peer)


@attack(11, "a surrogate at every offset of a text", "Close 1007")
async def surrogates(port: int) -> str:
    async def send(offset: int) -> str:
        peer = await upgraded(port)
        text = b"a" * offset + b"\xed\xa0\x80" + b"a" * (64 - offset)
        await peer.send(encode_frame(TEXT, text)[: 2 + 4 + offset + 2])  # as far as the second byte of it
        return await end_of(peer)

    return await together(send(offset) for offset in range(64))


@attack(12, "200 peers that never answer our Close", "Close 1002")
async def unanswered(port: int) -> str:
    async def violate() -> str:
        peer = await upgraded(port)
        await peer.send(VIOLATIONS[1])
        return await end_of(peer)

    return await together(violate() for _ in range(CROWD))


@attack(13, "400,000 empty fragments", "Close 1009")
async def fragments(port: int) -> str:
    peer = await upgraded(port)
    some = encode_frame(0, b"", fin=False) * 1000
    with suppress(ConnectionError):
        await peer.send(encode_frame(BINARY, b"", fin=False))
        for _ in range(400):
            await peer.send(some)
    return await end_of(peer)


@attack(13, "20 messages that stop below the limit", "waited for")
async def stopped(port: int) -> str:
    async def stop() -> str:
        peer = await upgraded(port)
        await peer.send(encode_frame(BINARY, bytes(LIMIT - 1), fin=False))
        frames = await peer.fence()  # a ping may come between fragments
        peer.reset()
        return str(frames) if frames else "waited for"

    return await together(stop() for _ in range(20))


# -------------------------------------------------------------------------------------------------------------- floods


@attack(14, "100,000 pings, their pongs unread", "Close 1008")
async def pings(port: int) -> str:
    peer = await upgraded(port, receive_buffer=4096)
    some = encode_frame(PING, b"p" * 100) * 1000
    with suppress(ConnectionError):
        for _ in range(100):
            await peer.send(some)
    return await end_of(peer)


@attack(14, "20 echoes of 32 MB never read", "paused")
async def unread(port: int) -> str:
    async def flood() -> str:
        peer = await upgraded(port, receive_buffer=4096)
        peer.pause()
        frame = encode_frame(BINARY, bytes(64 << 10))
        try:
            async with asyncio.timeout(3):
                for _ in range(512):
                    await peer.send(frame)
        except TimeoutError:
            return "paused"  # it is not read from any more
        finally:
            peer.reset()
        return "all was taken"

    return await together(flood() for _ in range(20))


@attack(14, "a flood of 200,000 messages by one peer", "all echoed")
async def flood(port: int) -> str:
    peer = await upgraded(port)
    some = encode_frame(TEXT, b"flood") * 1000

    async def send() -> None:
        for _ in range(200):
            await peer.send(some)

    sending = asyncio.create_task(send())
    for _ in range(200):
        await peer.reader.readexactly(7 * 1000)
    await sending
    await peer.close()
    return "all echoed"


@attack(14, "2,000 handshakes, good and refused", "101 and 400")
async def handshakes(port: int) -> str:
    async def one(number: int) -> str:
        if number % 2:
            return await answer_of(port, [upgrade_request("/", {"Sec-WebSocket-Key": "short"})])
        peer = await upgraded(port)
        peer.reset()
        return "101"

    for start in range(0, 2000, 100):
        fates = Counter(await asyncio.gather(*(one(number) for number in range(start, start + 100))))
        if fates != {"101": 50, "400": 50}:
            return str(dict(fates))
    return "101 and 400"


# ------------------------------------------------------------------------------------------------- dropping, cross-talk


@attack(16, "1,000 peers that go, at every stage", "gone")
async def dropping(port: int) -> str:
    stages = [
        b"",
        upgrade_request()[:50],
        upgrade_request(),
        upgrade_request() + b"\x82",
        upgrade_request() + encode_frame(BINARY, bytes(70_000))[:9000],
        upgrade_request() + encode_frame(TEXT, b"echo") * 50,
        upgrade_request() + encode_frame(CLOSE, b"\x03\xe8"),
        upgrade_request() + VIOLATIONS[0],
    ]

    async def drop(number: int) -> str:
        peer = await dial(port)
        with suppress(ConnectionError):
            await peer.send(stages[number % len(stages)])
            if number % 3 == 0:
                peer.reset()
            elif number % 3 == 1:
                peer.send_eof()
        await peer.close()
        return "gone"

    fates = [await together(drop(number) for number in range(start, start + 250)) for start in range(0, 1000, 250)]
    return fates[0] if len(set(fates)) == 1 else str(fates)


@attack(18, "100 peers with contents of their own, others broken", "own alone")
async def cross_talk(port: int) -> str:
    async def talk(number: int) -> str:
        own = b"%03d:" % number + os.urandom(200)
        peer = await upgraded(port)
        for _ in range(20):
            await peer.send(encode_frame(BINARY, own) + encode_frame(PING, own[:100]))
            if (await peer.read_frame()).payload != own or (await peer.read_frame()).payload != own[:100]:
                return "another's"
        if number % 4 == 0:
            await peer.send(encode_frame(BINARY, own)[:50])
            peer.reset()
        await peer.close()
        return "own alone"

    return await together(talk(number) for number in range(100))


# --------------------------------------------------------------------------------------------------------- compression

DEFLATE: dict[str, str | None] = {"Sec-WebSocket-Extensions": "permessage-deflate"}


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


@attack(22, "20 bombs of 256 MB at once", "Close 1009")
async def bombs(port: int) -> str:
    bomb = encode_frame(BINARY, deflated(bytes(256 * MIB)), rsv=4)

    async def throw() -> str:
        peer = await upgraded(port, DEFLATE)
        await peer.send(bomb)
        return await end_of(peer)

    return await together(throw() for _ in range(20))


@attack(22, "streams that are broken", "Close 1007")
async def broken(port: int) -> str:
    good = deflated(b"Hello, " * 20)

    async def send(payload: bytes) -> str:
        peer = await upgraded(port, DEFLATE)
        await peer.send(encode_frame(BINARY, payload, rsv=4))
        return await end_of(peer)

    cuts = [good[:size] for size in range(len(good) - 1)]
    return await together(send(payload) for payload in [b"\xff" * 50, b"\x03\x00" * 100_000, *cuts])
