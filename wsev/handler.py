"""The callbacks: their names, their types, and the check of each where it is given.

Owns what a callback is called with (``PARAMETERS``) and the two ways to give one: decorators, which ``Server`` and
``Route`` inherit from ``CallbackRegistry``, and subclasses of ``Handler``.  Calls none of them: that is dispatch.pyx,
the handshake (``on_upgrade``, ``on_request``) and serving.py (``on_error``).

Invariant: what stands in a registry has a known name, one holder, and takes the parameters that it is called with.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, ParamSpec, Self, TypeAlias, overload

from wsev._core.dispatch import Callbacks
from wsev.errors import OptionError, WsevError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from wsev._core.connection import Connection
    from wsev.handshake.request import Request
    from wsev.handshake.response import Accept, Response

    S = TypeVar("S", default=Any)  # typing's own TypeVar has default= from Python 3.13 on
else:
    from typing import TypeVar

    S = TypeVar("S")

R = TypeVar("R")
P = ParamSpec("P")

__all__ = [
    "CallbackRegistry",
    "Decorator",
    "Handler",
    "OnConnect",
    "OnData",
    "OnDisconnect",
    "OnDrain",
    "OnError",
    "OnMessage",
    "OnRequest",
    "OnText",
    "OnUpgrade",
    "S",
    "check_callback",
]

# What a callback returns is awaited if it is awaitable, and else ignored; so ``object``.
OnConnect: TypeAlias = Callable[["Connection[S]"], object]
OnDrain: TypeAlias = Callable[["Connection[S]"], object]
OnMessage: TypeAlias = Callable[["Connection[S]", str | bytes], object]
OnText: TypeAlias = Callable[["Connection[S]", Any], object]  # str; bytes with decode_text=False
OnData: TypeAlias = Callable[["Connection[S]", bytes], object]  # on_binary, on_ping, on_pong
OnDisconnect: TypeAlias = Callable[["Connection[S]", Exception | None], object]
OnUpgrade: TypeAlias = Callable[["Request"], "Accept | Response | Awaitable[Accept | Response | None] | None"]
OnRequest: TypeAlias = Callable[["Request"], "Response | Awaitable[Response]"]
OnError: TypeAlias = Callable[[WsevError | OSError, bool], object]

PARAMETERS = {
    "on_upgrade": ("request",),
    "on_connect": ("conn",),
    "on_message": ("conn", "message"),
    "on_text": ("conn", "message"),
    "on_binary": ("conn", "message"),
    "on_ping": ("conn", "payload"),
    "on_pong": ("conn", "payload"),
    "on_drain": ("conn",),
    "on_disconnect": ("conn", "error"),
    "on_request": ("request",),
    "on_error": ("error", "is_fatal"),
}

OF_CONNECTIONS = tuple(name for name in PARAMETERS if PARAMETERS[name][0] == "conn")
OF_ROUTES = ("on_upgrade", *OF_CONNECTIONS)

# on_message is called for both kinds of messages; where both it and one of the others were given, one would never be.
RIVALS = {"on_message": ("on_text", "on_binary"), "on_text": ("on_message",), "on_binary": ("on_message",)}

# What other libraries call them; other names are found by their likeness.
ELSEWHERE = {
    "on_open": "on_connect",
    "on_close": "on_disconnect",
    "on_receive": "on_message",
    "on_data": "on_message",
}


def _check_name(name: str, known: tuple[str, ...], value: object) -> None:
    if name in known:
        return
    if name in PARAMETERS:
        raise OptionError(name, value, "belongs to the server as a whole: give it to Server, not to a route")
    right = ELSEWHERE.get(name) or next(iter(get_close_matches(name, known, cutoff=0.75)), None)
    remedy = f"write {right}" if right else f"known are {', '.join(known)}"
    raise OptionError(name, value, f"there is no such callback; {remedy}")


def check_callback(name: str, callback: Any, parameters: tuple[str, ...]) -> None:
    """Raise OptionError unless ``callback`` can be called with ``parameters``; ``name`` is what it is given as."""
    form = f"{name}({', '.join(parameters)})"
    if not callable(callback):
        raise OptionError(name, callback, f"must be a function, called as {form}")
    if inspect.isgeneratorfunction(callback) or inspect.isasyncgenfunction(callback):
        raise OptionError(name, callback, "has a yield, so that calling it runs nothing; use def or async def without")
    try:
        signature = inspect.signature(callback)
    except ValueError:
        return  # some built-in functions tell nothing about theirs
    try:
        signature.bind(*parameters)
    except TypeError:
        raise OptionError(name, callback, f"takes {signature}, but is called as {form}") from None


class Handler(Generic[S]):
    """Callbacks as methods: make a subclass with those that you need, and give an instance to ``Server`` or a route.

    Each may be ``def`` or ``async def``.  A method that you leave out costs nothing.
    """

    def on_upgrade(self, request: Request) -> Accept | Response | Awaitable[Accept | Response | None] | None:
        """Decide on a request whose handshake and origin are right: None accepts it, ``Response`` refuses it."""

    def on_connect(self, conn: Connection[S]) -> object:
        """A connection is open."""

    def on_message(self, conn: Connection[S], message: str | bytes) -> object:
        """A message came: str if it is text (bytes with ``decode_text=False``), bytes if it is binary."""

    def on_text(self, conn: Connection[S], message: Any) -> object:
        """A text message came; with ``on_binary`` instead of ``on_message``."""

    def on_binary(self, conn: Connection[S], message: bytes) -> object:
        """A binary message came; with ``on_text`` instead of ``on_message``."""

    def on_ping(self, conn: Connection[S], payload: bytes) -> object:
        """A ping came, and has been answered."""

    def on_pong(self, conn: Connection[S], payload: bytes) -> object:
        """A pong came."""

    def on_drain(self, conn: Connection[S]) -> object:
        """Of output above ``high_water`` a quarter is left, or less."""

    def on_disconnect(self, conn: Connection[S], error: Exception | None) -> object:
        """The connection is over; None if both sides sent a Close frame, else the reason."""

    def on_request(self, request: Request) -> Response | Awaitable[Response]:
        """Answer a plain HTTP request (the server's handler only)."""
        raise NotImplementedError

    def on_error(self, error: WsevError | OSError, is_fatal: bool) -> object:
        """Something of ours failed, and was logged (the server's handler only)."""


class Decorator(Generic[P]):
    """Registers a callback: used as ``@server.on_message`` or ``@server.on_message()``, it gives the function back."""

    __slots__ = ("_name", "_registry")

    def __init__(self, registry: CallbackRegistry[Any], name: str) -> None:
        self._registry = registry
        self._name = name

    @overload
    def __call__(self, callback: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def __call__(self) -> Self: ...
    def __call__(self, *callback: Any) -> Any:
        if not callback:
            return self
        self._registry._register(self._name, *callback)
        return callback[0]

    def __repr__(self) -> str:
        return f"<Decorator {self._name} of {self._registry!r}>"


class Misnamed:
    """A name of a callback that is not known here; using it says what to do."""

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(f"there is no callback {self._name}; {self._remedy}", name=self._name, obj=instance)


class CallbackRegistry(Generic[S]):
    """The callbacks of a server or a route, by decorators and from a handler.

    Every mistake is an OptionError at the call: a name that is not known, a second registration, one after the start,
    ``on_message`` together with ``on_text`` or ``on_binary``, a function that cannot be called with its arguments.
    """

    _names: ClassVar[tuple[str, ...]] = OF_ROUTES

    def __init__(self, handler: Handler[S] | None = None) -> None:
        self._registered: dict[str, Callable[..., Any]] = {}
        if handler is not None:
            self._register_handler(handler)

    def _is_sealed(self) -> bool:
        """Whether the server is started, and takes no further callbacks."""
        raise NotImplementedError

    def _register(self, name: str, callback: Callable[..., Any]) -> None:
        _check_name(name, self._names, callback)
        if self._is_sealed():
            raise OptionError(name, callback, "the server is started; register callbacks before run, listen or start")
        if name in self._registered:
            raise OptionError(name, callback, f"is registered already, with {self._registered[name]!r}; keep one")
        for rival in RIVALS.get(name, ()):
            if rival in self._registered:
                raise OptionError(name, callback, f"{rival} is registered; use on_message, or on_text and on_binary")
        check_callback(name, callback, PARAMETERS[name])
        self._registered[name] = callback

    def _register_handler(self, handler: Handler[S]) -> None:
        if isinstance(handler, type) and issubclass(handler, Handler):
            raise OptionError("handler", handler, f"is a class; give an instance, {handler.__name__}()")
        if not isinstance(handler, Handler):
            raise OptionError("handler", handler, "must be an instance of a subclass of wsev.Handler")
        for name in dir(handler):
            method = getattr(handler, name) if name.startswith("on_") else None
            # Handler's own methods stand there for their signatures; only what a subclass made of them counts.
            if callable(method) and getattr(method, "__func__", method) is not getattr(Handler, name, None):
                self._register(name, method)

    def _make_callbacks(self) -> Callbacks:
        """What the core calls."""
        return Callbacks(**{name: self._registered[name] for name in OF_CONNECTIONS if name in self._registered})

    if not TYPE_CHECKING:  # type checkers say by themselves that there are no such names
        on_open = Misnamed("write on_connect")
        on_close = Misnamed("write on_disconnect")
        on_receive = Misnamed("write on_message")
        on_data = Misnamed("write on_message")
        on_request = Misnamed("it belongs to the server as a whole: give it to Server, not to a route")
        on_error = Misnamed("it belongs to the server as a whole: give it to Server, not to a route")

    @property
    def on_upgrade(self) -> Decorator[[Request]]:
        """Register what decides on a request for upgrade, after handshake and origin were found right.

        Called as ``on_upgrade(request)``, sync or async.  None accepts; ``Accept`` accepts with a subprotocol, headers
        or state; ``Response`` refuses.  An async one may take ``upgrade_timeout``.
        """
        return Decorator(self, "on_upgrade")

    @property
    def on_connect(self) -> Decorator[[Connection[S]]]:
        """Register what is called as ``on_connect(conn)`` when a connection is open, before its first message."""
        return Decorator(self, "on_connect")

    @property
    def on_message(self) -> Decorator[[Connection[S], str | bytes]]:
        """Register what is called as ``on_message(conn, message)``: str for text, bytes for binary messages."""
        return Decorator(self, "on_message")

    @property
    def on_text(self) -> Decorator[[Connection[S], Any]]:
        """Register what is called as ``on_text(conn, message)`` for text messages, instead of ``on_message``."""
        return Decorator(self, "on_text")

    @property
    def on_binary(self) -> Decorator[[Connection[S], bytes]]:
        """Register what is called as ``on_binary(conn, message)`` for binary messages, instead of ``on_message``."""
        return Decorator(self, "on_binary")

    @property
    def on_ping(self) -> Decorator[[Connection[S], bytes]]:
        """Register what is called as ``on_ping(conn, payload)``; the pong has been sent by then."""
        return Decorator(self, "on_ping")

    @property
    def on_pong(self) -> Decorator[[Connection[S], bytes]]:
        """Register what is called as ``on_pong(conn, payload)``."""
        return Decorator(self, "on_pong")

    @property
    def on_drain(self) -> Decorator[[Connection[S]]]:
        """Register what is called as ``on_drain(conn)`` when output was above ``high_water`` and a quarter is left."""
        return Decorator(self, "on_drain")

    @property
    def on_disconnect(self) -> Decorator[[Connection[S], Exception | None]]:
        """Register what is called as ``on_disconnect(conn, error)``, once for each connection that connected.

        ``error`` is None if both Close frames were exchanged; else the reason: an ``OSError``, ``ProtocolError``,
        ``TimedOut``, ``SlowConsumer`` or ``CallbackError``.
        """
        return Decorator(self, "on_disconnect")
