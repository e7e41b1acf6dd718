"""What RFC 6455 section 5 allows, rule by rule, and how early a header's bytes tell."""

from __future__ import annotations

import pytest

from wsev._core.rules import Violation, check_header, close_code_of, may_receive_close_code, reason_of

DATA = {"continuation": 0, "text": 1, "binary": 2}
CONTROL = {"close": 8, "ping": 9, "pong": 10}
OPCODES = DATA | CONTROL
FIN, RSV1, RSV2, RSV3, MASK = 0x80, 0x40, 0x20, 0x10, 0x80


def check(header: bytes, **before: int) -> Violation:
    """Judge a client's frame; a continuation comes where one belongs."""
    return check_header(header, inside_message=header[0] & 15 == 0, **before)  # type: ignore[arg-type]


@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
def test_a_frame_in_order_is_allowed(opcode: int) -> None:
    assert check(bytes([FIN | opcode, MASK | 125]) + b"keys") == Violation.OK


@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
def test_a_clients_frame_must_be_masked(opcode: int) -> None:
    assert check(bytes([FIN | opcode, 5])) == Violation.UNMASKED_FRAME


@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
def test_a_servers_frame_must_not_be_masked(opcode: int) -> None:
    inside = opcode == 0
    assert check_header(bytes([FIN | opcode, 5]), is_client=True, inside_message=inside) == Violation.OK
    masked = bytes([FIN | opcode, MASK | 5])
    assert check_header(masked, is_client=True, inside_message=inside) == Violation.MASKED_FRAME


@pytest.mark.parametrize("rsv", [RSV2, RSV3, RSV2 | RSV3, RSV1 | RSV2, RSV1 | RSV3, RSV1 | RSV2 | RSV3], ids=hex)
@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
def test_rsv2_and_rsv3_are_reserved(opcode: int, rsv: int) -> None:
    assert check(bytes([FIN | rsv | opcode, MASK])) == Violation.RESERVED_BIT
    assert check(bytes([FIN | rsv | opcode, MASK]), rsv1_allowed=True) == Violation.RESERVED_BIT


@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
def test_rsv1_must_be_negotiated(opcode: int) -> None:
    assert check(bytes([FIN | RSV1 | opcode, MASK])) == Violation.UNNEGOTIATED_COMPRESSION


@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
def test_negotiated_rsv1_belongs_on_the_first_frame_of_a_data_message(opcode: int) -> None:
    allowed = opcode in {1, 2}
    verdict = check(bytes([FIN | RSV1 | opcode, MASK]), rsv1_allowed=True)
    assert verdict == (Violation.OK if allowed else Violation.UNNEGOTIATED_COMPRESSION)


@pytest.mark.parametrize("fin", [0, FIN], ids=["fragment", "fin"])
@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)])
def test_other_opcodes_are_reserved(opcode: int, fin: int) -> None:
    assert check(bytes([fin | opcode, MASK])) == Violation.RESERVED_OPCODE


@pytest.mark.parametrize("opcode", CONTROL.values(), ids=CONTROL)
def test_a_control_frame_must_not_be_fragmented(opcode: int) -> None:
    assert check(bytes([opcode, MASK])) == Violation.FRAGMENTED_CONTROL_FRAME


@pytest.mark.parametrize("length", [126, 127])
@pytest.mark.parametrize("opcode", CONTROL.values(), ids=CONTROL)
def test_a_control_frame_has_125_bytes_at_most(opcode: int, length: int) -> None:
    assert check(bytes([FIN | opcode, MASK | length])) == Violation.LONG_CONTROL_FRAME


@pytest.mark.parametrize("fin", [0, FIN], ids=["fragment", "fin"])
def test_a_continuation_continues_something(fin: int) -> None:
    assert check_header(bytes([fin, MASK])) == Violation.UNEXPECTED_CONTINUATION


@pytest.mark.parametrize("opcode", [1, 2], ids=["text", "binary"])
def test_a_message_begins_after_the_last_one_ended(opcode: int) -> None:
    assert check_header(bytes([FIN | opcode, MASK]), inside_message=True) == Violation.UNFINISHED_MESSAGE


@pytest.mark.parametrize("opcode", CONTROL.values(), ids=CONTROL)
def test_a_control_frame_may_come_inside_a_message(opcode: int) -> None:
    assert check_header(bytes([FIN | opcode, MASK]), inside_message=True) == Violation.OK


