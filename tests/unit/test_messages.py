"""Parser: what it makes of bytes, how early it judges them, and what it holds meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest

from tests.apart import MIB, at_most, needs_scarcity, run_apart
from tests.model import Said, core_events, drain, encode
from wsev._core.messages import Event, Limits, Parser
from wsev._core.rules import Violation

KEY = b"\x37\xfa\x21\x3d"
SERVER = Limits()
OPCODES = {"continuation": 0, "text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}
KIB = 1024


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A client's."""
    return encode(opcode, payload, fin=fin, rsv=rsv, key=KEY)


def header(opcode: int, size: int, *, fin: bool = True) -> bytes:
    """The header of a client's frame whose masking key is zero: its payload goes as it is."""
    first = (0x80 if fin else 0) | opcode
    if size < 126:
        return bytes([first, 0x80 | size]) + bytes(4)
    if size < 2**16:
        return bytes([first, 0xFE]) + size.to_bytes(2, "big") + bytes(4)
    return bytes([first, 0xFF]) + size.to_bytes(8, "big") + bytes(4)


def one_by_one(data: bytes) -> Iterable[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


def parse(data: bytes, limits: Limits = SERVER) -> list[Said]:
    """What the core makes of bytes that come at once, which is what it makes of them when they come one by one."""
    said = core_events([data], limits)
    assert core_events(one_by_one(data), limits) == said
    return said


def fed(*pieces: bytes, limits: Limits = SERVER) -> Parser:
    """A parser that was fed the pieces and has no more to say of them."""
    parser = Parser(limits)
    for piece in pieces:
        parser.feed(piece)
        list(drain(parser))
    return parser


# ------------------------------------------------------------------------------------------------------------ messages


@pytest.mark.parametrize(
    "data, said",
    [
        pytest.param(frame(1, b"Hello"), [("TEXT", "Hello")], id="text"),
        pytest.param(frame(1, "Grüße, 世界 🌍".encode()), [("TEXT", "Grüße, 世界 🌍")], id="text beyond ASCII"),
        pytest.param(frame(1), [("TEXT", "")], id="empty text"),
        pytest.param(frame(2, b"\x00\xff"), [("BINARY", b"\x00\xff")], id="binary"),
        pytest.param(frame(2), [("BINARY", b"")], id="empty binary"),
        pytest.param(frame(9, b"are you there"), [("PING", b"are you there")], id="ping"),
        pytest.param(frame(10), [("PONG", b"")], id="empty pong"),
        pytest.param(frame(9, bytes(125)), [("PING", bytes(125))], id="longest ping"),
        pytest.param(frame(1, b"a") + frame(2, b"b"), [("TEXT", "a"), ("BINARY", b"b")], id="two messages"),
        pytest.param(frame(1, b"Hel", fin=False) + frame(0, b"lo"), [("TEXT", "Hello")], id="fragments"),
        pytest.param(frame(2, fin=False) + frame(0), [("BINARY", b"")], id="empty fragments"),
        pytest.param(frame(1, fin=False) + frame(0, fin=False) + frame(0), [("TEXT", "")], id="empty text fragments"),
        pytest.param(
            frame(1, b"Hel", fin=False) + frame(9, b"1") + frame(0, fin=False) + frame(10, b"2") + frame(0, b"lo"),
            [("PING", b"1"), ("PONG", b"2"), ("TEXT", "Hello")],
            id="control frames between fragments",
        ),
        pytest.param(
            frame(1, b"\xc3", fin=False) + frame(9) + frame(0, b"\xa9"), [("PING", b""), ("TEXT", "é")], id="cut é"
        ),
        pytest.param(
            frame(2, b"\xc3", fin=False) + frame(0, b"\xc3"), [("BINARY", b"\xc3\xc3")], id="binary is no text"
        ),
    ],
)
def test_messages_and_control_frames_come_in_order(data: bytes, said: list[Said]) -> None:
    assert parse(data) == said


@pytest.mark.parametrize("opcode", [1, 2], ids=["text", "binary"])
@pytest.mark.parametrize("cut", [0, 1, 2, 3], ids=lambda cut: f"cut {cut} from the end")
def test_every_length_arrives_with_every_alignment_of_the_mask(opcode: int, cut: int) -> None:
    for size in [*range(301), 65_535, 65_536, 65_537]:
        payload = bytes(i % 125 for i in range(size))
        data = frame(opcode, payload)
        said = core_events([data[: len(data) - cut], data[len(data) - cut :]], SERVER)
        assert said == [(Event(opcode).name, payload.decode() if opcode == 1 else payload)]


@pytest.mark.parametrize("size", [1, 7, 8, 15, 16, 17, 31, 32, 33, 100, 300])
def test_one_character_beyond_ascii_is_seen_anywhere(size: int) -> None:
    for position in range(size):
        text = "a" * position + "é" + "a" * (size - position - 1)
        assert core_events([frame(1, text.encode())], SERVER) == [("TEXT", text)]


def test_a_client_reads_frames_without_mask() -> None:
    data = encode(1, b"Hel", fin=False) + encode(9) + encode(0, "ö".encode()) + encode(8, b"\x03\xe8")
    assert parse(data, Limits(is_client=True)) == [("PING", b""), ("TEXT", "Helö"), ("CLOSE", 1000, "")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(1, b"na\xc3\xafve"), id="whole"),
        pytest.param(frame(1, b"na\xc3", fin=False) + frame(0, b"\xafve"), id="in fragments"),
    ],
)
def test_text_stays_bytes_without_decode_text(data: bytes) -> None:
    assert parse(data, Limits(decode_text=False)) == [("TEXT", b"na\xc3\xafve")]


