"""Clients that end in every way, in a process of their own, so that the server's process shows its own memory alone.

Standard input: one line of JSON a round, `{"address": ..., "authority": ..., "count": ...}`.
Standard output: "staying" when all but STAYING connections have ended, "done" when those have, too: the server's stop
ends them.  Blocking sockets and generators: a client yields before it waits for the server, and goes on when all others
of its batch have done so, too, so that the server's timeouts run side by side.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

BATCH = 300  # connections at a time; the open-files limit is 1,024 in many places
STAYING = 20  # of each round, when the server stops

MAX_MESSAGE_SIZE = 100_000  # the server's option
REQUEST = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)
CONTINUATION, TEXT, BINARY, CLOSE, PING = 0x0, 0x1, 0x2, 0x8, 0x9

Steps = Iterator[None]
Way = Callable[[socket.socket], Steps]


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A frame whose masking key is zero."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode])
    if size < 126:
        return head + bytes([0x80 | size, 0, 0, 0, 0]) + payload
    if size < 65536:
        return head + struct.pack("!BH", 0xFE, size) + bytes(4) + payload
    return head + struct.pack("!BQ", 0xFF, size) + bytes(4) + payload


def deflated(data: bytes) -> bytes:
    """A compressed message (RFC 7692)."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    payload = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return frame(BINARY, payload.removesuffix(b"\x00\x00\xff\xff"), rsv1=True)


def read_to_end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # a reset is an end, and so is a TLS connection that is cut
        while sock.recv(65536):
            pass


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def upgrade(sock: socket.socket, path: bytes = b"/", fields: bytes = b"") -> None:
    sock.sendall(REQUEST % (path, fields))
    received = b""
    while b"\r\n\r\n" not in received:
        byte = sock.recv(1)
        if not byte:
            raise ConnectionResetError  # the server's patience is short, and this machine may be busy
        received += byte
    assert b" 101 " in received, received


def says(data: bytes, *, path: bytes = b"/", fields: bytes = b"") -> Way:
    """Sends this, and reads whatever comes, up to the end: the server's, which this leads to."""

    def steps(sock: socket.socket) -> Steps:
        upgrade(sock, path, fields)
        sock.sendall(data)
        yield
        read_to_end(sock)

    return steps


def leaves(data: bytes, leave: Callable[[socket.socket], None]) -> Way:
    """Sends this, and goes away in the given manner."""

    def steps(sock: socket.socket) -> Steps:
        upgrade(sock)
        sock.sendall(data)
        yield
        leave(sock)

    return steps


def asks(data: bytes) -> Way:
    """No upgrade: this instead of a request, and the answer to it."""

    def steps(sock: socket.socket) -> Steps:
        sock.sendall(data)
        yield
        read_to_end(sock)

    return steps


def gives_up(leave: Callable[[socket.socket], None]) -> Way:
    """Half a request, then away."""

    def steps(sock: socket.socket) -> Steps:
        sock.sendall(REQUEST[:60])
        yield
        leave(sock)

    return steps


def fin(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)  # with TLS that cuts the connection, without close_notify
    read_to_end(sock)


def answers_close(sock: socket.socket) -> Steps:
    upgrade(sock)
    sock.sendall(frame(TEXT, b"close"))
    yield
    sock.recv(2)
    sock.sendall(frame(CLOSE, b"\x03\xe8"))
    yield
    read_to_end(sock)


HALF = frame(BINARY, bytes(50_000))[:20_000]
FRAGMENTS = frame(TEXT, b"a" * 100, fin=False) + frame(PING, b"between") + frame(CONTINUATION, b"b" * 9000, fin=False)
NORMAL = frame(CLOSE, b"\x03\xe8bye")
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
NO_CONTEXT = DEFLATE.replace(b"\r", b"; server_no_context_takeover; client_no_context_takeover\r")

