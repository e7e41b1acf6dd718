"""Sec-WebSocket-Extensions as RFC 6455 section 9.1 has it, and what of permessage-deflate is agreed on."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsev.handshake.extensions import DeflatePolicy, agree, encode_parameters, parse_extensions

GOOD = {
    "foo": [("foo", [])],
    "foo, bar": [("foo", []), ("bar", [])],
    "foo,bar; baz=2": [("foo", []), ("bar", [("baz", "2")])],  # RFC 6455 section 9.1's own
    "foo; baz=2, foo; baz=3": [("foo", [("baz", "2")]), ("foo", [("baz", "3")])],
    "permessage-deflate; client_max_window_bits": [("permessage-deflate", [("client_max_window_bits", None)])],
    "x-webkit-deflate-frame, permessage-deflate": [("x-webkit-deflate-frame", []), ("permessage-deflate", [])],
    'a; b="10"': [("a", [("b", "10")])],
    r'a; b="1\0"': [("a", [("b", "10")])],
    "a;b;c=d": [("a", [("b", None), ("c", "d")])],
    "a ; b = c": [("a", [("b", "c")])],
    " \ta\t;\tb\t": [("a", [("b", None)])],
    ",, a ,\t, b ,": [("a", []), ("b", [])],
}


@pytest.mark.parametrize("value", GOOD, ids=ascii)
def test_a_well_formed_value_is_read(value: str) -> None:
    assert parse_extensions(value) == GOOD[value]


BAD = [
    "",
    " ",
    ",",
    ", ,",
    ";",
    "a;",
    "a; ",
    "a;;b",
    "a b",
    "a; b c",
    "a; =c",
    "a; b=",
    "a; b=,c",
    "a=b",
    'a; b="',
    'a; b="c',
    'a; b="c\\',
    'a; b="c\\"',
    'a; b=""',
    'a; b="c d"',
    'a; b="c,d"',
    'a; b="c"d',
    'a; b="c" d',
    "a; b=c=d",
    '"a"',
    "a/b",
    "ä",
    "a; b=ä",
    "a; b=c;",
    "a\x0b",
    "a, ;b",
    "a;\xa0b",
]


@pytest.mark.parametrize("value", BAD, ids=ascii)
def test_a_malformed_value_is_none(value: str) -> None:
    assert parse_extensions(value) is None


@pytest.mark.parametrize(
    "value",
    [
        'a; b="' + '\\"' * 100_000,
        'a; b="' + "\\" * 200_001,
        "b" + " " * 200_000 + "x",
        "a;" + "b;" * 100_000,
        "a," * 100_000,
        "a" + "; b=c" * 50_000,
        "," * 200_000,
        "a; b=" + " " * 200_000,
        "a" * 200_000 + "(",
    ],
    ids=lambda value: value[:8],
)
def test_junk_of_200_kb_takes_linear_time(value: str) -> None:
    begin = time.process_time()
    parse_extensions(value)
    assert time.process_time() - begin < 10.0  # quadratic: minutes; sanitizers: some seconds


@given(st.text(alphabet='ab;=," \t\\', max_size=30))
def test_what_was_read_is_written_the_same(value: str) -> None:
    """Whatever is accepted can be written down again, and read as the same."""
    offers = parse_extensions(value)
    if offers is not None:
        written = ", ".join(
            "; ".join([name, *(key if text is None else f"{key}={text}" for key, text in parameters)])
            for name, parameters in offers
        )
        assert parse_extensions(written) == offers


SHARED = DeflatePolicy(is_shared=True, window_bits=12)
DEDICATED = DeflatePolicy(is_shared=False, window_bits=12)
DEFLATE = "permessage-deflate"
BOTH = "; server_no_context_takeover; client_no_context_takeover"

# What is offered, and what is answered to it: shared, dedicated.
AGREED = {
    # Chrome and Firefox; Safari
    f"{DEFLATE}; client_max_window_bits": (f"{DEFLATE}{BOTH}", f"{DEFLATE}; client_max_window_bits=12"),
    DEFLATE: (f"{DEFLATE}{BOTH}", DEFLATE),
    f"{DEFLATE}; client_max_window_bits=10": (f"{DEFLATE}{BOTH}", f"{DEFLATE}; client_max_window_bits=10"),
    f"{DEFLATE}; client_max_window_bits=8": (f"{DEFLATE}{BOTH}", f"{DEFLATE}; client_max_window_bits=8"),
    f'{DEFLATE}; client_max_window_bits="15"': (f"{DEFLATE}{BOTH}", f"{DEFLATE}; client_max_window_bits=12"),
    f"{DEFLATE}; server_max_window_bits=9": (
        f"{DEFLATE}{BOTH}; server_max_window_bits=9",
        f"{DEFLATE}; server_max_window_bits=9",
    ),
    f"{DEFLATE}; server_max_window_bits=15": (
        f"{DEFLATE}{BOTH}; server_max_window_bits=15",
        f"{DEFLATE}; server_max_window_bits=12",
    ),
    f"{DEFLATE}; server_no_context_takeover": (f"{DEFLATE}{BOTH}", f"{DEFLATE}; server_no_context_takeover"),
    f"{DEFLATE}; client_no_context_takeover": (f"{DEFLATE}{BOTH}", f"{DEFLATE}; client_no_context_takeover"),
    f"x, {DEFLATE}; unknown, {DEFLATE}; server_max_window_bits=10; client_max_window_bits": (
        f"{DEFLATE}{BOTH}; server_max_window_bits=10",
        f"{DEFLATE}; server_max_window_bits=10; client_max_window_bits=12",
    ),
    f"{DEFLATE}; server_max_window_bits=8, {DEFLATE}": (f"{DEFLATE}{BOTH}", DEFLATE),
}


@pytest.mark.parametrize("value", AGREED, ids=ascii)
def test_an_offer_of_deflate_is_answered(value: str) -> None:
    for policy, answer in zip((SHARED, DEDICATED), AGREED[value], strict=True):
        offers = parse_extensions(value)
        assert offers is not None
        agreed = agree(offers, policy)
        assert agreed is not None
        assert encode_parameters(agreed) == answer


@pytest.mark.parametrize(
    "parameters",
    [
        "unknown",
        "unknown=1",
        "server_no_context_takeover=1",
        "client_no_context_takeover=1",
        "server_no_context_takeover; server_no_context_takeover",
        "client_max_window_bits; client_max_window_bits",
        "client_max_window_bits; client_max_window_bits=10",
        "server_max_window_bits",
        "server_max_window_bits=8",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=1",
        "server_max_window_bits=1000000000000",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=08",
        "client_max_window_bits=x",
        "client_max_window_bits=+9",
        "Server_No_Context_Takeover",
    ],
)
@pytest.mark.parametrize("policy", [SHARED, DEDICATED], ids=["shared", "dedicated"])
def test_an_offer_that_cannot_be_had_is_passed_over(parameters: str, policy: DeflatePolicy) -> None:
    offers = parse_extensions(f"{DEFLATE}; {parameters}")
    assert offers is not None
    assert agree(offers, policy) is None


@pytest.mark.parametrize("value", ["x", "permessage-deflates", "PERMESSAGE-DEFLATE", "permessage-bzip2, x-webkit"])
def test_extensions_with_other_names_are_passed_over(value: str) -> None:
    assert agree(parse_extensions(value) or [], SHARED) is None
