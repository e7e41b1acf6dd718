"""What makes a request a WebSocket's opening handshake (RFC 6455 section 4.2.1), and what answers one that is none.

Pure functions of a request: no I/O, no options but those passed in, nothing is raised.  Each rule stands beside the
sentence that makes it one.  A rule broken is a Response, whose body names the rule and quotes nothing of the request.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import sha1
from typing import NamedTuple

from wsev._core.head import Fault, Head
from wsev.deflate import Parameters
from wsev.handshake.extensions import DeflatePolicy, agree, parse_extensions
from wsev.handshake.origin import Authority, OriginPolicy, parse_authority
from wsev.handshake.request import parse_list, split_target
from wsev.handshake.response import TOKEN, Response

__all__ = [
    "FAULTS",
    "Upgrade",
    "accept_key_of",
    "check_framing",
    "check_host",
    "check_upgrade",
    "check_version",
    "has_body",
    "is_upgrade",
]

# RFC 6455 section 1.3: the GUID that the server appends to the client's key.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_LENGTH = re.compile(r"[0-9]+")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # base64 of 16 bytes
_VERSION = re.compile(r"0|[1-9][0-9]{0,2}")  # RFC 6455 section 4.3: without leading zeros

# The schemes of an absolute-form target: a WebSocket URI's, and those of the requests that share its port.
_SCHEMES = ("http", "https", "ws", "wss")

BAD_REQUEST = Response(400, "The request is not valid HTTP/1.1.\n")
LINE_TOO_LONG = Response(414, "The request line is too long.\n")
HEAD_TOO_LARGE = Response(431, "The request's header fields are too large.\n")
TOO_MANY_FIELDS = Response(431, "The request has too many header fields.\n")
BAD_VERSION = Response(505, "This server speaks HTTP/1.1.\n")
BAD_TARGET = Response(400, "The request target must be a path, or an absolute URI, without a fragment.\n")
BAD_HOST = Response(400, "There must be exactly one Host, a host name or address and perhaps a port.\n")
NOT_FOUND = Response(404, "There is no WebSocket at this path.\n")
NOT_ALLOWED = Response(405, "The method must be GET.\n", {"Allow": "GET"})
NOT_ALLOWED_BUT_HEAD = Response(405, "The method must be GET or HEAD.\n", {"Allow": "GET, HEAD"})
UNEXPECTED_BODY = Response(413, "A request here has no body.\n")
UPGRADE_REQUIRED = Response(426, "This is a WebSocket server; ask it for an upgrade.\n")

UPGRADE_WITH_BODY = Response(400, "A request for upgrade has no body.\n")
BAD_KEY = Response(400, "There must be exactly one Sec-WebSocket-Key, 16 bytes in base64.\n")
NO_VERSION = Response(400, "There must be exactly one Sec-WebSocket-Version, a number.\n")
OTHER_VERSION = Response(426, "This server speaks version 13 of the WebSocket protocol.\n")
BAD_ORIGIN = Response(400, "There must be at most one Origin.\n")
FOREIGN_ORIGIN = Response(403, "Pages of this origin may not connect.\n")
BAD_SUBPROTOCOLS = Response(400, "Sec-WebSocket-Protocol must be a list of distinct tokens.\n")
BAD_EXTENSIONS = Response(400, "Sec-WebSocket-Extensions is malformed.\n")


FAULTS = {
    Fault.NOT_VALID: BAD_REQUEST,
    Fault.LINE_TOO_LONG: LINE_TOO_LONG,
    Fault.HEAD_TOO_LARGE: HEAD_TOO_LARGE,
    Fault.TOO_MANY_FIELDS: TOO_MANY_FIELDS,
}
"""What answers bytes that are no head of a request."""


class Upgrade(NamedTuple):
    """A correct request for upgrade.

    Attributes:
        accept_key: what Sec-WebSocket-Accept answers its key with.
        offers: the subprotocols that the client offers, its favourite first.
        subprotocol: the first of ours among them, or None.
        deflate: what of permessage-deflate it offers and we agree to; None: nothing.
    """

    accept_key: str
    offers: Sequence[str]
    subprotocol: str | None
    deflate: Parameters | None = None


def check_version(head: Head) -> Response | None:
    """Judge the version of HTTP."""
    # RFC 9110 section 15.6.6: 505 for a major version that the server does not support.
    return None if head.version in ("HTTP/1.1", "HTTP/1.0") else BAD_VERSION


def check_framing(head: Head) -> Response | None:
    """Judge whether it is clear where a request ends."""
    length, encoding = head.content_length, head.transfer_encoding
    if encoding is not None:
        # RFC 9112 section 6.1: "A server MAY reject a request that contains both Content-Length and Transfer-Encoding".
        # Section 6.3, 4: "If a Transfer-Encoding header field is present in a request and the chunked transfer coding
        # is not the final encoding, ... the server MUST respond with the 400 (Bad Request) status code".
        is_clear = length is None and encoding.lower().rpartition(",")[2].strip(" \t") == "chunked"
    else:
        # 5: "If a message is received without Transfer-Encoding and with an invalid Content-Length header field, ...
        # the server MUST respond with a 400 (Bad Request) status code".
        is_clear = length is None or _LENGTH.fullmatch(length) is not None
    return None if is_clear else BAD_REQUEST


def is_upgrade(head: Head) -> bool:
    """Whether a request asks for the WebSocket protocol; if not, it is plain HTTP, whatever else it says."""
    # RFC 6455 section 4.2.1, 3: "An |Upgrade| header field containing the value "websocket", treated as an ASCII
    # case-insensitive value."  4: "A |Connection| header field that includes the token "Upgrade", treated as an ASCII
    # case-insensitive value."  Firefox sends "keep-alive, Upgrade".
    # RFC 9110 section 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request."
    return (
        _has_token(head.upgrade, "websocket") and _has_token(head.connection, "upgrade") and head.version != "HTTP/1.0"
    )


def _has_token(value: str | None, token: str) -> bool:
    return value is not None and (value.lower() == token or token in parse_list(value.lower()))


def check_host(head: Head) -> Authority | Response:
    """Whom a request is addressed to: the target's authority, else Host."""
    # RFC 9112 section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message
    # that lacks a Host header field and to any request message that contains more than one Host header field line or a
    # Host header field with an invalid field value."
    if head.host is not None:
        authority = parse_authority(head.host)  # lines joined by a comma and a space are no authority
    else:
        authority = Authority("", None) if head.version == "HTTP/1.0" else None
    if authority is None:
        return BAD_HOST
    target = head.target
    # RFC 6455 section 3: "Fragment identifiers are meaningless in the context of WebSocket URIs and MUST NOT be used".
    # RFC 9112 section 3.2: what is not ASCII must be percent-encoded.
    if "#" in target or not target.isascii():
        return BAD_TARGET
    if target.startswith("/"):
        return authority
    # RFC 9112 section 3.2.2: "When an origin server receives a request with an absolute-form of request-target, the
    # origin server MUST ignore the received Host header field (if any) and instead use the host information of the
    # request-target."
    if target.partition("://")[0].lower() not in _SCHEMES:
        return BAD_TARGET
    return parse_authority(split_target(target)[0] or "") or BAD_TARGET


