"""Routes: which callbacks a path leads to, and what is answered where it leads nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import wsev
from tests.answers import parse_answer
from tests.conftest import Connect, Raw, Serve
from tests.peer import TEXT
from tests.requests import PLAIN, request, wire

Server = wsev.Server[Any]
Route = wsev.Route[Any]
Conn = wsev.Connection[Any]


def tell(registry: Server | Route, name: str) -> None:
    """Let a new connection be told whose it is, and for which path."""
    registry.on_connect(lambda conn: conn.send(f"{name} has {conn.request.path}"))


# Paths.

PATHS = ["/", "/chat", "/rooms/*", "/rooms/private/*", "/rooms/private/door", "/a b", "/café"]


@pytest.mark.parametrize(
    ("target", "route", "path"),
    [
        ("/", "/", "/"),
        ("/?room=1", "/", "/"),
        ("/chat", "/chat", "/chat"),
        ("/chat?next=/rooms/a", "/chat", "/chat"),
        ("/%63h%61t", "/chat", "/chat"),
        ("http://localhost/chat", "/chat", "/chat"),
        ("ws://localhost", "/", "/"),
        ("/rooms/", "/rooms/*", "/rooms/"),
        ("/rooms/a/b/", "/rooms/*", "/rooms/a/b/"),
        ("/rooms%2Fa", "/rooms/*", "/rooms/a"),
        ("/rooms//a", "/rooms/*", "/rooms//a"),
        ("/rooms/../chat", "/rooms/*", "/rooms/../chat"),
        ("/rooms/%2e%2e/chat", "/rooms/*", "/rooms/../chat"),
        ("/rooms/private", "/rooms/*", "/rooms/private"),
        ("/rooms/private/", "/rooms/private/*", "/rooms/private/"),
        ("/rooms/private/door", "/rooms/private/door", "/rooms/private/door"),
        ("/rooms/private/door/", "/rooms/private/*", "/rooms/private/door/"),
        ("/rooms/%252e", "/rooms/*", "/rooms/%2e"),
        ("/rooms/%ff", "/rooms/*", "/rooms/\N{REPLACEMENT CHARACTER}"),
        ("/a%20b", "/a b", "/a b"),
        ("/caf%C3%A9", "/café", "/café"),
    ],
    ids=str,
)
async def test_a_target_leads_to_the_longest_route_that_fits_its_decoded_path(
    serve: Serve, raw: Raw, target: str, route: str, path: str
) -> None:
    server: Server = wsev.Server()
    for each in PATHS:
        tell(server.route(each), each)
    peer = await raw(await serve(server))
    await peer.upgrade(target)
    await peer.expect_frame(TEXT, f"{route} has {path}".encode())


@pytest.mark.parametrize(
    "target",
    [
        "/other",
        "/chat/",
        "//chat",
        "/./chat",
        "/x/../chat",
        "/CHAT",
        "/chat%3Froom",
        "/chat%00",
        "/chat;x",
        "/ch%2561t",
        "/rooms",
        "/Rooms/a",
        "/roomsy/a",
        "/a+b",
        "/caf%E9",
        "//",
    ],
)
async def test_a_path_that_fits_no_route_is_404(serve: Serve, raw: Raw, target: str) -> None:
    server: Server = wsev.Server()
    for each in PATHS:
        tell(server.route(each), each)
    peer = await raw(await serve(server))
    await peer.send(request(f"GET {target} HTTP/1.1"))
    assert parse_answer(await peer.reader.read()).status == 404
    assert server.stats().handshakes == {101: 0, 404: 1}


# Whose callbacks.


@pytest.mark.parametrize(("path", "owner"), [("/chat", "route"), ("/other", "server")])
async def test_a_connection_calls_the_callbacks_of_one_owner_alone(
    serve: Serve, raw: Raw, path: str, owner: str
) -> None:
    log: list[str] = []
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def record(registry: Server | Route, name: str) -> None:
        registry.on_upgrade(lambda request: log.append(f"{name}: on_upgrade"))
        registry.on_connect(lambda conn: log.append(f"{name}: on_connect"))
        registry.on_message(lambda conn, message: log.append(f"{name}: on_message"))
        registry.on_ping(lambda conn, payload: log.append(f"{name}: on_ping"))

        @registry.on_disconnect
        def left(conn: Conn, error: Exception | None) -> None:
            log.append(f"{name}: on_disconnect")
            ended.set_result(None)

    server: Server = wsev.Server()
    record(server, "server")
    record(server.route("/chat"), "route")
    peer = await raw(await serve(server))
    await peer.upgrade(path)
    await peer.send_frame(TEXT, b"m")
    await peer.fence()
    await peer.send_close()
    await ended
    names = ("on_upgrade", "on_connect", "on_message", "on_ping", "on_disconnect")
    assert log == [f"{owner}: {name}" for name in names]


async def test_a_route_without_callbacks_takes_connections_and_passes_over_their_messages(
    serve: Serve, raw: Raw
) -> None:
    server: Server = wsev.Server()
    server.route("/mute")
    server.on_message(lambda conn, message: conn.send(message))
    peer = await raw(await serve(server))
    await peer.upgrade("/mute")
    await peer.send_frame(TEXT, b"m")
    assert await peer.fence() == []
    assert server.stats().messages_in == 1


MESSAGES: dict[str, Callable[[Server], object]] = {
    "on_message": lambda server: server.on_message(lambda conn, message: None),
    "on_text": lambda server: server.on_text(lambda conn, message: None),
    "on_binary": lambda server: server.on_binary(lambda conn, message: None),
}


@pytest.mark.parametrize("register", MESSAGES.values(), ids=MESSAGES)
async def test_with_a_message_callback_the_server_takes_the_paths_of_no_route(
    serve: Serve, raw: Raw, register: Callable[[Server], object]
) -> None:
    server: Server = wsev.Server()
    tell(server.route("/chat"), "/chat")
    tell(server, "the server")
    register(server)
    peer = await raw(await serve(server))
    await peer.upgrade("/other")
    await peer.expect_frame(TEXT, b"the server has /other")


async def test_an_unknown_path_is_404_for_a_websocket_and_asks_nobody(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    asked: list[Any] = []
    server.route("/chat").on_message(lambda conn, message: None)
    server.on_upgrade(asked.append)
    server.on_connect(asked.append)
    server.on_ping(lambda conn, payload: None)
    server.on_disconnect(lambda conn, error: None)
    peer = await raw(await serve(server))
    await peer.send(request("GET /other HTTP/1.1"))
    assert parse_answer(await peer.reader.read()).status == 404
    assert asked == []


async def test_a_plain_request_is_the_servers_whatever_its_path(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    server.route("/chat").on_message(lambda conn, message: None)
    server.on_request(lambda request: wsev.Response(200, f"page of {request.path}"))
    await serve(server)
    for path in ("/chat", "/other"):
        peer = await raw(server)
        await peer.send(wire(PLAIN.replace("/", path, 1)))
        assert parse_answer(await peer.reader.read()).body == f"page of {path}".encode()


async def test_connections_of_all_routes_are_the_servers_and_share_its_topics(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    for path in ("/a", "/b/*"):
        server.route(path).on_connect(lambda conn: conn.subscribe("room"))
    server.on_connect(lambda conn: conn.subscribe("room"))
    server.on_message(lambda conn, message: None)
    await serve(server)
    peers = [await raw(server) for _ in range(3)]
    for peer, path in zip(peers, ("/a", "/b/c", "/other"), strict=True):
        await peer.upgrade(path)
    assert sorted(conn.request.path for conn in server.connections) == ["/a", "/b/c", "/other"]
    assert (server.publish("room", "m"), server.broadcast("n")) == (3, 3)
    for peer in peers:
        assert await peer.fence() == [(True, TEXT, b"m"), (True, TEXT, b"n")]


# Handlers.


class Chat(wsev.Handler[str]):
    """Keeps in `state` who a connection is."""

    def __init__(self) -> None:
        self.came: list[str] = []

    async def on_upgrade(self, request: wsev.Request) -> wsev.Accept | wsev.Response:
        await asyncio.sleep(0)
        name = request.query.get("name")
        return wsev.Accept(state=name) if name else wsev.Response(403, "who are you?\n")

    def on_connect(self, conn: wsev.Connection[str]) -> None:
        self.came.append(f"{conn.request.path}: {conn.state}")

    async def on_message(self, conn: wsev.Connection[str], message: str | bytes) -> None:
        conn.send(f"{conn.state}: {message!r}")


async def test_a_route_may_have_a_handler_and_several_the_same(serve: Serve, connect: Connect, raw: Raw) -> None:
    chat = Chat()
    server: wsev.Server[str] = wsev.Server()
    server.route("/chat", chat)
    server.route("/rooms/*", chat).on_ping(lambda conn, payload: conn.send("pinged"))
    await serve(server)
    ann, bob = await connect(server, "/chat?name=ann"), await connect(server, "/rooms/a?name=bob")
    await ann.send("hello")
    await bob.send(b"\0")
    assert [await ann.recv(), await bob.recv()] == ["ann: 'hello'", "bob: b'\\x00'"]
    await bob.ping()
    assert await bob.recv() == "pinged"
    peer = await raw(server)
    await peer.request("/rooms/a")
    assert chat.came == ["/chat: ann", "/rooms/a: bob"]


async def test_a_servers_handler_takes_the_rest(serve: Serve, connect: Connect) -> None:
    server: wsev.Server[str] = wsev.Server(Chat())
    tell(server.route("/quiet"), "/quiet")
    await serve(server)
    quiet, client = await connect(server, "/quiet"), await connect(server, "/any?name=ann")
    assert await quiet.recv() == "/quiet has /quiet"
    await client.send("hello")
    assert await client.recv() == "ann: 'hello'"


# on_upgrade.


def later(answer: object) -> Callable[[wsev.Request], Any]:
    async def on_upgrade(request: wsev.Request) -> object:
        await asyncio.sleep(0)
        return answer

    return on_upgrade


def now(answer: object) -> Callable[[wsev.Request], Any]:
    return lambda request: answer


@pytest.mark.parametrize("give", [now, later], ids=["def", "async def"])
async def test_a_route_may_refuse_what_the_others_accept(
    serve: Serve, raw: Raw, connect: Connect, give: Callable[[object], Callable[[wsev.Request], Any]]
) -> None:
    server: Server = wsev.Server()
    refusal = wsev.Response(401, "who are you?\n", {"WWW-Authenticate": "Bearer", "X-Room": "staff"})
    staff = server.route("/staff")
    staff.on_upgrade(give(refusal))
    staff.on_connect(lambda conn: conn.send("never"))
    tell(server.route("/chat"), "/chat")
    server.route("/other").on_upgrade(give(None))
    await serve(server)
    peer = await raw(server)
    head = await peer.request("/staff")
    assert (head.status, head["www-authenticate"], head["x-room"]) == (401, "Bearer", "staff")
    assert await peer.reader.read() == b"who are you?\n"
    assert (await (await raw(server)).upgrade("/other")).status == 101
    assert await (await connect(server, "/chat")).recv() == "/chat has /chat"
    assert server.stats().handshakes == {101: 2, 401: 1}


@pytest.mark.parametrize("give", [now, later], ids=["def", "async def"])
async def test_accept_gives_a_connection_its_state_subprotocol_and_headers(
    serve: Serve, connect: Connect, give: Callable[[object], Callable[[wsev.Request], Any]]
) -> None:
    server: Server = wsev.Server(subprotocols=["v1"])
    state = object()
    chat = server.route("/chat")
    chat.on_upgrade(give(wsev.Accept("v2", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], state)))
    chat.on_connect(lambda conn: conn.send(f"{conn.state is state} {conn.subprotocol}"))
    plain = server.route("/plain")
    plain.on_connect(lambda conn: conn.send(f"{conn.state} {conn.subprotocol}"))
    await serve(server)
    client = await connect(server, "/chat", subprotocols=["v1", "v2"])
    assert (await client.recv(), client.subprotocol) == ("True v2", "v2")
    assert client.response is not None
    assert client.response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    other = await connect(server, "/plain", subprotocols=["v2", "v1"])
    assert (await other.recv(), other.subprotocol) == ("None v1", "v1")


async def test_each_connection_has_the_state_of_its_own_on_upgrade_in_whatever_order_they_end(
    serve: Serve, raw: Raw
) -> None:
    server: Server = wsev.Server()
    begun: dict[str, asyncio.Future[None]] = {}
    all_begun = asyncio.Event()
    route = server.route("/rooms/*")

    @route.on_upgrade
    async def decide(request: wsev.Request) -> wsev.Accept:
        begun[request.path] = asyncio.get_running_loop().create_future()
        if len(begun) == 3:
            all_begun.set()
        await begun[request.path]
        return wsev.Accept(state=request.path)

    route.on_connect(lambda conn: conn.send(f"{conn.state} is {conn.request.path}"))
    await serve(server)
    peers = {f"/rooms/{number}": await raw(server) for number in range(3)}
    for path, peer in peers.items():
        await peer.send(request(f"GET {path} HTTP/1.1"))
    await all_begun.wait()
    for path in ("/rooms/1", "/rooms/2", "/rooms/0"):
        begun[path].set_result(None)
        assert (await peers[path].read_head()).status == 101
        await peers[path].expect_frame(TEXT, f"{path} is {path}".encode())


# Its life.


async def test_a_route_that_is_added_between_two_runs_is_served_in_the_second(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    tell(server.route("/old"), "/old")
    await serve(server)
    peer = await raw(server)
    assert (await peer.request("/new")).status == 404
    with pytest.raises(wsev.OptionError, match="the server is started; add routes before"):
        server.route("/new")
    await server.stop()
    tell(server.route("/new"), "/new")
    await serve(server)
    for path in ("/old", "/new"):
        peer = await raw(server)
        await peer.upgrade(path)
        await peer.expect_frame(TEXT, f"{path} has {path}".encode())
