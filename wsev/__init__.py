"""wsev: an event-callback WebSocket server for asyncio."""

from wsev._core.connection import Connection
from wsev.asgi import asgi
from wsev.close import CloseCode
from wsev.errors import (
    BrokerError,
    CallbackError,
    ConnectionClosed,
    HandshakeError,
    MessageTooBig,
    OptionError,
    ProtocolError,
    SlowConsumer,
    TimedOut,
    WsevError,
)
from wsev.handler import Handler
from wsev.handshake.request import Request
from wsev.handshake.response import Accept, Response
from wsev.publisher import Publisher
from wsev.routes import Route
from wsev.server import Server
from wsev.stats import Stats
from wsev.topics import broadcast

__all__ = [
    "Accept",
    "BrokerError",
    "CallbackError",
    "CloseCode",
    "Connection",
    "ConnectionClosed",
    "Handler",
    "HandshakeError",
    "MessageTooBig",
    "OptionError",
    "ProtocolError",
    "Publisher",
    "Request",
    "Response",
    "Route",
    "Server",
    "SlowConsumer",
    "Stats",
    "TimedOut",
    "WsevError",
    "asgi",
    "broadcast",
]
