"""HeadReader: bytes in, the head of one HTTP request out, within its limits.

It owns where a head begins and ends and how large it may be; it does not parse it.  httptools bounds nothing and takes
quadratic time for a long field in pieces, so that it is given a head only when that is whole and known to be small.

Invariant: each byte is looked at once, however the bytes are split.
"""

from __future__ import annotations

import re
import sys

from wsev.handshake.response import Response
from wsev.handshake.upgrade import BAD_REQUEST
from wsev.options import Options

__all__ = ["HEAD_TOO_LARGE", "LINE_TOO_LONG", "TOO_MANY_FIELDS", "HeadReader"]

# An empty line.  Bare LFs are none (RFC 9112 section 2.2 lets us choose), but a head that ends in them has ended too:
# httptools will refuse it at once, where we would wait for the rest of it.
_END = re.compile(rb"\n\r?\n")

LINE_TOO_LONG = Response(414, "The request line is too long.\n")
HEAD_TOO_LARGE = Response(431, "The request's header fields are too large.\n")
TOO_MANY_FIELDS = Response(431, "The request has too many header fields.\n")


class HeadReader:
    """Feed it until it gives a head or a refusal; then it is used up."""

    __slots__ = ("_data", "_has_line", "_max_headers", "_max_line", "_max_size", "_scanned", "_start")

    def __init__(self, options: Options) -> None:
        self._max_line = sys.maxsize if options.max_request_line is None else options.max_request_line
        self._max_size = sys.maxsize if options.max_request_size is None else options.max_request_size
        self._max_headers = sys.maxsize if options.max_headers is None else options.max_headers
        self._data: bytes | bytearray = b""  # what has come; the whole head mostly comes at once, and is not copied
        self._scanned = 0
        self._start = 0  # behind the one blank line that may come first
        self._has_line = False

    @property
    def has_begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._data)

    @property
    def is_head_request(self) -> bool:
        """Whether the method is HEAD, whose answer has no body (RFC 9110 section 9.3.2)."""
        return self._data.startswith(b"HEAD ", self._start)

    @property
    def received(self) -> bytes:
        """All bytes that have come, for another protocol to start with."""
        return bytes(self._data)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | Response | None:
        """Take what was received.

        Returns:
            The head, with the empty line that ends it, and the bytes behind it; or the answer to a head that cannot be
            one; or None: more is needed.
        """
        if not self._data:
            self._data = data
        else:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += data
        return self._begin() or self._check_line() or self._find_end()

    def _begin(self) -> Response | None:
        """Skip a blank line, and refuse at once what no request begins with: a TLS ClientHello, say."""
        data = self._data
        # RFC 9112 section 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least
        # one empty line (CRLF) received prior to the request-line."
        if self._start == 0 and data.startswith(b"\r\n"):
            self._start = 2
        # The methods that httptools knows begin with capital letters.
        first = data[self._start : self._start + 1]
        if first and not b"A" <= first <= b"Z" and data != b"\r":
            return BAD_REQUEST
        return None

    def _check_line(self) -> Response | None:
        if self._has_line:
            return None
        end = self._data.find(b"\n", max(self._start, self._scanned))
        self._has_line = end >= 0
        size = (end if end >= 0 else len(self._data)) - self._start
        return LINE_TOO_LONG if size > self._max_line + 1 else None  # 1: its CR

    def _find_end(self) -> tuple[bytes, bytes] | Response | None:
        data = self._data
        match = _END.search(data, max(self._start, self._scanned - 2), self._max_size)
        self._scanned = len(data)
        if match is None:
            return HEAD_TOO_LARGE if len(data) > self._max_size else None
        end = match.end()
        # The request line and the empty line are no fields.
        if data.count(b"\n", self._start, end) - 2 > self._max_headers:
            return TOO_MANY_FIELDS
        return bytes(data[self._start : end]), bytes(data[end:])