@pytest.mark.parametrize(
    "form, size, verdict",
    [
        (2, 0, Violation.LENGTH_NOT_SHORTEST),
        (2, 125, Violation.LENGTH_NOT_SHORTEST),
        (2, 126, Violation.OK),
        (2, 65_535, Violation.OK),
        (8, 0, Violation.LENGTH_NOT_SHORTEST),
        (8, 125, Violation.LENGTH_NOT_SHORTEST),
        (8, 65_535, Violation.LENGTH_NOT_SHORTEST),
        (8, 65_536, Violation.OK),
        (8, 2**31, Violation.OK),
        (8, 2**32, Violation.OK),
        (8, 2**63 - 1, Violation.OK),
        (8, 2**63, Violation.LENGTH_TOP_BIT),
        (8, 2**64 - 1, Violation.LENGTH_TOP_BIT),
    ],
)
@pytest.mark.parametrize("opcode", DATA.values(), ids=DATA)
def test_a_length_is_in_its_shortest_form_without_a_top_bit(
    opcode: int, form: int, size: int, verdict: Violation
) -> None:
    header = bytes([FIN | opcode, MASK | (126 if form == 2 else 127)]) + size.to_bytes(form, "big")
    assert check(header) == verdict
    for short in range(len(header)):
        assert check(header[:short] or b"\x80") == Violation.OK  # it does not tell yet


@pytest.mark.parametrize(
    "payload_size, size, limit, verdict",
    [
        (100, 0, 100, Violation.OK),
        (101, 0, 100, Violation.MESSAGE_TOO_BIG),
        (1, 99, 100, Violation.OK),
        (1, 100, 100, Violation.MESSAGE_TOO_BIG),
        (0, 100, 100, Violation.OK),
        (2**63 - 1, 1, 0, Violation.MESSAGE_TOO_BIG),
        (2**63 - 1, 0, 0, Violation.OK),
        (2**63 - 1, 2**63 - 1, 2**64 - 1, Violation.OK),
    ],
)
@pytest.mark.parametrize("opcode", DATA.values(), ids=DATA)
def test_exactly_the_limit_is_allowed(
    opcode: int, payload_size: int, size: int, limit: int, verdict: Violation
) -> None:
    if payload_size < 126:
        header = bytes([FIN | opcode, MASK | payload_size])
    else:
        header = bytes([FIN | opcode, MASK | 127]) + payload_size.to_bytes(8, "big")
    assert check(header, size=size, max_message_size=limit) == verdict


@pytest.mark.parametrize("before, verdict", [(3, Violation.OK), (4, Violation.TOO_MANY_FRAGMENTS)])
def test_a_message_has_max_fragments_at_most(before: int, verdict: Violation) -> None:
    assert check(bytes([0, MASK]), fragments=before, max_fragments=4) == verdict
    assert check(bytes([0, MASK]), fragments=before) == Violation.OK
    assert check(bytes([FIN | 9, MASK]), fragments=before, max_fragments=4) == Violation.OK


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\x82\xff" + bytes(8), id="not shortest"),
        pytest.param(b"\x82\xff" + b"\xff" * 8, id="top bit"),
        pytest.param(b"\x82\x7f" + (2**40).to_bytes(8, "big"), id="unmasked"),
        pytest.param(b"\xa2\xff" + (2**40).to_bytes(8, "big"), id="reserved bit"),
        pytest.param(b"\x83\xff" + (2**40).to_bytes(8, "big"), id="reserved opcode"),
    ],
)
def test_what_is_both_wrong_and_too_big_is_wrong(header: bytes) -> None:
    verdict = check_header(header, size=9, max_message_size=9, fragments=9, max_fragments=9)
    assert close_code_of(verdict) == 1002


CODES = {Violation.OK: 0, Violation.TEXT_NOT_UTF8: 1007, Violation.CLOSE_REASON_NOT_UTF8: 1007}
CODES |= {Violation.BROKEN_COMPRESSION: 1007}
CODES |= {Violation.MESSAGE_TOO_BIG: 1009, Violation.TOO_MANY_FRAGMENTS: 1009}


@pytest.mark.parametrize("violation", Violation, ids=lambda violation: violation.name)
def test_a_violation_has_its_close_code_and_a_reason_that_fits_a_close_frame(violation: Violation) -> None:
    assert close_code_of(violation) == CODES.get(violation, 1002)
    assert bool(reason_of(violation)) == bool(violation)
    assert len(reason_of(violation).encode()) <= 123


def test_close_codes_that_may_come() -> None:
    may_come = {code for code in range(-1, 70_000) if may_receive_close_code(code)}
    assert may_come == {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
