"""Topics and broadcasting: who gets a message, how many took it, and in which order it leaves."""

from __future__ import annotations

import asyncio
import enum
import tracemalloc
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Protocol

import pytest

import wsev
from tests.conftest import Connect, Raw, Serve
from tests.peer import BINARY, CLOSE, TEXT, Peer

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]

MUCH = b"\0" * 8_000_000  # more than the buffers of a loopback connection take


class Join(Protocol):
    async def __call__(self, server: Server, *topics: str, receive_buffer: int | None = None) -> tuple[Peer, Conn]: ...


@pytest.fixture
def join(raw: Raw) -> Join:
    """`peer, conn = await join(server, *topics)`: both ends of a new connection, subscribed to these topics."""

    async def open_both(server: Server, *topics: str, receive_buffer: int | None = None) -> tuple[Peer, Conn]:
        peer = await raw(server, receive_buffer=receive_buffer)
        await peer.upgrade()
        conn = newest(server)
        for topic in topics:
            assert conn.subscribe(topic)
        return peer, conn

    return open_both


def newest(server: Server) -> Conn:
    return max(server.connections, key=lambda conn: conn.id)


# Subscriptions.


async def test_subscribe_and_unsubscribe_say_what_is_so_now_and_was_before(serve: Serve, join: Join) -> None:
    _, conn = await join(await serve(wsev.Server()))
    assert conn.topics == frozenset()
    assert (conn.subscribe("room"), conn.subscribe("room"), conn.subscribe("hall")) == (True, True, True)
    before = conn.topics
    assert (conn.unsubscribe("room"), conn.unsubscribe("room"), conn.unsubscribe("attic")) == (True, False, False)
    assert before == {"room", "hall"}
    assert conn.topics == {"hall"}


async def test_who_subscribed_twice_receives_once_and_who_unsubscribed_no_more(serve: Serve, join: Join) -> None:
    server = await serve(wsev.Server())
    peer, conn = await join(server, "room", "room")
    assert server.publish("room", "first") == 1
    assert conn.unsubscribe("room")
    assert server.publish("room", "second") == 0
    assert await peer.fence() == [(True, TEXT, b"first")]


async def test_past_max_subscriptions_subscribe_is_false_and_unsubscribing_makes_room(serve: Serve, join: Join) -> None:
    server = await serve(wsev.Server(max_subscriptions=2))
    peer, conn = await join(server, "a", "b")
    assert conn.subscribe("b") is True
    assert server.stats().limits == {}
    assert conn.subscribe("c") is False
    assert server.stats().limits == {"max_subscriptions": 1}
    assert conn.topics == {"a", "b"}
    assert server.publish("c", "refused") == 0
    conn.unsubscribe("a")
    assert conn.subscribe("c") is True
    assert conn.topics == {"b", "c"}
    assert server.publish("c", "taken") == 1
    assert await peer.fence() == [(True, TEXT, b"taken")]


@pytest.mark.parametrize("topic", ["é" * 127, "\0", "rooms/*", "🚪"], ids=ascii)
async def test_a_topic_is_any_string_and_stands_for_itself_alone(serve: Serve, join: Join, topic: str) -> None:
    server = await serve(wsev.Server())
    peer, conn = await join(server, topic)
    assert [server.publish(other, "no") for other in (topic + " ", topic[:-1] + "?", "rooms/1")] == [0, 0, 0]
    assert server.publish(topic, "yes") == 1
    assert await peer.fence() == [(True, TEXT, b"yes")]
    assert conn.topics == {topic}


async def test_a_member_of_a_str_enum_is_the_topic_of_its_value(serve: Serve, join: Join) -> None:
    class Topic(enum.StrEnum):
        ROOM = "room"

    server = await serve(wsev.Server())
    peer, _ = await join(server, Topic.ROOM)
    assert server.publish("room", "hello") == 1
    assert await peer.fence() == [(True, TEXT, b"hello")]


WITH_A_TOPIC: dict[str, Callable[[Server, Conn, Any], object]] = {
    "subscribe": lambda server, conn, topic: conn.subscribe(topic),
    "unsubscribe": lambda server, conn, topic: conn.unsubscribe(topic),
    "conn.publish": lambda server, conn, topic: conn.publish(topic, "m"),
    "server.publish": lambda server, conn, topic: server.publish(topic, "m"),
}


