"""What is fuzzed in Python: how an input is made, and what must hold for it.

A target's input is bytes, the first of which say how the rest is used, so that a file replays a finding.  Each is held
against something that shares no code with it; where the two may differ, that stands here with its reason.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import httptools
import wsproto
from websockets.exceptions import PayloadTooBig
from websockets.exceptions import ProtocolError as PeerProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from wsproto.events import CloseConnection, Message, TextMessage

from tests import model
from tests.requests import CHROME, FIREFOX, SAFARI, wire
from wsev._core.head import Fault, Head, HeadLimits, HeadReader
from wsev._core.messages import Limits
from wsev._core.rules import Violation
from wsev.deflate import TAIL, Compression, Parameters
from wsev.handshake.extensions import DeflatePolicy
from wsev.handshake.origin import OriginPolicy
from wsev.handshake.response import Response
from wsev.handshake.upgrade import Upgrade, check_framing, check_host, check_upgrade, check_version, is_upgrade
from wsev.options import Options

_TOKENS = re.compile(r"[ \t]*[\w-]+[ \t]*(,[ \t]*[\w-]+[ \t]*)*", re.ASCII)


class Target(NamedTuple):
    make: Callable[[Random], bytes]
    check: Callable[[bytes], None]  # raises AssertionError, or whatever else, for a finding


def pieces_of(data: bytes, sizes: bytes) -> list[bytes]:
    """``data`` in pieces of these sizes, over and over; 0 is 256."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)] or 256
        pieces.append(data[at : at + size])
        at += size
    return pieces


def spoil(random: Random, data: bytes, most: int) -> bytes:
    """Some bytes changed, left out, or put in."""
    spoiled = bytearray(data)
    for _ in range(random.randrange(most + 1)):
        at = random.randrange(len(spoiled) + 1)
        what = random.randrange(4)
        if what == 0:
            spoiled[at:at] = random.randbytes(random.randrange(1, 4))
        elif what == 1:
            del spoiled[at : at + random.randrange(1, 5)]
        elif what == 2 and at < len(spoiled):
            spoiled[at] ^= 1 << random.randrange(8)
        elif at < len(spoiled):
            spoiled[at] = random.choice(b'\x00\x01\x7f\x80\x82\x88\x89\xff\r\n \t:,;="/')
    return bytes(spoiled)


# ------------------------------------------------------------------------------------------------------------- frames

WORDS = ["", "a", "Hello", "ä", "€", "𝄞", "\0", "x" * 125, "y" * 126, "z" * 300]


def make_frames(random: Random) -> bytes:
    stream = bytearray(random.randbytes(4))
    for _ in range(random.randrange(1, 6)):
        opcode = random.choice([1, 1, 1, 2, 2, 0, 0, 8, 9, 10, random.randrange(16)])
        payload = "".join(random.choices(WORDS, k=random.randrange(4))).encode()
        if opcode == 8:
            payload = (
                random.choice([0, 1000, 1001, 1005, 3000, 4999, random.randrange(65536)]).to_bytes(2, "big") + payload
            )
            payload = payload[: random.choice([0, 1, 2, 40, 125])]
        elif random.randrange(4) == 0:
            payload = payload[random.randrange(len(payload) + 1) :]
        if opcode >= 8 and random.randrange(8):
            payload = payload[:125]
        stream += model.encode(
            opcode,
            payload,
            fin=bool(random.randrange(4)),
            rsv=random.choice([0, 0, 0, 0, 0, 0, 4, random.randrange(8)]),
            key=random.randbytes(4) if random.randrange(20) else None,
        )
    return spoil(random, bytes(stream), 2) if random.randrange(2) else bytes(stream)


def check_frames(data: bytes) -> None:
    if len(data) < 5:
        return
    flags, sizes, stream = data[0], data[1:4], data[4:]
    limits = {"max_message_size": 400 if flags & 1 else 0, "max_fragments": 3 if flags & 2 else 0}
    is_strict = {"decode_text": not flags & 4, "rsv1_allowed": bool(flags & 8)}
    pieces = pieces_of(stream, sizes)
    said = model.core_events(pieces, Limits(**limits, **is_strict))  # type: ignore[arg-type]  # names and types agree
    assert said == model.events(stream, **limits, **is_strict), (said, model.events(stream, **limits, **is_strict))  # type: ignore[arg-type]
    if not flags & 15:
        _hold_against_wsproto(stream, said)