def test_bytes_that_are_fed_are_never_written_to() -> None:
    data = frame(1, b"text") + frame(1, "täxt".encode()) + frame(2, b"x" * 300) + frame(9, b"ping")
    kept = bytes(bytearray(data))  # a copy
    parse(data)
    assert data == kept


def test_a_payload_stays_as_it_was_while_the_parser_goes_on() -> None:
    parser = Parser(SERVER)
    parser.feed(frame(2, b"first") + frame(2, b"again"))
    parser.next()
    first = parser.payload
    parser.next()
    assert first == b"first"


def test_a_payload_that_nobody_took_is_not_kept() -> None:
    assert fed(frame(2, b"x" * 1000)).payload is None


# ---------------------------------------------------------------------------------------------------------- violations


def violations() -> Iterable[tuple[str, bytes, Violation]]:
    """Each violation for each opcode: the fewest bytes that tell."""
    for name, opcode in OPCODES.items():
        yield f"{name} without mask", bytes([0x80 | opcode, 0x00]), Violation.UNMASKED_FRAME
        yield f"{name} with RSV1", bytes([0xC0 | opcode, 0x80]), Violation.UNNEGOTIATED_COMPRESSION
        yield f"{name} with RSV2", bytes([0xA0 | opcode, 0x80]), Violation.RESERVED_BIT
        yield f"{name} with RSV3", bytes([0x90 | opcode, 0x80]), Violation.RESERVED_BIT
        if opcode >= 8:
            yield f"{name} without FIN", bytes([opcode, 0x80]), Violation.FRAGMENTED_CONTROL_FRAME
            yield f"{name} of 126 bytes", bytes([0x80 | opcode, 0xFE]), Violation.LONG_CONTROL_FRAME
            yield f"{name} of 64 KiB", bytes([0x80 | opcode, 0xFF]), Violation.LONG_CONTROL_FRAME
        else:
            short, long = bytes([0x80 | opcode, 0xFE]), bytes([0x80 | opcode, 0xFF])
            yield f"{name}, 125 in 16 bits", short + b"\x00\x7d", Violation.LENGTH_NOT_SHORTEST
            yield f"{name}, 65535 in 64 bits", long + (65_535).to_bytes(8, "big"), Violation.LENGTH_NOT_SHORTEST
            yield f"{name} of 2^63 bytes", long + (2**63).to_bytes(8, "big"), Violation.LENGTH_TOP_BIT
            yield f"{name} of 2^64 - 1 bytes", long + b"\xff" * 8, Violation.LENGTH_TOP_BIT
            for size in (2**20 + 1, 2**31, 2**32, 2**63 - 1):
                yield f"{name} of {size} bytes", long + size.to_bytes(8, "big"), Violation.MESSAGE_TOO_BIG
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", bytes([0x80 | opcode, 0x80]), Violation.RESERVED_OPCODE


