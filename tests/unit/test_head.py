"""HeadReader: where the head of a request begins and ends, how large it may be, and which bytes may stand where."""

from __future__ import annotations

import time
from itertools import pairwise

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requests import CHROME, FIREFOX, SAFARI, request, wire
from wsev._core.head import Fault, Head, HeadLimits, HeadReader
from wsev.handshake.request import Headers, Request

HEAD = wire(CHROME)
Found = tuple[bytes, bytes] | Fault | None


def feed(
    *pieces: bytes, max_line: int | None = 8192, max_size: int | None = 16384, max_fields: int | None = 100
) -> Found:
    """Feed pieces until there is a result; a head and what is behind it."""
    reader = HeadReader(HeadLimits(max_line, max_size, max_fields))
    for at, piece in enumerate(pieces):
        found = reader.feed(piece)
        if found is not None:
            assert b"".join(pieces[: at + 1]) == reader.received
            return (found.raw, found.rest + b"".join(pieces[at + 1 :])) if isinstance(found, Head) else found
    return None


def read(data: bytes) -> Head | Fault | None:
    return HeadReader(HeadLimits()).feed(data)


# ---------------------------------------------------------------------------------------------------- where a head ends


@given(st.lists(st.integers(1, len(HEAD) + 20), max_size=5))
def test_a_head_is_found_in_every_split(cuts: list[int]) -> None:
    data = HEAD + b"\x81\x80frames\n\n"
    places = [0, *sorted(set(cuts)), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places) if a < b]
    assert feed(*pieces) == (HEAD, b"\x81\x80frames\n\n")


def test_a_head_that_comes_byte_by_byte_is_found() -> None:
    assert feed(*(HEAD[at : at + 1] for at in range(len(HEAD)))) == (HEAD, b"")


@pytest.mark.parametrize("pieces", [(b"\r\n",), (b"\r", b"\n")], ids=repr)
def test_one_blank_line_is_skipped(pieces: tuple[bytes, ...]) -> None:
    assert feed(*pieces, HEAD) == (HEAD, b"")


@pytest.mark.parametrize(
    "data",
    [b"\r\n\r\n", b"\r\n\r", b"\n", b"\rG", b" GET", b"\x16\x03\x01", b"\0", b"get / ", b"{", b"\xff", b"\r\n GET"],
    ids=repr,
)
def test_what_begins_no_request_is_refused_at_once(data: bytes) -> None:
    assert feed(data) is Fault.NOT_VALID
    assert feed(*(data[at : at + 1] for at in range(len(data)))) is Fault.NOT_VALID


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", b"G", b"GET / HTTP/1.1\r\n", HEAD[:-1], HEAD[:-2]], ids=repr)
def test_a_beginning_is_waited_with(data: bytes) -> None:
    assert feed(data) is None


@pytest.mark.parametrize("end", [b"\n\n", b"\n\r\n", b"\r\n\n"], ids=repr)
def test_bare_line_feeds_end_a_head_too(end: bytes) -> None:
    """So that it is refused, and not waited with."""
    assert feed(b"GET / HTTP/1.1\r\nHost: a" + end) is Fault.NOT_VALID


# ----------------------------------------------------------------------------------------------------------- the limits


def line_of(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 14) + b" HTTP/1.1"


def test_a_request_line_may_be_as_long_as_the_limit() -> None:
    head = line_of(100) + b"\r\nHost: a\r\n\r\n"
    assert feed(head, max_line=100) == (head, b"")
    assert feed(head, max_line=99) is Fault.LINE_TOO_LONG


def test_a_line_without_end_is_refused_at_the_limit() -> None:
    assert feed(line_of(100), b"\r", max_line=100) is None
    assert feed(b"G" * 102, max_line=100) is Fault.LINE_TOO_LONG
    assert feed(*(b"G" for _ in range(102)), max_line=100) is Fault.LINE_TOO_LONG


def test_a_head_may_be_as_large_as_the_limit() -> None:
    head = request(x_note="a" * 300)
    assert feed(head + b"frames", max_size=len(head)) == (head, b"frames")
    assert feed(head, max_size=len(head) - 1) is Fault.HEAD_TOO_LARGE


def test_a_blank_line_counts_for_the_size() -> None:
    head = request(x_note="a" * 300)
    assert feed(b"\r\n" + head, max_size=len(head) + 2) == (head, b"")
    assert feed(b"\r\n" + head, max_size=len(head) + 1) is Fault.HEAD_TOO_LARGE


