"""Requests for upgrade as browsers and libraries send them, recorded; and how to change one of them."""

from __future__ import annotations

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3, with the answer that belongs to it:
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FIREFOX = f"""GET /chat HTTP/1.1
Host: example.com
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0
Accept: */*
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Sec-WebSocket-Version: 13
Origin: http://example.com
Sec-WebSocket-Extensions: permessage-deflate
Sec-WebSocket-Key: {KEY}
DNT: 1
Sec-GPC: 1
Connection: keep-alive, Upgrade
Cookie: session=0123456789abcdef
Sec-Fetch-Dest: empty
Sec-Fetch-Mode: websocket
Sec-Fetch-Site: same-origin
Pragma: no-cache
Cache-Control: no-cache
Upgrade: websocket

"""

CHROME = f"""GET /chat HTTP/1.1
Host: example.com
Connection: Upgrade
Pragma: no-cache
Cache-Control: no-cache
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36
Upgrade: websocket
Origin: http://example.com
Sec-WebSocket-Version: 13
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-US,en;q=0.9
Sec-WebSocket-Key: {KEY}
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits

"""

_SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
    "Safari/605.1.15"
)

SAFARI = f"""GET /chat HTTP/1.1
Upgrade: websocket
Connection: Upgrade
Host: example.com
Origin: http://example.com
Pragma: no-cache
Cache-Control: no-cache
Sec-WebSocket-Key: {KEY}
Sec-WebSocket-Version: 13
Sec-WebSocket-Extensions: x-webkit-deflate-frame, permessage-deflate
User-Agent: {_SAFARI}

"""

PLAIN = "GET / HTTP/1.1\nHost: example.com\n\n"


def wire(text: str) -> bytes:
    """Write a request as it goes over the wire: lines end in CR LF."""
    return text.replace("\n", "\r\n").encode("latin-1")


def request(line: str = "GET /chat HTTP/1.1", /, **fields: str | list[str] | None) -> bytes:
    """Write a request for upgrade, right but for the fields given, as in ``origin="..."``; a list: so many lines."""
    pairs: dict[str, str | list[str] | None] = {
        "host": "example.com",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
    }
    pairs.update({name.replace("_", "-"): value for name, value in fields.items()})
    lines = [line]
    for name, value in pairs.items():
        values = [] if value is None else [value] if isinstance(value, str) else value
        lines += [f"{name}: {each}" for each in values]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