VIOLATIONS = [pytest.param(data, violation, id=name) for name, data, violation in violations()]
OPCODE_BITS = 0x0F


def begin_message_for(data: bytes) -> bytes:
    """What must come before, so that the frame is wrong for one reason only."""
    return b"" if data[0] & OPCODE_BITS else frame(2, b"x", fin=False)


@pytest.mark.parametrize("data, violation", VIOLATIONS)
def test_a_violation_is_seen_at_the_byte_that_tells(data: bytes, violation: Violation) -> None:
    parser = fed(begin_message_for(data))
    for byte in one_by_one(data[:-1]):
        parser.feed(byte)
        assert parser.next() == Event.NEED_DATA
    parser.feed(data[-1:])
    assert parser.next() == Event.FAILED
    assert parser.violation == violation


@pytest.mark.parametrize("data, violation", VIOLATIONS)
def test_messages_before_a_violation_are_delivered(data: bytes, violation: Violation) -> None:
    good = frame(1, b"good")
    said = parse(good + begin_message_for(data) + data + bytes(200))
    assert said == [("TEXT", "good"), ("FAILED", violation.name)]


@pytest.mark.parametrize("data, violation", VIOLATIONS)
def test_a_violation_inside_a_fragmented_message_ends_it(data: bytes, violation: Violation) -> None:
    if violation in {Violation.LENGTH_NOT_SHORTEST, Violation.LENGTH_TOP_BIT, Violation.MESSAGE_TOO_BIG}:
        violation = violation if data[0] & OPCODE_BITS == 0 else Violation.UNFINISHED_MESSAGE
    assert parse(frame(1, b"begun", fin=False) + data + bytes(200)) == [("FAILED", violation.name)]


@pytest.mark.parametrize(
    "data, violation",
    [
        (frame(0), Violation.UNEXPECTED_CONTINUATION),
        (frame(0, fin=False), Violation.UNEXPECTED_CONTINUATION),
        (frame(2, fin=False) + frame(0) + frame(0), Violation.UNEXPECTED_CONTINUATION),
        (frame(1, fin=False) + frame(1), Violation.UNFINISHED_MESSAGE),
        (frame(2, fin=False) + frame(0, fin=False) + frame(2), Violation.UNFINISHED_MESSAGE),
    ],
)
def test_fragments_belong_to_one_message(data: bytes, violation: Violation) -> None:
    assert parse(data)[-1] == ("FAILED", violation.name)


@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
def test_a_server_does_not_mask(opcode: int) -> None:
    before = encode(2, fin=False) if opcode == 0 else b""
    assert parse(before + frame(opcode), Limits(is_client=True)) == [("FAILED", "MASKED_FRAME")]


