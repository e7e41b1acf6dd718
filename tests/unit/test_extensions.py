"""Sec-WebSocket-Extensions as RFC 6455 section 9.1 has it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsev.handshake.extensions import parse_extensions

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
    assert time.process_time() - begin < 2.0  # quadratic: minutes


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
