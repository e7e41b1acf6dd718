"""What a peer says: random messages, whole and in fragments, with control frames between, and the events they make.

Each is numbered, so that one that is lost, doubled or out of order shows.  Nothing here breaks a rule but VIOLATION.
"""

from __future__ import annotations

import random

from tests.life import Event
from tests.peer import BINARY, CONTINUATION, PING, PONG, TEXT, encode_frame

Script = list[tuple[bytes, Event | None]]  # frames, each with the event that it makes, if any

OPCODES = {"text": TEXT, "binary": BINARY, "ping": PING, "pong": PONG}
LONGEST = 3000  # characters of a message; more than a small read or write buffer holds
VIOLATION = bytes([0xFF, 0xFF]) * 8


def write_script(chance: random.Random, size: int) -> Script:
    """`size` messages and control frames."""
    script: Script = []
    for number in range(size):
        if chance.random() < 0.3:
            script.append(_write_control(chance, f"{number}"))
        else:
            script += _write_message(chance, f"{number}")
    return script


def _write_control(chance: random.Random, label: str) -> tuple[bytes, Event]:
    kind = chance.choice(("ping", "pong"))
    return encode_frame(OPCODES[kind], label.encode()), (kind, label.encode())


def _write_message(chance: random.Random, label: str) -> Script:
    """One message in one frame or more, perhaps with control frames between."""
    kind = chance.choice(("text", "text", "binary"))
    message = f"{label} é " + "." * chance.choice((0, 10, 120, 130, chance.randrange(LONGEST)))
    payload = message.encode()
    pieces = split(chance, payload, chance.choice((0, 0, 1, 2, 5)))
    script: Script = []
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        opcode = CONTINUATION if number else OPCODES[kind]
        event = (kind, message if kind == "text" else payload) if is_last else None
        script.append((encode_frame(opcode, piece, fin=is_last), event))
        if not is_last and chance.random() < 0.3:
            script.append(_write_control(chance, f"{label}.{number}"))
    return script


def split(chance: random.Random, data: bytes, count: int) -> list[bytes]:
    """Cut in `count` places, some of them perhaps the same."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(count))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