@pytest.mark.parametrize("call", WITH_A_TOPIC.values(), ids=WITH_A_TOPIC)
async def test_what_is_no_topic_is_an_error_at_the_call_and_nothing_else(
    serve: Serve, join: Join, call: Callable[[Server, Conn, Any], object]
) -> None:
    server = await serve(wsev.Server())
    peer, conn = await join(server, "room")
    for size_or_form in ("", "x" * 256, "é" * 128, "\ud800"):
        with pytest.raises(ValueError, match="topic="):
            call(server, conn, size_or_form)
    for no_str in (None, b"room", 3):
        with pytest.raises(TypeError, match="topic"):
            call(server, conn, no_str)
    assert await peer.fence() == []
    assert conn.is_open
    assert conn.topics == {"room"}


async def we_close(peer: Peer, conn: Conn) -> None:
    conn.close()


async def we_abort(peer: Peer, conn: Conn) -> None:
    conn.abort()


async def peer_closes(peer: Peer, conn: Conn) -> None:
    await peer.send_close()
    await conn.wait_closed()


async def peer_resets(peer: Peer, conn: Conn) -> None:
    peer.reset()
    await conn.wait_closed()


@pytest.mark.parametrize("end", [we_close, we_abort, peer_closes, peer_resets])
async def test_who_has_ended_is_published_to_no_more_and_leaves_its_topics(
    serve: Serve, join: Join, end: Callable[[Peer, Conn], Awaitable[None]]
) -> None:
    server = await serve(wsev.Server(close_timeout=0.05))
    gone, conn = await join(server, "room", "hall")
    other, _ = await join(server, "room")
    await end(gone, conn)
    assert not conn.is_open
    assert (server.publish("room", "m"), server.publish("hall", "m")) == (1, 0)
    await conn.wait_closed()
    assert await other.fence() == [(True, TEXT, b"m")]
    assert (conn.topics, conn.subscribe("room"), conn.unsubscribe("room")) == (frozenset(), False, False)


