"""Links: the connections between the members of a mesh.

A link is a ``Connection`` of the core over a Unix socket, without an opening handshake, both of whose ends write
unmasked frames.  Owns how one is made of a socket, whose it may be, its limits, and the end of all of them.  Knows
nothing of what is said over them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from typing import Any, cast

from wsev._core.connection import Connection
from wsev._core.dispatch import Callbacks
from wsev._core.loop import LoopState, ServerState
from wsev.brokers.envelope import OVERHEAD
from wsev.errors import CallbackError
from wsev.handshake.request import Request
from wsev.options import KIB, MIB, Options

__all__ = ["MAX_PAYLOAD", "Links"]

logger = logging.getLogger("wsev.broker")

MAX_PAYLOAD = 64 * MIB  # ours: what each member takes, whatever its max_message_size
NO_LIMIT = 1 << 60  # bytes; more than any address space, with room for an envelope
MAX_UNSENT = 16 * MIB  # of a link: a third of a second at 50 MB/s, and what a worker may hang without loss
WRITE_SIZE = 64 * KIB  # a third of what a Unix socket takes at once (212,992 bytes on Linux)
QUIET = 30.0  # seconds without a sign of life, or with output stuck, after which a member is taken for hung
CLOSE_TIMEOUT = 2.0  # seconds for a member to answer our Close

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Links:
    """All links of one member.

    Args:
        max_message_size: of the server; a larger payload than ``MAX_PAYLOAD`` may come if it allows that.
        high_water: as the option of that name, for a member that waits until what it said has left.

    Attributes:
        max_payload: the largest payload that they take, in bytes.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, max_message_size: int | None, high_water: int | None
    ) -> None:
        self._loop = loop
        self._gone: asyncio.Future[None] | None = None  # while a stop waits for the last one
        self.max_payload = NO_LIMIT if max_message_size is None else max(MAX_PAYLOAD, max_message_size)
        options = Options(
            write_buffer_size=WRITE_SIZE,
            max_message_size=self.max_payload + OVERHEAD,
            high_water=high_water,
            max_buffered_amount=MAX_UNSENT,
            slow_consumer="drop",
            idle_timeout=QUIET,
            write_timeout=QUIET,
            close_timeout=CLOSE_TIMEOUT,
            max_control_rate=None,
        )
        self.core = ServerState(LoopState.of(loop), self, options, is_client=True)

    async def listen(self, sock: socket.socket, callbacks: Callbacks) -> asyncio.AbstractServer:
        """Accept links."""
        return await self._loop.create_unix_server(lambda: _Entrance(self.core, callbacks, None), sock=sock)

    async def dial(self, sock: socket.socket, callbacks: Callbacks, state: Any) -> Connection[Any] | None:
        """Make a link of a connected socket; ``state`` becomes its own.  None: the other end is another user's."""
        _, entrance = await self._loop.create_unix_connection(lambda: _Entrance(self.core, callbacks, state), sock=sock)
        return entrance.link

    async def stop(self, code: int) -> None:
        """Close all, behind what is unsent, and wait for their ends."""
        for link in list(self.core.connections):
            link.close(code)
        if self.core.connections or self.core.leaving:
            self._gone = self._loop.create_future()
            await asyncio.wait((self._gone,), timeout=CLOSE_TIMEOUT)
            for link in list(self.core.connections):
                link.abort()
            if not self._gone.done():
                await self._gone

    # ServerHooks: what the core calls.

    def opened(self, link: Connection[Any]) -> None:
        """A link is registered."""

    def closed(self, link: Connection[Any]) -> None:
        """A link's on_disconnect has ended."""
        if self._gone is not None and not self._gone.done() and not self.core.connections and not self.core.leaving:
            self._gone.set_result(None)

    def callback_failed(self, error: CallbackError) -> None:
        """A defect of ours: the link is closed, and dialled again."""
        logger.error("%s", error, exc_info=error.__cause__ or error)

    def exit(self, error: BaseException) -> None:
        """KeyboardInterrupt or SystemExit found us at work: it leaves the loop."""
        self._loop.call_soon(_raise, error)

    def subscribe(self, link: Connection[Any], topic: str) -> bool:
        """A link is no subscriber of a server's topics."""
        return False

    def unsubscribe(self, link: Connection[Any], topic: str) -> bool:
        """See ``subscribe``."""
        return False

    def request(self, link: Connection[Any], head: bytes) -> Request:
        """A link has no request."""
        raise NotImplementedError

    def topics_of(self, link: Connection[Any]) -> frozenset[str]:
        """See ``subscribe``."""
        return frozenset()

    def publish(self, topic: str, message: Any, text: bool, exclude: Any) -> int:
        """See ``subscribe``."""
        return 0


class _Entrance(asyncio.Protocol):
    """A transport's first protocol: hands it to a ``Connection`` if it is ours."""

    def __init__(self, core: ServerState, callbacks: Callbacks, state: Any) -> None:
        self._core = core
        self._callbacks = callbacks
        self._state = state
        self.link: Connection[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        user = _user_of(transport)
        if user is not None and user != os.geteuid():
            logger.warning("a process of user %d is at a socket of ours: refused", user)
            transport.abort()
            return
        self.link = Connection(self._core, self._callbacks, transport, None, None, self._state)
        transport.set_protocol(self.link)
        self.link.open(b"", b"")


def _user_of(transport: asyncio.Transport) -> int | None:
    """Whose process the peer is; None where the system does not tell, and the directory's mode must do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    sock = transport.get_extra_info("socket")
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def _raise(error: BaseException) -> None:
    raise error
