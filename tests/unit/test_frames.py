"""Frame headers, encoded; that they are decoded again is in test_messages.py, and in properties/test_codec.py."""

from __future__ import annotations

import pytest

from tests import model
from wsev._core.frames import encode_frame

KEY = b"\x37\xfa\x21\x3d"
SIZES = [*range(301), 65_534, 65_535, 65_536, 65_537, 1_048_576]


@pytest.mark.parametrize(
    "frame, expected",
    [
        pytest.param(encode_frame(1, b"Hello"), "81 05 48 65 6c 6c 6f", id="unmasked text"),
        pytest.param(encode_frame(1, b"Hello", masking_key=KEY), "81 85 37 fa 21 3d 7f 9f 4d 51 58", id="masked text"),
        pytest.param(encode_frame(1, b"Hel", fin=False), "01 03 48 65 6c", id="first fragment"),
        pytest.param(encode_frame(0, b"lo"), "80 02 6c 6f", id="last fragment"),
        pytest.param(encode_frame(9, b"Hello"), "89 05 48 65 6c 6c 6f", id="ping"),
        pytest.param(encode_frame(10, b"Hello", masking_key=KEY), "8a 85 37 fa 21 3d 7f 9f 4d 51 58", id="masked pong"),
        pytest.param(encode_frame(1, b"", rsv1=True), "c1 00", id="compressed"),
    ],
)
def test_the_examples_of_the_rfcs_are_encoded(frame: bytes, expected: str) -> None:
    assert frame == bytes.fromhex(expected)


@pytest.mark.parametrize(
    "size, header",
    [
        (0, "82 00"),
        (125, "82 7d"),
        (126, "82 7e 00 7e"),
        (256, "82 7e 01 00"),
        (65_535, "82 7e ff ff"),
        (65_536, "82 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_a_length_is_in_its_shortest_form(size: int, header: str) -> None:
    assert encode_frame(2, bytes(size)) == bytes.fromhex(header) + bytes(size)


@pytest.mark.parametrize("key", [None, KEY], ids=["server", "client"])
def test_every_length_is_encoded_as_the_model_does(key: bytes | None) -> None:
    for size in SIZES[:-1]:
        payload = bytes(i & 0xFF for i in range(size))
        assert encode_frame(2, payload, masking_key=key) == model.encode(2, payload, key=key)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_is_a_payload(kind: type) -> None:
    assert encode_frame(2, kind(b"abc")) == b"\x82\x03abc"
    assert encode_frame(2, kind(b"")) == b"\x82\x00"


@pytest.mark.parametrize("opcode", [-1, 16, 0x81])
def test_an_opcode_has_4_bits(opcode: int) -> None:
    with pytest.raises(ValueError, match=f"opcode={opcode}"):
        encode_frame(opcode, b"")


def test_a_str_is_no_payload() -> None:
    with pytest.raises(TypeError):
        encode_frame(1, "text")  # type: ignore[arg-type]  # the claim


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"], ids=len)
def test_a_masking_key_has_4_bytes(key: bytes) -> None:
    with pytest.raises(ValueError, match="must be 4 bytes"):
        encode_frame(1, b"", masking_key=key)
