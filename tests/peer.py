"""A raw WebSocket client for tests: it may break every rule, and it takes no answer that breaks one.

It is written from RFC 6455 without a look at wsev's own codec, so that the two can disagree.
Each read fails the test when something else comes than was asked for.  It knows no server: `conftest.py` connects it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as tls
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA  # RFC 6455 section 11.8
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3, with the answer that belongs to it:
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASKING_KEY = b"\x37\xfa\x21\x3d"  # RFC 6455 section 5.7


class Frame(NamedTuple):
    fin: bool
    opcode: int
    payload: bytes


@dataclass(frozen=True)
class Head:
    """The head of an HTTP answer, parsed strictly; names in lower case, in order."""

    status: int
    reason: str
    fields: list[tuple[str, str]]

    def __getitem__(self, name: str) -> str:
        """`head["name"]` is the only field of that name; a KeyError if there is none, or more than one."""
        values = self.get_all(name)
        if len(values) != 1:
            raise KeyError(f"{name}: {values}")
        return values[0]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def get_all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name.lower()]


def encode_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    masked: bool = True,
    rsv: int = 0,
    masking_key: bytes = MASKING_KEY,
) -> bytes:
    """Encode a client's frame, or a wrong one (RFC 6455 section 5.2); written without a look at wsev's encoder."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([mask_bit | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", mask_bit | 126, len(payload))
    else:
        head += struct.pack("!BQ", mask_bit | 127, len(payload))
    if not masked:
        return head + payload
    repeated = (masking_key * (len(payload) // 4 + 1))[: len(payload)]
    masked_payload = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + masking_key + masked_payload.to_bytes(len(payload), "big")


class Peer:
    """One connection, from before its handshake on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._fences = 0

    @property
    def socket(self) -> socket.socket:
        found: socket.socket = self.writer.get_extra_info("socket")
        return found

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def send_frame(self, opcode: int, payload: bytes = b"", **how: Any) -> None:
        """Send one frame; `how` as of `encode_frame`."""
        await self.send(encode_frame(opcode, payload, **how))

    async def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        await self.send_frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())

    async def request(self, path: str = "/", headers: Mapping[str, str | None] | None = None) -> Head:
        """Send a correct request for upgrade, with `headers` added or replaced (None: left out); return the answer."""
        await self.send(upgrade_request(path, headers))
        return await self.read_head()

    async def upgrade(self, path: str = "/", headers: Mapping[str, str | None] | None = None) -> Head:
        """`request`, and the answer must be the 101 (RFC 6455 section 4.2.2)."""
        head = await self.request(path, headers)
        assert head.status == 101, head
        assert head["upgrade"].lower() == "websocket"
        assert head["connection"].lower() == "upgrade"
        if headers is None or "Sec-WebSocket-Key" not in headers:
            assert head["sec-websocket-accept"] == ACCEPT
        return head

    async def read_head(self) -> Head:
        """Read the head of an HTTP answer."""
        data = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = data[:-4].decode("latin-1").split("\r\n")
        version, status, reason = status_line.split(" ", 2)
        assert version == "HTTP/1.1", status_line
        assert not any(control in data.replace(b"\r\n", b"") for control in (b"\r", b"\n", b"\0")), data
        fields = []
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon, line
            assert name, line
            assert name == name.strip(), line
            fields.append((name.lower(), value.strip(" \t")))
        return Head(int(status), reason, fields)

    async def read_answer(self) -> tuple[Head, bytes]:
        """Read an HTTP answer that ends the connection: its head, its body, and the end."""
        head = await self.read_head()
        assert head["connection"].lower() == "close", head
        body = await self.reader.readexactly(int(head["content-length"]))
        await self.read_eof()
        return head, body

    async def read_frame(self) -> Frame:
        """Read one frame of the server's, which must be unmasked, without RSV bits and of the shortest form."""
        first, second = await self.reader.readexactly(2)
        assert not first & 0x70, "an RSV bit is set"
        assert not second & 0x80, "a server must not mask (RFC 6455 section 5.1)"
        size = second
        if second == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            assert size > 125, "not the shortest form"
        elif second == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            assert size > 65535, "not the shortest form"
        return Frame(bool(first & 0x80), first & 0x0F, await self.reader.readexactly(size))

    async def expect_frame(self, opcode: int, payload: bytes) -> None:
        """Read one frame, which must be this one and final."""
        assert await self.read_frame() == Frame(True, opcode, payload)

    async def expect_close(self, code: int | None, reason: str | None = None) -> None:
        """Read a Close frame of this code (None: without one), and then the end of TCP.

        The server ends TCP without an answer to it only where the Close frame answers ours, or fails the connection.
        """
        frame = await self.read_frame()
        assert frame.opcode == CLOSE, frame
        assert frame.fin
        if code is None:
            assert frame.payload == b""
        else:
            assert struct.unpack("!H", frame.payload[:2]) == (code,), frame
        if reason is not None:
            assert frame.payload[2:].decode() == reason
        await self.read_eof()

    async def read_eof(self) -> None:
        """The server's end of TCP, FIN or reset, with no byte before it.

        A reset is an end too: a kernel sends it when the server closes while bytes of ours are still unread.
        """
        try:
            data = await self.reader.read(65536)
        except ConnectionResetError:
            return
        assert data == b"", f"not the end, but {data[:200]!r}"

    async def fence(self) -> list[Frame]:
        """Prove that the server has dealt with all that was sent: a ping, up to its pong.  Returns what came before."""
        self._fences += 1
        payload = b"fence %d" % self._fences
        await self.send_frame(PING, payload)
        frames = []
        while (frame := await self.read_frame()) != (True, PONG, payload):
            frames.append(frame)
        return frames

    def pause(self) -> None:
        """Take nothing more from the kernel, so that the server's output piles up."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # StreamWriter types it as WriteTransport

    def resume(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as in pause()

    def send_eof(self) -> None:
        """FIN: half-close."""
        self.writer.write_eof()

    def reset(self) -> None:
        """End with RST, as a crashed peer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, tls.SSLError):  # it is gone, which is what was wanted
            await self.writer.wait_closed()


def upgrade_request(path: str = "/", headers: Mapping[str, str | None] | None = None) -> bytes:
    """Write a correct request for upgrade, with `headers` added or replaced, or left out where the value is None."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    fields.update(headers or {})
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