def test_a_head_without_end_is_refused_at_the_limit() -> None:
    begun = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    assert feed(begun + b"a" * (1000 - len(begun)), max_size=1000) is None
    assert feed(begun + b"a" * (1001 - len(begun)), max_size=1000) is Fault.HEAD_TOO_LARGE


def test_there_may_be_as_many_fields_as_the_limit() -> None:
    head = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5 + b"\r\n"
    assert feed(head, max_fields=5) == (head, b"")
    assert feed(head, max_fields=4) is Fault.TOO_MANY_FIELDS
    assert feed(b"\r\n" + head, max_fields=5) == (head, b"")


def test_without_limits_all_is_taken() -> None:
    head = line_of(100_000) + b"\r\n" + b"a: b\r\n" * 10_000 + b"\r\n"
    assert feed(head, max_line=None, max_size=None, max_fields=None) == (head, b"")


def test_a_megabyte_byte_by_byte_takes_linear_time() -> None:
    reader = HeadReader(HeadLimits())
    begin = time.process_time()
    for _ in range(1 << 19):
        reader.feed(b"A")
    assert time.process_time() - begin < 10.0  # quadratic: hours


def test_a_field_of_very_many_lines_takes_linear_time() -> None:
    begin = time.process_time()
    head = read(b"GET / HTTP/1.1\r\n" + b"upgrade: abcdefghijklmnop\r\n" * 200_000 + b"\r\n")
    assert isinstance(head, Head)
    assert head.upgrade is not None
    assert head.upgrade.count(",") == 199_999
    assert time.process_time() - begin < 5.0  # quadratic: minutes


# ---------------------------------------------------------------------------------------------------------- the grammar


def test_the_request_line_is_read() -> None:
    head = read(b"GET /a?b=\xe4 HTTP/1.0\r\n\r\n")
    assert isinstance(head, Head)
    assert (head.method, head.target, head.version) == ("GET", "/a?b=\xe4", "HTTP/1.0")


def test_a_field_that_did_not_come_is_none() -> None:
    head = read(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(head, Head)
    assert set(fields_of(head).values()) == {None}


NAMES = {
    "host": "host",
    "origin": "origin",
    "upgrade": "upgrade",
    "connection": "connection",
    "content-length": "content_length",
    "transfer-encoding": "transfer_encoding",
    "sec-websocket-key": "websocket_key",
    "sec-websocket-version": "websocket_version",
    "sec-websocket-protocol": "websocket_protocol",
    "sec-websocket-extensions": "websocket_extensions",
}


def fields_of(head: Head) -> dict[str, str | None]:
    return {name: getattr(head, attribute) for name, attribute in NAMES.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title, str.swapcase])
def test_a_field_is_known_by_its_name_in_any_case(name: str, spell: type[str]) -> None:
    head = read(f"GET / HTTP/1.1\r\nx: y\r\n{spell(name)}:\t one \r\n\r\n".encode())
    assert isinstance(head, Head)
    assert fields_of(head) == {**dict.fromkeys(NAMES), name: "one"}


@pytest.mark.parametrize("name", NAMES)
def test_another_name_is_another_field(name: str) -> None:
    others = [name[1:], name + "x", name[:-1] + "_", name.replace("-", "_") + "-", name[:-1] + "\x60"]
    for other in others:
        head = read(f"GET / HTTP/1.1\r\n{other}: one\r\n\r\n".encode())
        assert isinstance(head, Head)
        assert set(fields_of(head).values()) == {None}, other


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_of_a_field_are_joined_by_commas(name: str) -> None:
    head = read(f"GET / HTTP/1.1\r\n{name}: a\r\nx: y\r\n{name}:\r\n{name}: c\r\n\r\n".encode())
    assert isinstance(head, Head)
    assert fields_of(head)[name] == "a, , c"
    assert head.is_origin_repeated is (name == "origin")


@pytest.mark.parametrize(
    "line",
    [
        "GET",
        "GET /",
        "GET / ",
        "GET /  HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        "GET / a HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\r HTTP/1.1",
        "GE(T / HTTP/1.1",
        "GET: / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/11",
        "GET / HTTP/1.",
        "GET / HTTP/.1",
        "GET / HTTP/1.10",
        "GET / HTTP/1.1\r",
        "GET / RTSP/1.0",
        "SOURCE / ICE/1.0",
    ],
    ids=repr,
)
def test_a_line_that_is_no_request_line_is_not_valid(line: str) -> None:
    assert feed(f"{line}\r\nHost: a\r\n\r\n".encode()) is Fault.NOT_VALID


