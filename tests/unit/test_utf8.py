"""c/utf8.c, and whole texts, which Python decodes: valid text comes through, and what cannot be valid fails at once."""

from __future__ import annotations

import re

import pytest

from tests.model import UTF8, UTF8_BEGUN, core_events, encode
from wsev._core.messages import Event, Limits, Parser
from wsev._core.rules import Violation

KEY = b"\x37\xfa\x21\x3d"
NO_LIMITS = Limits(max_message_size=0, max_fragments=0)
AS_BYTES = Limits(decode_text=False)

# The name, the bytes, and how many of them tell.
INVALID = [
    ("continuation 80", b"\x80", 1),
    ("continuation BF", b"\xbf", 1),
    ("overlong C0", b"\xc0\x80", 1),
    ("overlong C1", b"\xc1\xbf", 1),
    ("overlong E0 80", b"\xe0\x80\x80", 2),
    ("overlong E0 9F", b"\xe0\x9f\xbf", 2),
    ("overlong F0 80", b"\xf0\x80\x80\x80", 2),
    ("overlong F0 8F", b"\xf0\x8f\xbf\xbf", 2),
    ("surrogate ED A0", b"\xed\xa0\x80", 2),
    ("surrogate ED BF", b"\xed\xbf\xbf", 2),
    ("above U+10FFFF F4 90", b"\xf4\x90\x80\x80", 2),
    ("above U+10FFFF F4 BF", b"\xf4\xbf\xbf\xbf", 2),
    ("lead F5", b"\xf5\x80\x80\x80", 1),
    ("lead F8", b"\xf8\x88\x80\x80\x80", 1),
    ("lead FC", b"\xfc\x84\x80\x80\x80\x80", 1),
    ("byte FE", b"\xfe", 1),
    ("byte FF", b"\xff", 1),
    ("C3 then ASCII", b"\xc3a", 2),
    ("E2 82 then ASCII", b"\xe2\x82a", 3),
    ("E2 then lead", b"\xe2\xe2", 2),
    ("F0 9F 8C then ASCII", b"\xf0\x9f\x8ca", 4),
    ("F0 9F then lead", b"\xf0\x9f\xc3", 3),
    ("one continuation too many", b"\xc3\xa9\xa9", 3),
]
UNFINISHED = [b"\xc2", b"\xe2", b"\xe2\x82", b"\xed\x9f", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x8c", b"\xf4\x8f\xbf"]
EDGES = (
    "\x00\x01\x7e\x7f\x80\u07ff\u0800\u0fff\u1000\ucfff\ud000\ud7ff\ue000\ufffd\ufffe\uffff"
    "\U00010000\U0003ffff\U00040000\U000fffff\U00100000\U0010fffe\U0010ffff\ufeff\ufdd0"
)
OFFSETS = [*range(18), 30, 31, 32, 33, 63, 64, 65, 1000]

invalid = pytest.mark.parametrize("data, tells", [pytest.param(data, tells, id=name) for name, data, tells in INVALID])


def text_frame(payload: bytes, *, opcode: int = 1, fin: bool = True) -> bytes:
    return encode(opcode, payload, fin=fin, key=KEY)


def unfinished(limits: Limits = NO_LIMITS) -> Parser:
    """A parser inside a text frame whose masking key is zero, so that what is fed is its payload."""
    parser = Parser(limits)
    parser.feed(b"\x81\xff" + (2**20).to_bytes(8, "big") + bytes(4))
    assert parser.next() == Event.NEED_DATA
    return parser


def bytes_until_failure(data: bytes) -> int | None:
    parser = unfinished()
    for i in range(len(data)):
        parser.feed(data[i : i + 1])
        if parser.next() == Event.FAILED:
            assert parser.violation == Violation.TEXT_NOT_UTF8
            return i + 1
    return None


@invalid
def test_text_fails_at_the_first_byte_that_cannot_be(data: bytes, tells: int) -> None:
    assert bytes_until_failure(data) == tells


@invalid
@pytest.mark.parametrize("limits", [NO_LIMITS, AS_BYTES], ids=["str", "bytes"])
def test_invalid_bytes_are_found_at_each_offset_of_a_whole_frame(data: bytes, tells: int, limits: Limits) -> None:
    for offset in OFFSETS:
        assert core_events([text_frame(b"a" * offset + data)], limits) == [("FAILED", "TEXT_NOT_UTF8")]
        assert core_events([text_frame(b"a" * offset + data + b"a" * 40)], limits) == [("FAILED", "TEXT_NOT_UTF8")]


@invalid
def test_invalid_bytes_are_found_at_each_offset_of_an_unfinished_frame(data: bytes, tells: int) -> None:
    for offset in OFFSETS:
        parser = unfinished()
        parser.feed(b"a" * offset + data[: tells - 1])
        assert parser.next() == Event.NEED_DATA
        parser.feed(data[tells - 1 : tells])
        assert parser.next() == Event.FAILED


@invalid
def test_invalid_bytes_are_found_across_fragments(data: bytes, tells: int) -> None:
    fragments = [text_frame(b"a" * 20, fin=False)]
    fragments += [text_frame(data[i : i + 1], opcode=0, fin=False) for i in range(tells)]
    assert core_events(fragments[:-1], NO_LIMITS) == []
    assert core_events(fragments, NO_LIMITS) == [("FAILED", "TEXT_NOT_UTF8")]


@pytest.mark.parametrize("end", UNFINISHED, ids=bytes.hex)
@pytest.mark.parametrize("limits", [NO_LIMITS, AS_BYTES], ids=["str", "bytes"])
def test_a_code_point_that_ends_unfinished_fails_at_the_end_and_not_before(end: bytes, limits: Limits) -> None:
    failed = [("FAILED", "TEXT_NOT_UTF8")]
    assert core_events([text_frame(b"text" + end)], limits) == failed
    assert core_events([text_frame(b"text" + end, fin=False)], limits) == []
    assert core_events([text_frame(b"text" + end, fin=False), text_frame(b"", opcode=0)], limits) == failed
    whole = text_frame(b"text" + end)
    assert core_events([whole[:-1]], limits) == []
    assert core_events([whole[:-1], whole[-1:]], limits) == failed


@pytest.mark.parametrize("character", EDGES, ids=lambda character: f"U+{ord(character):04X}")
def test_the_edges_of_each_range_come_through_at_each_offset(character: str) -> None:
    for offset in OFFSETS:
        text = "a" * offset + character + "b" * 20
        whole = text_frame(text.encode())
        assert core_events([whole], NO_LIMITS) == [("TEXT", text)]
        assert core_events([whole], AS_BYTES) == [("TEXT", text.encode())]
        cut = 6 + offset + (2 if len(whole) >= 132 else 0) + 1  # behind the character's first byte
        assert core_events([whole[:cut], whole[cut:]], NO_LIMITS) == [("TEXT", text)]


def test_every_pair_of_a_lead_byte_and_an_edge_is_judged_as_the_rfc_does() -> None:
    for lead in range(256):
        for second in (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF):
            pair = bytes([lead, second])
            expected = re.fullmatch(UTF8 + UTF8_BEGUN, pair) is not None
            assert (bytes_until_failure(pair) is None) == expected, pair.hex()


@pytest.mark.parametrize("piece", [1000, 4099, 65_536])
def test_every_code_point_comes_through(piece: int) -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000, 31)]))
    data = text_frame(text.encode())
    assert core_events([data[i : i + piece] for i in range(0, len(data), piece)], NO_LIMITS) == [("TEXT", text)]