def test_after_a_violation_nothing_is_looked_at_or_kept() -> None:
    parser = fed(frame(1, b"begun", fin=False), frame(3))
    assert parser.next() == Event.FAILED
    assert (parser.inside, parser.capacity, parser.payload) == (None, 0, None)
    parser.feed(frame(1, b"late"))
    assert parser.next() == Event.FAILED
    assert parser.reason == "a reserved opcode"


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("opcode", [1, 2], ids=["text", "binary"])
@pytest.mark.parametrize("limit", [1, 125, 126, 1000, 65_536])
def test_exactly_the_limit_is_allowed_and_one_more_is_not(opcode: int, limit: int) -> None:
    limits = Limits(max_message_size=limit)
    too_big = ("FAILED", "MESSAGE_TOO_BIG")
    payload = b"x" * limit
    message = (Event(opcode).name, payload.decode() if opcode == 1 else payload)
    assert core_events([frame(opcode, payload)], limits) == [message]
    assert core_events([header(opcode, limit + 1)[:-4]], limits) == [too_big]
    halves = frame(opcode, payload[: limit // 2], fin=False), frame(0, payload[limit // 2 :], fin=False)
    assert core_events([*halves, frame(0)], limits) == [message]
    assert core_events([*halves, header(0, 1)], limits) == [too_big]


def test_the_limit_counts_bytes_and_not_characters() -> None:
    limits = Limits(max_message_size=5)
    assert parse(frame(1, "éé".encode()), limits) == [("TEXT", "éé")]
    assert parse(frame(1, "ééé".encode()), limits) == [("FAILED", "MESSAGE_TOO_BIG")]


def test_0_is_no_limit() -> None:
    limits = Limits(max_message_size=0, max_fragments=0)
    assert core_events([header(2, 2**62)], limits) == []
    assert core_events([frame(2, fin=False) + frame(0, fin=False) * 20_000 + frame(0)], limits) == [("BINARY", b"")]


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "1 byte"])
def test_max_fragments_counts_the_frames_of_one_message(payload: bytes) -> None:
    limits = Limits(max_fragments=3)
    message = frame(2, payload, fin=False) + frame(0, payload, fin=False) + frame(9) + frame(0, payload)
    twice = [("PING", b""), ("BINARY", 3 * payload)] * 2
    assert parse(message * 2, limits) == twice
    four = frame(2, payload, fin=False) + frame(0, payload, fin=False) * 2 + header(0, 0)[:2]
    assert parse(four, limits) == [("FAILED", "TOO_MANY_FRAGMENTS")]


def test_control_frames_count_for_no_limit() -> None:
    limits = Limits(max_message_size=1, max_fragments=1)
    assert parse(frame(9, bytes(125)) * 3, limits) == [("PING", bytes(125))] * 3


def test_sizes_do_not_overflow() -> None:
    limits = Limits(max_message_size=0)
    assert parse(frame(2, b"x", fin=False) + header(0, 2**63 - 1), limits) == [("FAILED", "MESSAGE_TOO_BIG")]


# ------------------------------------------------------------------------------------------------------------- closing

GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


@pytest.mark.parametrize("code", GOOD_CODES)
def test_a_close_code_that_may_be_sent_comes_through(code: int) -> None:
    assert parse(frame(8, code.to_bytes(2, "big") + "tschüß".encode())) == [("CLOSE", code, "tschüß")]


@pytest.mark.parametrize("code", BAD_CODES)
def test_a_close_code_that_may_not_be_sent_is_a_violation(code: int) -> None:
    assert parse(frame(8, code.to_bytes(2, "big"))) == [("FAILED", "CLOSE_CODE_NOT_ALLOWED")]


def test_a_close_frame_without_code_stands_for_1005() -> None:
    assert parse(frame(8)) == [("CLOSE", 1005, "")]


def test_a_close_body_of_one_byte_is_a_violation() -> None:
    assert parse(frame(8, b"\x03")) == [("FAILED", "CLOSE_BODY_OF_ONE_BYTE")]


@pytest.mark.parametrize("reason", [b"\xff", b"\xc3", b"ok\xed\xa0\x80", b"\xf0\x9f\x8c"], ids=bytes.hex)
def test_a_close_reason_is_utf8(reason: bytes) -> None:
    assert parse(frame(8, b"\x03\xe8" + reason)) == [("FAILED", "CLOSE_REASON_NOT_UTF8")]


def test_the_longest_close_reason_comes_through() -> None:
    assert parse(frame(8, b"\x03\xe8" + b"r" * 123)) == [("CLOSE", 1000, "r" * 123)]


