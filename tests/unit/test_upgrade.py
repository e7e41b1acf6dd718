"""The rules of RFC 6455 section 4.2.1, one by one, as pure functions."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requests import ACCEPT, CHROME, FIREFOX, KEY, SAFARI, request, wire
from wsev._core.head import Head, HeadLimits, HeadReader
from wsev.handshake.origin import Authority, OriginPolicy
from wsev.handshake.response import Response
from wsev.handshake.upgrade import (
    Upgrade,
    accept_key_of,
    check_framing,
    check_host,
    check_upgrade,
    check_version,
    has_body,
    is_upgrade,
)

HOST = Authority("example.com", None)


def head_of(raw: bytes) -> Head:
    head = HeadReader(HeadLimits()).feed(raw)
    assert isinstance(head, Head)
    return head


def judge(raw: bytes, *subprotocols: str) -> Upgrade | Response:
    return check_upgrade(head_of(raw), HOST, OriginPolicy(None), subprotocols)


def test_the_rfcs_own_key_has_the_rfcs_own_answer() -> None:
    assert accept_key_of(KEY) == ACCEPT


@pytest.mark.parametrize("text", [FIREFOX, CHROME, SAFARI], ids=["firefox", "chrome", "safari"])
def test_a_browser_is_accepted(text: str) -> None:
    head = head_of(wire(text))
    assert is_upgrade(head)
    assert check_host(head) == HOST
    assert check_upgrade(head, HOST, OriginPolicy(None), ()) == Upgrade(ACCEPT, (), None)


@pytest.mark.parametrize(
    "upgrade", ["websocket", "WebSocket", "WEBSOCKET", "h2c, websocket", ",websocket ,", ["h2c", "websocket"]], ids=repr
)
@pytest.mark.parametrize(
    "connection",
    [
        "Upgrade",
        "upgrade",
        "keep-alive, Upgrade",
        "UPGRADE,keep-alive",
        ", upgrade,,",
        "\tupgrade",
        ["keep-alive", "Upgrade"],
    ],
    ids=repr,
)
def test_tokens_are_found_in_any_case_and_list(upgrade: str | list[str], connection: str | list[str]) -> None:
    assert is_upgrade(head_of(request(upgrade=upgrade, connection=connection)))


@pytest.mark.parametrize(
    ("upgrade", "connection"),
    [
        (None, "Upgrade"),
        ("websocket", None),
        ("", "Upgrade"),
        ("websocket", ""),
        ("h2c", "Upgrade"),
        ("websockets", "Upgrade"),
        ("web socket", "Upgrade"),
        ("websocket/13", "Upgrade"),
        ("websocket", "keep-alive"),
        ("websocket", "Upgrades"),
        ("websocket", "no-upgrade"),
        ("websocket;Upgrade", "Upgrade"),
        ("websocket\xa0", "Upgrade"),
    ],
    ids=repr,
)
def test_without_both_tokens_it_is_plain_http(upgrade: str | None, connection: str | None) -> None:
    assert not is_upgrade(head_of(request(upgrade=upgrade, connection=connection)))


def test_http_1_0_has_no_upgrade() -> None:
    assert not is_upgrade(head_of(request("GET /chat HTTP/1.0")))


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "GET / HTTP/1.0", "POST /a HTTP/1.1"])
def test_http_1_is_spoken(line: str) -> None:
    assert check_version(head_of(request(line))) is None


@pytest.mark.parametrize("line", ["GET / HTTP/2.0", "PRI * HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/1.2"])
def test_other_versions_are_refused(line: str) -> None:
    refusal = check_version(head_of(request(line)))
    assert refusal is not None
    assert refusal.status == 505


@pytest.mark.parametrize(
    ("target", "host", "authority"),
    [
        ("/", "example.com", ("example.com", None)),
        ("/", "[::1]:8000", ("[::1]", 8000)),
        ("/?a=http://b", "example.com", ("example.com", None)),
        ("http://other.example:81/a", "example.com", ("other.example", 81)),
        ("HTTPS://other.example", "example.com", ("other.example", None)),
        ("ws://other.example?a", "example.com", ("other.example", None)),
    ],
)
def test_the_targets_authority_stands_for_host(target: str, host: str, authority: tuple[str, int | None]) -> None:
    assert check_host(head_of(request(f"GET {target} HTTP/1.1", host=host))) == authority


@pytest.mark.parametrize(
    "host", [None, "", ["a", "a"], ["a", "b"], "a b", "a, b", "a@b", "http://a", "a/b", "[::1", "a:x"], ids=repr
)
@pytest.mark.parametrize("target", ["/", "http://example.com/"])
def test_no_host_two_or_a_wrong_one_is_400(host: str | list[str] | None, target: str) -> None:
    refusal = check_host(head_of(request(f"GET {target} HTTP/1.1", host=host)))
    assert isinstance(refusal, Response)
    assert refusal.status == 400


def test_http_1_0_needs_no_host() -> None:
    assert not isinstance(check_host(head_of(request("GET / HTTP/1.0", host=None))), Response)


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "example.com:80",
        "/a#b",
        "http:///a",
        "http://",
        "http://user@h/",
        "ftp://h/",
        "x",
        "/\xe4",
        "/?\xff",
        "://h/",
    ],
    ids=ascii,
)
def test_a_target_of_another_form_is_400(target: str) -> None:
    refusal = check_host(head_of(request(f"GET {target} HTTP/1.1")))
    assert isinstance(refusal, Response)
    assert refusal.status == 400


GOOD = {
    "no length": {},
    "a length of 0": {"content_length": "0"},
    "an empty first element": {"sec_websocket_protocol": ", chat"},
    "unknown extensions": {"sec_websocket_extensions": 'x-a; b="c", x-d'},
    "deflate that cannot be": {"sec_websocket_extensions": "permessage-deflate; client_max_window_bits=99"},
    "extensions in two lines": {"sec_websocket_extensions": ["a", "b"]},
    "a key that is not canonical": {"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZR=="},
    "non-ASCII elsewhere": {"x_name": "Zo\xeb \xff"},
    "no value elsewhere": {"x_name": ""},
    "the same origin": {"origin": "http://example.com"},
}


@pytest.mark.parametrize("fields", GOOD.values(), ids=GOOD)
def test_what_is_right_is_accepted(fields: dict[str, str | list[str]]) -> None:
    assert isinstance(judge(request("GET /chat HTTP/1.1", **fields)), Upgrade)


BAD: list[tuple[str, str | list[str] | None, int]] = [
    ("content_length", "5", 400),
    ("content_length", "00", 400),
    ("content_length", "", 400),
    ("content_length", ["0", "0"], 400),
    ("transfer_encoding", "chunked", 400),
    ("transfer_encoding", "identity", 400),
    ("transfer_encoding", "", 400),
    ("sec_websocket_version", None, 400),
    ("sec_websocket_version", "", 400),
    ("sec_websocket_version", ["13", "13"], 400),
    ("sec_websocket_version", "13, 8", 400),
    ("sec_websocket_version", "thirteen", 400),
    ("sec_websocket_version", "013", 400),
    ("sec_websocket_version", "13.0", 400),
    ("sec_websocket_version", "-13", 400),
    ("sec_websocket_version", "+13", 400),
    ("sec_websocket_version", "1\xb3", 400),  # isdigit() says yes
    ("sec_websocket_version", "0", 426),
    ("sec_websocket_version", "7", 426),
    ("sec_websocket_version", "8", 426),
    ("sec_websocket_version", "12", 426),
    ("sec_websocket_version", "14", 426),
    ("sec_websocket_version", "255", 426),
    ("sec_websocket_key", None, 400),
    ("sec_websocket_key", "", 400),
    ("sec_websocket_key", [KEY, KEY], 400),
    ("sec_websocket_key", "dGhlIHNhbXBsZSBub25jZQ", 400),
    ("sec_websocket_key", "dGhlIHNhbXBsZSBub25j", 400),
    ("sec_websocket_key", "dGhlIHNhbXBsZSBub25jZQ===", 400),
    ("sec_websocket_key", "dGhlIHNhbXBsZSBub25jZXM=", 400),
    ("sec_websocket_key", "dGhlIHNhbXBsZSBub25jZQ=x", 400),
    ("sec_websocket_key", "dGhlIHNhbXBsZSBub25j_Q==", 400),
    ("sec_websocket_key", "dGhl IHNhbXBsZSBub25jQ==", 400),
    ("sec_websocket_key", "\xe4GhlIHNhbXBsZSBub25jZQ==", 400),
    ("sec_websocket_protocol", "", 400),
    ("sec_websocket_protocol", ",", 400),
    ("sec_websocket_protocol", "a, a", 400),
    ("sec_websocket_protocol", ["a", "a"], 400),
    ("sec_websocket_protocol", "a b", 400),
    ("sec_websocket_protocol", "a/b", 400),
    ("sec_websocket_protocol", '"a"', 400),
    ("sec_websocket_protocol", "a;q=1", 400),
    ("sec_websocket_protocol", "ch\xe4t", 400),
    ("sec_websocket_protocol", "b" + " " * 7000 + "x", 400),
    ("sec_websocket_extensions", "", 400),
    ("sec_websocket_extensions", "a;", 400),
    ("sec_websocket_extensions", 'a; b="c', 400),
    ("sec_websocket_extensions", ["a", "b;"], 400),
    ("origin", "http://evil.example", 403),
    ("origin", "null", 403),
    ("origin", "", 403),
    ("origin", ["http://example.com", "http://example.com"], 400),
]


@pytest.mark.parametrize(("field", "value", "status"), BAD, ids=lambda value: ascii(value)[:40])
def test_what_is_wrong_is_refused(field: str, value: str | list[str] | None, status: int) -> None:
    refusal = judge(request("GET /chat HTTP/1.1", **{field: value}))
    assert isinstance(refusal, Response)
    assert refusal.status == status
    assert refusal.body.isascii()


@pytest.mark.parametrize(
    ("ours", "offered", "chosen"),
    [
        ((), "a, b", None),
        (("a",), "a", "a"),
        (("a", "b"), "b, a", "a"),
        (("c", "b"), "a, b", "b"),
        (("c",), "a, b", None),
        (("a",), None, None),
        (("A",), "a", None),
    ],
)
def test_the_first_of_our_subprotocols_that_is_offered_is_chosen(
    ours: tuple[str, ...], offered: str | None, chosen: str | None
) -> None:
    upgrade = judge(request(sec_websocket_protocol=offered), *ours)
    assert isinstance(upgrade, Upgrade)
    assert upgrade.subprotocol == chosen


@pytest.mark.parametrize(
    "fields",
    [
        {"connection": ", ".join(["a"] * 100_000)},
        {"upgrade": ", ".join(["a"] * 100_000)},
        {"sec_websocket_protocol": ", ".join(f"a{n}" for n in range(50_000))},
        {"sec_websocket_extensions": ", ".join(["a"] * 50_000)},
        {"origin": "http://" + "%41" * 50_000 + "%"},
        {"host": "a" * 200_000 + "/"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_junk_takes_linear_time(fields: dict[str, str]) -> None:
    begin = time.process_time()
    head = head_of(request(**fields))
    is_upgrade(head)
    check_host(head)
    check_upgrade(head, HOST, OriginPolicy(None), ("b",))
    assert time.process_time() - begin < 2.0  # quadratic: minutes


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"content_length": "0"}, False),
        ({"content_length": "1"}, True),
        ({"transfer_encoding": "x"}, True),
    ],
)
def test_a_body_is_seen(fields: dict[str, str], expected: bool) -> None:
    assert has_body(head_of(request(**fields))) is expected


@pytest.mark.parametrize(
    ("fields", "is_clear"),
    [
        ({}, True),
        ({"content_length": "0"}, True),
        ({"content_length": "05"}, True),
        ({"content_length": ""}, False),
        ({"content_length": "-1"}, False),
        ({"content_length": "5x"}, False),
        ({"content_length": "5, 5"}, False),
        ({"content_length": ["5", "5"]}, False),
        ({"content_length": "\xb2"}, False),  # isdigit() says yes
        ({"transfer_encoding": "chunked"}, True),
        ({"transfer_encoding": "gzip, Chunked"}, True),
        ({"transfer_encoding": ["gzip", "chunked"]}, True),
        ({"transfer_encoding": "chunked, gzip"}, False),
        ({"transfer_encoding": "identity"}, False),
        ({"transfer_encoding": ""}, False),
        ({"transfer_encoding": "chunked", "content_length": "5"}, False),
    ],
    ids=repr,
)
def test_a_request_whose_end_is_not_clear_is_400(fields: dict[str, str | list[str]], is_clear: bool) -> None:
    refusal = check_framing(head_of(request(**fields)))
    assert (refusal.status if refusal else None) == (None if is_clear else 400)


NAMES = [
    "host",
    "upgrade",
    "connection",
    "origin",
    "content_length",
    "sec_websocket_key",
    "sec_websocket_version",
    "sec_websocket_protocol",
    "sec_websocket_extensions",
]
VISIBLE = "".join(map(chr, [*range(0x21, 0x7F), *range(0x80, 0x100)]))
VALUES = st.text(alphabet=VISIBLE + " \t", max_size=30)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3), st.text(VISIBLE, min_size=1, max_size=20))
def test_nothing_that_comes_raises(fields: dict[str, str], target: str) -> None:
    head = head_of(request(f"GET {target} HTTP/1.1", **fields))
    is_upgrade(head)
    check_framing(head)
    check_host(head)
    check_upgrade(head, HOST, OriginPolicy(["https://*.example.com", "null"]), ("a",))
