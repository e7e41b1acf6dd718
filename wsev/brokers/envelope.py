"""The envelope: what a member of a mesh says over a link, as the payloads of binary messages.

    TEXT, BINARY             kind (1 byte), topic size (1), topic, payload      a published message
    SUBSCRIBE, UNSUBSCRIBE   kind, topic size, topic                            what the sender wants from now on
    HELLO                    kind, version (1), name (8), {topic size, topic}   first on each link; all that it wants
    HEARD                    kind, 0                                            the receiver's HELLO was dealt with

Pure functions.  What is malformed is a value (None), not an exception: bytes come from outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "HEARD",
    "NAME",
    "OVERHEAD",
    "VERSION",
    "Hello",
    "Kind",
    "decode_hello",
    "decode_topic",
    "encode_hello",
    "encode_interest",
    "head_of",
]

VERSION = 1  # of all this; members of different versions do not talk
NAME = re.compile("[0-9a-f]{8}")  # of a member; ours
OVERHEAD = 2 + 255  # bytes: the most that a message has in front of its payload

_NAME_SIZE = 8
_HELLO_HEAD = 2 + _NAME_SIZE


class Kind(IntEnum):
    """The first byte."""

    TEXT = 1  # the opcodes' numbers (RFC 6455 section 5.2)
    BINARY = 2
    HELLO = 16
    HEARD = 17
    SUBSCRIBE = 18
    UNSUBSCRIBE = 19


HEARD = bytes((Kind.HEARD, 0))


class Hello(NamedTuple):
    """A member's first words."""

    version: int
    name: str  # "" if the version is not ours
    topics: list[str]


def head_of(topic: str, *, is_text: bool) -> bytes:
    """What stands before the payload of a message."""
    return encode_interest(Kind.TEXT if is_text else Kind.BINARY, topic.encode())


def encode_interest(kind: Kind, topic: bytes) -> bytes:
    """SUBSCRIBE and UNSUBSCRIBE."""
    return bytes((kind, len(topic))) + topic


def decode_topic(data: bytes) -> str | None:
    """The topic of a SUBSCRIBE or UNSUBSCRIBE; None if it is malformed."""
    if len(data) < 2 or len(data) != 2 + data[1]:
        return None
    return _text(data[2:])


def encode_hello(name: str, topics: Iterable[bytes]) -> bytes:
    """HELLO: who I am, and all that I want."""
    return b"".join((bytes((Kind.HELLO, VERSION)), name.encode(), *(bytes((len(each),)) + each for each in topics)))


def decode_hello(data: bytes) -> Hello | None:
    """What a HELLO says; None if it is malformed."""
    if len(data) < 2:
        return None
    if data[1] != VERSION:
        return Hello(data[1], "", [])  # the rest may mean anything
    name = _text(data[2:_HELLO_HEAD])
    if name is None or not NAME.fullmatch(name):
        return None
    topics = []
    start = _HELLO_HEAD
    while start < len(data):
        end = start + 1 + data[start]
        topic = _text(data[start + 1 : end]) if end <= len(data) else None
        if topic is None:
            return None
        topics.append(topic)
        start = end
    return Hello(VERSION, name, topics)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
