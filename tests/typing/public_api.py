"""How the public API is written by users, for type checkers: mypy --strict and pyright accept all of it; nothing runs.

A line that a checker must refuse carries a ``type: ignore`` with its code; a checker that accepts it then reports the
comment as unused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, assert_type

import wsev
from wsev.brokers.base import BrokerHost


@dataclass
class User:
    name: str


# Without the type of conn.state.

plain = wsev.Server()


@plain.on_connect
def joined(conn: wsev.Connection) -> None:
    conn.state = {"anything": 1}
    assert_type(conn.subscribe("room"), bool)


@plain.on_message()
async def said(conn: wsev.Connection, message: str | bytes) -> None:
    assert_type(conn.send(message), bool)
    assert_type(plain.publish("room", message), int)
    await conn.drain()


# With it.


@asynccontextmanager
async def lifespan(server: wsev.Server[User]) -> AsyncIterator[int]:
    yield 1


server: wsev.Server[User] = wsev.Server(
    max_message_size=None,
    slow_consumer="drop",
    origins=["https://example.com"],
    subprotocols=("chat",),
    idle_timeout=30,
    lifespan=lifespan,
)


@server.on_upgrade
async def decide(request: wsev.Request) -> wsev.Accept | wsev.Response | None:
    if "token" not in request.query:
        return wsev.Response(403, b"no token")
    if request.headers.get("user-agent") is None:
        return None
    return wsev.Accept(subprotocol="chat", headers={"Set-Cookie": "a=b"}, state=User(request.query["token"]))


@server.on_upgrade
def decide_at_once(request: wsev.Request) -> None:
    assert_type(request.path, str)
    assert_type(request.cookies, dict[str, str])


@server.on_connect
async def entered(conn: wsev.Connection[User]) -> None:
    assert_type(conn.state, User)
    assert_type(conn.id, int)
    assert_type(conn.request, wsev.Request)
    assert_type(conn.subprotocol, str | None)
    assert_type(conn.remote_address, tuple[str, int] | str)
    assert_type(conn.is_open, bool)
    assert_type(conn.close_code, int | None)
    assert_type(conn.close_reason, str)
    assert_type(conn.buffered_amount, int)
    assert_type(conn.latency, float | None)
    assert_type(conn.topics, frozenset[str])
    task = conn.create_task(work())
    assert_type(task, asyncio.Task[int])


async def work() -> int:
    return 1


@server.on_text
def text_came(conn: wsev.Connection[User], message: str) -> None:
    conn.send(message.encode(), text=True)
    conn.publish("room", message)


@server.on_binary
def binary_came(conn: wsev.Connection[User], message: bytes) -> bool:
    return conn.send(memoryview(message))


assert_type(binary_came(next(iter(server.connections)), b""), bool)


@server.on_ping
def ping_came(conn: wsev.Connection[User], payload: bytes) -> None:
    conn.ping(payload)


@server.on_drain
def drained(conn: wsev.Connection[User]) -> None:
    conn.flush()


@server.on_disconnect
def left(conn: wsev.Connection[User], error: Exception | None) -> None:
    if isinstance(error, wsev.TimedOut):
        print(error.kind)


@server.on_request
def page(request: wsev.Request) -> wsev.Response:
    return wsev.Response(200, "<p>hello", {"Content-Type": "text/html"})


@server.on_error
def failed(error: Exception, is_fatal: bool) -> None:
    if isinstance(error, wsev.CallbackError):
        print(error.callback, error.connection)


# Between workers, and from elsewhere.


def heard(topic: str, message: str) -> None:
    print(topic, message)


async def heard_later(topic: str, message: str | bytes) -> None: ...


server.subscribe("titles", heard)
server.subscribe("titles", heard_later)
assert_type(server.unsubscribe("titles", heard), bool)


class Broker:
    """Written by a user, who needs no base class."""

    async def start(self, host: BrokerHost) -> None:
        host.deliver("room", b"payload", True)
        host.dropped(1, "there was no room")
        host.failed(wsev.BrokerError("it rains"))

    def publish(self, topic: str, payload: bytes, is_text: bool) -> None: ...
    def subscribe(self, topic: str) -> None: ...
    def unsubscribe(self, topic: str) -> None: ...
    async def stop(self) -> None: ...


wsev.Server(broker=Broker())
wsev.Server(broker="unix:/run/app")


def announce() -> None:
    with wsev.Publisher("unix:/run/app") as publisher:
        assert_type(publisher, wsev.Publisher)
        publisher.publish("room", "hello")


async def announce_from_a_loop() -> None:
    async with wsev.Publisher("unix:/run/app") as publisher:
        publisher.publish("room", b"{}", text=True)
        await publisher.drain()


# As a class.


class Chat(wsev.Handler[User]):
    async def on_connect(self, conn: wsev.Connection[User]) -> None:
        conn.send(conn.state.name)

    def on_message(self, conn: wsev.Connection[User], message: str | bytes) -> None:
        conn.close(wsev.CloseCode.GOING_AWAY, "enough")

    async def on_upgrade(self, request: wsev.Request) -> wsev.Response:
        return wsev.Response(404)


chat = wsev.Server(Chat())
assert_type(chat, wsev.Server[User])
route = server.route("/rooms/*", Chat())
assert_type(route, wsev.Route[User])


@route.on_pong
def pong_came(conn: wsev.Connection[User], payload: bytes) -> None: ...


# Running.


async def beside() -> None:
    async with server.listen(8000, host=["127.0.0.1", "::1"], backlog=10) as running:
        assert_type(running, wsev.Server[User])
        for conn in running.connections:
            assert_type(conn, wsev.Connection[User])
        assert_type(wsev.broadcast([conn for conn in running.connections if conn.state.name], "hello"), int)
        assert_type(running.stats().closes[1000], int)
        assert_type(running.port, int | None)
        running.loop.call_soon_threadsafe(running.publish, "room", "hello")
    await server.start(unix="/run/app.sock", unix_mode=0o660)
    await server.stop(1012, "new version")


def alone() -> None:
    server.run(port=8000, workers="auto", ssl=("cert.pem", "key.pem"))


# What is wrong, and is found.

wsev.Server(max_mesage_size=1)  # type: ignore[call-arg]
wsev.Server(idle_timeout="60")  # type: ignore[arg-type]
server.on_open(lambda conn: None)  # type: ignore[attr-defined]


wsev.Server(broker=Chat())  # type: ignore[arg-type]
wsev.Server(http=asyncio.DatagramProtocol)  # type: ignore[arg-type]
server.subscribe("titles", lambda topic: None)  # type: ignore[arg-type,misc]


@server.on_message  # type: ignore[arg-type]
def too_few(conn: wsev.Connection[User]) -> None: ...


@server.on_connect  # type: ignore[arg-type]
def of_another_state(conn: wsev.Connection[Chat]) -> None: ...


def send_what_is_no_message(conn: wsev.Connection[Any]) -> None:
    conn.send({"json": 1})  # type: ignore[arg-type]