@pytest.mark.parametrize(
    "line",
    [
        "a",
        ":",
        ": b",
        "a : b",
        "a\t: b",
        " a: b",
        "\ta: b",
        " ",
        "a b: c",
        "a(: b",
        "\xe4: b",
        "a\0: b",
        "a: b\0",
        "a: \x01",
        "a: \x7f",
        "a: \x0b",
        "a: b\rc",
        "a: b\r",
        "a: b\nc: d",
        "a: b\r\n c",
        "a: b\r\n\tc",
    ],
    ids=repr,
)
def test_a_line_that_is_no_field_is_not_valid(line: str) -> None:
    assert feed(f"GET / HTTP/1.1\r\n{line}\r\n\r\n".encode("latin-1")) is Fault.NOT_VALID
    assert feed(f"GET / HTTP/1.1\r\nHost: a\r\n{line}\r\nHost: a\r\n\r\n".encode("latin-1")) is Fault.NOT_VALID


# ------------------------------------------------------------------------- against a parser that is known to be strict

# What HTTP is made of, and what it must not be.
PIECES = [
    *(b"GET", b"POST", b"HEAD", b" ", b"/", b"/chat", b"?a=b", b"HTTP/1.1", b"HTTP/1.0", b"HTTP", b"1.1"),
    *(b"\r\n", b"\r", b"\n", b":", b": ", b"\t", b"Host", b"host: a", b"upgrade: websocket", b"Connection: Upgrade"),
    *(b"Content-Length: 0", b"a", b"x-y: z", b"\0", b"\x7f", b"\xe4", b"\x0b", b"(", b",", b";", b"#"),
]


def is_accepted_by_httptools(head: bytes) -> bool:
    try:
        httptools.HttpRequestParser(None).feed_data(head)
    except httptools.HttpParserUpgrade:
        return True
    except httptools.HttpParserError:
        return False
    return True


def check_against_httptools(data: bytes) -> None:
    """What is read is valid there too, but for what is judged later; and its fields are those that Request shows."""
    head = read(data)
    if not isinstance(head, Head):
        return
    headers = Headers(head.raw.decode("latin-1"))
    assert fields_of(head) == {name: headers.get(name) for name in NAMES}
    assert head.is_origin_repeated is (len(headers.get_all("origin")) > 1)
    shown = Request(head.raw, None)  # type: ignore[arg-type]  # it has no peer
    assert (shown.method, shown.target) == (head.method, head.target)
    if (
        head.method in ("GET", "POST", "HEAD")
        and head.target.startswith("/")
        and head.target.isascii()
        and head.version in ("HTTP/1.0", "HTTP/1.1")
        and head.content_length is None
        and head.transfer_encoding is None
    ):
        assert is_accepted_by_httptools(head.raw)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
def test_what_is_read_of_pieces_of_http_is_valid_to_httptools_too(data: bytes) -> None:
    check_against_httptools(data + b"\r\n\r\n")
    check_against_httptools(b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n")


@given(
    st.sampled_from([HEAD, wire(FIREFOX), wire(SAFARI), request(), request(content_length="0")]),
    st.lists(st.tuples(st.integers(0, 800), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_what_is_read_of_a_damaged_request_is_valid_to_httptools_too(
    data: bytes, damages: list[tuple[int, int, bytes]]
) -> None:
    for at, size, instead in damages:
        data = data[:at] + instead + data[at + size :]
    check_against_httptools(data)


@pytest.mark.parametrize(
    "place", ["GE{}T / HTTP/1.1", "GET /{} HTTP/1.1", "GET / HTTP{}1.1", "GET / HTTP/1{}1", "GET / HTTP/1.1{}"]
)
def test_no_byte_in_a_request_line_is_valid_that_is_not_to_httptools(place: str) -> None:
    for byte in range(256):
        check_against_httptools(place.format(chr(byte)).encode("latin-1") + b"\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize("place", ["{}: b", "a{}: b", "a{} b", "a: {}", "a: b{}", "a: b{}c", "a:{}b"])
def test_a_byte_in_a_field_is_valid_exactly_if_it_is_to_httptools(place: str) -> None:
    for byte in range(256):
        data = b"GET / HTTP/1.1\r\n" + place.format(chr(byte)).encode("latin-1") + b"\r\nHost: a\r\n\r\n"
        assert isinstance(read(data), Head) is is_accepted_by_httptools(data), data
