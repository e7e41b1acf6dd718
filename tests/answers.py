"""HTTP answers, parsed as strictly as RFC 9112 allows; written without a look at wsev's encoder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\t\x20-\x7e]*)")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)


@dataclass(frozen=True)
class Answer:
    status: int
    fields: list[tuple[str, str]]  # names in lower case
    body: bytes

    def __getitem__(self, name: str) -> str:
        (value,) = self.get_all(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.get_all(name))

    def get_all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name]


def parse_head(data: bytes) -> tuple[Answer, bytes]:
    """Parse the head of an answer; return it, and what comes behind it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    assert end, f"no whole answer: {data!r}"
    status_line, *lines = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(status_line)
    assert status, status_line
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        assert field, line
        fields.append((field[1].decode("ascii").lower(), (field[2] or b"").decode("latin-1")))
    return Answer(int(status[1]), fields, b""), rest


def parse_answer(data: bytes, *, to_head: bool = False) -> Answer:
    """Parse the one answer that is all there is of a connection (RFC 9110, RFC 9112)."""
    head, body = parse_head(data)
    assert head.status >= 200
    parsedate_to_datetime(head["date"])
    options = [option.strip().lower() for option in head["connection"].split(",")]
    assert "close" in options, "RFC 9112 section 9.6: who will close says so"
    assert "transfer-encoding" not in head
    if head.status in (204, 304):
        assert "content-length" not in head
        assert body == b""
    elif to_head:
        assert body == b""
        assert int(head["content-length"]) >= 0
    else:
        assert len(body) == int(head["content-length"])
    if body:
        assert "content-type" in head
    if head.status == 405:
        assert "GET" in head["allow"].split(", ")
    if head.status == 426:
        assert head["upgrade"] == "websocket"
        assert "upgrade" in options
        assert head["sec-websocket-version"] == "13"
    return Answer(head.status, head.fields, body)


def parse_upgrade(data: bytes) -> tuple[Answer, bytes]:
    """Parse a 101 (RFC 6455 section 4.2.2); return it, and what comes behind it."""
    head, rest = parse_head(data)
    assert head.status == 101, head
    assert head["upgrade"].lower() == "websocket"
    assert head["connection"].lower() == "upgrade"
    assert len(head["sec-websocket-accept"]) == 28
    # RFC 9110 section 8.6 and RFC 9112 section 6.1: neither in a 1xx.
    assert "content-length" not in head
    assert "transfer-encoding" not in head
    return head, rest
