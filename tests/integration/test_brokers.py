"""Brokers: what is published in one server reaches the subscribers of the others.

Each test runs with the mesh and with a broker as a user may write one.  The servers of a test live in one loop; that
workers are processes is shown in tests/processes/.  `known(server, to=other)` waits until `other` knows what `server`
has subscribed to: a subscription travels, and what is published meanwhile elsewhere may miss it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.hub import Hub, HubBroker
from tests.peer import BINARY, TEXT, Peer

Conn = wsev.Connection[Any]
MakeBroker = Callable[[], Any]


@pytest.fixture(params=["mesh", "hub"])
def make_broker(request: pytest.FixtureRequest, tmp_path: Path) -> MakeBroker:
    """`broker=make_broker()`: for servers that are to meet."""
    if request.param == "mesh":
        return lambda: f"unix:{tmp_path}/mesh"
    hub = Hub()
    return lambda: HubBroker(hub)


class Server(wsev.Server[Any]):
    """A client is subscribed to the topics in its path; `heard` is what came on the topic "heard"."""

    def __init__(self, **options: Any) -> None:
        super().__init__(close_timeout=0.1, **options)  # raw clients do not answer a Close
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.subscribe("heard", lambda topic, message: self.heard.put_nowait(message))
        self.on_connect(self.joined)

    def joined(self, conn: Conn) -> None:
        for topic in filter(None, conn.request.path[1:].split("+")):
            assert conn.subscribe(topic)


class Start(Protocol):
    async def __call__(self, **options: Any) -> Server: ...


@pytest.fixture
def start(serve: Serve, make_broker: MakeBroker) -> Start:
    """`server = await start(**options)`: a server that meets the others of the test."""

    async def start_server(**options: Any) -> Server:
        return await serve(Server(broker=make_broker(), **options))

    return start_server


class Join(Protocol):
    async def __call__(self, server: Server, *topics: str, known_to: Server | None = None) -> Peer: ...


@pytest.fixture
def join(raw: Raw) -> Join:
    """`peer = await join(server, *topics, known_to=other)`: a subscriber; the other server knows that there is one."""

    async def open_peer(server: Server, *topics: str, known_to: Server | None = None) -> Peer:
        peer = await raw(server)
        await peer.upgrade("/" + "+".join(topics))
        assert await peer.fence() == []
        if known_to is not None:
            await known(server, to=known_to)
        return peer

    return open_peer


async def known(server: Server, *, to: Server) -> None:
    """Wait until `to` has heard from `server`, and so knows all that it subscribed to before."""
    server.publish("heard", f"of {server.port}")
    while await to.heard.get() != f"of {server.port}":
        pass


# Who gets what.


@pytest.mark.parametrize(
    ("message", "text", "frame"),
    [
        ("hello", False, (True, TEXT, b"hello")),
        ("h\xe9llo \U0001f600", False, (True, TEXT, "h\xe9llo \U0001f600".encode())),
        (b"\x00\xff", False, (True, BINARY, b"\x00\xff")),
        (b"{}", True, (True, TEXT, b"{}")),
        (bytearray(b"taken"), False, (True, BINARY, b"taken")),
        (memoryview(b"a view")[2:], False, (True, BINARY, b"view")),
        ("", False, (True, TEXT, b"")),
        (b"", False, (True, BINARY, b"")),
    ],
    ids=["str", "unicode", "bytes", "bytes as text", "bytearray", "memoryview", "empty text", "empty binary"],
)
async def test_a_message_arrives_in_the_other_server_as_it_was_published(
    start: Start, join: Join, message: Any, text: bool, frame: tuple[bool, int, bytes]
) -> None:
    here, there = await start(), await start()
    peer = await join(there, "room", known_to=here)
    assert here.publish("room", message, text=text) == 0, "it counts the connections of its own worker"
    assert await peer.read_frame() == frame


async def test_subscribers_of_every_server_get_it_once(start: Start, join: Join) -> None:
    servers = [await start() for _ in range(3)]
    peers = [await join(server, "room", known_to=servers[0]) for server in servers for _ in range(2)]
    assert servers[0].publish("room", "one") == 2
    servers[0].publish("room", "two")
    for peer in peers:
        assert [await peer.read_frame(), await peer.read_frame()] == [(True, TEXT, b"one"), (True, TEXT, b"two")]
        assert await peer.fence() == []


async def test_a_connection_that_publishes_does_not_get_it_back_and_the_other_servers_do(
    start: Start, join: Join
) -> None:
    here, there = await start(), await start()
    far = await join(there, "room", known_to=here)
    publisher, near = await join(here, "room"), await join(here, "room")
    first = min(here.connections, key=lambda conn: conn.id)
    assert first.publish("room", "from me") == 1
    assert await far.read_frame() == (True, TEXT, b"from me")
    assert await near.read_frame() == (True, TEXT, b"from me")
    await known(there, to=here)
    assert await publisher.fence() == []


async def test_who_is_not_subscribed_gets_nothing(start: Start, join: Join) -> None:
    here, there = await start(), await start()
    peer = await join(there, "room", known_to=here)
    here.publish("hall", "not for it")
    here.publish("room", "for it")
    assert await peer.read_frame() == (True, TEXT, b"for it")
    assert await peer.fence() == []


async def test_a_topic_reaches_a_server_again_whose_last_subscriber_left_and_came_back(
    start: Start, join: Join
) -> None:
    here, there = await start(), await start()
    peer = await join(there, "room+hall", known_to=here)
    (conn,) = there.connections
    conn.unsubscribe("room")
    await known(there, to=here)
    here.publish("room", "missed")
    here.publish("hall", "fence")
    assert await peer.read_frame() == (True, TEXT, b"fence")
    conn.subscribe("room")
    await known(there, to=here)
    here.publish("room", "back")
    assert await peer.read_frame() == (True, TEXT, b"back")


async def test_broadcast_reaches_every_connection_of_every_server(start: Start, join: Join) -> None:
    here, there = await start(), await start()
    peers = [await join(here), await join(there), await join(there, "room")]
    assert here.broadcast("all of you") == 1
    assert there.broadcast(b"again") == 2
    for peer in peers:
        frames = {await peer.read_frame(), await peer.read_frame()}  # of two publishers: in either order
        assert frames == {(True, TEXT, b"all of you"), (True, BINARY, b"again")}
        assert await peer.fence() == []


async def test_messages_of_one_publisher_arrive_in_order(start: Start, join: Join) -> None:
    here, there = await start(), await start(max_buffered_amount=None)
    peer = await join(there, "room", known_to=here)
    messages = [str(number).encode().ljust((1, 100, 1000, 70_000)[number % 4], b".") for number in range(400)]
    for message in messages:
        here.publish("room", message)
    for message in messages:
        assert await peer.read_frame() == (True, BINARY, message)


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 1 << 20, 5_000_000])
async def test_messages_of_every_size_arrive_whatever_max_message_size_is(start: Start, join: Join, size: int) -> None:
    here, there = await start(max_message_size=100), await start(max_message_size=100, max_buffered_amount=None)
    peer = await join(there, "room", known_to=here)
    message = bytes(range(256)) * (size // 256 + 1)
    here.publish("room", message[:size])
    assert await peer.read_frame() == (True, BINARY, message[:size])


@pytest.mark.parametrize("topic", ["x" * 255, "\xe9" * 127, "\0", "a/b.*", "\U0001f600"], ids=ascii)
async def test_every_topic_arrives(start: Start, join: Join, topic: str) -> None:
    here, there = await start(), await start()
    peer = await join(there)
    (conn,) = there.connections
    conn.subscribe(topic)
    await known(there, to=here)
    here.publish(topic, "m")
    here.publish(topic[:-1] + "!", "another's")
    assert await peer.read_frame() == (True, TEXT, b"m")
    assert await peer.fence() == []


# Callbacks of the server itself.


async def test_a_callback_of_each_server_hears_what_is_published_in_any(start: Start) -> None:
    here, there = await start(), await start()
    here.publish("heard", "hello")
    there.publish("heard", b"bytes")
    for server in (here, there):
        assert {await server.heard.get(), await server.heard.get()} == {"hello", b"bytes"}


async def test_an_answer_finds_its_way_back_to_who_subscribed_before_it_asked(start: Start, join: Join) -> None:
    here, there = await start(), await start()
    there.subscribe("question", lambda topic, message: there.publish(f"answer to {message}", "42"))
    await known(there, to=here)
    peer = await join(here)
    (conn,) = here.connections
    for number in range(100):
        conn.subscribe(f"answer to {number}")
        here.publish("question", str(number))
        assert await peer.read_frame() == (True, TEXT, b"42")


async def test_with_decode_text_off_callbacks_get_bytes(start: Start) -> None:
    here, there = await start(decode_text=False), await start(decode_text=False)
    here.publish("heard", "h\xe9")
    assert await here.heard.get() == await there.heard.get() == "h\xe9".encode()


# A server's life.


async def test_who_comes_later_gets_what_is_published_from_then_on(start: Start, join: Join) -> None:
    here = await start()
    here.publish("heard", "before")
    there = await start()
    here.publish("heard", "now")
    assert await there.heard.get() == "now"
    peer = await join(there, "room", known_to=here)
    here.publish("room", "too")
    assert await peer.read_frame() == (True, TEXT, b"too")


async def test_who_leaves_leaves_the_others_as_they_were(start: Start, join: Join) -> None:
    servers = [await start() for _ in range(3)]
    peer = await join(servers[2], "room", known_to=servers[0])
    await servers[1].stop()
    servers[0].publish("room", "still here")
    assert await peer.read_frame() == (True, TEXT, b"still here")
    assert servers[0].stats().broker_dropped == 0


async def test_a_server_may_be_started_again(start: Start, join: Join) -> None:
    here, there = await start(), await start()
    for _ in range(3):
        await there.stop()
        await there.start(0)
        peer = await join(there, "room", known_to=here)
        here.publish("room", "again")
        assert await peer.read_frame() == (True, TEXT, b"again")
        there.publish("heard", "as well")
        while await here.heard.get() != "as well":
            pass


async def test_what_on_disconnect_publishes_at_the_stop_reaches_the_others(
    serve: Serve, make_broker: MakeBroker, start: Start, join: Join
) -> None:
    here = await start()
    there = Server(broker=make_broker())
    there.on_disconnect(lambda conn, error: there.publish("heard", "left"))
    await serve(there)
    await join(there)
    await there.stop()
    assert await here.heard.get() == "left"


async def test_both_ends_of_a_lifespan_may_publish_and_its_beginning_may_hear_answers(
    serve: Serve, make_broker: MakeBroker, start: Start
) -> None:
    here = await start()
    here.subscribe("who is there", lambda topic, message: here.publish(message, "I am"))
    answers: asyncio.Queue[Any] = asyncio.Queue()

    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[None]:
        server.subscribe("answer", lambda topic, message: answers.put_nowait(message))
        server.publish("who is there", "answer")
        yield await answers.get()
        server.publish("heard", "I was")

    there = await serve(wsev.Server[Any](broker=make_broker(), lifespan=lifespan))
    assert there.state == "I am"
    await there.stop()
    assert await here.heard.get() == "I was"


# What is counted.


async def test_stats_count_what_came_from_other_servers(start: Start, join: Join) -> None:
    here, there = await start(), await start()
    for number in range(5):
        here.publish("heard", str(number))
    here.publish("nobody", "counts this")
    for number in range(5):
        assert await there.heard.get() == str(number)
    assert (here.stats().broker_in, there.stats().broker_in) == (0, 5)
    assert (here.stats().broker_dropped, there.stats().broker_dropped) == (0, 0)
