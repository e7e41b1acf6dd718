"""A raw member of a mesh: it may break every rule of the links between workers.

Written from the table in `wsev/brokers/envelope.py`, without its functions.  It listens in the directory and accepts
(`accept`), and dials others (`dial`); what is said over a link, the test reads and writes itself, frame by frame.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Any

from tests.peer import BINARY, Peer

TEXT_MESSAGE, BINARY_MESSAGE, HELLO, HEARD, SUBSCRIBE, UNSUBSCRIBE = 1, 2, 16, 17, 18, 19
VERSION = 1


class LinkPeer(Peer):
    """One end of a link, where nobody masks."""

    async def send_frame(self, opcode: int, payload: bytes = b"", **how: Any) -> None:
        await super().send_frame(opcode, payload, **({"masked": False} | how))

    async def say(self, kind: int, rest: bytes) -> None:
        await self.send_frame(BINARY, bytes([kind]) + rest)

    async def heard(self) -> bytes:
        """The next that was said."""
        frame = await self.read_frame()
        assert (frame.fin, frame.opcode) == (True, BINARY), frame
        return frame.payload

    async def hear_hello(self) -> tuple[str, set[bytes]]:
        """The name and the topics of a HELLO, which must come next."""
        said = await self.heard()
        assert said[:2] == bytes([HELLO, VERSION])
        name, rest, topics = said[2:10].decode(), said[10:], []
        while rest:
            size = rest[0]
            topics.append(rest[1 : 1 + size])
            rest = rest[1 + size :]
        assert len(set(topics)) == len(topics)
        return name, set(topics)


class Member:
    """A member, from `open` to `close`.

    Attributes:
        name: eight hexadecimal digits.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = secrets.token_hex(4)
        self._accepted: asyncio.Queue[LinkPeer] = asyncio.Queue()
        self._peers: list[LinkPeer] = []
        self._server: asyncio.AbstractServer | None = None

    @property
    def path(self) -> Path:
        return self.directory / f"{self.name}.sock"

    async def open(self) -> None:
        """Listen, and be found."""
        self.directory.mkdir(0o700, exist_ok=True)
        hidden = self.path.with_suffix(".test")
        self._server = await asyncio.start_unix_server(self._came, hidden)
        os.rename(hidden, self.path)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peers.append(LinkPeer(reader, writer))
        self._accepted.put_nowait(self._peers[-1])

    async def accept(self) -> LinkPeer:
        """The next link that somebody dialled."""
        return await self._accepted.get()

    async def dial(self, name: str) -> LinkPeer:
        """A link to another member."""
        reader, writer = await asyncio.open_unix_connection(self.directory / f"{name}.sock")
        self._peers.append(LinkPeer(reader, writer))
        return self._peers[-1]

    def hello(self, *topics: bytes) -> bytes:
        """Its HELLO, without the kind."""
        return bytes([VERSION]) + self.name.encode() + b"".join(bytes([len(topic)]) + topic for topic in topics)

    async def meet(self, name: str, *topics: bytes) -> tuple[LinkPeer, LinkPeer]:
        """Become an ordinary member to another one: `says` is what it says to us, `hears` what it hears from us."""
        hears = await self.dial(name)
        await hears.say(HELLO, self.hello(*topics))
        says = await self.accept()
        assert (await says.hear_hello())[0] == name
        assert await says.heard() == bytes([HEARD, 0])
        await hears.say(HEARD, b"\0")
        return says, hears

    async def close(self, *, is_killed: bool = False) -> None:
        """End, without a word; `is_killed`: the socket's file stays, as when the system ends a process."""
        if not is_killed:
            self.path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
            self._server = None
        for peer in self._peers:
            peer.writer.transport.abort()
            await peer.close()
