"""Permessage-deflate of whole messages: RFC 7692 section 7.2, its examples, and streams that break it."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from typing import Any

import pytest

from wsev import deflate
from wsev._core.rules import Violation
from wsev.deflate import Compression, MessageDeflate, Parameters
from wsev.options import Options

SHARED = Parameters(True, True, None, None)
DEDICATED = Parameters(False, False, None, None)


@pytest.fixture(params=["zlib", "isal"], autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setattr(deflate, "ISAL", None)
    elif deflate.ISAL is None:
        pytest.skip("needs isal: pip install wsev[deflate]")


def made(parameters: Parameters = SHARED, **options: Any) -> MessageDeflate:
    return Compression(Options.of(compression="shared", **options)).agreed(parameters)


def compressed(data: bytes, *, flush: int = zlib.Z_SYNC_FLUSH, level: int = 6) -> bytes:
    """As section 7.2.1 has it."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(flush)).removesuffix(b"\x00\x00\xff\xff")


EXAMPLES = {
    "one block (7.2.3.1)": "f2 48 cd c9 c9 07 00",
    "no compression (7.2.3.3)": "00 05 00 fa ff 48 65 6c 6c 6f 00",
    "BFINAL (7.2.3.4)": "f3 48 cd c9 c9 07 00 00",
    "BFINAL and nothing behind it": "f3 48 cd c9 c9 07 00",
    "two blocks (7.2.3.5)": "f2 48 05 00 00 00 ff ff ca c9 c9 07 00",
}


@pytest.mark.parametrize("parameters", [SHARED, DEDICATED], ids=["shared", "dedicated"])
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_examples_of_the_rfc_are_read(example: str, parameters: Parameters) -> None:
    inflating = made(parameters)
    for _ in range(3):
        assert inflating.inflate(bytes.fromhex(example)) == b"Hello"


def test_a_context_that_is_taken_over_may_be_referred_to() -> None:
    inflating = made(DEDICATED)
    assert inflating.inflate(bytes.fromhex("f2 48 cd c9 c9 07 00")) == b"Hello"
    assert inflating.inflate(bytes.fromhex("f2 00 11 00 00")) == b"Hello"  # section 7.2.3.2
    assert made(SHARED).inflate(bytes.fromhex("f2 00 11 00 00")) == Violation.BROKEN_COMPRESSION


def test_no_message_of_another_connection_can_be_referred_to() -> None:
    compression = Compression(Options.of(compression="shared"))
    victim, thief = compression.agreed(SHARED), compression.agreed(SHARED)
    assert victim.inflate(compressed(b"the password is swordfish")) == b"the password is swordfish"
    for distance in range(1, 30):
        stream = zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, bytes(distance) + b"the password ")
        reference = stream.compress(b"the password ") + stream.flush(zlib.Z_SYNC_FLUSH)
        assert thief.inflate(reference[:-4]) == Violation.BROKEN_COMPRESSION


@pytest.mark.parametrize("parameters", [SHARED, DEDICATED], ids=["shared", "dedicated"])
def test_a_window_begins_anew_behind_what_was_ended(parameters: Parameters) -> None:
    inflating = made(parameters)
    ended = compressed(b"one " * 50, flush=zlib.Z_FINISH)
    assert inflating.inflate(ended + compressed(b"two " * 50)) == b"one " * 50 + b"two " * 50
    assert inflating.inflate(compressed(b"three")) == b"three"


def test_a_message_of_very_many_streams_is_refused() -> None:
    empty = b"\x03\x00"
    inflating = made()
    assert inflating.inflate(empty * (deflate.MAX_STREAMS - 1) + compressed(b"a")) == b"a"
    assert inflating.inflate(empty * deflate.MAX_STREAMS + compressed(b"a")) == Violation.BROKEN_COMPRESSION
    assert inflating.inflate(empty * 500_000) == Violation.BROKEN_COMPRESSION


BROKEN = {
    "a block of no type": b"\x07",
    "stored, with a wrong length": b"\x00\x05\x00\xfa\xfeHello\x00",
    "a distance before the beginning": bytes.fromhex("f2 00 11 00 00"),
    "cut inside a block": compressed(b"Hello, Hello, Hello")[:5],
    "a stored block that ends early": b"\x00\x50\x00\xaf\xffHello\x00",
    "noise": b"\xff" * 100,
    "stored, four bytes short": b"\x00\x09\x00\xf6\xffHello",
    "one symbol short, which the tail makes up for": bytes.fromhex("4a4c042c79"),
    "nothing": b"",
    "junk behind the end": compressed(b"Hello", flush=zlib.Z_FINISH) + b"\xff\xff\xff\xff",
    "zlib's own header": zlib.compress(b"Hello"),
}


@pytest.mark.parametrize("parameters", [SHARED, DEDICATED], ids=["shared", "dedicated"])
@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_is_a_violation_and_spoils_nothing(payload: bytes, parameters: Parameters) -> None:
    inflating = made(parameters)
    assert inflating.inflate(payload) == Violation.BROKEN_COMPRESSION
    assert inflating.inflate(compressed(b"Hello")) == b"Hello"


@pytest.mark.parametrize("cut", range(1, 21))
def test_a_message_cut_anywhere_is_broken(cut: int) -> None:
    payload = compressed(b"The quick brown fox jumps over the lazy dog. " * 3)
    assert len(payload) > 21
    assert made().inflate(payload[:-cut]) == Violation.BROKEN_COMPRESSION


