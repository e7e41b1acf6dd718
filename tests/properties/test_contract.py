"""What callbacks can rely on, driven by hand: read events, turns of the loop and suspensions in any order.

As on sockets, but hypothesis chooses the order, also such as sockets show by luck only, and shrinks what fails.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.life import CALLBACKS, ENDS, Life
from tests.peer import CLOSE, TEXT, encode_frame
from tests.script import LONGEST, VIOLATION, write_script
from tests.unit.test_connection import Driven

pytestmark = pytest.mark.slow

LAST_WORDS = {
    "Close": encode_frame(CLOSE, struct.pack("!H", 4000)),
    "FIN": encode_frame(TEXT, b"unfinished")[:10],
    "RST": b"",
    "violation": VIOLATION,
}
REASONS = {"Close": "clean", "FIN": "lost", "RST": "lost", "violation": "violation"}


class Driver(Driven):
    """A connection with a Life, and a peer with a script and an ending.

    Args:
        chance: of the script and of what the callbacks do.
        ending: of the peer's part; a key of LAST_WORDS.
    """

    def __init__(self, chance: random.Random, ending: str, ends: dict[int, str], options: dict[str, Any]) -> None:
        self.life = Life(0, chance, self._suspend, self._wait_for_ever, ends)
        self._waiting: list[asyncio.Future[None]] = []
        self._script = write_script(chance, chance.randrange(12))
        self._unread = b"".join(data for data, event in self._script) + LAST_WORDS[ending]
        self._begun = 0  # bytes of the script's next frame that have been received
        self._ending = ending
        self._is_lost = self._has_ended = False
        callbacks = CALLBACKS | {"on_connect": self._on_connect}
        super().__init__(callbacks=callbacks, max_buffered_amount=None, close_timeout=None, **options)

    def _on_connect(self, conn: Any) -> Awaitable[None] | None:
        conn.state = self.life
        return self.life.called(conn, "connect")

    async def _suspend(self) -> None:
        waiting = self.loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _wait_for_ever(self) -> Awaitable[None]:
        return self.loop.create_future()

    # Steps.

    def read(self, size: int) -> None:
        """A read event, if the transport is read from and the peer has said so much."""
        if not self._unread or not self._may_read():
            return
        data, self._unread = self._unread[:size], self._unread[size:]
        self._begun += len(data)
        while self._script and self._begun >= len(self._script[0][0]):
            frame, event = self._script.pop(0)
            self._begun -= len(frame)
            if event is not None:
                self.life.sent.append(event)
        self.receive(data)

    def _may_read(self) -> bool:
        return self.transport.is_reading_now and not (self.transport.is_closed or self._is_lost or self._has_ended)

    def turn_once(self) -> None:
        """What is ready now, and not what that makes ready."""
        ready, self.loop.ready = self.loop.ready, []
        for call in ready:
            call()

    def let_go(self) -> None:
        """Whoever has waited longest."""
        if self._waiting:
            waiting = self._waiting.pop(0)
            if not waiting.done():
                waiting.set_result(None)

    def block(self) -> None:
        """The peer takes no more output."""
        self.transport.is_stuck = True

    def unblock(self) -> None:
        if self.transport.is_stuck and not self._is_lost:
            self.take_output()

    def close(self) -> None:
        """From outside a callback."""
        self.life.close(self.conn)

    def abort(self) -> None:
        self.life.abort(self.conn)

    def reset(self) -> None:
        """The peer's RST, if that is to be its end."""
        if self._ending == "RST" and not self._is_lost:
            self._lose(ConnectionResetError())

    def _lose(self, error: Exception | None = None) -> None:
        self._is_lost = True
        self.conn.connection_lost(error)

    # The end.

    def go_on_to_the_end(self) -> None:
        """Let all happen that must: nobody waits, output is taken, the peer says the rest and ends."""
        for _ in range(200):
            self.loop.turn()
            if self.life.over.is_set():
                return
            if self._waiting:
                self.let_go()
            elif self.transport.is_stuck and not self._is_lost:
                self.unblock()
            elif self.transport.is_closed and not self._is_lost:
                self._lose()
            elif self._unread and self._may_read():
                self.read(len(self._unread))
            elif self._ending == "RST":
                self.reset()
            elif self._may_read():
                self._end()
        raise AssertionError("it does not come to an end")

    def _end(self) -> None:
        """FIN: its ending, or its answer to the server's."""
        self._has_ended = True
        if not self.conn.eof_received():
            self.transport.close()


STEPS: dict[str, Callable[[Driver], None]] = {
    "read 1": lambda driver: driver.read(1),
    "read 20": lambda driver: driver.read(20),
    "read 5000": lambda driver: driver.read(5000),
    "turn once": Driver.turn_once,
    "turn": lambda driver: driver.loop.turn(),
    "let go": Driver.let_go,
    "block": Driver.block,
    "unblock": Driver.unblock,
    "close": Driver.close,
    "abort": Driver.abort,
    "reset": Driver.reset,
    "time": lambda driver: driver.loop.pass_time(1.0),
}
USUAL = ["read 1", "read 20", "read 5000", "turn once", "turn", "let go", "let go"]

steps = st.lists(st.one_of(st.sampled_from(USUAL), st.sampled_from(list(STEPS))), max_size=60)
options = st.fixed_dictionaries(
    {
        "max_queue": st.sampled_from([1, 2, 5, None]),
        "max_message_size": st.sampled_from([2 * LONGEST, None]),
        "high_water": st.sampled_from([10, 65_536]),
        "write_buffer_deadline": st.sampled_from([0, 1.0]),
    }
)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 1 << 32),  # st.randoms() would raise what ends an example out of callbacks
    ending=st.sampled_from(list(LAST_WORDS)),
    ends=st.dictionaries(st.integers(0, 15), st.sampled_from(ENDS), max_size=2),
    options=options,
    steps=steps,
)
def test_whatever_happens_in_whatever_order_callbacks_can_rely_on_theirs(
    seed: int, ending: str, ends: dict[int, str], options: dict[str, Any], steps: list[str]
) -> None:
    driver = Driver(random.Random(seed), ending, ends, options)
    for step in steps:
        STEPS[step](driver)
    driver.go_on_to_the_end()
    driver.life.check(ends={REASONS[ending]}, is_all_due=ending != "violation")
    assert [error.__cause__ for error in driver.hooks.errors] == driver.life.raised
    assert driver.hooks.is_closed
    assert not driver.server.connections
    assert not driver.server.leaving
    assert driver.state.pool.lent == 0
