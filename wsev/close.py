"""Close codes (RFC 6455 section 7.4), and which of them may be sent."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["MAX_REASON_SIZE", "CloseCode", "check_close"]

# RFC 6455 section 5.5: a control frame's payload is at most 125 bytes; section 5.5.1: the code is two of them.
MAX_REASON_SIZE = 123


class CloseCode(IntEnum):
    """The registered close codes (RFC 6455 section 7.4.1 and IANA's WebSocket Close Code registry)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    """Never on the wire: the peer's Close frame had no code."""
    ABNORMAL_CLOSURE = 1006
    """Never on the wire: the connection ended without a Close frame."""
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    """Never on the wire: the TLS handshake failed."""


def check_close(code: int, reason: str) -> bytes:
    """Return the reason's bytes if a Close frame with this code and reason may be sent.

    Raises:
        TypeError: the code is no int, or the reason no str.
        ValueError: a code that may not be sent (RFC 6455 section 7.4), or a reason over 123 bytes of UTF-8.
    """
    if not isinstance(code, int):
        raise TypeError(f"code={code!r}: must be an int")
    if not isinstance(reason, str):
        raise TypeError(f"reason={reason!r}: must be a str")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ValueError(f"code={code:d}: may not be sent; use 1000 to 1003, 1007 to 1014, or your own, 3000 to 4999")
    encoded = reason.encode()
    if len(encoded) > MAX_REASON_SIZE:
        raise ValueError(f"reason: has {len(encoded)} bytes of UTF-8, and at most {MAX_REASON_SIZE} fit")
    return encoded
