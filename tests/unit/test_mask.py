"""c/mask.c, through `frames.mask`: every length, alignment and offset, on areas that end where they say."""

from __future__ import annotations

import random
from array import array

import pytest

from tests import model
from wsev._core.frames import mask

KEY = b"\x37\xfa\x21\x3d"  # RFC 6455 section 5.7


def exactly(data: bytes, alignment: int) -> memoryview:
    """The data at the end of an allocation, so many bytes behind its start, so that a sanitizer sees a byte too far."""
    # An array made by repetition is as large as it says; one made from bytes has room behind them.
    area = memoryview(array("B", [0]) * (alignment + len(data)))[alignment:]
    area[:] = data
    return area


def test_the_rfcs_example_is_unmasked() -> None:
    assert mask(b"\x7f\x9f\x4d\x51\x58", KEY) == b"Hello"


@pytest.mark.parametrize("alignment", [*range(9), 15, 16, 17, 31, 33, 63])
def test_every_length_is_masked_at_alignment(alignment: int) -> None:
    data = random.Random(alignment).randbytes(300)
    expected = model.mask(data, KEY)
    for size in range(301):
        assert mask(exactly(data[:size], alignment), KEY) == expected[:size]


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 5, 6, 7, 2**31 - 1, 2**40 + 1])
def test_the_key_is_turned_by_the_offset_in_the_payload(offset: int) -> None:
    data = random.Random(0).randbytes(300)
    turned = bytes(KEY[(offset + i) % 4] for i in range(4))
    for size in (0, 1, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 300):
        assert mask(data[:size], KEY, offset) == model.mask(data[:size], turned)


@pytest.mark.parametrize("size", [255, 256, 257, 319, 320, 321, 1023, 65_535, 65_536, 65_599])
def test_a_long_payload_is_masked(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert mask(data, KEY) == model.mask(data, KEY)


def test_masking_twice_restores() -> None:
    data = bytes(range(256)) * 3
    assert mask(mask(data, KEY, 1), KEY, 1) == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_is_masked_and_left_alone(kind: type) -> None:
    data = kind(b"untouched")
    assert mask(data, KEY) == model.mask(b"untouched", KEY)
    assert bytes(data) == b"untouched"


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"], ids=len)
def test_a_masking_key_has_4_bytes(key: bytes) -> None:
    with pytest.raises(ValueError, match="must be 4 bytes"):
        mask(b"", key)


def test_an_offset_is_not_negative() -> None:
    with pytest.raises(ValueError, match="offset=-1"):
        mask(b"", KEY, -1)
