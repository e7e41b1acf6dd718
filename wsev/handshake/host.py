"""Host: what an opening handshake asks of its server, which implements it without being imported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from wsev.deflate import Parameters
from wsev.errors import CallbackError
from wsev.handshake.response import Accept, Response
from wsev.options import Options

if TYPE_CHECKING:
    from wsev._core.dispatch import Callbacks
    from wsev.handler import OnRequest, OnUpgrade
    from wsev.handshake.opening import OpeningHandshake

__all__ = ["Host", "RouteLike"]


class RouteLike(Protocol):
    """What a Host finds for a path."""

    @property
    def callbacks(self) -> Callbacks: ...
    @property
    def on_upgrade(self) -> OnUpgrade | None: ...


class Host(Protocol):
    """What a handshake asks of its server."""

    @property
    def options(self) -> Options: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def http(self) -> Callable[[], asyncio.Protocol] | None:
        """Makes the protocol that every request which is no upgrade is handed to."""

    @property
    def on_request(self) -> OnRequest | None: ...

    def admit(self, handshake: OpeningHandshake) -> Response | None:
        """Called when a connection was made; a Response refuses it."""

    def leave(self, handshake: OpeningHandshake) -> None:
        """An admitted handshake is over, whatever became of it; called once."""

    def find_route(self, path: str) -> RouteLike | None:
        """None: there is nothing at this path."""

    def open(
        self,
        transport: asyncio.Transport,
        head: bytes,
        route: RouteLike,
        accept: Accept,
        subprotocol: str | None,
        deflate: Parameters | None,
        response: bytes,
        rest: bytes,
    ) -> None:
        """Make a Connection of the request with this head.

        It sends ``response``, the 101, and begins with ``rest``, what came along.
        """

    def callback_failed(self, error: CallbackError) -> None: ...
    def exit(self, error: BaseException) -> None:
        """A callback raised KeyboardInterrupt or SystemExit."""