@pytest.mark.parametrize("behind", [frame(1, b"late"), frame(3), b"\x81"], ids=["message", "violation", "half"])
def test_nothing_behind_a_close_frame_is_looked_at(behind: bytes) -> None:
    assert parse(frame(8, b"\x03\xe8") + behind) == [("CLOSE", 1000, "")]


def test_what_came_behind_a_close_frame_can_be_told() -> None:
    parser = Parser(SERVER)
    parser.feed(frame(8) + b"behind")
    assert parser.next() == Event.CLOSE
    assert parser.take_rest() == b"behind"


def test_a_close_frame_between_fragments_ends_their_message() -> None:
    parser = Parser(SERVER)
    parser.feed(frame(1, b"begun", fin=False) + frame(8))
    assert parser.next() == Event.CLOSE
    assert (parser.inside, parser.capacity) == (None, 0)
    assert parser.next() == Event.NEED_DATA


# ------------------------------------------------------------------------------------------- what is held, and how much


def test_an_idle_parser_takes_80_bytes() -> None:
    assert sys.getsizeof(Parser(SERVER)) == 80


@pytest.mark.parametrize("claimed", [1_048_576, 10_000_000, 2**40])
def test_memory_follows_what_has_come_and_not_what_a_header_claims(claimed: int) -> None:
    parser = Parser(Limits(max_message_size=0))
    come = 0
    parser.feed(header(2, claimed))
    assert parser.next() == Event.NEED_DATA
    assert parser.capacity == 0
    for size in [1, KIB, KIB, 100 * KIB, 200 * KIB]:
        parser.feed(bytes(size))
        assert parser.next() == Event.NEED_DATA
        come += size
        assert come <= parser.capacity <= 2 * come + 64 * KIB
        assert parser.inside == come


def test_a_claim_below_64_kib_is_trusted_and_no_byte_more_is_reserved() -> None:
    assert fed(header(2, 60_000) + b"x").capacity == 60_000


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_fragments_cost_what_they_carry(size: int) -> None:
    parser = Parser(SERVER)
    parser.feed(frame(2, bytes(size), fin=False))
    assert parser.next() == Event.NEED_DATA
    for count in range(2, 100):
        parser.feed(frame(0, bytes(size), fin=False))
        assert parser.next() == Event.NEED_DATA
        assert parser.capacity <= 2 * count * size + 64 * KIB
        assert parser.inside == count * size


def test_small_fragments_reserve_twice_what_came_at_most() -> None:
    parser = fed(frame(1, b"x", fin=False), *[frame(0, b"x", fin=False)] * 99)
    assert 100 <= parser.capacity <= 200


def test_empty_fragments_reserve_nothing() -> None:
    assert fed(frame(1, fin=False), *[frame(0, fin=False)] * 100).capacity == 0


@pytest.mark.parametrize(
    "pieces, inside",
    [
        pytest.param([], None, id="nothing yet"),
        pytest.param([frame(1, b"whole")], None, id="whole message"),
        pytest.param([b"\x81"], 1, id="half a header"),
        pytest.param([frame(1, b"whole") + frame(2, bytes(200))[:7]], 7, id="a header behind a message"),
        pytest.param([header(2, 10)], 0, id="header"),
        pytest.param([header(2, 10) + b"abc", b"def"], 6, id="half a payload"),
        pytest.param([frame(1, b"abc", fin=False)], 3, id="between fragments"),
        pytest.param([frame(1, b"abc", fin=False), b"\x80"], 4, id="next fragment's header"),
        pytest.param([frame(1, b"abc", fin=False) + header(9, 5) + b"de"], 5, id="ping between fragments"),
        pytest.param([frame(1, b"abc", fin=False), frame(0, b"def")], None, id="last fragment"),
        pytest.param([header(9, 5) + b"de"], 2, id="half a ping"),
        pytest.param([header(9, 5) + b"de", b"fgh"], None, id="whole ping in pieces"),
        pytest.param([header(8, 2) + b"\x03"], 1, id="half a close"),
        pytest.param([frame(8)], None, id="close"),
    ],
)
def test_the_parser_knows_what_is_unfinished(pieces: list[bytes], inside: int | None) -> None:
    assert fed(*pieces).inside == inside


