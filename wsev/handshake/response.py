"""Response and Accept: what callbacks answer a request with, and their bytes.

It owns the form of every HTTP answer that wsev gives (RFC 9112).  It does not know why one is given.

Invariant: a Response or Accept that exists can be sent: no CR, LF or NUL in its fields, none that would contradict what
wsev writes itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

__all__ = ["Accept", "HeadersLike", "Response", "encode_accept", "encode_response"]

HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields, as pairs or as a mapping."""

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2

# RFC 9110 section 5.5: field-content is VCHAR, obs-text, SP and HTAB.
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# Fields that say how the connection is used or where a message ends.  wsev writes them as they are true.
_RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

# RFC 9110 section 15.5.22: "The server MUST send an Upgrade header field in a 426 response".  RFC 6455 section 4.4 asks
# for the version.
_UPGRADE_REQUIRED = "Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n"


def _check_headers(headers: HeadersLike) -> tuple[tuple[str, str], ...]:
    try:
        pairs = tuple((name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers))
    except (TypeError, ValueError):  # a str, or None, or what is no pair
        raise TypeError("headers: must be a mapping, or pairs of a name and a value") from None
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"header {name!r}: name and value must be str")
        if not TOKEN.fullmatch(name):
            raise ValueError(f"header {name!r}: a name is letters, digits and !#$%&'*+-.^_`|~ (RFC 9110)")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"header {name}: CR, LF, NUL, control characters and characters beyond Latin-1 cannot be sent; "
                "encode the value, with urllib.parse.quote for example"
            )
        if name.lower() in _RESERVED:
            raise ValueError(f"header {name}: wsev writes it itself; leave it out")
        if name.lower().startswith("sec-websocket-"):
            raise ValueError(f"header {name}: it is part of the handshake; leave it out, or use Accept(subprotocol=)")
    return pairs


class Response:
    """An HTTP answer: to a plain request, or to a request for upgrade that is refused.

    It is sent with Date, Content-Length and ``Connection: close``, and the connection ends after it.

    Args:
        status: 200 to 599.
        body: bytes, or a str, which is sent as UTF-8.  Empty with 204 and 304.
        headers: further fields, as pairs or as a mapping.  A body without a Content-Type is
            ``text/plain; charset=utf-8``.

    Raises:
        TypeError: the status is no int, the body neither bytes nor str, or the headers are no fields.
        ValueError: what cannot be sent: another status, CR, LF or NUL in a field, a field that wsev writes itself.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes | str = b"", headers: HeadersLike = ()) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status={status!r}: must be an int")
        if not 200 <= status <= 599:
            raise ValueError(f"status={status}: must be 200 to 599; to accept a WebSocket return None or wsev.Accept")
        if not isinstance(body, bytes | str):
            raise TypeError(f"body: must be bytes or str, not {type(body).__name__}")
        if body and status in (204, 304):
            raise ValueError(f"body: an answer with status {status} has none (RFC 9110 section 6.4.1)")
        self.status = status
        self.body = body.encode() if isinstance(body, str) else body
        self.headers = _check_headers(headers)

    def __repr__(self) -> str:
        return f"<Response {self.status} {len(self.body)} bytes>"


class Accept:
    """Accepts a request for upgrade, with more than the plain 101; what ``on_upgrade`` may return.

    Args:
        subprotocol: one that the client offers (``request.subprotocols``).  None: the first of ``subprotocols`` that it
            does.
        headers: further fields of the 101, such as Set-Cookie, as pairs or as a mapping.
        state: what ``conn.state`` is from the start.

    Raises:
        TypeError: the subprotocol is no str, or the headers are no fields.
        ValueError: a subprotocol that is no token, CR, LF or NUL in a field, or a field that wsev writes itself.
    """

    __slots__ = ("headers", "state", "subprotocol")

    def __init__(self, subprotocol: str | None = None, headers: HeadersLike = (), state: Any = None) -> None:
        if not isinstance(subprotocol, str | None):
            raise TypeError(f"subprotocol={subprotocol!r}: must be a str")
        if subprotocol is not None and not TOKEN.fullmatch(subprotocol):
            raise ValueError(f"subprotocol={subprotocol!r}: a name is letters, digits and !#$%&'*+-.^_`|~ (RFC 6455)")
        self.subprotocol = subprotocol
        self.headers = _check_headers(headers)
        self.state = state

    def __repr__(self) -> str:
        return f"<Accept {self.subprotocol}>" if self.subprotocol else "<Accept>"


def encode_response(response: Response, *, has_body: bool = True) -> bytes:
    """The bytes of an answer.

    Args:
        has_body: False for the answer to HEAD, which has the fields of the one to GET, and no body.
    """
    status, body = response.status, response.body
    fields = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\nDate: {formatdate(usegmt=True)}\r\n"]
    fields.append(_UPGRADE_REQUIRED if status == 426 else "Connection: close\r\n")
    # RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response with a status code of
    # 1xx (Informational) or 204 (No Content)"; with 304 it would be the length that a 200 had.
    if status not in (204, 304):
        fields.append(f"Content-Length: {len(body)}\r\n")
    if body and not any(name.lower() == "content-type" for name, _ in response.headers):
        fields.append("Content-Type: text/plain; charset=utf-8\r\n")
    fields += [f"{name}: {value}\r\n" for name, value in response.headers]
    fields.append("\r\n")
    head = "".join(fields).encode("latin-1")
    return head + body if has_body else head


def encode_accept(
    accept_key: str, subprotocol: str | None, headers: tuple[tuple[str, str], ...], extensions: str | None = None
) -> bytes:
    """The bytes of the 101 (RFC 6455 section 4.2.2, step 5)."""
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key}\r\n"
    )
    if subprotocol is not None:
        answer += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    if extensions is not None:
        answer += f"Sec-WebSocket-Extensions: {extensions}\r\n"
    for name, value in headers:
        answer += f"{name}: {value}\r\n"
    return (answer + "\r\n").encode("latin-1")