def _hold_against_wsproto(stream: bytes, said: list[model.Said]) -> None:
    """The same messages, and the same verdict."""
    ours = [event[1] for event in said if event[0] in ("TEXT", "BINARY")]
    has_violation = bool(said) and said[-1][0] == "FAILED"
    if has_violation:
        stream += bytes(1000)  # it judges a header when all of it is there, and text a few bytes late
    theirs: list[object] = []
    parts: list[bytes | str] = []
    verdict = "waits"
    peer = wsproto.connection.Connection(wsproto.ConnectionType.SERVER)
    try:
        peer.receive_data(stream)
        for event in peer.events():
            if isinstance(event, Message):
                parts.append(event.data)
                if event.message_finished:
                    theirs.append(("" if isinstance(event, TextMessage) else b"").join(parts))  # type: ignore[arg-type]
                    parts = []
            elif isinstance(event, CloseConnection):
                # Also what it makes of a violation; a Close frame changes its state.
                verdict = "closed" if peer.state is wsproto.connection.ConnectionState.REMOTE_CLOSING else "failed"
                break
    except wsproto.utilities.RemoteProtocolError:
        verdict = "failed"
    assert ours == theirs, (said, theirs, verdict)
    if has_violation:
        assert verdict == "failed", (said, theirs, verdict)
    elif said and said[-1][0] == "CLOSE":
        # It refuses 1012 to 1014, which IANA has registered since it was written.
        assert verdict == ("failed" if said[-1][1] in (1012, 1013, 1014) else "closed"), (said, theirs, verdict)
    else:
        assert verdict == "waits", (said, theirs, verdict)


# ------------------------------------------------------------------------------------------------------------ requests

HEADS = [wire(CHROME), wire(FIREFOX), wire(SAFARI)]
FIELDS = [
    b"Host: other.example\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: h2c, websocket\r\n",
    b"Connection: close\r\n",
    b"Sec-WebSocket-Protocol: a, b\r\n",
    b'Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits="10"\r\n',
    b"Origin: https://evil.example\r\n",
    b" folded\r\n",
    b"X:\r\n",
    b"\xc3\xa4: x\r\n",
    b"X: \xff\r\n",
]
LIMITS = HeadLimits(8192, 16384, 100)
ANY_ORIGIN = OriginPolicy(("*",))


def make_request(random: Random) -> bytes:
    lines = random.choice(HEADS).splitlines(keepends=True)
    for _ in range(random.randrange(3)):
        at = random.randrange(1, len(lines))
        if random.randrange(2):
            lines.insert(at, random.choice(FIELDS))
        else:
            del lines[at]
    head = spoil(random, b"".join(lines), 2) if random.randrange(3) else b"".join(lines)
    return random.randbytes(3) + head


def check_request(data: bytes) -> None:
    """The same in any pieces; and what is accepted, httptools and `websockets` take for an upgrade, too."""
    if len(data) < 4:
        return
    sizes, stream = data[:3], data[3:]
    whole = HeadReader(LIMITS).feed(stream)
    reader, found = HeadReader(LIMITS), None
    for piece in pieces_of(stream, sizes):
        found = reader.feed(piece)
        if found is not None:
            break
    if not isinstance(whole, Head) or not isinstance(found, Head):
        assert found == whole, (found, whole)
        assert whole is None or isinstance(whole, Fault)
        return
    assert found.raw == whole.raw
    if check_version(whole) or check_framing(whole) or not is_upgrade(whole) or whole.method != "GET":
        return
    host = check_host(whole)
    if isinstance(host, Response):
        return
    upgrade = check_upgrade(whole, host, ANY_ORIGIN, ("b",), DeflatePolicy(is_shared=True, window_bits=15))
    if isinstance(upgrade, Upgrade):
        parser = httptools.HttpRequestParser(object())
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(whole.raw)
        assert parser.should_upgrade()
        _hold_against_websockets(whole, upgrade)