def has_body(head: Head) -> bool:
    """Whether a request announces a body (RFC 9112 section 6): then what follows its head is part of it."""
    return head.transfer_encoding is not None or head.content_length not in (None, "0")


def check_upgrade(
    head: Head,
    host: Authority,
    policy: OriginPolicy,
    subprotocols: Sequence[str],
    deflate: DeflatePolicy | None = None,
) -> Upgrade | Response:
    """Judge a request that ``is_upgrade``, by a GET to ``host``."""
    # A body would be taken for the first frames.
    if has_body(head):
        return UPGRADE_WITH_BODY

    # RFC 6455 section 4.2.1, 6: "A |Sec-WebSocket-Version| header field, with a value of 13."  Section 4.4: to another
    # the server answers with the versions it knows.
    version = head.websocket_version
    if version != "13":
        return OTHER_VERSION if version and _VERSION.fullmatch(version) else NO_VERSION

    # 5: "A |Sec-WebSocket-Key| header field with a base64-encoded value that, when decoded, is 16 bytes in length."
    key = head.websocket_key
    if key is None or not _KEY.fullmatch(key):  # lines joined by a comma do not match
        return BAD_KEY

    # 7: "Optionally, an |Origin| header field. ... A connection attempt lacking this header field SHOULD NOT be
    # interpreted as coming from a browser client."  RFC 6454 section 7.3: never more than one.
    origin = head.origin
    if origin is not None:
        if head.is_origin_repeated:
            return BAD_ORIGIN
        # Section 10.2: servers "SHOULD verify the |Origin| field is an origin they expect"; section 4.2.2, 4: if not,
        # "it MUST return an appropriate HTTP error code (e.g., 403 Forbidden)".
        if not policy.allows(origin, host):
            return FOREIGN_ORIGIN

    # 8: "Optionally, a |Sec-WebSocket-Protocol| header field, with a list of values indicating which protocols the
    # client would like to speak, ordered by preference."
    offers: Sequence[str] = ()
    subprotocol = None
    offered = head.websocket_protocol
    if offered is not None:
        offers = parse_list(offered)
        names = set(offers)
        # Section 4.1, 10: "The elements that comprise this value MUST be non-empty strings with characters in the range
        # U+0021 to U+007E not including separator characters ... and MUST all be unique strings."
        if not offers or len(names) != len(offers) or not all(map(TOKEN.fullmatch, offers)):
            return BAD_SUBPROTOCOLS
        subprotocol = next((name for name in subprotocols if name in names), None)

    # 9: "Optionally, a |Sec-WebSocket-Extensions| header field".  Section 9.1: "If a value is received by either the
    # client or the server during negotiation that does not conform to the ABNF below, the recipient of such malformed
    # data MUST immediately _Fail the WebSocket Connection_."
    agreed = None
    extensions = head.websocket_extensions
    if extensions is not None:
        extension_offers = parse_extensions(extensions)
        if extension_offers is None:
            return BAD_EXTENSIONS
        if deflate is not None:
            agreed = agree(extension_offers, deflate)

    return Upgrade(accept_key_of(key), offers, subprotocol, agreed)


def accept_key_of(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2, step 5.4)."""
    digest = sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return b2a_base64(digest, newline=False).decode("ascii")
