"""Request: views of a request's bytes."""

from __future__ import annotations

import gc
import sys

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recorded import RecordedTransport
from tests.requests import CHROME, FIREFOX, SAFARI, request, wire
from wsev.handshake.request import Request, split_target


def make(raw: bytes) -> Request:
    return Request(raw, RecordedTransport())


def test_a_browsers_request_is_read() -> None:
    asked = make(wire(FIREFOX))
    assert (asked.method, asked.target, asked.path) == ("GET", "/chat", "/chat")
    assert asked.headers["User-Agent"].endswith("Firefox/128.0")
    assert asked.cookies == {"session": "0123456789abcdef"}
    assert asked.subprotocols == ()
    assert repr(asked) == "<Request GET /chat>"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a%20b", "/a b"),
        ("/gr%C3%BCn", "/grün"),
        ("/%ff", "/\ufffd"),
        ("/a%2Fb", "/a/b"),
        ("/a?b=c", "/a"),
        ("/a%3Fb", "/a?b"),
        ("//a", "//a"),
        ("/a%", "/a%"),
        ("http://example.com", "/"),
        ("http://example.com/a?b", "/a"),
        ("http://example.com?b", "/"),
        ("/a://b", "/a://b"),
    ],
)
def test_the_path_is_decoded(target: str, path: str) -> None:
    assert make(request(f"GET {target} HTTP/1.1")).path == path


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/a?b?c", (None, "/a", "b?c")),
        ("http://h:1/a?b", ("h:1", "/a", "b")),
        ("WS://h?b/c", ("h", "/", "b/c")),
        ("http://h", ("h", "/", "")),
        ("*", (None, "*", "")),
    ],
)
def test_a_target_is_split(target: str, parts: tuple[str | None, str, str]) -> None:
    assert split_target(target) == parts


def test_the_query_is_a_mapping() -> None:
    query = make(request("GET /?room=a+b&x=1&x=2&empty=&gr%C3%BCn=%26 HTTP/1.1")).query
    assert dict(query) == {"room": "a b", "x": "1", "empty": "", "grün": "&"}
    assert query.get_all("x") == ["1", "2"]
    assert query.get_all("y") == []
    assert query.get("y") is None
    assert len(query) == 4


def test_names_of_fields_are_found_in_any_case() -> None:
    headers = make(request(x_note="a")).headers
    assert headers["X-Note"] == headers["x-note"] == headers.get("X-NOTE") == "a"
    assert "X-NOTE" in headers
    assert "x-other" not in headers
    assert headers.get("x-other") is None
    assert headers.get("x-other", "b") == "b"
    assert next(iter(headers)) == "host"
    with pytest.raises(KeyError):
        headers["x-other"]


def test_lines_of_one_name_are_one_value_and_can_be_told_apart() -> None:
    headers = make(request(x_note=["a", "b, c", "d"])).headers
    assert headers["x-note"] == "a, b, c, d"
    assert headers.get_all("X-Note") == ["a", "b, c", "d"]
    assert headers.get_all("host") == ["example.com"]
    assert headers.get_all("x-other") == []


@pytest.mark.parametrize(
    "value", ["a\x0bb", "a\x0cb", "a\x1cb", "a\x1db", "a\x1eb", "a\x85b", "\x85", "\xa0a"], ids=ascii
)
def test_no_character_but_crlf_begins_a_field(value: str) -> None:
    """str.splitlines and str.strip know more of them: a header could be smuggled in (CVE-2026-44546)."""
    headers = make(request(x_note=f"{value}x-evil: 1")).headers
    assert headers["x-note"] == f"{value}x-evil: 1"
    assert "x-evil" not in headers


def test_reprs_show_no_value() -> None:
    asked = make(request("GET /a?token=secret HTTP/1.1", cookie="secret"))
    assert "secret" not in repr(asked) + repr(asked.headers) + repr(asked.query)


@pytest.mark.parametrize(
    ("cookie", "cookies"),
    [
        ("a=1", {"a": "1"}),
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2", {"a": "1", "b": "2"}),
        ("a=1; a=2", {"a": "1"}),
        ('a="1 2"', {"a": "1 2"}),
        ('a="', {"a": '"'}),
        ("a=b=c", {"a": "b=c"}),
        ("a=", {"a": ""}),
        ("a; =b; ; c=d", {"c": "d"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (None, {}),
    ],
    ids=repr,
)
def test_cookies_are_read(cookie: str | list[str] | None, cookies: dict[str, str]) -> None:
    assert make(request(cookie=cookie)).cookies == cookies


def test_subprotocols_are_in_the_clients_order() -> None:
    asked = make(request(sec_websocket_protocol=["b, a", " ,c"]))
    assert asked.subprotocols == ("b", "a", "c")


@pytest.mark.parametrize(
    ("peername", "address"),
    [
        (("192.0.2.7", 50412), ("192.0.2.7", 50412)),
        (("::1", 50412, 0, 0), ("::1", 50412)),
        ("", ""),
        (None, ""),
        ("/run/client.sock", "/run/client.sock"),
        (b"\0abstract", "\0abstract"),
    ],
    ids=repr,
)
def test_the_remote_address_is_the_transports(peername: object, address: object) -> None:
    assert Request(request(), RecordedTransport(peername=peername)).remote_address == address


def test_a_request_costs_its_bytes_and_a_hundred_more() -> None:
    raw = wire(CHROME)
    asked = make(raw)
    len(asked.headers)  # parsed, and not kept
    size = sys.getsizeof(asked) + sys.getsizeof(raw)
    assert size <= len(raw) + 100
    assert all(referred in (raw, asked._peer, Request) for referred in gc.get_referents(asked))


def test_requests_compare_by_identity() -> None:
    raw = request()
    assert make(raw) != make(raw)
    assert len({make(raw), make(raw)}) == 2


class Collector:
    """What httptools calls."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9112 section 5.1: white space around the value is no part of it; httptools leaves tabs at its end.
        self.fields.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))


FIELD_VALUES = st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=255), max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["a", "B", "x-c", "host"]), FIELD_VALUES), max_size=6))
def test_the_fields_are_those_that_httptools_finds(fields: list[tuple[str, str]]) -> None:
    """Two parsers of one request must not differ: that is how requests are smuggled."""
    raw = ("GET / HTTP/1.1\r\n" + "".join(f"{name}:{value}\r\n" for name, value in fields) + "\r\n").encode("latin-1")
    collector = Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(raw)
    except httptools.HttpParserError:
        return
    headers = make(raw).headers
    found = [(name, value) for name in headers for value in headers.get_all(name)]
    assert sorted(found) == sorted(collector.fields)


@pytest.mark.parametrize("text", [FIREFOX, CHROME, SAFARI], ids=["firefox", "chrome", "safari"])
def test_the_fields_of_browsers_are_those_that_httptools_finds(text: str) -> None:
    collector = Collector()
    with pytest.raises(httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(collector).feed_data(wire(text))
    assert list(make(wire(text)).headers.items()) == collector.fields
