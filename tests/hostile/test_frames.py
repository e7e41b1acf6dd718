"""Frames that break RFC 6455, on real sockets.

The rules one by one are tested without sockets in tests/unit/test_messages.py; here it is about what the peer gets:
the Close frame, the end of TCP, nothing delivered, and what is received in pieces.
"""

from __future__ import annotations

import os
import struct

import pytest

from tests.hostile.conftest import Attacked
from tests.peer import BINARY, CLOSE, CONTINUATION, MASKING_KEY, PING, PONG, TEXT, encode_frame, upgrade_request
from wsev import MessageTooBig, ProtocolError


def header(first: int, second: int, length: bytes = b"") -> bytes:
    """A header as it is, with a masking key if its bit is set."""
    return bytes([first, second]) + length + (MASKING_KEY if second & 0x80 else b"")


FIN = 0x80
WRONG: dict[str, tuple[bytes, int]] = {
    **{f"unmasked {op:#x}": (encode_frame(op, b"x", masked=False), 1002) for op in (TEXT, BINARY, CLOSE, PING, PONG)},
    **{f"reserved bit {rsv:03b}": (encode_frame(TEXT, b"x", rsv=rsv), 1002) for rsv in range(1, 8)},
    "reserved bit of a ping": (encode_frame(PING, b"x", rsv=4), 1002),
    **{f"opcode {op:#x}": (encode_frame(op, b"x"), 1002) for op in (*range(3, 8), *range(11, 16))},
    **{f"long {name}": (encode_frame(op, bytes(126)), 1002) for name, op in (("ping", PING), ("Close", CLOSE))},
    **{f"fragment of {name}": (encode_frame(op, fin=False), 1002) for name, op in (("ping", PING), ("Close", CLOSE))},
    "continuation of nothing": (encode_frame(CONTINUATION, b"x"), 1002),
    "message in a message": (encode_frame(TEXT, b"a", fin=False) + encode_frame(TEXT, b"b"), 1002),
    "16 bits for 125": (header(FIN | TEXT, 0x80 | 126, struct.pack("!H", 125)), 1002),
    "64 bits for 65535": (header(FIN | TEXT, 0x80 | 127, struct.pack("!Q", 65535)), 1002),
    "top bit": (header(FIN | TEXT, 0x80 | 127, struct.pack("!Q", 1 << 63)), 1002),
    "2^64 - 1": (header(FIN | TEXT, 0x80 | 127, struct.pack("!Q", (1 << 64) - 1)), 1002),
    "2^63 - 1": (header(FIN | TEXT, 0x80 | 127, struct.pack("!Q", (1 << 63) - 1)), 1009),
    "2^32": (header(FIN | BINARY, 0x80 | 127, struct.pack("!Q", 1 << 32)), 1009),
    "limit + 1": (header(FIN | BINARY, 0x80 | 127, struct.pack("!Q", (1 << 20) + 1)), 1009),
    "limit + 1 in two": (
        encode_frame(BINARY, b"x", fin=False) + header(FIN | CONTINUATION, 0x80 | 127, struct.pack("!Q", 1 << 20)),
        1009,
    ),
    "Close of one byte": (encode_frame(CLOSE, b"\x03"), 1002),
    "Close reason not UTF-8": (encode_frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text not UTF-8": (encode_frame(TEXT, b"caf\xe9 au lait"), 1007),
    "text ends unfinished": (encode_frame(TEXT, b"caf\xc3"), 1007),
    "surrogate": (encode_frame(TEXT, b"\xed\xa0\x80"), 1007),
    "overlong": (encode_frame(TEXT, b"\xc0\xaf"), 1007),
}


@pytest.mark.parametrize("before", [b"", encode_frame(TEXT, b"good")], ids=["first", "after a good one"])
@pytest.mark.parametrize("is_in_pieces", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(("data", "code"), WRONG.values(), ids=WRONG)
async def test_a_violation_fails_the_connection(
    attacked: Attacked, data: bytes, code: int, is_in_pieces: bool, before: bytes
) -> None:
    await attacked.start()
    peer = await attacked.open()
    await peer.send(before)
    if before:
        await peer.expect_frame(TEXT, b"good")
    try:
        for piece in [data[i : i + 1] for i in range(len(data))] if is_in_pieces else [data + bytes(1000)]:
            await peer.send(piece)
    except ConnectionError:
        pass  # the server has ended it at the first byte that told
    await peer.expect_close(code)
    assert attacked.got == (["good"] if before else [])
    await peer.close()  # else the server waits a second for it
    error = await attacked.end()
    assert isinstance(error, MessageTooBig if code == 1009 else ProtocolError)
    assert error.close_code == code


@pytest.mark.parametrize(("data", "code"), WRONG.values(), ids=WRONG)
async def test_a_violation_in_the_requests_packet_fails_the_connection(
    attacked: Attacked, data: bytes, code: int
) -> None:
    await attacked.start()
    peer = await attacked.open_unasked(upgrade_request() + encode_frame(TEXT, b"good") + data)
    assert (await peer.read_head()).status == 101
    await peer.expect_frame(TEXT, b"good")
    await peer.expect_close(code)
    assert attacked.got == ["good"]


async def test_a_violation_inside_a_fragmented_message_delivers_none_of_it(attacked: Attacked) -> None:
    await attacked.start()
    peer = await attacked.open()
    await peer.send_frame(TEXT, b"begun", fin=False)
    await peer.send_frame(PING, b"between")
    await peer.expect_frame(PONG, b"between")
    await peer.send_frame(CONTINUATION, b"\xff", fin=False)
    await peer.expect_close(1007)
    assert attacked.got == []


BAD_TEXT = {
    "lone continuation": b"\x80",
    "overlong of 2": b"\xc1\xbf",
    "overlong of 3": b"\xe0\x9f\xbf",
    "surrogate": b"\xed\xa0",
    "overlong of 4": b"\xf0\x8f\xbf\xbf",
    "above U+10FFFF": b"\xf4\x90",
    "0xFF": b"\xff",
}


@pytest.mark.parametrize("offset", [0, 1, 7, 63, 100_000])
@pytest.mark.parametrize("bad", BAD_TEXT.values(), ids=BAD_TEXT)
async def test_text_fails_at_its_first_bad_byte_within_an_unfinished_frame(
    attacked: Attacked, bad: bytes, offset: int
) -> None:
    await attacked.start()
    peer = await attacked.open()
    frame = encode_frame(TEXT, b"a" * offset + bad + bytes(200_000))
    rest_size = 200_000
    await peer.send(frame[: len(frame) - rest_size])
    await peer.expect_close(1007)


GOOD_TEXT = ["", "\0", "\ufeffBOM", "\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff", "\ufdd0\ufffe"]


@pytest.mark.parametrize("text", GOOD_TEXT, ids=ascii)
async def test_good_text_in_pieces_of_one_byte_is_echoed(attacked: Attacked, text: str) -> None:
    await attacked.start()
    peer = await attacked.open()
    for byte in encode_frame(TEXT, text.encode()):
        await peer.send(bytes([byte]))
    await peer.expect_frame(TEXT, text.encode())


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 300, 65_535, 65_536, 300_000, 1 << 20])
async def test_each_size_with_each_mask_and_split_is_echoed(attacked: Attacked, size: int) -> None:
    await attacked.start()
    peer = await attacked.open()
    payload = os.urandom(size)
    for masking_key in (bytes(4), b"\xff\xff\xff\xff", os.urandom(4)):
        frame = encode_frame(BINARY, payload, masking_key=masking_key)
        for split in {0, 1, 5, 7, len(frame) // 2, len(frame) // 2 + 1, len(frame) - 1}:
            await peer.send(frame[:split])
            await peer.send(frame[split:])
            await peer.expect_frame(BINARY, payload)


async def test_fragments_past_their_number_are_too_many(attacked: Attacked) -> None:
    await attacked.start(max_fragments=1000)
    peer = await attacked.open()
    await peer.send_frame(TEXT, b"", fin=False)
    await peer.send(encode_frame(CONTINUATION, b"", fin=False) * 1000)
    await peer.expect_close(1009)
    assert attacked.server.stats().limits == {"max_fragments": 1}


async def test_ten_thousand_fragments_with_pings_between_are_one_message(attacked: Attacked) -> None:
    await attacked.start()
    peer = await attacked.open()
    await peer.send_frame(BINARY, bytes(100), fin=False)
    for part in range(10):
        await peer.send(encode_frame(CONTINUATION, bytes([part]) * 100, fin=False) * 1000)
        assert await peer.fence() == []
    await peer.send_frame(CONTINUATION, b"")
    await peer.expect_frame(BINARY, b"".join([bytes(100), *(bytes([part]) * 100_000 for part in range(10))]))
