"""Routes: which paths may be routed, and which route a path finds."""

from __future__ import annotations

from typing import Any

import pytest

from wsev import Handler, OptionError, Server
from wsev.routes import Routes, make_routes


def routes_of(server: Server[Any]) -> Routes:
    return make_routes(server, server._routes)


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("chat", "begins with a slash"),
        (3, "begins with a slash"),
        ("/chat?room=1", "conn.request.query"),
        ("/chat#top", "conn.request.query"),
        ("/rooms/{name}", "'/rooms/*' and conn.request.path"),
        ("/rooms/*/users", "'/rooms/*' and conn.request.path"),
        ("/rooms*", "'/rooms/*' and conn.request.path"),
    ],
    ids=str,
)
def test_what_is_no_path_is_an_error_that_names_the_right_form(path: Any, remedy: str) -> None:
    with pytest.raises(OptionError) as caught:
        Server().route(path)
    assert remedy in str(caught.value)


def test_a_second_route_for_a_path_is_an_error() -> None:
    server: Server[Any] = Server()
    server.route("/chat")
    with pytest.raises(OptionError, match="there is a route for it already"):
        server.route("/chat")


ROUTES = ["/", "/chat", "/rooms/*", "/rooms/private/*", "/rooms/private/one"]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/chat", "/chat"),
        ("/chat/", None),
        ("/Chat", None),
        ("/rooms", None),
        ("/rooms/", "/rooms/*"),
        ("/rooms/a/b", "/rooms/*"),
        ("/rooms/private", "/rooms/*"),
        ("/rooms/private/two", "/rooms/private/*"),
        ("/rooms/private/one", "/rooms/private/one"),
        ("/roomsy", None),
    ],
)
def test_the_longest_route_that_fits_wins(path: str, route: str | None) -> None:
    server: Server[Any] = Server()
    upgrades = {each: server.route(each).on_upgrade(lambda request: None) for each in ROUTES}
    found = routes_of(server).find(path)
    assert (found and found.on_upgrade) == (route and upgrades[route])


def test_a_prefix_of_a_slash_takes_every_path() -> None:
    server: Server[Any] = Server()
    server.route("/*")
    assert routes_of(server).find("/any/thing") is not None


def test_without_routes_every_path_is_the_servers() -> None:
    assert routes_of(Server()).find("/any") is not None


def test_with_routes_other_paths_are_the_servers_if_it_has_message_callbacks() -> None:
    server: Server[Any] = Server()
    server.on_connect(lambda conn: None)
    server.route("/chat")
    assert routes_of(server).find("/any") is None
    server.on_binary(lambda conn, message: None)
    assert routes_of(server).find("/any") is not None


def test_a_routes_handler_is_checked_as_the_servers_is() -> None:
    class Wrong(Handler[Any]):
        def on_error(self, error: Any, is_fatal: bool) -> None: ...

    with pytest.raises(OptionError, match="give it to Server"):
        Server().route("/chat", Wrong())
