"""Routes: which callbacks a path leads to.

Owns the paths that a user gives to ``Server.route``, and how the path of a request finds its own.  Calls no callback,
and knows nothing of requests but their paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from wsev._core.dispatch import Callbacks
from wsev.errors import OptionError
from wsev.handler import CallbackRegistry, Handler, OnUpgrade, S

__all__ = ["Endpoint", "Route", "Routes", "check_path", "make_routes"]

OF_MESSAGES = ("on_message", "on_text", "on_binary")


class Route(CallbackRegistry[S], Generic[S]):
    """Callbacks of their own for the connections of one path; made by ``Server.route``.

    Attributes:
        path: as it was given.
    """

    def __init__(self, path: str, handler: Handler[S] | None, is_sealed: Callable[[], bool]) -> None:
        self.path = path
        self._is_server_sealed = is_sealed
        super().__init__(handler)

    def _is_sealed(self) -> bool:
        return self._is_server_sealed()

    def __repr__(self) -> str:
        return f"<Route {self.path}>"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a path leads to."""

    callbacks: Callbacks
    on_upgrade: OnUpgrade | None


class Routes:
    """Paths and what they lead to: exact ones, prefixes, and what takes the others."""

    def __init__(self, endpoints: Mapping[str, Endpoint], default: Endpoint | None) -> None:
        self._exact = {path: endpoint for path, endpoint in endpoints.items() if not path.endswith("/*")}
        prefixes = [(path[:-1], endpoint) for path, endpoint in endpoints.items() if path.endswith("/*")]
        self._prefixes = sorted(prefixes, key=lambda each: -len(each[0]))  # the longest wins
        self._default = default

    def find(self, path: str) -> Endpoint | None:
        """The endpoint of a path; None: nothing is there."""
        endpoint = self._exact.get(path)
        if endpoint is not None:
            return endpoint
        for prefix, endpoint in self._prefixes:
            if path.startswith(prefix):
                return endpoint
        return self._default


def make_routes(server: CallbackRegistry[S], routes: Mapping[str, Route[S]]) -> Routes:
    """The routes of a server; with some of its own it takes the other paths only if it has message callbacks."""

    def endpoint(of: CallbackRegistry[S]) -> Endpoint:
        return Endpoint(of._make_callbacks(), of._registered.get("on_upgrade"))

    takes_rest = not routes or any(name in server._registered for name in OF_MESSAGES)
    endpoints = {path: endpoint(route) for path, route in routes.items()}
    return Routes(endpoints, endpoint(server) if takes_rest else None)


def check_path(path: Any) -> None:
    """Raise OptionError for what is no path to route."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise OptionError("path", path, "must be a str that begins with a slash, such as '/chat'")
    if "?" in path or "#" in path:
        raise OptionError("path", path, "must be a path only; look at conn.request.query for what comes behind it")
    if "{" in path or "*" in path.removesuffix("/*"):
        raise OptionError("path", path, "takes no parameters; use a prefix such as '/rooms/*' and conn.request.path")
