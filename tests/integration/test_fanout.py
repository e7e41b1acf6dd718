"""What a server asks of its broker, and what happens when that fails."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.peer import BINARY, TEXT
from wsev.brokers.base import BrokerHost

Server = wsev.Server[Any]


class RecordingBroker:
    """Keeps what it was asked, in order; `faults` are the members that raise."""

    host: BrokerHost

    def __init__(self, *faults: str) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._faults = faults

    def _ask(self, member: str, *arguments: Any) -> None:
        self.asked.append((member, *arguments))
        if member in self._faults:
            raise KeyError(f"no {member} today")

    async def start(self, host: BrokerHost) -> None:
        self.host = host
        self._ask("start")

    def publish(self, topic: str, payload: bytes, is_text: bool) -> None:
        self._ask("publish", topic, payload, is_text)

    def subscribe(self, topic: str) -> None:
        self._ask("subscribe", topic)

    def unsubscribe(self, topic: str) -> None:
        self._ask("unsubscribe", topic)

    async def stop(self) -> None:
        self._ask("stop")


def hear(topic: str, message: str | bytes) -> None:
    pass


@pytest.fixture
def told() -> asyncio.Queue[Any]:
    """What on_error was given."""
    return asyncio.Queue()


@pytest.fixture
def make(told: asyncio.Queue[Any]) -> Any:
    """`server = make(broker)`: a client of it is subscribed to "room"."""

    def make_server(broker: RecordingBroker) -> Server:
        server = wsev.Server[Any](broker=broker, close_timeout=0.1)
        server.on_connect(lambda conn: conn.subscribe("room"))
        server.on_error(lambda error, is_fatal: told.put_nowait(error))
        return server

    return make_server


# What it is asked.


async def test_the_broker_hears_of_a_topics_first_subscriber_and_of_its_last_whatever_they_are(
    serve: Serve, raw: Raw, make: Any
) -> None:
    broker = RecordingBroker()
    server = make(broker)
    server.subscribe("early", hear)
    await serve(server)
    assert broker.asked == [("subscribe", ""), ("subscribe", "early"), ("start",)]
    broker.asked.clear()
    peers = [await raw(server) for _ in range(2)]
    for peer in peers:
        await peer.upgrade()
        await peer.fence()
    server.subscribe("room", hear)
    server.subscribe("room", print)
    assert broker.asked == [("subscribe", "room")]
    broker.asked.clear()
    server.unsubscribe("room", hear)
    first, second = server.connections
    first.unsubscribe("room")
    second.unsubscribe("room")
    assert broker.asked == []
    server.unsubscribe("room", print)
    assert broker.asked == [("unsubscribe", "room")]


async def test_the_broker_gets_each_message_as_bytes_and_as_what_it_was(serve: Serve, make: Any) -> None:
    broker = RecordingBroker()
    server = await serve(make(broker))
    broker.asked.clear()
    server.publish("room", "h\xe9")
    server.publish("hall", bytearray(b"b"))
    server.publish("room", b"{}", text=True)
    server.broadcast(b"all")
    assert broker.asked == [
        ("publish", "room", "h\xe9".encode(), True),
        ("publish", "hall", b"b", False),
        ("publish", "room", b"{}", True),
        ("publish", "", b"all", False),
    ]
    assert all(type(payload) is bytes for _, _, payload, _ in broker.asked)


async def test_what_is_no_message_never_reaches_it(serve: Serve, make: Any) -> None:
    broker = RecordingBroker()
    server = await serve(make(broker))
    broker.asked.clear()
    wrong: Any
    for wrong in (3, "\ud800"):
        with pytest.raises((TypeError, UnicodeEncodeError)):
            server.publish("room", wrong)
    with pytest.raises(ValueError, match="topic="):
        server.publish("", "not a topic of a user's")
    assert broker.asked == []


async def test_it_lives_around_the_lifespan(make: Any) -> None:
    broker = RecordingBroker()

    @asynccontextmanager
    async def lifespan(server: Server) -> Any:
        broker.asked.append(("entered",))
        yield
        broker.asked.append(("left",))

    server = wsev.Server[Any](broker=broker, lifespan=lifespan)
    for _ in range(2):
        broker.asked.clear()
        async with server.listen(0):
            pass
        assert broker.asked == [("subscribe", ""), ("start",), ("entered",), ("left",), ("stop",)]


async def test_what_it_delivers_reaches_the_subscribers(serve: Serve, raw: Raw, make: Any) -> None:
    broker = RecordingBroker()
    server = await serve(make(broker))
    peer = await raw(server)
    await peer.upgrade()
    await peer.fence()
    broker.host.deliver("room", b"text", True)
    broker.host.deliver("hall", b"to nobody", True)
    broker.host.deliver("", b"\xff", False)
    assert await peer.read_frame() == (True, TEXT, b"text")
    assert await peer.read_frame() == (True, BINARY, b"\xff")
    assert await peer.fence() == []
    assert [each for each in broker.asked if each[0] == "publish"] == [], "what it delivers does not come back to it"
    assert server.stats().broker_in == 3


# What it does wrong.


async def test_a_broker_that_raises_is_told_and_the_subscribers_here_get_the_message(
    serve: Serve, raw: Raw, make: Any, told: asyncio.Queue[Any]
) -> None:
    server = await serve(make(RecordingBroker("publish")))
    peer = await raw(server)
    await peer.upgrade()
    await peer.fence()
    assert server.publish("room", "hello") == 1
    error = await told.get()
    assert isinstance(error, wsev.BrokerError)
    assert str(error) == "RecordingBroker.publish raised KeyError: 'no publish today'"
    assert isinstance(error.__cause__, KeyError)
    assert await peer.read_frame() == (True, TEXT, b"hello")


@pytest.mark.parametrize("member", ["subscribe", "unsubscribe"])
async def test_a_broker_that_raises_over_a_subscription_is_told_and_the_subscription_stands(
    serve: Serve, raw: Raw, make: Any, told: asyncio.Queue[Any], member: str
) -> None:
    server = await serve(make(RecordingBroker(member)))
    peer = await raw(server)
    await peer.upgrade()
    await peer.fence()
    assert server.publish("room", "hello") == 1
    (conn,) = server.connections
    assert conn.unsubscribe("room")
    assert f"RecordingBroker.{member} raised" in str(await told.get())
    assert server.publish("room", "hello") == 0


async def test_a_broker_that_cannot_start_ends_the_start_and_may_be_tried_again(make: Any) -> None:
    broker = RecordingBroker("start")
    server = make(broker)
    with pytest.raises(KeyError):
        await server.start(0)
    assert server.addresses == ()
    assert ("stop",) not in broker.asked
    broker._faults = ()
    await server.start(0)
    await server.stop()
    assert broker.asked[-1] == ("stop",)


async def test_a_broker_whose_stop_raises_is_told_and_the_server_stops(make: Any, told: asyncio.Queue[Any]) -> None:
    server = make(RecordingBroker("stop"))
    await server.start(0)
    await server.stop()
    assert str(told.get_nowait()) == "RecordingBroker.stop raised KeyError: 'no stop today'"
    assert server.addresses == ()


async def test_what_a_broker_drops_is_counted_and_told(
    serve: Serve, make: Any, told: asyncio.Queue[Any], caplog: pytest.LogCaptureFixture
) -> None:
    broker = RecordingBroker()
    server = await serve(make(broker))
    broker.host.dropped(3, "the moon is full")
    broker.host.dropped(4, "the moon is full")
    error = await told.get()
    assert (error.dropped, str(error)) == (7, "dropped messages: 7; the moon is full")
    assert server.stats().broker_dropped == 7
    assert [(record.name, record.levelname) for record in caplog.records] == [("wsev.broker", "WARNING")]