def _hold_against_websockets(head: Head, upgrade: Upgrade) -> None:
    peer = ServerProtocol()
    peer.receive_data(head.raw)
    requests = peer.events_received()
    if peer.handshake_exc is not None or not requests:
        # It takes no absolute-form target, and no obs-text (RFC 9110 section 5.5).
        assert not head.raw.isascii() or not head.target.startswith("/"), peer.handshake_exc
        return
    response = peer.accept(requests[0])  # type: ignore[arg-type]  # the first is the request
    if response.status_code == 426 and (head.upgrade or "").lower() != "websocket":
        return  # it takes no list
    if response.status_code == 400 and not _TOKENS.fullmatch(f"{head.connection},{head.upgrade}"):
        return  # it wants tokens beside the one that counts, and no empty one (RFC 9110 section 5.6.1.2: ignored)
    assert response.status_code == 101, (response.status_code, response.body)
    assert response.headers["Sec-WebSocket-Accept"] == upgrade.accept_key


# ----------------------------------------------------------------------------------------------------- compressed bytes

TEXTS = [b"", b"a", b"Hello", b"Hello " * 20, bytes(3000), bytes(range(256)), b"The quick brown fox " * 9]
LIMIT = 5000
COMPRESSION = Compression(Options.of(compression="dedicated", max_message_size=LIMIT))


def make_deflated(random: Random) -> bytes:
    """Up to three messages of one context, each with its length before it, and 32,768 if it is as it was compressed."""
    deflater = zlib.compressobj(random.randrange(10), zlib.DEFLATED, -random.randrange(9, 16))
    data = bytearray([random.randrange(2)])
    for _ in range(random.randrange(1, 4)):
        text = random.choice(TEXTS) + random.randbytes(random.choice([0, 0, 3, 300])) + random.choice(TEXTS)
        payload = (deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
        intact = 0x8000
        if random.randrange(3) == 0:
            payload, intact = spoil(random, payload, 2), 0
        if random.randrange(8) == 0:
            payload = zlib.compressobj(6, zlib.DEFLATED, -15).flush(zlib.Z_FINISH) + payload
        data += (len(payload) | intact).to_bytes(2, "big") + payload
    return bytes(data)


def check_deflated(data: bytes, *, is_made: bool = True) -> None:
    """Message by message what `websockets` inflates, until one of the two refuses one.

    `is_made`: by `make_deflated`, so that what it says of a message is true.
    """
    takes_over = bool(data[:1] and data[0] & 1)
    ours = COMPRESSION.agreed(Parameters(False, not takes_over, None, None))
    theirs = PerMessageDeflate(not takes_over, False, 15, 15)
    at, is_intact = 1, is_made
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        is_intact = is_intact and size >= 0x8000
        size &= 0x7FFF
        payload = data[at + 2 : at + 2 + size]
        at += 2 + size
        inflated = ours.inflate(payload)
        assert isinstance(inflated, Violation) or len(inflated) <= LIMIT
        if _has_last_block(payload, inflated):
            return  # it has no way to go on behind one
        try:
            expected = theirs.decode(Frame(Opcode.BINARY, payload, rsv1=True), max_size=LIMIT).data
        except PayloadTooBig:
            # It takes exactly the limit for too much, if a byte of the stream is left behind it.
            assert isinstance(inflated, Violation) or len(inflated) == LIMIT
            return
        except (PeerProtocolError, zlib.error):
            assert inflated == Violation.BROKEN_COMPRESSION
            return
        if isinstance(inflated, Violation) and not is_intact:
            return  # it does not see that a message ends inside a block
        assert inflated == expected


def _has_last_block(payload: bytes, inflated: bytes | Violation) -> bool:
    """Whether an inflater comes to an end in it (BFINAL)."""
    inflater = zlib.decompressobj(-15, bytes(32768))
    try:
        inflater.decompress(payload + TAIL)
    except zlib.error:
        return isinstance(inflated, Violation)
    return inflater.eof


TARGETS = {
    "frames": Target(make_frames, check_frames),
    "request": Target(make_request, check_request),
    "deflate": Target(make_deflated, check_deflated),
}
