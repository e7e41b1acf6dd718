"""HeadReader: where the head of a request begins and ends, and how large it may be."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requests import CHROME, request, wire
from wsev.handshake.head import HeadReader
from wsev.handshake.response import Response
from wsev.options import Options

HEAD = wire(CHROME)
Found = tuple[bytes, bytes] | Response | None


def feed(*pieces: bytes, **options: int | None) -> Found:
    """Feed pieces until there is a result."""
    reader = HeadReader(Options.of(**options))  # type: ignore[arg-type]  # names of counts and sizes only
    for at, piece in enumerate(pieces):
        found = reader.feed(piece)
        if found is not None:
            assert b"".join(pieces[: at + 1]) == reader.received
            return (found[0], found[1] + b"".join(pieces[at + 1 :])) if isinstance(found, tuple) else found
    return None


def status(found: Found) -> int:
    assert isinstance(found, Response)
    return found.status


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
    assert status(feed(data)) == 400
    assert status(feed(*(data[at : at + 1] for at in range(len(data))))) == 400


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", b"G", b"GET / HTTP/1.1\r\n", HEAD[:-1], HEAD[:-2]], ids=repr)
def test_a_beginning_is_waited_with(data: bytes) -> None:
    assert feed(data) is None


def test_bare_line_feeds_end_a_head_too() -> None:
    """So that it is refused by the parser, and not waited with."""
    assert feed(b"GET / HTTP/1.1\nHost: a\n\n") == (b"GET / HTTP/1.1\nHost: a\n\n", b"")


def line_of(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 14) + b" HTTP/1.1"


def test_a_request_line_may_be_as_long_as_the_limit() -> None:
    head = line_of(100) + b"\r\nHost: a\r\n\r\n"
    assert feed(head, max_request_line=100) == (head, b"")
    assert status(feed(head, max_request_line=99)) == 414


def test_a_line_without_end_is_refused_at_the_limit() -> None:
    assert feed(line_of(100), b"\r", max_request_line=100) is None
    assert status(feed(b"G" * 102, max_request_line=100)) == 414
    assert status(feed(*(b"G" for _ in range(102)), max_request_line=100)) == 414


def test_a_head_may_be_as_large_as_the_limit() -> None:
    head = request(x_note="a" * 300)
    assert feed(head + b"frames", max_request_size=len(head)) == (head, b"frames")
    assert status(feed(head, max_request_size=len(head) - 1)) == 431


def test_a_blank_line_counts_for_the_size() -> None:
    head = request(x_note="a" * 300)
    assert feed(b"\r\n" + head, max_request_size=len(head) + 2) == (head, b"")
    assert status(feed(b"\r\n" + head, max_request_size=len(head) + 1)) == 431


def test_a_head_without_end_is_refused_at_the_limit() -> None:
    begun = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    assert feed(begun + b"a" * (1000 - len(begun)), max_request_size=1000) is None
    assert status(feed(begun + b"a" * (1001 - len(begun)), max_request_size=1000)) == 431


def test_there_may_be_as_many_fields_as_the_limit() -> None:
    head = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5 + b"\r\n"
    assert feed(head, max_headers=5) == (head, b"")
    assert status(feed(head, max_headers=4)) == 431
    assert feed(b"\r\n" + head, max_headers=5) == (head, b"")


def test_without_limits_all_is_taken() -> None:
    head = line_of(100_000) + b"\r\n" + b"a: b\r\n" * 10_000 + b"\r\n"
    assert feed(head, max_request_line=None, max_request_size=None, max_headers=None) == (head, b"")


def test_a_megabyte_byte_by_byte_takes_linear_time() -> None:
    reader = HeadReader(Options.of(max_request_line=None, max_request_size=None))
    begin = time.process_time()
    for _ in range(1 << 19):
        reader.feed(b"A")
    assert time.process_time() - begin < 10.0  # quadratic: hours
