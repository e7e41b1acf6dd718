"""What callbacks can rely on, while thirty connections at once are split, suspended and ended at random.

A seed says all that is random: what peers send and in which pieces, which callbacks wait and for how long, what ends
each connection.  What is claimed does not depend on it.  Callbacks wait on futures that are let go one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import random
import socket
import struct
import sys
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.gate import Gate
from tests.life import CALLBACKS, ENDS, Life
from tests.peer import CLOSE, PONG, TEXT, Peer, encode_frame, upgrade_request
from tests.script import LONGEST, VIOLATION, split, write_script

Server = wsev.Server[Any]


class Suspensions:
    """Where callbacks wait: each is let go by something that happens elsewhere, at last all of them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._waiting: list[asyncio.Future[None]] = []
        self._is_open = False

    async def wait(self) -> None:
        if self._is_open or self._chance.random() < 0.3:
            await asyncio.sleep(0)
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def let_go(self) -> None:
        """One of them, any."""
        if self._waiting:
            waiting = self._waiting.pop(self._chance.randrange(len(self._waiting)))
            if not waiting.done():
                waiting.set_result(None)

    def open(self) -> None:
        self._is_open = True
        while self._waiting:
            self.let_go()


# The peers.


SIOCOUTQNSD = 0x894B  # linux/sockios.h


def unsent_bytes(sock: socket.socket) -> int | None:
    """What the kernel has not sent yet, because ten segments still wait for an ACK: a reset would lose it."""
    if sys.platform != "linux":
        return None
    (amount,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, bytes(4)))
    return int(amount)


ENDINGS = ("Close", "FIN", "RST", "violation")  # of the peer's part


class Talker:
    """A peer that says its part in random pieces, reads all that comes, and answers the server's Close in its way."""

    def __init__(self, peer: Peer, life: Life, chance: random.Random, suspensions: Suspensions) -> None:
        self.life = life
        self.ending = chance.choice(ENDINGS)
        self.answer = chance.choice(("Close", "Close", "FIN", "RST"))
        self.replies: list[str] = []
        self.pongs: list[bytes] = []
        self.close_code: int | None = None  # of the server's Close
        self._peer = peer
        self._chance = chance
        self._suspensions = suspensions
        self._script = write_script(chance, chance.randrange(30))
        self._is_open = True  # until it has answered, or ended, or the server has
        self._speaking = asyncio.Lock()  # so that an answer does not fall into the middle of a frame
        self.reading: asyncio.Task[None] | None = None
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # so that a reset overtakes nothing

    async def open(self) -> None:
        """The request, and what comes along with it."""
        data = upgrade_request(f"/{self.life.number}")
        for _ in range(self._chance.choice((0, 0, 1, 5))):
            data += self._take()
        await self._send(data)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # on_connect may have aborted
            assert (await self._peer.read_head()).status == 101
        self.reading = asyncio.ensure_future(self._read())

    def _take(self) -> bytes:
        """The script's next frame: it is as good as sent."""
        if not self._script:
            return b""
        data, event = self._script.pop(0)
        if event is not None:
            self.life.sent.append(event)
        return data

    async def talk(self) -> None:
        """The rest, and the end."""
        while self._script and self._is_open:
            async with self._speaking:
                data = b"".join(self._take() for _ in range(self._chance.choice((1, 1, 2, 10))))
                for piece in split(self._chance, data, self._chance.choice((0, 0, 1, 3))):
                    await self._send(piece)
                    await asyncio.sleep(0)
            self._suspensions.let_go()
        async with self._speaking:
            await self._end()

    def _may_speak(self) -> bool:
        return self._is_open and not self._peer.writer.is_closing()

    async def _send(self, data: bytes) -> None:
        if not self._may_speak():
            return
        with contextlib.suppress(ConnectionError):
            await self._peer.send(data)
            assert self._peer.writer.transport.get_write_buffer_size() == 0

    async def _end(self) -> None:
        if self.ending == "Close":
            await self._send(encode_frame(CLOSE, struct.pack("!H", 4000)))
        elif self.ending == "violation":
            await self._send(VIOLATION)
        else:
            await self._send(encode_frame(TEXT, b"unfinished")[: self._chance.randrange(16)])
            self._leave(self.ending)

    def _leave(self, how: str) -> None:
        if not self._may_speak():
            return
        self._is_open = False
        with contextlib.suppress(OSError):  # the server's end came first
            if how == "RST" and unsent_bytes(self._peer.socket) == 0:
                self._peer.reset()
            else:
                self._peer.send_eof()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                frame = await self._peer.read_frame()
                assert self.close_code is None, f"{frame} behind the Close frame"
                if frame.opcode == TEXT:
                    self.replies.append(frame.payload.decode())
                elif frame.opcode == PONG:
                    self.pongs.append(frame.payload)
                else:
                    assert frame.opcode == CLOSE
                    (self.close_code,) = struct.unpack("!H", frame.payload[:2])
                    async with self._speaking:
                        await self._answer()
        self._is_open = False
        await self._peer.close()

    async def _answer(self) -> None:
        if self._is_open and self.answer == "Close":
            await self._send(encode_frame(CLOSE, struct.pack("!H", self.close_code)))
            self._is_open = False
        else:
            self._leave(self.answer)

    def reasons(self, *, stops: bool) -> set[str]:
        """What the peer's doings may lead to: its ending, or its answer to a Close of the server's own."""
        reasons = {{"Close": "clean", "violation": "violation"}.get(self.ending, "lost")}
        if stops or self.life.first is not None or self.life.raised:
            reasons.add("clean" if self.answer == "Close" else "lost")
        return reasons

    def check(self, *, stops: bool) -> None:
        """What the peer got: the replies that were taken, in order and once, and after them the Close frame, if any."""
        assert self.replies == self.life.taken[: len(self.replies)]
        if self.close_code is not None:
            assert self.replies == self.life.taken
            assert self.close_code in self._close_codes(stops=stops)
        pings = iter([payload for kind, payload in self.life.sent if kind == "ping"])
        assert all(pong in pings for pong in self.pongs), "a pong out of order, or none asked for"

    def _close_codes(self, *, stops: bool) -> set[int]:
        """That the server may have sent: its answer to the peer's ending, or for an end of its own."""
        codes = {"Close": {4000}, "violation": {1002}}.get(self.ending, set())
        if stops:
            codes.add(1001)
        if self.life.first == "close":
            codes.add(3000)
        if self.life.raised:
            codes.add(1011)
        return codes


