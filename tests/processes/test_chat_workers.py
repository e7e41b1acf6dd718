"""The chat room with two workers: one room for everybody, whichever worker they are with, and whichever is killed.

All that the workers tell each other goes over one topic, in the order of each: who has heard a message of a guest has
heard, before it, all that the guest's worker had to tell. So a message is the fence that proves that nothing else came.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest
from websockets.asyncio.client import connect

from tests.guest import OTHER_KEY, Guest
from tests.processes.conftest import Run, Start

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["asyncio"])]  # this loop is only the guests'

NEVER = 1e6  # seconds


class Room:
    """A room that is open, and who is in it.

    Attributes:
        run: the program.
        guests: by name; each has heard that the others are here, and all that was said.
        said: the texts.
    """

    def __init__(self, run: Run, connections: AsyncExitStack) -> None:
        self.run = run
        self.guests: dict[str, Guest] = {}
        self.said: list[str] = []
        self._connections = connections
        self._places: dict[str, int] = {}  # by name

    async def visit(self, place: int) -> Guest:
        """Connect until the worker of this place is met; who joins not is seen by nobody."""
        while True:
            client = await connect(f"ws://127.0.0.1:{self.run.port}/", ping_interval=None, proxy=None)
            self._connections.push_async_callback(client.close)
            assert client.response is not None
            if client.response.headers["Worker"] == str(self.run.workers[place]):
                return Guest(client)

    async def join(self, name: str, place: int) -> Guest:
        """Somebody new comes in, and everybody hears it, once."""
        guest = await self.visit(place)
        welcome = await guest.join(name)
        known, read = set(welcome["people"]), [message["text"] for message in welcome["history"]]
        if place not in self._places.values():  # nobody there has heard yet what its worker may be about to hear
            while known != {*self.guests, name}:
                known.add((await guest.hear("joined"))["name"])
            while read != self.said:
                read.append((await guest.hear("message"))["text"])
        assert (known, read) == ({*self.guests, name}, self.said)
        for other in self.guests.values():
            assert await other.hear("joined") == {"type": "joined", "name": name}
        self.guests[name], self._places[name] = guest, place
        return guest

    async def come_back(self, name: str, place: int) -> dict[str, Any]:
        """The same page joins again, from a new connection; nobody need hear it."""
        guest = await self.visit(place)
        welcome = await guest.join(name)
        self.guests[name], self._places[name] = guest, place
        return welcome

    async def say(self, name: str, text: str) -> None:
        """Everybody hears it, as the next that they hear."""
        said = await self.guests[name].say(text, id=text)
        assert (said["name"], said["text"]) == (name, text)
        for other in self.guests.values():
            assert other is self.guests[name] or await other.hear("message") == said
        self.said.append(text)

    async def hears_of_nothing_else(self) -> None:
        """Nobody has heard anything but what was waited for."""
        for name in self.guests:
            await self.say(name, f"a fence of {name}'s, after {len(self.said)} messages")
        for guest in self.guests.values():
            await guest.hear_nothing()

    async def kill(self, place: int) -> None:
        """One worker dies without a word; returns when its guests know and another has taken its place."""
        os.kill(self.run.workers[place], signal.SIGKILL)
        for name, at in self._places.items():
            if at == place:
                await self.guests.pop(name).client.wait_closed()
        self._places = {name: at for name, at in self._places.items() if at != place}
        await self.run.line(rf"worker {place} \(pid \d+\) is ready")

    async def leave(self, name: str) -> None:
        """Somebody goes, and everybody hears it, once."""
        del self._places[name]
        await self.guests.pop(name).client.close()
        await self.heard_to_leave(name)

    async def heard_to_leave(self, name: str) -> None:
        for guest in self.guests.values():
            assert await guest.hear("left") == {"type": "left", "name": name}


class Open(Protocol):
    async def __call__(self, *, beat: float = ..., silence: float = ...) -> Room: ...


@pytest.fixture
async def open_room(start: Start) -> AsyncIterator[Open]:
    """`room = await open_room()`: with two workers, which tell of themselves when something happens and at no times."""
    async with AsyncExitStack() as connections:

        async def open_room(*, beat: float = NEVER, silence: float = NEVER) -> Room:
            body = f"from tests.chatroom import chat\nchat.BEAT, chat.SILENCE = {beat}, {silence}"
            return Room(await (await start(body, run="chat.server.run(0, workers=2)")).started(), connections)

        yield open_room


# --------------------------------------------------------------------------------------------------------- all is well


async def test_everybody_hears_of_everybody_once(open_room: Open) -> None:
    room = await open_room()
    for name, place in {"Ada": 0, "Grace": 1, "Alan": 0, "Greta": 1}.items():
        await room.join(name, place)
    for name in room.guests:
        await room.say(name, f"{name} says good morning")
    await room.leave("Alan")
    await room.leave("Greta")
    await room.hears_of_nothing_else()
    await room.run.stop()


async def test_name_is_taken_for_every_worker(open_room: Open) -> None:
    room = await open_room()
    await room.join("Ada", 0)
    await room.join("Grace", 1)
    for place in 0, 1:
        other = await room.visit(place)
        for name in "ada", "GRACE":
            await other.send(type="join", name=name, key=OTHER_KEY)
            await other.hear_error("name_taken")
    await room.hears_of_nothing_else()


async def test_same_key_at_another_worker_takes_the_name_over_without_notice(open_room: Open) -> None:
    room = await open_room()
    before = await room.join("Ada", 0)
    await room.join("Grace", 1)
    await room.join("Alan", 0)
    welcome = await room.come_back("Ada", 1)
    assert (welcome["name"], set(welcome["people"])) == ("Ada", {"Ada", "Grace", "Alan"})
    await before.client.wait_closed()
    assert before.client.close_code == 4000
    await room.hears_of_nothing_else()
    await room.leave("Ada")  # the worker that had her has told that it has not any more
    await room.hears_of_nothing_else()


async def test_message_that_was_heard_before_the_connection_broke_is_not_said_again(open_room: Open) -> None:
    room = await open_room()
    await room.join("Ada", 0)
    grace = await room.join("Grace", 1)
    await room.say("Ada", "Did this arrive?")
    await room.come_back("Ada", 1)
    await room.guests["Ada"].say("Did this arrive?", id="Did this arrive?")
    await grace.hear_nothing()
    await room.hears_of_nothing_else()


# ----------------------------------------------------------------------------------------------------- a worker is gone


@pytest.mark.parametrize("places", [(1, 0), (0, 0), (1, 1)], ids=["one to each", "both elsewhere", "both there again"])
async def test_killed_worker_is_noticed_by_its_own_guests_only(open_room: Open, places: tuple[int, int]) -> None:
    room = await open_room()
    for name, place in {"Ada": 0, "Grace": 1, "Alan": 0, "Greta": 1}.items():
        await room.join(name, place)
        await room.say(name, f"{name} says good morning")
    everybody = set(room.guests)
    await room.kill(1)
    await room.hears_of_nothing_else()
    for name, place in zip(("Grace", "Greta"), places, strict=True):
        welcome = await room.come_back(name, place)
        assert set(welcome["people"]) == everybody
        assert [message["text"] for message in welcome["history"]] == room.said
    await room.hears_of_nothing_else()
    await room.leave("Grace")
    await room.run.stop()


async def test_killed_workers_names_are_kept_by_every_worker_for_who_has_the_key(open_room: Open) -> None:
    room = await open_room()
    await room.join("Ada", 0)
    await room.join("Grace", 1)
    await room.kill(1)
    for place in 0, 1:
        thief = await room.visit(place)
        await thief.send(type="join", name="Grace", key=OTHER_KEY)
        await thief.hear_error("name_taken")
    assert set((await room.come_back("Grace", 1))["people"]) == {"Ada", "Grace"}
    await room.hears_of_nothing_else()


async def test_who_does_not_come_back_from_a_killed_worker_is_left_after_the_silence(open_room: Open) -> None:
    room = await open_room(beat=0.1, silence=3)
    for name, place in {"Ada": 0, "Grace": 1, "Greta": 1}.items():
        await room.join(name, place)
    await room.kill(1)
    assert set((await room.come_back("Grace", 1))["people"]) == {"Ada", "Grace", "Greta"}
    await room.heard_to_leave("Greta")
    await room.hears_of_nothing_else()
    stranger = await room.visit(1)
    assert set((await stranger.join("Greta", OTHER_KEY))["people"]) == {"Ada", "Grace", "Greta"}


async def test_workers_are_replaced_and_nobody_is_seen_to_go(open_room: Open) -> None:
    room = await open_room()
    for name, place in {"Ada": 0, "Grace": 1, "Alan": 0, "Greta": 1}.items():
        await room.join(name, place)
        await room.say(name, f"{name} says good morning")
    everybody = dict(room.guests)
    room.run.signal(signal.SIGHUP)
    for guest in everybody.values():
        await guest.client.wait_closed()
        assert guest.client.close_code == 1012
    await room.run.line("all workers are replaced")
    room.guests.clear()
    for name, place in {"Ada": 0, "Grace": 0, "Alan": 1, "Greta": 1}.items():
        welcome = await room.come_back(name, place)
        assert set(welcome["people"]) == set(everybody)
        assert [message["text"] for message in welcome["history"]] == room.said
        await room.hears_of_nothing_else()
    await room.leave("Ada")
    await room.join("Ada", 1)
    await room.hears_of_nothing_else()
    await room.run.stop()


async def test_who_does_not_come_back_from_a_replaced_worker_is_left_after_the_silence(open_room: Open) -> None:
    room = await open_room(beat=0.1, silence=3)
    await room.join("Ada", 0)
    await room.join("Grace", 1)
    room.run.signal(signal.SIGHUP)
    await asyncio.gather(*(guest.client.wait_closed() for guest in room.guests.values()))
    await room.run.line("all workers are replaced")
    room.guests.clear()
    await room.come_back("Ada", 0)
    await room.heard_to_leave("Grace")
    await room.hears_of_nothing_else()
