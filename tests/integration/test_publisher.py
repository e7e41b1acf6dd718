"""Publisher: publishing from a program that is no server, with a loop and without one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.member import HEARD, HELLO, TEXT_MESSAGE, LinkPeer, Member
from tests.peer import BINARY, TEXT, Peer

Server = wsev.Server[Any]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/mesh"


@pytest.fixture
async def server(serve: Serve, url: str) -> Server:
    server = wsev.Server[Any](broker=url, close_timeout=0.1, max_buffered_amount=None)
    server.on_connect(lambda conn: conn.subscribe("room"))
    return await serve(server)


@pytest.fixture
async def peer(raw: Raw, server: Server) -> Peer:
    """A client that is subscribed to "room"."""
    peer = await raw(server)
    await peer.upgrade()
    assert await peer.fence() == []
    return peer


@pytest.fixture
async def member(url: str) -> AsyncIterator[Member]:
    """A raw member of the mesh."""
    member = Member(Path(url.removeprefix("unix:")))
    await member.open()
    yield member
    await member.close()


def files(url: str) -> list[str]:
    return os.listdir(url.removeprefix("unix:"))


async def in_thread(function: Callable[[], None]) -> None:
    """What a program without a loop does."""
    await asyncio.get_running_loop().run_in_executor(None, function)


# With a loop.


async def test_what_is_published_in_the_first_moment_arrives(url: str, peer: Peer) -> None:
    async with wsev.Publisher(url) as publisher:
        publisher.publish("room", "hello")
        publisher.publish("hall", "to nobody")
        publisher.publish("room", b"{}", text=True)
        publisher.publish("room", bytearray(b"bytes"))
    assert await peer.read_frame() == (True, TEXT, b"hello")
    assert await peer.read_frame() == (True, TEXT, b"{}")
    assert await peer.read_frame() == (True, BINARY, b"bytes")
    assert await peer.fence() == []


async def test_a_server_that_comes_later_is_found(url: str, raw: Raw, serve: Serve) -> None:
    async with wsev.Publisher(url) as publisher:
        publisher.publish("room", "lost")
        heard: asyncio.Queue[Any] = asyncio.Queue()
        server = wsev.Server[Any](broker=url)
        server.subscribe("room", lambda topic, message: heard.put_nowait(message))
        await serve(server)
        publisher.publish("room", "found")
        assert await heard.get() == "found"


async def test_it_gets_nothing_and_leaves_nothing(url: str, server: Server, peer: Peer) -> None:
    async with wsev.Publisher(url):
        assert len(files(url)) == 2
        server.broadcast("not for publishers")
        server.publish("room", "either")
    assert len(files(url)) == 1
    assert await peer.read_frame() == (True, TEXT, b"not for publishers")
    assert server.stats().broker_dropped == 0


async def test_leaving_waits_until_the_kernel_has_taken_all(url: str, peer: Peer) -> None:
    messages = [str(number).encode() * 1000 for number in range(2000)]
    async with wsev.Publisher(url) as publisher:
        for message in messages:
            publisher.publish("room", message)
    for message in messages:
        assert await peer.read_frame() == (True, BINARY, message)


class Met:
    """A publisher and the raw member that it publishes to, which wants "room".

    Attributes:
        publisher: entered.
        says: the link over which it speaks to the member.
        hears: the other one.
    """

    def __init__(self, publisher: wsev.Publisher, says: LinkPeer, hears: LinkPeer) -> None:
        self.publisher = publisher
        self.says = says
        self.hears = hears


@pytest.fixture
async def met(url: str, member: Member) -> AsyncIterator[Met]:
    publisher = wsev.Publisher(url)
    entering = asyncio.ensure_future(publisher.__aenter__())
    says = await member.accept()
    name, wants = await says.hear_hello()
    assert wants == set()
    hears = await member.dial(name)
    await hears.say(HELLO, member.hello(b"room"))
    await hears.say(HEARD, b"\0")
    assert await says.heard() == bytes([HEARD, 0])
    await entering
    yield Met(publisher, says, hears)
    await member.close()
    await publisher.__aexit__(None, None, None)


async def test_drain_waits_for_a_server_that_is_slow(met: Met) -> None:
    met.says.pause()
    for _ in range(4):
        met.publisher.publish("room", bytes(1 << 20))
    draining = asyncio.ensure_future(met.publisher.drain())
    await met.hears.fence()
    assert not draining.done()
    met.says.resume()
    for _ in range(4):
        assert len(await met.says.heard()) == 6 + (1 << 20)
    await draining
    met.publisher.publish("room", "last")
    assert await met.says.heard() == bytes([TEXT_MESSAGE, 4]) + b"roomlast"


async def test_what_is_dropped_is_told_by_drain_once(met: Met) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear() -> None:
        while True:
            heard.put_nowait(await met.says.heard())

    for number in range(30):
        met.publisher.publish("room", bytes([number]) * (1 << 20))
    hearing = asyncio.ensure_future(hear())
    with pytest.raises(wsev.BrokerError, match="dropped messages: ") as caught:
        await met.publisher.drain()
    for number in range(30 - caught.value.dropped):
        assert (await heard.get())[6] == number
    await met.publisher.drain()
    hearing.cancel()


async def test_an_exception_in_the_block_leaves_it(url: str, server: Server) -> None:
    with pytest.raises(KeyError):
        async with wsev.Publisher(url):
            raise KeyError
    assert len(files(url)) == 1


# Without one.


async def test_without_a_loop_it_is_the_same(url: str, peer: Peer) -> None:
    def program() -> None:
        with wsev.Publisher(url) as publisher:
            publisher.publish("room", "hello")
            publisher.publish("room", b"bytes")

    await in_thread(program)
    assert await peer.read_frame() == (True, TEXT, b"hello")
    assert await peer.read_frame() == (True, BINARY, b"bytes")


async def test_without_a_loop_much_is_published_at_the_pace_of_the_servers(url: str, peer: Peer) -> None:
    size, count = 1 << 18, 150

    def program() -> None:
        with wsev.Publisher(url) as publisher:
            for number in range(count):
                publisher.publish("room", bytes([number]) * size)

    publishing = asyncio.ensure_future(in_thread(program))
    for number in range(count):
        assert await peer.read_frame() == (True, BINARY, bytes([number]) * size)
    await publishing


async def test_no_thread_is_left(url: str, server: Server) -> None:
    before = set(threading.enumerate())

    def program() -> None:
        with pytest.raises(KeyError), wsev.Publisher(url):
            raise KeyError
        with wsev.Publisher(url):
            pass
        assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "wsev-publisher"]

    await in_thread(program)


def test_without_any_server_what_is_published_is_lost_and_that_is_no_error(url: str) -> None:
    with wsev.Publisher(url) as publisher:
        publisher.publish("room", "to nobody")
    assert files(url) == []


# Mistakes.


@pytest.mark.parametrize("url", ["/run/app", "unix:app", "redis://localhost", "", None, 3], ids=repr)
def test_what_is_no_directory_is_an_error_that_says_so(url: Any) -> None:
    with pytest.raises(wsev.OptionError, match="'unix:/run/app'"):
        wsev.Publisher(url)


def test_a_directory_that_cannot_be_used_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(0o755)
    publisher = wsev.Publisher(f"unix:{tmp_path}/open")
    with pytest.raises(wsev.BrokerError, match="chmod 700"), publisher:
        pass
    (tmp_path / "open").chmod(0o700)
    with publisher:
        pass


def test_publishing_outside_of_the_block_is_an_error(url: str) -> None:
    publisher = wsev.Publisher(url)
    with pytest.raises(RuntimeError, match="not open"):
        publisher.publish("room", "x")
    with publisher:
        with pytest.raises(RuntimeError, match="open already"), publisher:
            pass
        publisher.publish("room", "x")
    with pytest.raises(RuntimeError, match="not open"):
        publisher.publish("room", "x")


def test_what_is_no_message_and_no_topic_is_an_error_at_the_call(url: str) -> None:
    wrong: Any
    with wsev.Publisher(url) as publisher:
        for wrong in (3, None, "\ud800"):
            with pytest.raises((TypeError, UnicodeEncodeError)):
                publisher.publish("room", wrong)
        for wrong in ("", b"room", "x" * 256):
            with pytest.raises((TypeError, ValueError), match="topic="):
                publisher.publish(wrong, "x")


def test_its_repr_fits_a_log_line(url: str) -> None:
    publisher = wsev.Publisher(url)
    assert repr(publisher) == f"<Publisher {url} CLOSED>"
    with publisher:
        assert repr(publisher) == f"<Publisher {url} OPEN>"