def test_two_messages_in_pieces_do_not_mix() -> None:
    first, second = frame(2, b"1" * 5000), frame(1, b"2" * 100)
    data = first + second
    assert core_events([data[:3000], data[3000:5050], data[5050:]], SERVER) == [
        ("BINARY", b"1" * 5000),
        ("TEXT", "2" * 100),
    ]


# ------------------------------------------------------------------------------------------------------- how it is used


def test_parsing_stops_between_two_events_and_goes_on_with_the_rest() -> None:
    parser = Parser(SERVER)
    behind = frame(0, b"lo") + frame(2, b"last")
    parser.feed(frame(1, b"Hel", fin=False) + frame(9) + behind)
    assert parser.next() == Event.PING
    rest = parser.take_rest()
    assert rest == behind
    assert parser.next() == Event.NEED_DATA
    assert parser.take_rest() == b""
    parser.feed(rest)
    assert list(drain(parser)) == [("TEXT", "Hello"), ("BINARY", b"last")]


def test_feeding_before_all_is_used_up_is_the_callers_mistake() -> None:
    parser = Parser(SERVER)
    parser.feed(frame(9))
    with pytest.raises(ValueError, match=r"call next\(\)"):
        parser.feed(frame(9))
    assert list(drain(parser)) == [("PING", b"")]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_may_be_fed(kind: type) -> None:
    parser = Parser(SERVER)
    parser.feed(kind(frame(1, b"Hello")))
    assert list(drain(parser)) == [("TEXT", "Hello")]


def test_a_buffer_may_be_reused_once_it_was_fed() -> None:
    parser = Parser(SERVER)
    buffer = bytearray(frame(1, b"Hello"))
    parser.feed(buffer)
    buffer[:] = bytes(len(buffer))
    assert list(drain(parser)) == [("TEXT", "Hello")]


def test_feeding_nothing_changes_nothing() -> None:
    assert core_events([b"", frame(1, b"a")[:3], b"", frame(1, b"a")[3:], b""], SERVER) == [("TEXT", "a")]


def test_a_parser_may_be_dropped_in_the_middle() -> None:
    for pieces in ([frame(1, b"begun", fin=False)], [header(2, 100) + b"x"], [b"\x81"]):
        parser = fed(*pieces)
        parser.feed(b"\x00")
        del parser


def test_a_parser_needs_limits() -> None:
    with pytest.raises(TypeError):
        Parser(None)  # type: ignore[arg-type]  # the claim


def test_limits_have_defaults() -> None:
    limits = Limits()
    assert (limits.max_message_size, limits.max_fragments) == (1_048_576, 16_384)
    assert (limits.is_client, limits.decode_text, limits.rsv1_allowed) == (False, True, False)


# ------------------------------------------------------------------------------------------------------ want of memory


def lose_a_message_for_want_of_memory() -> None:
    parser = Parser(Limits(max_message_size=0))
    piece = b"p" * MIB
    parser.feed(header(2, 32 * MIB))
    assert parser.next() == Event.NEED_DATA
    come = 0
    with pytest.raises(MemoryError), at_most(4 * MIB):
        while come < 32 * MIB:
            parser.feed(piece)
            assert parser.next() == Event.NEED_DATA
            come += MIB
    assert come > 0
    assert (parser.inside, parser.capacity, parser.payload) == (None, 0, None)
    parser.take_rest()
    for _ in range(come // MIB, 32):
        parser.feed(piece)
        assert parser.next() == Event.NEED_DATA
    parser.feed(frame(1, b"late"))
    assert parser.next() == Event.NEED_DATA
    assert (parser.inside, parser.capacity, parser.payload) == (None, 0, None)


@pytest.mark.slow
@needs_scarcity
def test_after_a_message_for_which_there_was_no_memory_nothing_is_looked_at_or_kept() -> None:
    run_apart(lose_a_message_for_want_of_memory)
