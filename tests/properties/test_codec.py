"""The core against the model: whatever the bytes and however they are split, both say the same, and as early."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import model
from wsev._core.frames import encode_frame, mask
from wsev._core.messages import Limits

pytestmark = pytest.mark.slow

ROLES = pytest.mark.parametrize("is_client", [False, True], ids=["server", "client"])
MAX_MESSAGE_SIZE = 400
MAX_FRAGMENTS = 6

keys = st.binary(min_size=4, max_size=4)
texts = st.text(max_size=60).map(str.encode)
odd_texts = st.one_of(texts, st.binary(max_size=20), st.tuples(texts, st.binary(max_size=3)).map(b"".join))
payloads = st.one_of(st.binary(max_size=140), st.integers(0, 450).map(bytes))
close_bodies = st.one_of(
    st.just(b""),
    st.tuples(st.integers(1000, 1016).map(lambda code: code.to_bytes(2, "big")), texts).map(
        lambda t: b"".join(t)[:125]
    ),
    st.binary(max_size=6),
)


@st.composite
def control_frames(draw: st.DrawFn, is_client: bool) -> bytes:
    opcode = draw(st.sampled_from([model.PING, model.PONG]))
    return model.encode(opcode, draw(st.binary(max_size=125)), key=None if is_client else draw(keys))


@st.composite
def messages(draw: st.DrawFn, is_client: bool, text: st.SearchStrategy[bytes]) -> bytes:
    """A message in one to seven frames, control frames between them."""
    opcode = draw(st.sampled_from([model.TEXT, model.BINARY]))
    payload = draw(text if opcode == model.TEXT else payloads)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=MAX_FRAGMENTS)))
    data = b""
    rsv = draw(st.sampled_from([0, 0, 0, 4]))  # 4: RSV1, compressed if that is allowed
    for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True):
        key = None if is_client else draw(keys)
        fin = end == len(payload) and start == (cuts[-1] if cuts else 0)
        data += model.encode(0 if data else opcode, payload[start:end], fin=fin, rsv=0 if data else rsv, key=key)
        if fin:
            break
        data += b"".join(draw(st.lists(control_frames(is_client), max_size=1)))
    return data


@st.composite
def violations(draw: st.DrawFn, is_client: bool) -> bytes:
    """A frame that is wrong, or may be where it comes: any header at all."""
    kind = draw(st.sampled_from(["header", "mask", "close", "length", "opcode"]))
    key = None if is_client else draw(keys)
    if kind == "header":
        return draw(st.binary(min_size=2, max_size=14))
    if kind == "mask":
        return model.encode(model.TEXT, b"text", key=b"keys" if is_client else None)
    if kind == "close":
        return model.encode(model.CLOSE, draw(close_bodies), key=key)
    if kind == "opcode":
        fin, rsv = draw(st.booleans()), draw(st.integers(0, 7))
        return model.encode(draw(st.integers(0, 15)), draw(st.binary(max_size=5)), fin=fin, rsv=rsv, key=key)
    form = draw(st.sampled_from([2, 8]))
    size = draw(
        st.one_of(st.integers(0, 2 ** (8 * form) - 1), st.sampled_from([0, 125, 126, 400, 401, 2 ** (8 * form) - 1]))
    )
    mask_bit = 0 if is_client else 0x80
    return bytes([0x82, mask_bit | (126 if form == 2 else 127)]) + size.to_bytes(form, "big") + bytes(10)


@st.composite
def streams(draw: st.DrawFn, is_client: bool) -> bytes:
    """Messages and control frames, perhaps one violation among them, perhaps some bytes changed."""
    good = st.one_of(messages(is_client, odd_texts), control_frames(is_client))
    parts = draw(st.lists(good, max_size=5))
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), draw(violations(is_client)))
    data = bytearray(b"".join(parts))
    if data and draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """In pieces of these sizes, over and over."""
    pieces: list[bytes] = []
    while data:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(data[:size])
        data = data[size:]
    return pieces


cut_sizes = st.lists(st.one_of(st.integers(1, 8), st.integers(1, 500)), min_size=1, max_size=5)


@ROLES
@settings(max_examples=250)
@given(data=st.data())
def test_any_split_gives_the_models_events_as_early_as_the_model(is_client: bool, data: st.DataObject) -> None:
    stream = data.draw(streams(is_client))
    pieces = split(stream, data.draw(cut_sizes))
    decode_text, rsv1_allowed = data.draw(st.booleans()), data.draw(st.booleans())
    limits = Limits(
        is_client=is_client,
        max_message_size=MAX_MESSAGE_SIZE,
        max_fragments=MAX_FRAGMENTS,
        decode_text=decode_text,
        rsv1_allowed=rsv1_allowed,
    )
    for count in range(max(0, len(pieces) - 8), len(pieces) + 1):
        come = b"".join(pieces[:count])
        expected = model.events(
            come,
            is_client=is_client,
            max_message_size=MAX_MESSAGE_SIZE,
            max_fragments=MAX_FRAGMENTS,
            decode_text=decode_text,
            rsv1_allowed=rsv1_allowed,
        )
        assert model.core_events(pieces[:count], limits) == expected


@ROLES
@settings(max_examples=200)
@given(data=st.data())
def test_good_messages_come_as_they_were_sent(is_client: bool, data: st.DataObject) -> None:
    stream = b"".join(data.draw(st.lists(messages(is_client, texts), max_size=5)))
    said = model.core_events(split(stream, data.draw(cut_sizes)), Limits(is_client=is_client, rsv1_allowed=True))
    assert all(event[0] != "FAILED" for event in said)
    assert said == model.events(stream, is_client=is_client, rsv1_allowed=True)


@settings(max_examples=200)
@given(
    opcode=st.sampled_from([model.TEXT, model.BINARY, model.PING, model.PONG]),
    text=st.text(max_size=31),
    key=st.one_of(st.none(), keys),
    cuts=cut_sizes,
)
def test_what_is_encoded_is_decoded(opcode: int, text: str, key: bytes | None, cuts: list[int]) -> None:
    frame = encode_frame(opcode, text.encode(), masking_key=key)
    assert frame == model.encode(opcode, text.encode(), key=key)
    [(_, payload)] = model.core_events(split(frame, cuts), Limits(is_client=key is None))
    assert payload == (text if opcode == model.TEXT else text.encode())


@settings(max_examples=200)
@given(data=st.binary(max_size=400), key=keys, cut=st.integers(0, 400))
def test_masking_in_two_pieces_is_masking_the_whole(data: bytes, key: bytes, cut: int) -> None:
    cut = min(cut, len(data))
    assert mask(data[:cut], key) + mask(data[cut:], key, cut) == mask(data, key) == model.mask(data, key)


@ROLES
@settings(max_examples=25)
@given(data=st.data())
def test_a_large_message_in_pieces_is_the_whole_one(is_client: bool, data: st.DataObject) -> None:
    key = None if is_client else data.draw(keys)
    opcode = data.draw(st.sampled_from([model.TEXT, model.BINARY]))
    payload = data.draw(st.sampled_from(["plain ", "grün ", "世界", "🌍"])).encode() * data.draw(
        st.integers(4_000, 40_000)
    )
    if data.draw(st.booleans()):
        broken = bytearray(payload)
        broken[data.draw(st.integers(0, len(payload) - 1))] = 0xFF
        payload = bytes(broken)
    cut = data.draw(st.integers(0, len(payload)))
    stream = encode_frame(opcode, payload[:cut], fin=False, masking_key=key)
    stream += encode_frame(0, payload[cut:], masking_key=key)
    limits = Limits(is_client=is_client)
    pieces = split(stream, data.draw(st.lists(st.integers(1_000, 300_000), min_size=1, max_size=5)))
    said = model.core_events(pieces, limits)
    assert said == model.core_events([stream], limits)
    if opcode == model.BINARY:
        assert said == [("BINARY", payload)]