@pytest.mark.parametrize("more", [0, 1, 1000])
@pytest.mark.parametrize("parameters", [SHARED, DEDICATED], ids=["shared", "dedicated"])
def test_exactly_the_limit_is_allowed(parameters: Parameters, more: int) -> None:
    inflating = made(parameters, max_message_size=10_000)
    result = inflating.inflate(compressed(b"a" * (10_000 + more)))
    assert result == (b"a" * 10_000 if not more else Violation.MESSAGE_TOO_BIG)


def test_the_limit_counts_all_streams_of_a_message() -> None:
    inflating = made(max_message_size=100)
    half = compressed(b"a" * 50, flush=zlib.Z_FINISH)
    assert inflating.inflate(half * 2 + compressed(b"")) == b"a" * 100
    assert inflating.inflate(half * 2 + compressed(b"a")) == Violation.MESSAGE_TOO_BIG


def test_a_bomb_takes_the_limits_memory_and_not_its_own() -> None:
    bomb = compressed(bytes(256 << 20))
    inflating = made(max_message_size=1 << 20)
    tracemalloc.start()
    try:
        assert inflating.inflate(bomb) == Violation.MESSAGE_TOO_BIG
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_without_a_limit_everything_is_inflated() -> None:
    assert made(max_message_size=None).inflate(compressed(bytes(3 << 20))) == bytes(3 << 20)


# ------------------------------------------------------------------------------------------------------ deflating


def test_what_is_compressed_ends_as_the_rfc_has_it() -> None:
    deflating = made()
    for message in (b"Hello " * 20, os.urandom(50) * 10, b"a" * 100_000):
        payload = deflating.deflate(message)
        assert payload is not None
        assert not payload.endswith(b"\x00\x00\xff\xff")
        assert deflating.inflate(payload) == message


def test_an_empty_message_is_one_byte() -> None:
    assert made(DEDICATED).deflate(b"") == b"\x00"  # section 7.2.3.6
    assert made(DEDICATED).inflate(b"\x00") == b""
    assert made().deflate(b"") is None


def test_a_shared_compressor_takes_each_message_by_itself() -> None:
    deflating = made()
    message = b"The quick brown fox jumps over the lazy dog. " * 5
    first = deflating.deflate(message)
    assert [deflating.deflate(message) for _ in range(5)] == [first] * 5
    assert first is not None
    for payload in (first, deflating.deflate(b"other text " * 30), first):
        assert payload is not None
        assert isinstance(made().inflate(payload), bytes)  # by an inflater that has seen nothing


def test_a_shared_compressor_leaves_what_it_cannot_make_smaller() -> None:
    assert made().deflate(os.urandom(1000)) is None


def test_a_compressor_of_its_own_takes_its_context_over() -> None:
    deflating, inflating = made(DEDICATED), made(DEDICATED)
    message = os.urandom(200)
    sizes = []
    for _ in range(3):
        payload = deflating.deflate(message)
        assert payload is not None
        assert inflating.inflate(payload) == message
        sizes.append(len(payload))
    assert sizes[1] < 50 < 200 <= sizes[0]


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "dedicated"])
def test_output_can_be_read_with_a_window_of_the_size_agreed_on(bits: int, is_shared: bool) -> None:
    deflating = made(Parameters(is_shared, is_shared, bits, None), compression_window_bits=15)
    inflater = zlib.decompressobj(-bits)
    block = os.urandom(300)
    for distance in (100, 1 << 9, 1 << 10, 1 << 12, 1 << 15):
        message = block + os.urandom(distance) + block
        payload = deflating.deflate(message)
        if payload is not None:  # random bytes do not always get smaller
            if is_shared:
                inflater = zlib.decompressobj(-bits)
            assert inflater.decompress(payload + deflate.TAIL) == message


def test_parameters_that_remember_nothing_are_shared_and_others_are_not() -> None:
    compression = Compression(Options.of(compression="dedicated"))
    assert compression.agreed(SHARED) is compression.agreed(SHARED)
    assert compression.agreed(DEDICATED) is not compression.agreed(DEDICATED)
    half = Parameters(True, False, None, None)
    assert compression.agreed(half) is not compression.agreed(half)
    assert compression.agreed(half).shared is compression.agreed(SHARED).shared


def test_a_window_of_the_peers_is_no_larger_than_agreed_on() -> None:
    inflating = made(Parameters(False, False, None, 9))
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    for _ in range(2):
        payload = (stream.compress(bytes(range(256)) * 4) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert inflating.inflate(payload) == bytes(range(256)) * 4
    far = zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, b"far away" + bytes(1000))
    payload = (far.compress(b"far away") + far.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert inflating.inflate(payload) == Violation.BROKEN_COMPRESSION


def test_a_compressor_that_failed_leaves_nothing_of_it_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    deflating = made()
    assert deflating.deflate(b"warm " * 100)
    compressor = deflating.shared
    assert compressor is not None
    real = compressor._deflater

    class Failing:
        def compress(self, data: bytes) -> bytes:
            real.compress(data)
            raise MemoryError

    compressor._deflater = Failing()
    with pytest.raises(MemoryError):
        deflating.deflate(b"secret " * 100)
    payload = deflating.deflate(b"public " * 100)
    assert payload is not None
    assert made().inflate(payload) == b"public " * 100
