"""The codec in plain Python, obviously right: what the core is held against.

`events(data)` looks at all bytes that have come, from the first, and says what a receiver must have made of them by
now.  It keeps no state, saves no work and knows no split: in whatever pieces the bytes came, the answer is this.
`core_events(pieces)` asks the core, in the same terms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from wsev._core.messages import Event, Limits, Parser

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NO_LIMIT = 2**63 - 1

# RFC 3629 section 4, and what may stand at the end of a text that goes on.
UTF8 = (
    rb"(?:[\x00-\x7F]|[\xC2-\xDF][\x80-\xBF]"
    rb"|\xE0[\xA0-\xBF][\x80-\xBF]|[\xE1-\xEC\xEE\xEF][\x80-\xBF]{2}|\xED[\x80-\x9F][\x80-\xBF]"
    rb"|\xF0[\x90-\xBF][\x80-\xBF]{2}|[\xF1-\xF3][\x80-\xBF]{3}|\xF4[\x80-\x8F][\x80-\xBF]{2})*+"
)
UTF8_BEGUN = (
    rb"(?:[\xC2-\xDF]|\xE0[\xA0-\xBF]?|[\xE1-\xEC\xEE\xEF][\x80-\xBF]?|\xED[\x80-\x9F]?"
    rb"|\xF0(?:[\x90-\xBF][\x80-\xBF]?)?|[\xF1-\xF3][\x80-\xBF]{0,2}|\xF4(?:[\x80-\x8F][\x80-\xBF]?)?)?"
)

Said = tuple[object, ...]  # an event: its name, and what it says


class Wrong(Exception):
    """The peer broke the rule that the one argument names, as `Violation` does."""


class Incomplete(Exception):
    """The bytes end inside a frame."""


def mask(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def encode(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes | None = None) -> bytes:
    size = len(payload)
    masked = 0x80 if key is not None else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 2**16:
        head += bytes([masked | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + size.to_bytes(8, "big")
    return head + payload if key is None else head + key + mask(payload, key)


def require(condition: bool, rule: str) -> None:
    if not condition:
        raise Wrong(rule)


def require_text(text: bytes, *, complete: bool) -> None:
    require(re.fullmatch(UTF8 if complete else UTF8 + UTF8_BEGUN, text) is not None, "TEXT_NOT_UTF8")


def take(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise Incomplete
    return data[:size], data[size:]


def close_event(body: bytes) -> Said:
    if not body:
        return "CLOSE", 1005, ""
    require(len(body) >= 2, "CLOSE_BODY_OF_ONE_BYTE")
    code = int.from_bytes(body[:2], "big")
    require(code in {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}, "CLOSE_CODE_NOT_ALLOWED")
    require(re.fullmatch(UTF8, body[2:]) is not None, "CLOSE_REASON_NOT_UTF8")
    return "CLOSE", code, body[2:].decode()


def sequence(
    data: bytes, is_client: bool, max_message_size: int, max_fragments: int, decode_text: bool, rsv1_allowed: bool
) -> Iterator[Said]:
    """RFC 6455 section 5, frame by frame; raises Incomplete at the end of the bytes.

    What is compressed (RFC 7692 section 6) stays as it is; its limit is a thousandth and 64 bytes more.
    """
    message, message_opcode, fragments, compressed = b"", 0, 0, False
    while True:
        head, data = take(data, 2)
        fin, rsv, opcode = head[0] >> 7, head[0] >> 4 & 7, head[0] & 15
        masked, size = head[1] >> 7, head[1] & 127
        if is_client:
            require(not masked, "MASKED_FRAME")
        else:
            require(bool(masked), "UNMASKED_FRAME")
        require(not rsv & 3, "RESERVED_BIT")
        require(not rsv or (rsv1_allowed and opcode not in {0, *range(8, 16)}), "UNNEGOTIATED_COMPRESSION")
        require(opcode in {0, TEXT, BINARY, CLOSE, PING, PONG}, "RESERVED_OPCODE")
        if opcode >= CLOSE:
            require(bool(fin), "FRAGMENTED_CONTROL_FRAME")
            require(size <= 125, "LONG_CONTROL_FRAME")
        elif opcode == 0:
            require(message_opcode != 0, "UNEXPECTED_CONTINUATION")
        else:
            require(message_opcode == 0, "UNFINISHED_MESSAGE")

        if size >= 126:
            length, data = take(data, 2 if size == 126 else 8)
            shortest = 126 if size == 126 else 2**16
            size = int.from_bytes(length, "big")
            require(size < 2**63, "LENGTH_TOP_BIT")
            require(size >= shortest, "LENGTH_NOT_SHORTEST")
        if opcode < CLOSE:
            compressed = compressed if opcode == 0 else bool(rsv)
            more = max_message_size // 1000 + 64 if compressed else 0
            require(
                len(message) + size <= (max_message_size + more if max_message_size else NO_LIMIT), "MESSAGE_TOO_BIG"
            )
            require(fragments < (max_fragments or NO_LIMIT), "TOO_MANY_FRAGMENTS")

        key, data = take(data, 4) if masked else (bytes(4), data)
        payload = mask(data[:size], key)
        if opcode < CLOSE:
            message_opcode = opcode or message_opcode
            message, fragments = message + payload, fragments + 1
            if message_opcode == TEXT and not compressed:
                require_text(message, complete=bool(fin) and len(payload) == size)
        _, data = take(data, size)

        if opcode == CLOSE:
            yield close_event(payload)
            return
        if opcode in {PING, PONG}:
            yield Event(opcode).name, payload
        elif fin and compressed:
            yield f"COMPRESSED_{Event(message_opcode).name}", message
            message, message_opcode, fragments = b"", 0, 0
        elif fin:
            yield (Event(message_opcode).name, message.decode() if message_opcode == TEXT and decode_text else message)
            message, message_opcode, fragments = b"", 0, 0


def events(
    data: bytes,
    *,
    is_client: bool = False,
    max_message_size: int = 0,
    max_fragments: int = 0,
    decode_text: bool = True,
    rsv1_allowed: bool = False,
) -> list[Said]:
    said: list[Said] = []
    try:
        for event in sequence(data, is_client, max_message_size, max_fragments, decode_text, rsv1_allowed):
            said.append(event)
    except Incomplete:
        pass
    except Wrong as wrong:
        said.append(("FAILED", *wrong.args))
    return said


def drain(parser: Parser) -> Iterator[Said]:
    """Pull the parser until it has no more to say."""
    while (event := parser.next()) != Event.NEED_DATA:
        if event == Event.FAILED:
            yield event.name, parser.violation.name
            return
        if event == Event.CLOSE:
            yield event.name, parser.close_code, parser.close_reason
        else:
            yield event.name, parser.payload


def core_events(pieces: Iterable[bytes], limits: Limits) -> list[Said]:
    """What the core makes of bytes that come in these pieces."""
    parser = Parser(limits)
    said: list[Said] = []
    for piece in pieces:
        parser.feed(piece)
        said.extend(drain(parser))
        if said and said[-1][0] == "FAILED":
            return said
    return said
