"""Which sites' pages may connect."""

from __future__ import annotations

import pytest

from wsev.handshake.origin import Authority, OriginPolicy, parse_authority
from wsev.options import Options

AUTHORITIES = {
    "example.com": ("example.com", None),
    "EXAMPLE.com": ("example.com", None),
    "example.com:80": ("example.com", 80),
    "example.com:": ("example.com", None),
    "localhost:8000": ("localhost", 8000),
    "127.0.0.1:8000": ("127.0.0.1", 8000),
    "[::1]": ("[::1]", None),
    "[::1]:8000": ("[::1]", 8000),
    "[FE80::1]": ("[fe80::1]", None),
    "my_service.internal": ("my_service.internal", None),
    "xn--bcher-kva.example": ("xn--bcher-kva.example", None),
    "a%20b": ("a%20b", None),
    "example.com.": ("example.com.", None),
}


@pytest.mark.parametrize("text", AUTHORITIES)
def test_a_host_and_perhaps_a_port_are_read(text: str) -> None:
    assert parse_authority(text) == AUTHORITIES[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a b",
        "a/b",
        "user@example.com",
        "user:password@example.com",
        "example.com:80:80",
        "example.com:8x",
        "example.com:65536",
        "example.com:-1",
        "example.com:٣",
        "::1",
        "[::1",
        "::1]",
        "[::g]",
        "[1:2]",
        "[]",
        "[::1]x",
        "[fe80::1%25eth0]",
        "a%2",
        "a%zz",
        "ä.example",
        "a,b c",
        "a\\b",
        "a?b",
        "a#b",
        "http://a",
        "a\x00",
        "a\n",
    ],
    ids=ascii,
)
def test_what_is_no_host_and_port_is_none(text: str) -> None:
    assert parse_authority(text) is None


SAME = [
    ("http://example.com", "example.com"),
    ("https://example.com", "example.com"),  # TLS ended at a proxy
    ("http://EXAMPLE.com", "example.com"),
    ("http://example.com", "EXAMPLE.COM"),
    ("http://example.com:80", "example.com"),
    ("http://example.com", "example.com:80"),
    ("https://example.com:443", "example.com"),
    ("https://example.com", "example.com:443"),
    ("http://localhost:8000", "localhost:8000"),
    ("http://127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://[::1]:8000", "[::1]:8000"),
    ("http://[::1]", "[::1]"),
    ("http://my_service:8000", "my_service:8000"),
]

FOREIGN = [
    ("http://evil.com", "example.com"),
    ("http://example.com.evil.com", "example.com"),
    ("http://evilexample.com", "example.com"),
    ("http://sub.example.com", "example.com"),
    ("http://example.com", "sub.example.com"),
    ("http://example.co", "example.com"),
    ("http://example.com:8000", "example.com"),
    ("http://example.com", "example.com:8000"),
    ("http://example.com:8000", "example.com:8001"),
    ("https://example.com:80", "example.com"),
    ("http://example.com:443", "example.com"),
    ("https://example.com", "example.com:80"),
    ("http://user@example.com", "example.com"),
    ("http://example.com@evil.com", "example.com"),
    ("http://example.com:80@evil.com", "example.com"),
    ("http://example.com/", "example.com"),
    ("http://example.com/path", "example.com"),
    ("http://example.com?x", "example.com"),
    ("http://example.com#x", "example.com"),
    ("http://example.com\\", "example.com"),
    ("http:\\\\example.com", "example.com"),
    ("http://evil.com\\@example.com", "example.com"),
    ("http://%65xample.com", "example.com"),
    ("http://example.com%00", "example.com"),
    ("http://example.com.", "example.com"),
    ("http://example.com.", "example.com."),
    ("http://example.com:", "example.com"),
    ("http://example.com http://evil.com", "example.com"),
    ("http://example.com, http://evil.com", "example.com"),
    ("example.com", "example.com"),
    ("//example.com", "example.com"),
    ("http:example.com", "example.com"),
    ("http:/example.com", "example.com"),
    ("http:///example.com", "example.com"),
    ("HTTP://example.com", "example.com"),
    ("ws://example.com", "example.com"),
    ("ftp://example.com", "example.com"),
    ("file://", "example.com"),
    ("chrome-extension://example.com", "example.com"),
    ("null", "example.com"),
    ("null", "null"),
    ("", "example.com"),
    ("*", "example.com"),
    ("http://", "example.com"),
    ("http://[::1]", "[::2]"),
    ("http://[::1", "[::1]"),
    ("http://example.com\x00", "example.com"),
    ("http://exämple.com", "example.com"),
]


def authority(text: str) -> Authority:
    found = parse_authority(text)
    assert found is not None
    return found


def policy(*origins: str) -> OriginPolicy:
    return OriginPolicy(Options.of(origins=origins).origins)


@pytest.mark.parametrize(("origin", "host"), SAME, ids=ascii)
def test_the_same_origin_is_allowed(origin: str, host: str) -> None:
    assert OriginPolicy(None).allows(origin, authority(host))


@pytest.mark.parametrize(("origin", "host"), FOREIGN, ids=ascii)
def test_a_foreign_origin_is_not_allowed(origin: str, host: str) -> None:
    assert not OriginPolicy(None).allows(origin, authority(host))


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "", "anything"])
def test_a_star_allows_every_origin(origin: str) -> None:
    assert policy("*").allows(origin, Authority("example.com", None))


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("https://example.com", "https://example.com"),
        ("https://EXAMPLE.com", "https://example.com"),
        ("https://example.com", "https://EXAMPLE.com"),
        ("https://example.com:443", "https://example.com"),
        ("https://example.com", "https://example.com:443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("null", "null"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("https://*.example.com", "https://a.example.com"),
        ("https://*.example.com", "https://a.b.example.com"),
        ("https://*.example.com", "https://A.Example.com:443"),
        ("http://*.example.com:8000", "http://a.example.com:8000"),
    ],
)
def test_a_named_origin_is_allowed(name: str, origin: str) -> None:
    assert policy("https://other.example", name).allows(origin, Authority("server.example", None))


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("https://example.com", "http://example.com"),
        ("https://example.com", "https://example.com:444"),
        ("https://example.com", "https://a.example.com"),
        ("https://example.com", "https://example.com.evil.com"),
        ("https://example.com", "https://example.com."),
        ("https://example.com", "https://example.com/"),
        ("https://example.com", "https://evil.com#https://example.com"),
        ("https://example.com", "https://server.example"),  # names replace the rule of the same origin
        ("https://example.com", "null"),
        ("https://example.com", ""),
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://.example.com"),
        ("https://*.example.com", "https://a..example.com"),
        ("https://*.example.com", "https://evilexample.com"),
        ("https://*.example.com", "http://a.example.com"),
        ("https://*.example.com", "https://a.example.com:444"),
        ("https://*.example.com", "https://a.example.com.evil.com"),
        ("https://*.example.com", "https://evil.com/.example.com"),
        ("https://*.example.com", "https://evil.com#.example.com"),
        ("https://*.example.com", "https://evil.com%2f.example.com"),
        ("https://*.example.com", "https://user@a.example.com"),
        ("https://*.example.com", "https://*.example.com"),
    ],
)
def test_an_origin_that_is_not_named_is_not_allowed(name: str, origin: str) -> None:
    assert not policy(name).allows(origin, Authority("server.example", None))