async def test_topics_can_be_read_in_on_disconnect_and_are_gone_after_it(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    ended: asyncio.Future[tuple[Any, frozenset[str]]] = asyncio.get_running_loop().create_future()
    server.on_connect(lambda conn: conn.subscribe("room"))
    server.on_disconnect(lambda conn, error: ended.set_result((conn, conn.topics)))
    await serve(server)
    peer = await raw(server)
    await peer.upgrade()
    await peer.send_close()
    conn, topics = await ended
    assert topics == {"room"}
    await peer.expect_close(1000)
    assert conn.topics == frozenset()
    assert conn.subscribe("room") is False
    assert conn.topics == frozenset()
    assert server.publish("room", "m") == 0


async def test_while_on_disconnect_waits_its_topics_stay_and_nothing_is_published_to_it(
    serve: Serve, join: Join
) -> None:
    server: Server = wsev.Server()
    begun, go_on = asyncio.Event(), asyncio.Event()
    log: list[Any] = []

    @server.on_disconnect
    async def left(conn: Conn, error: Exception | None) -> None:
        begun.set()
        await go_on.wait()
        log.append((conn.topics, conn.unsubscribe("room"), conn.topics))

    await serve(server)
    peer, _ = await join(server, "room", "hall")
    await peer.send_close()
    await begun.wait()
    assert server.publish("room", "m") == 0
    go_on.set()
    await server.stop()
    assert log == [({"room", "hall"}, True, {"hall"})]


async def test_two_servers_in_one_loop_have_topics_of_their_own(serve: Serve, join: Join) -> None:
    one, other = await serve(wsev.Server()), await serve(wsev.Server())
    peer, _ = await join(one, "room")
    quiet, _ = await join(other, "room")
    assert one.publish("room", "m") == 1
    assert await peer.fence() == [(True, TEXT, b"m")]
    assert await quiet.fence() == []


async def test_a_server_that_is_started_again_has_no_subscribers(serve: Serve, join: Join) -> None:
    server = await serve(wsev.Server())
    peer, conn = await join(server, "room")
    peer.reset()
    await server.stop()
    await serve(server)
    assert (server.publish("room", "m"), conn.topics) == (0, frozenset())


# Publishing.


async def test_publish_reaches_every_subscriber_and_no_other(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    server.on_connect(lambda conn: conn.request.path == "/in" and conn.subscribe("room"))
    await serve(server)
    peers = [await raw(server) for _ in range(3)]
    for peer, path in zip(peers, ("/in", "/out", "/in"), strict=True):
        await peer.upgrade(path)
        await peer.fence()
    assert server.publish("room", "hello") == 2
    assert [await peer.fence() for peer in peers] == [[(True, TEXT, b"hello")], [], [(True, TEXT, b"hello")]]


async def test_a_connections_publish_skips_itself(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    took: list[int] = []
    server.on_connect(lambda conn: conn.subscribe("room"))
    server.on_message(lambda conn, message: took.append(conn.publish("room", message)))
    await serve(server)
    first, second = await raw(server), await raw(server)
    await first.upgrade()
    await second.upgrade()
    await second.fence()
    await first.send_frame(TEXT, b"hello")
    assert await first.fence() == []
    assert await second.fence() == [(True, TEXT, b"hello")]
    assert took == [1]


async def test_who_publishes_need_not_be_subscribed_nor_open(serve: Serve, join: Join) -> None:
    server = await serve(wsev.Server())
    peer, _ = await join(server, "room")
    _, outsider = await join(server)
    assert outsider.publish("room", "from outside") == 1
    outsider.abort()
    assert outsider.publish("room", "from beyond") == 1
    assert await peer.fence() == [(True, TEXT, b"from outside"), (True, TEXT, b"from beyond")]


async def test_on_connect_may_publish_and_what_it_gets_comes_right_behind_the_101(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    took: list[int] = []

    @server.on_connect
    def joined(conn: Conn) -> None:
        conn.subscribe("room")
        took.append(conn.publish("room", "somebody came"))
        took.append(server.publish("room", f"you are {len(server.connections)}"))

    await serve(server)
    first, second = await raw(server), await raw(server)
    await first.upgrade()
    await first.expect_frame(TEXT, b"you are 1")
    await second.upgrade()
    await second.expect_frame(TEXT, b"you are 2")
    assert await first.fence() == [(True, TEXT, b"somebody came"), (True, TEXT, b"you are 2")]
    assert took == [0, 1, 1, 2]


@pytest.mark.parametrize("end", [peer_closes, peer_resets])
async def test_on_disconnect_may_publish_to_those_that_stay(
    serve: Serve, join: Join, end: Callable[[Peer, Conn], Awaitable[None]]
) -> None:
    server: Server = wsev.Server()
    took: list[int] = []

    @server.on_disconnect
    def left(conn: Conn, error: Exception | None) -> None:
        took.append(conn.publish("room", "somebody left"))
        took.append(server.publish("room", "really"))

    await serve(server)
    gone, conn = await join(server, "room")
    other, _ = await join(server, "room")
    await end(gone, conn)
    assert await other.fence() == [(True, TEXT, b"somebody left"), (True, TEXT, b"really")]
    assert took == [1, 1]


@pytest.mark.parametrize("deadline", [0, 0.01], ids="write_buffer_deadline={}".format)
async def test_sends_and_publishes_leave_in_the_order_of_the_calls(serve: Serve, join: Join, deadline: float) -> None:
    server = await serve(wsev.Server(write_buffer_deadline=deadline))
    peer, conn = await join(server, "room", "hall")
    _, other = await join(server, "room")
    calls: list[Callable[[bytes], object]] = [
        conn.send,
        lambda message: server.publish("room", message),
        lambda message: other.publish("room", message),
        server.broadcast,
        lambda message: wsev.broadcast([conn], message),
        lambda message: server.publish("hall", message),
    ]
    # Small, as large as a write buffer, larger (kept by reference), and small behind it.
    messages = [b"%d " % number * size for size in (1, 8_000, 50_000, 1, 3_000) for number in range(len(calls))]
    for number, message in enumerate(messages):
        calls[number % len(calls)](message)
    for message in messages:
        await peer.expect_frame(BINARY, message)


async def test_all_subscribers_see_all_messages_in_the_same_order(serve: Serve, connect: Connect) -> None:
    server: Server = wsev.Server()
    server.on_connect(lambda conn: conn.subscribe("room"))
    server.on_message(lambda conn, message: server.publish("room", message))
    await serve(server)
    clients = [await connect(server) for _ in range(4)]

    async def talk(number: int) -> None:
        for count in range(25):
            await clients[number].send(f"{number} {count}")

    async with asyncio.TaskGroup() as group:
        listening = [group.create_task(_receive(client, 100)) for client in clients]
        for number in range(4):
            group.create_task(talk(number))
    (first, *others) = [task.result() for task in listening]
    assert all(other == first for other in others)
    for number in range(4):
        assert [said for said in first if said.startswith(f"{number} ")] == [f"{number} {n}" for n in range(25)]


async def _receive(client: Any, count: int) -> list[str]:
    return [await client.recv() for _ in range(count)]


async def test_a_published_message_is_encoded_once_for_all(serve: Serve, join: Join) -> None:
    server = await serve(wsev.Server())
    peers = [(await join(server, "room"))[0] for _ in range(10)]
    message = b"\0" * 500_000
    tracemalloc.start()
    try:
        assert server.publish("room", message) == 10
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(message) <= peak < 2 * len(message)
    for peer in peers:
        await peer.expect_frame(BINARY, message)


async def test_publish_counts_neither_who_is_closing_nor_who_is_not_subscribed(serve: Serve, join: Join) -> None:
    server = await serve(wsev.Server())
    await join(server)
    closing, conn = await join(server, "room")
    await join(server, "room")
    await join(server, "room")
    conn.close()
    assert server.publish("room", "m") == 2
    assert (await closing.read_frame()).opcode == CLOSE
    await closing.send_close()
    await closing.read_eof()


# Messages, whichever way they are given to many.

TO_MANY: dict[str, Callable[..., int]] = {
    "server.publish": lambda server, conn, *message, **text: server.publish("room", *message, **text),
    "conn.publish": lambda server, conn, *message, **text: conn.publish("room", *message, **text),
    "server.broadcast": lambda server, conn, *message, **text: server.broadcast(*message, **text),
    "wsev.broadcast": lambda server, conn, *message, **text: wsev.broadcast(server.connections, *message, **text),
}


@pytest.mark.parametrize("call", TO_MANY.values(), ids=TO_MANY)
async def test_str_is_text_bytes_are_binary_and_with_text_they_are_text(
    serve: Serve, connect: Connect, join: Join, call: Callable[..., int]
) -> None:
    server = await serve(wsev.Server())
    client = await connect(server)
    newest(server).subscribe("room")
    _, publisher = await join(server)
    reused = bytearray(b"bytes")
    for message in ("grün", b"bytes", reused, memoryview(b"--bytes--")[2:-2], b"", ""):
        assert call(server, publisher, message) >= 1
    reused[:] = b"later"  # the bytes were taken before the call returned
    for message in ("grün", "grün".encode(), bytearray(b"text"), b""):
        assert call(server, publisher, message, text=True) >= 1
    received = [await client.recv() for _ in range(10)]
    assert received == ["grün", b"bytes", b"bytes", b"bytes", b"", "", "grün", "grün", "text", ""]


@pytest.mark.parametrize("call", TO_MANY.values(), ids=TO_MANY)
async def test_what_is_no_message_is_an_error_at_the_call_whoever_listens(
    serve: Serve, join: Join, call: Callable[..., int]
) -> None:
    server = await serve(wsev.Server())
    peer, conn = await join(server)
    for _ in range(2):
        with pytest.raises(TypeError, match="message must be str, bytes, bytearray or memoryview, not int"):
            call(server, conn, 3)
        with pytest.raises(UnicodeEncodeError):
            call(server, conn, "\ud800")
        conn.subscribe("room")
    assert await peer.fence() == []
    assert conn.is_open


@pytest.mark.parametrize("message", [3, "\ud800"], ids=ascii)
def test_what_is_no_message_is_an_error_on_an_idle_server_too(message: Any) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        wsev.Server().broadcast(message)


# Slow subscribers.


@pytest.mark.slow
async def test_a_slow_subscriber_does_not_hold_the_others_up(serve: Serve, join: Join) -> None:
    server = await serve(wsev.Server(max_buffered_amount=None))
    slow, conn = await join(server, "room", receive_buffer=4096)
    quick, _ = await join(server, "room")
    slow.pause()
    messages = [b"%02d" % number * 100_000 for number in range(40)]
    for message in messages:
        assert server.publish("room", message) == 2
        await quick.expect_frame(BINARY, message)
    assert conn.buffered_amount > 1_000_000
    slow.resume()
    for message in messages:
        await slow.expect_frame(BINARY, message)


@pytest.mark.slow
async def test_with_drop_a_slow_subscriber_misses_messages_and_gets_the_later_ones(serve: Serve, join: Join) -> None:
    server = await serve(wsev.Server(max_buffered_amount=1_000_000, slow_consumer="drop"))
    slow, _ = await join(server, "room", receive_buffer=4096)
    quick, _ = await join(server, "room")
    slow.pause()
    assert server.publish("room", MUCH) == 2
    await quick.expect_frame(BINARY, MUCH)
    assert (server.publish("room", "missed"), server.broadcast("missed too"), server.stats().dropped) == (1, 1, 2)
    slow.resume()
    await slow.expect_frame(BINARY, MUCH)
    assert await slow.fence() == []
    assert server.publish("room", "later") == 2
    assert await slow.fence() == [(True, TEXT, b"later")]
    assert await quick.fence() == [(True, TEXT, message) for message in (b"missed", b"missed too", b"later")]


@pytest.mark.slow
async def test_what_a_publish_causes_is_published_after_it(serve: Serve, join: Join) -> None:
    server: Server = wsev.Server(max_buffered_amount=1_000_000)
    is_publishing = False

    def publish(message: bytes) -> int:
        nonlocal is_publishing
        assert not is_publishing, "a callback ran inside publish()"
        is_publishing = True
        try:
            return server.publish("room", message)
        finally:
            is_publishing = False

    server.on_disconnect(lambda conn, error: publish(b"left: " + type(error).__name__.encode()))
    await serve(server)
    slow, conn = await join(server, "room", receive_buffer=4096)
    others = [(await join(server, "room"))[0] for _ in range(2)]
    slow.pause()
    assert publish(MUCH) == 3
    for other in others:
        await other.expect_frame(BINARY, MUCH)
    assert publish(b"too much for one") == 2
    slow.reset()
    await conn.wait_closed()
    for other in others:
        assert await other.fence() == [(True, BINARY, b"too much for one"), (True, BINARY, b"left: SlowConsumer")]


# Broadcasting.


async def test_broadcast_reaches_every_connection(serve: Serve, raw: Raw) -> None:
    server = await serve(wsev.Server())
    peers = [await raw(server) for _ in range(3)]
    for peer in peers:
        await peer.upgrade()
        await peer.fence()
    assert server.broadcast(b"\0") == 3
    assert wsev.broadcast(server.connections, b"text", text=True) == 3
    for peer in peers:
        assert await peer.fence() == [(True, BINARY, b"\0"), (True, TEXT, b"text")]


COLLECTIONS: dict[str, Callable[[list[Conn]], Iterable[Conn]]] = {
    "list": list,
    "set": set,
    "keys": lambda connections: dict.fromkeys(connections).keys(),
    "generator": lambda connections: (conn for conn in connections),
}


@pytest.mark.parametrize("collect", COLLECTIONS.values(), ids=COLLECTIONS)
async def test_broadcast_passes_over_those_that_have_ended(
    serve: Serve, join: Join, collect: Callable[[list[Conn]], Collection[Conn]]
) -> None:
    server = await serve(wsev.Server())
    peers, connections = zip(*[await join(server) for _ in range(4)], strict=True)
    connections[1].abort()  # it ends in a moment
    peers[2].reset()
    await connections[2].wait_closed()
    assert wsev.broadcast(collect(list(connections)), "m") == 2
    assert server.broadcast("n") == 2
    for peer in (peers[0], peers[3]):
        assert await peer.fence() == [(True, TEXT, b"m"), (True, TEXT, b"n")]


async def test_broadcast_reaches_connections_of_several_servers(serve: Serve, join: Join) -> None:
    one, other = await serve(wsev.Server()), await serve(wsev.Server(write_buffer_deadline=0.01))
    peers, connections = zip(*[await join(server) for server in (one, other)], strict=True)
    assert wsev.broadcast(connections, "m") == 2
    for peer in peers:
        await peer.expect_frame(TEXT, b"m")
    assert [server.stats().messages_out for server in (one, other)] == [1, 1]


async def test_a_collection_may_be_iterated_while_its_members_are_ended_though_on_disconnect_changes_it(
    serve: Serve, join: Join
) -> None:
    members: set[Conn] = set()
    server: Server = wsev.Server(close_timeout=0.05)
    server.on_connect(lambda conn: members.add(conn))
    server.on_disconnect(lambda conn, error: members.remove(conn))
    await serve(server)
    for _ in range(6):
        await join(server)
    for number, conn in enumerate(members):
        assert wsev.broadcast(members, "m") == 6 - number
        if number % 2:
            conn.close()
        else:
            conn.abort()
    assert len(members) == 6, "on_disconnect is called by the loop, later"
    await server.stop()
    assert members == set()


async def test_a_loop_over_the_servers_connections_goes_through_those_open_when_it_began(
    serve: Serve, join: Join
) -> None:
    server = await serve(wsev.Server())
    early = [(await join(server))[1] for _ in range(3)]
    visited = []
    for conn in server.connections:
        visited.append(conn)
        conn.abort()
        await conn.wait_closed()
        late = [(await join(server))[1] for _ in range(2)]
        assert all(each in server.connections for each in late)
    assert sorted(conn.id for conn in visited) == [conn.id for conn in early]
    assert len(server.connections) == 6
