"""The envelope of the mesh: what is said is what is heard, and what is malformed is a value."""

from __future__ import annotations

import pytest

from wsev._core.messages import Event
from wsev.brokers.envelope import (
    HEARD,
    OVERHEAD,
    VERSION,
    Hello,
    Kind,
    decode_hello,
    decode_topic,
    encode_hello,
    encode_interest,
    head_of,
)

TOPICS = ["", "room", "x" * 255, "é" * 127, "\0", "a/b.*"]


def test_text_and_binary_have_the_opcodes_numbers() -> None:
    assert (int(Kind.TEXT), int(Kind.BINARY)) == (int(Event.TEXT), int(Event.BINARY))


@pytest.mark.parametrize("topic", TOPICS, ids=ascii)
@pytest.mark.parametrize(("is_text", "kind"), [(True, 1), (False, 2)])
def test_a_head_is_kind_size_and_topic(topic: str, is_text: bool, kind: int) -> None:
    encoded = topic.encode()
    assert head_of(topic, is_text=is_text) == bytes((kind, len(encoded))) + encoded
    assert len(head_of(topic, is_text=is_text)) <= OVERHEAD


@pytest.mark.parametrize("topic", TOPICS, ids=ascii)
def test_a_topic_comes_out_as_it_went_in(topic: str) -> None:
    assert decode_topic(encode_interest(Kind.SUBSCRIBE, topic.encode())) == topic


@pytest.mark.parametrize(
    "data", [b"", b"\x12", b"\x12\x01", b"\x12\x01ab", b"\x12\x00a", b"\x12\x01\xff", b"\x12\x03\xed\xa0\x80"], ids=repr
)
def test_a_malformed_topic_is_none(data: bytes) -> None:
    assert decode_topic(data) is None


def test_heard_has_no_topic() -> None:
    assert decode_topic(HEARD) == ""


@pytest.mark.parametrize("topics", [[], [""], TOPICS, ["t"] * 3], ids=len)
def test_a_hello_comes_out_as_it_went_in(topics: list[str]) -> None:
    encoded = encode_hello("0123abcd", [topic.encode() for topic in topics])
    assert decode_hello(encoded) == Hello(VERSION, "0123abcd", topics)


def test_a_hello_of_another_version_is_told_by_that_alone() -> None:
    assert decode_hello(bytes((Kind.HELLO, VERSION + 1)) + b"\xff whatever") == Hello(VERSION + 1, "", [])


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"0123abc",
        b"0123ABCD",
        b"../../x.",
        b"\xff" * 8,
        b"0123abcd\x01",
        b"0123abcd\x05room",
        b"0123abcd\x01\xff",
        b"0123abcd\x00\x01",
    ],
    ids=repr,
)
def test_a_malformed_hello_is_none(rest: bytes) -> None:
    assert decode_hello(bytes((Kind.HELLO, VERSION)) + rest) is None


def test_half_a_hello_is_none_at_every_length_but_between_topics() -> None:
    whole = encode_hello("0123abcd", [b"ab", b"", b"c"])
    ends = [len(encode_hello("0123abcd", topics)) for topics in ([], [b"ab"], [b"ab", b""], [b"ab", b"", b"c"])]
    found = [size for size in range(len(whole) + 1) if decode_hello(whole[:size]) is not None]
    assert found == ends
