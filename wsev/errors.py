"""Every exception of wsev.

Few, and under one root, so that ``except wsev.WsevError`` catches what wsev raises and nothing else.
Facts are attributes; the sentence is made from them.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "BrokerError",
    "CallbackError",
    "ConnectionClosed",
    "HandshakeError",
    "MessageTooBig",
    "OptionError",
    "ProtocolError",
    "SlowConsumer",
    "TimedOut",
    "TimeoutKind",
    "WsevError",
]

TimeoutKind = Literal["handshake", "read", "idle", "write", "close"]

_TIMEOUTS: dict[TimeoutKind, str] = {
    "handshake": "no complete request within handshake_timeout",
    "read": "a message took longer than read_deadline",
    "idle": "nothing was received for idle_timeout",
    "write": "the peer took no output for write_timeout",
    "close": "the peer did not end the connection within close_timeout",
}


class WsevError(Exception):
    """The root of every exception that wsev raises or hands to a callback."""


class OptionError(WsevError, ValueError):
    """An option or argument that cannot be used.

    Attributes:
        option: its name.
        value: what was given.
        remedy: what to do instead.
    """

    def __init__(self, option: str, value: object, remedy: str) -> None:
        super().__init__(option, value, remedy)
        self.option = option
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.option}={self.value!r}: {self.remedy}"


class ConnectionClosed(WsevError):
    """The connection ended, and what was asked of it can no longer be done.

    Attributes:
        close_code: as ``Connection.close_code``.
        close_reason: as ``Connection.close_reason``.
    """

    def __init__(self, close_code: int, close_reason: str = "") -> None:
        super().__init__(close_code, close_reason)
        self.close_code = close_code
        self.close_reason = close_reason

    def __str__(self) -> str:
        return f"the connection is closed ({self.close_code}{', ' if self.close_reason else ''}{self.close_reason})"


class HandshakeError(WsevError):
    """The opening handshake failed (RFC 6455 section 4); for the client's side, which this version does not have.

    A server raises it nowhere: it answers a request that is wrong with a status.

    Attributes:
        status: the HTTP status that answered it.
        reason: what was wrong, in one sentence.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


class ProtocolError(WsevError):
    """The peer broke a rule of RFC 6455.

    Attributes:
        close_code: the close code that answers it (RFC 6455 section 7.4.1).
        reason: the rule, in one sentence.
    """

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(close_code, reason)
        self.close_code = close_code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({self.close_code})"


class MessageTooBig(ProtocolError):
    """A message passed ``max_message_size`` or ``max_fragments``; close code 1009."""


class TimedOut(WsevError, TimeoutError):
    """The peer was too slow.

    Attributes:
        kind: which limit passed: ``read``, ``idle``, ``write`` or ``close``; ``handshake`` is the client's, as for
            ``HandshakeError``.
    """

    def __init__(self, kind: TimeoutKind) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return _TIMEOUTS[self.kind]


class SlowConsumer(WsevError):
    """The peer took its messages more slowly than they were sent, past ``max_buffered_amount``.

    Attributes:
        buffered_amount: bytes that were unsent then.
    """

    def __init__(self, buffered_amount: int) -> None:
        super().__init__(buffered_amount)
        self.buffered_amount = buffered_amount

    def __str__(self) -> str:
        return f"{self.buffered_amount} bytes were unsent, more than max_buffered_amount"


class CallbackError(WsevError):
    """A callback, or a task of ``Connection.create_task``, raised; its exception is ``__cause__``.

    Attributes:
        callback: the callback's name, such as ``on_message``.
        connection: the connection it was called for, or None.
    """

    def __init__(self, callback: str, connection: object | None = None) -> None:
        super().__init__(callback, connection)
        self.callback = callback
        self.connection = connection

    def __str__(self) -> str:
        cause = self.__cause__
        detail = f": {type(cause).__name__}: {cause}" if cause is not None else ""
        return f"{self.callback} raised{detail}"


class BrokerError(WsevError):
    """A broker lost its peers, or dropped messages; delivery within the worker goes on.

    Attributes:
        reason: what happened, in one sentence.
        dropped: how many messages were dropped; 0 if it is about something else.
    """

    def __init__(self, reason: str, *, dropped: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.dropped = dropped

    def __str__(self) -> str:
        return self.reason