WAYS: dict[str, Way] = {
    # Cleanly
    "the client closes": says(NORMAL),
    "the server closes": answers_close,
    "both close": says(frame(TEXT, b"close") + NORMAL),
    "echoes": says(frame(TEXT, b"small") + frame(BINARY, bytes(30_000)) + frame(PING, b"ping") + NORMAL),
    "fragments": says(FRAGMENTS + frame(CONTINUATION, b"c") + NORMAL),
    "half a code point, and the other half": says(
        frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\xa9") + NORMAL
    ),
    "topics": says(frame(TEXT, b"publish") + NORMAL),
    "compressed": says(deflated(b"small" * 100) * 3 + NORMAL, fields=DEFLATE),
    "compressed without contexts": says(deflated(b"small" * 100) * 3 + NORMAL, fields=NO_CONTEXT),
    # The peer goes away
    "reset": leaves(b"", reset),
    "reset in a message": leaves(HALF, reset),
    "reset behind echoes": leaves(frame(BINARY, bytes(30_000)) * 3, reset),
    "FIN": leaves(b"", fin),
    "FIN in a header": leaves(HALF[:3], fin),
    "FIN in a payload": leaves(HALF, fin),
    "FIN between fragments": leaves(FRAGMENTS, fin),
    "FIN behind a message": leaves(frame(TEXT, b"small"), fin),
    # The peer breaks a rule
    "no mask": says(b"\x81\x05hello"),
    "no UTF-8": says(frame(TEXT, b"\xff" * 200)),
    "no UTF-8 in a fragment": says(FRAGMENTS + frame(CONTINUATION, b"\xed\xa0")),
    "too big": says(frame(BINARY, bytes(MAX_MESSAGE_SIZE + 1))[:5000]),
    "a wrong opcode, and much behind it": says(b"\x83\x80" + bytes(50_000)),
    "a stream that is broken": says(deflated(b"good" * 100) + frame(BINARY, b"\xff" * 50, rsv1=True), fields=DEFLATE),
    "a bomb": says(deflated(bytes(50 * MAX_MESSAGE_SIZE)), fields=NO_CONTEXT),
    "a wrong close code": says(frame(CLOSE, b"\x03\xed")),
    # The peer is slow
    "half a message": says(HALF[:1000]),
    "silence": says(b""),
    "no answer to the Close": says(frame(TEXT, b"close")),
    "slow consumer": says(frame(TEXT, b"flood")),
    "half a request": asks(REQUEST[:60]),
    # The application
    "abort": says(frame(TEXT, b"abort") + frame(TEXT, b"more")),
    "a callback raises": says(frame(TEXT, b"raise")),
    "a suspended callback raises": says(frame(TEXT, b"raise later") + frame(TEXT, b"small") * 5),
    "a callback waits for the end": leaves(frame(TEXT, b"wait") + frame(TEXT, b"small") * 5, fin),
    "more comes than the queue holds": says((frame(TEXT, b"think") + frame(TEXT, b"small") * 20) * 5 + NORMAL),
    "tasks": leaves(frame(TEXT, b"task") + frame(TEXT, b"raise in a task"), reset),
    "on_connect raises": says(b"", path=b"/raise"),
    "on_connect aborts": says(b"", path=b"/abort"),
    # The handshake
    "no request": asks(b"\x00\x01\x02garbage\r\n\r\n"),
    "not found": asks(REQUEST % (b"/nothing", b"")),
    "refused": asks(REQUEST % (b"/refuse", b"")),
    "on_upgrade raises": asks(REQUEST % (b"/upgrade/raise", b"")),
    "on_upgrade waits too long": asks(REQUEST % (b"/upgrade/wait", b"")),
    "another origin": asks(REQUEST % (b"/", b"Origin: https://elsewhere.example\r\n")),
    "plain HTTP": asks(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "no HTTP/1.1": asks(REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0") % (b"/", b"")),
    "FIN in the request": gives_up(fin),
    "reset in the request": gives_up(reset),
}

# What is open when the server stops.
STAYS = [
    says(b""),
    says(HALF),
    says(FRAGMENTS),
    says(NORMAL[:3]),
    says(frame(TEXT, b"wait") + frame(TEXT, b"small")),
    says(frame(TEXT, b"task")),
    asks(REQUEST[:60]),
    asks(REQUEST % (b"/upgrade/wait", b"")),
]


def connect(address: tuple[str, int] | str, context: ssl.SSLContext | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    sock.connect(address)
    return sock if context is None else context.wrap_socket(sock, server_hostname="localhost")


def advance(steps: Steps) -> bool:
    """Take a step; False if that was the last."""
    try:
        next(steps)
    except (StopIteration, OSError):  # a server that ends a connection, ends it at any time
        return False
    return True


def run(connecting: Callable[[], socket.socket], ways: list[Way], *, stay: bool = False) -> None:
    """Let each connection go its way; with ``stay``, say so when all wait for the server."""
    sockets = []
    clients = []
    for way in ways:
        sockets.append(connecting())
        steps = way(sockets[-1])
        if advance(steps):
            clients.append(steps)
    if stay:
        print("staying", flush=True)
    while clients:
        clients = [steps for steps in clients if advance(steps)]
    for sock in sockets:
        sock.close()


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        address = order["address"] if isinstance(order["address"], str) else tuple(order["address"])
        context = ssl.create_default_context(cafile=order["authority"]) if order["authority"] else None
        connecting = partial(connect, address, context)
        ways = (list(WAYS.values())[number % len(WAYS)] for number in range(order["count"]))
        while batch := list(islice(ways, BATCH)):
            run(connecting, batch)
        run(connecting, [STAYS[number % len(STAYS)] for number in range(STAYING)], stay=True)
        print("done", flush=True)


if __name__ == "__main__":
    main()