def choose_ends(chance: random.Random) -> dict[int, str]:
    """Which events' callbacks end a connection: of two in three, none."""
    if chance.random() < 0.6:
        return {}
    return {chance.randrange(20): chance.choice(ENDS) for _ in range(2)}


OPTIONS: dict[str, list[Any]] = {
    "max_queue": [1, 2, 10, None],
    "max_message_size": [2 * LONGEST, None],
    "read_buffer_size": [4096, 262_144],
    "write_buffer_deadline": [0, 0.001],
    "write_buffer_size": [1024, 16_384],
}


@pytest.mark.slow
@pytest.mark.parametrize("stops", [False, True], ids=["to the end", "stopped in the middle"])
@pytest.mark.parametrize("seed", range(8))
async def test_whatever_ends_a_connection_its_callbacks_can_rely_on_their_order(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord], seed: int, stops: bool
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    suspensions = Suspensions(chance)
    plans = [{0: "raise"}, *(choose_ends(chance) for _ in range(29))]  # one error at least is logged
    never = asyncio.Event()
    lives = [Life(number, chance, suspensions.wait, never.wait, plan) for number, plan in enumerate(plans)]
    for life in lives:
        life.another = chance.choice(lives)
    server: Server = wsev.Server(**{name: chance.choice(values) for name, values in OPTIONS.items()})
    for name, callback in CALLBACKS.items():
        getattr(server, name)(callback)
    server.on_upgrade(lambda request: wsev.Accept(state=lives[int(request.path[1:])]))
    told: list[Exception] = []
    server.on_error(lambda error, is_fatal: told.append(error))
    await serve(server)

    talkers = [Talker(await raw(server), life, chance, suspensions) for life in lives]
    await asyncio.gather(*(talker.open() for talker in talkers))
    stopping = None
    talks = [asyncio.ensure_future(talker.talk()) for talker in talkers]
    if stops:
        await asyncio.wait(talks, return_when=asyncio.FIRST_COMPLETED)
        stopping = asyncio.ensure_future(server.stop())
    await asyncio.gather(*talks)
    suspensions.open()
    for talker in talkers:
        assert talker.reading is not None
        await talker.reading
    for life in lives:
        await life.over.wait()
    await (stopping or server.stop())

    for talker in talkers:
        talker.life.check(ends=talker.reasons(stops=stops), is_all_due=not stops and talker.ending != "violation")
        talker.check(stops=stops)
    raised = [error for life in lives for error in life.raised]
    assert len(raised) == len(told) == len(expected_errors)
    assert {id(error.__cause__) for error in told} == {id(error) for error in raised}
    assert sum(server.stats().closes.values()) == len(lives)


async def test_a_stop_in_the_middle_delivers_nothing_more_but_on_disconnect(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(max_queue=2)
    gate = Gate()
    server.on_message(gate)
    ends: list[BaseException | None] = []
    server.on_disconnect(lambda conn, error: ends.append(error))
    await serve(server)
    peer, other = await raw(server), await raw(server)
    await peer.upgrade()
    await other.upgrade()
    await peer.send(b"".join(encode_frame(TEXT, b"%d" % number) for number in range(10)))
    await other.fence()
    stopping = asyncio.ensure_future(server.stop())
    for each in (peer, other):
        frame = await each.read_frame()
        assert (frame.opcode, frame.payload[:2]) == (CLOSE, struct.pack("!H", 1001))
        await each.send_close(1001)
        await each.read_eof()
    gate.open()
    await stopping
    assert gate.ended == ["0"]
    assert ends == [None, None]
