"""Server: callbacks and options in, and its life: run, listen, start, stop.

Owns the order of a start and a stop, and what a user may ask of a server.  What runs in between is serving.py, a
process is workers/; no protocol rule is here.

Invariant: there is a Serving exactly while the server is not idle, and a start that fails leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from enum import Enum
from typing import Any, Generic, Literal, Self, Unpack

from wsev._core.connection import Connection
from wsev.close import CloseCode, check_close
from wsev.errors import OptionError, WsevError
from wsev.fanout import EVERYBODY
from wsev.handler import PARAMETERS, CallbackRegistry, Decorator, Handler, S, check_callback
from wsev.handshake.request import Request
from wsev.listeners import OnPublished
from wsev.options import Listening, ListeningDict, Options, OptionsDict
from wsev.routes import Route, check_path, make_routes
from wsev.serving import Connections, Serving
from wsev.stats import Stats, figures_of, stats_of
from wsev.topics import Message, check_topic, payload_of
from wsev.workers import worker
from wsev.workers.cpus import check_workers
from wsev.workers.places import Place
from wsev.workers.scoreboard import Figures
from wsev.workers.sockets import open_sockets

__all__ = ["Lifecycle", "Server", "ServerRun"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


class Lifecycle(Enum):
    """What a server is doing."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


_NEXT = {
    Lifecycle.IDLE: (Lifecycle.STARTING,),
    Lifecycle.STARTING: (Lifecycle.RUNNING, Lifecycle.IDLE),
    Lifecycle.RUNNING: (Lifecycle.STOPPING,),
    Lifecycle.STOPPING: (Lifecycle.IDLE,),
}


class Server(CallbackRegistry[S], Generic[S]):
    """A WebSocket server: callbacks, options, and where it listens.

    ``S`` is the type of ``Connection.state``.  Callbacks are given by decorators or as a ``Handler``.

    Args:
        handler: an instance of a subclass of ``Handler``.
        http: makes an asyncio protocol for each request that is no upgrade, such as aiohttp's ``AppRunner(app).server``
            or ``wsev.asgi(app)``; without it ``on_request`` answers those.
        lifespan: an async context manager function, called with the server.  Entered before the first connection is
            accepted, left after the last ``on_disconnect``; what it yields is ``Server.state``.
        options: as in ``wsev.options.Options``.

    Raises:
        OptionError: an option or a callback that cannot be used; it names what to do.
    """

    _names = tuple(PARAMETERS)

    def __init__(
        self,
        handler: Handler[S] | None = None,
        /,
        *,
        http: Callable[[], asyncio.Protocol] | None = None,
        lifespan: Lifespan | None = None,
        **options: Unpack[OptionsDict],
    ) -> None:
        self._options = Options.of(**options)
        self._http = _check_http(http)
        self._lifespan = _check_lifespan(lifespan)
        self._routes: dict[str, Route[S]] = {}
        self._lifecycle = Lifecycle.IDLE
        self._serving: Serving[S] | None = None
        self._last_stats: Stats | None = None  # of the last run
        self._entered: AbstractAsyncContextManager[Any] | None = None  # the lifespan's
        self._stopping: asyncio.Task[None] | None = None
        self._on_end: Callable[[BaseException | None], None] | None = None  # run() waits for it
        self._state: Any = None
        self._subscriptions: list[tuple[str, OnPublished]] = []  # of the server itself
        self._place: Place | None = None  # where it serves, if it is a worker of several
        super().__init__(handler)

    # Callbacks.

    def _is_sealed(self) -> bool:
        return self._lifecycle is not Lifecycle.IDLE

    @property
    def on_request(self) -> Decorator[[Request]]:
        """Register what is called as ``on_request(request)`` for a plain GET or HEAD and returns a ``Response``."""
        return Decorator(self, "on_request")

    @property
    def on_error(self) -> Decorator[[WsevError | OSError, bool]]:
        """Register what is called as ``on_error(error, is_fatal)`` when something of ours failed; it was logged."""
        return Decorator(self, "on_error")

    def route(self, path: str, handler: Handler[S] | None = None) -> Route[S]:
        """Add callbacks for one path, or for all paths below it.

        The longest path that fits wins.  With routes, other paths are the server's own callbacks' if it has message
        callbacks; else they are answered with 404.

        Args:
            path: exact, decoded, such as ``/chat``; or a prefix if it ends in ``/*``, such as ``/rooms/*``, which takes
                ``/rooms/`` and ``/rooms/a/b`` but not ``/rooms``.
            handler: an instance of a subclass of ``Handler``; callbacks may also be registered on what is returned.

        Raises:
            OptionError: a path that is no path or has been given, a callback that cannot be used, or the server is
                started.
        """
        check_path(path)
        if path in self._routes:
            raise OptionError("path", path, "there is a route for it already; register its callbacks there")
        if self._is_sealed():
            raise OptionError("path", path, "the server is started; add routes before run, listen or start")
        route = self._routes[path] = Route(path, handler, self._is_sealed)
        return route

    # Life.

    def run(self, port: int = 8000, *, workers: int | Literal["auto"] = 1, **listening: Unpack[ListeningDict]) -> None:
        """Serve until SIGINT or SIGTERM; for a program of its own.

        Those stop it gracefully, as ``stop`` does, and then it returns; a second signal ends it at once.  The loop is
        uvloop's where that is installed.

        With one worker, this process serves, and ``run`` returns after a call of ``stop`` too.  With several, this
        process forks them and watches them: what is global is each worker's own, ``lifespan`` is entered in each, one
        that ends is started again, and SIGHUP replaces them one by one, closing connections with 1012.

        Args:
            port: the TCP port; 0 is one that is free.
            workers: the number of processes that serve; ``"auto"``: as many as this process may use CPUs.
            listening: as for ``start``.

        Raises:
            OptionError: an argument that cannot be used.
            OSError: the port or path is in use, or not ours to use.
            RuntimeError: a loop runs in this thread, use ``listen`` there; or several workers, and not the main thread.
            SystemExit: of several workers one ended before it ever served; its status is 3.
        """
        count = check_workers(workers)
        place = Listening.of(port, **listening)
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                "a loop runs already: use `async with server.listen(...):` or `await server.start(...)`; and in a "
                'program for `wsev serve`, have `if __name__ == "__main__":` before run'
            )
        if count == 1:
            worker.run(ServerRun(lambda: self, place))
            return
        from wsev.workers.supervisor import Supervisor  # here, for it needs what Windows has not

        def make_service(at: Place) -> ServerRun:
            # Files of a certificate are read by each worker anew, so that SIGHUP renews it.
            return ServerRun(lambda: self, replace(place, ssl=Listening.of(ssl=listening.get("ssl")).ssl), at)

        Supervisor(make_service, place, count).run()

    @asynccontextmanager
    async def listen(self, port: int = 8000, **listening: Unpack[ListeningDict]) -> AsyncIterator[Self]:
        """Serve while an ``async with`` block runs, in the loop that runs already; arguments as for ``start``."""
        await self.start(port, **listening)
        try:
            yield self
        finally:
            await self.stop()

    async def start(self, port: int = 8000, **listening: Unpack[ListeningDict]) -> None:
        """Begin to serve in the running loop.  No signal handlers are set.

        Args:
            port: the TCP port; 0 is one that is free.  Not used with ``unix``, ``sock`` or ``fd``.
            listening: ``host="127.0.0.1"``, one or several; ``unix``, the path of a Unix socket, and ``unix_mode``, its
                permissions; ``sock`` or ``fd``, a bound socket, which is closed by ``stop``; ``ssl``, an
                ``ssl.SSLContext`` or a pair of files (certificate chain, key); ``backlog=4096``; ``reuse_port=False``.

        Raises:
            OptionError: an argument that cannot be used.
            OSError: the port or path is in use, or not ours to use.
            RuntimeError: the server is started already.
        """
        await self._start(Listening.of(port, **listening), place=None)

    async def _start(
        self, listening: Listening, place: Place | None, on_end: Callable[[BaseException | None], None] | None = None
    ) -> None:
        """Begin to serve at ``place``, if it is a worker's, else where ``listening`` says."""
        if self._lifecycle is not Lifecycle.IDLE:
            raise RuntimeError(f"the server is {self._lifecycle.value}: call stop() before it is started again")
        self._set_lifecycle(Lifecycle.STARTING)
        self._place = place
        sockets = []
        try:
            sockets = open_sockets(listening) if place is None else place.sockets
            self._serving = Serving(
                self._options,
                asyncio.get_running_loop(),
                make_routes(self, self._routes),
                sockets,
                on_request=self._registered.get("on_request"),
                on_error=self._registered.get("on_error"),
                http=self._http,
                subscriptions=self._subscriptions,
                mesh_directory=place.directory if place is not None else None,
                on_exit=on_end,
            )
            self._on_end = on_end
            await self._serving.fanout.start()
            if self._lifespan is not None:
                entered = self._lifespan(self)
                self._state = await entered.__aenter__()
                self._entered = entered
            await self._serving.start(listening.ssl, listening.backlog)
        except BaseException as error:
            for each in sockets:
                each.close()
            await self._end(error)
            raise
        self._set_lifecycle(Lifecycle.RUNNING)

    async def stop(self, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop: accept nothing more, close every connection, and wait for every ``on_disconnect``.

        What still runs after ``stop_timeout`` seconds is cancelled.  A second call waits for the first; without a start
        there is nothing to do.  A callback that awaits it would wait for its own end: it makes a task of it instead.

        Args:
            code: the close code that the peers get.
            reason: its reason, at most 123 bytes of UTF-8.

        Raises:
            ValueError: a code that may not be sent, or a reason that is too long.
            RuntimeError: ``start`` has not returned yet.
        """
        check_close(code, reason)
        if self._lifecycle is Lifecycle.STARTING:
            raise RuntimeError("the server is starting: await start() before stop()")
        if self._lifecycle is Lifecycle.RUNNING:
            self._begin_stop(code, reason)
        if self._stopping is not None:
            await asyncio.shield(self._stopping)  # a caller that is cancelled leaves no half-stopped server

    def _begin_stop(self, code: int, reason: str, *, finishes_handshakes: bool = False) -> None:
        self._set_lifecycle(Lifecycle.STOPPING)
        self._stopping = asyncio.ensure_future(self._stop(code, reason, finishes_handshakes))

    async def _stop(self, code: int, reason: str, finishes_handshakes: bool) -> None:
        assert self._serving is not None
        error: BaseException | None = None
        try:
            await self._serving.stop(code, reason, finishes_handshakes=finishes_handshakes)
        except BaseException as failure:
            error = failure
            raise
        finally:
            await self._end(error)

    async def _end(self, error: BaseException | None) -> None:
        """Leave the lifespan, and be idle again."""
        entered, self._entered = self._entered, None
        try:
            if entered is not None:
                await entered.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
        finally:
            if self._serving is not None:
                await self._serving.close()
                self._last_stats = self._serving.stats()
            self._serving = self._state = self._stopping = None
            self._set_lifecycle(Lifecycle.IDLE)
            on_end, self._on_end = self._on_end, None
            if on_end is not None:
                on_end(None)

    def _set_lifecycle(self, lifecycle: Lifecycle) -> None:
        assert lifecycle in _NEXT[self._lifecycle], f"{self._lifecycle} -> {lifecycle}"
        self._lifecycle = lifecycle

    # What it is asked.

    @property
    def addresses(self) -> Sequence[tuple[str, int] | str]:
        """Where it listens: (host, port) of each TCP socket, the path of a Unix one; empty while it does not."""
        return self._serving.addresses if self._serving is not None else ()

    @property
    def port(self) -> int | None:
        """The TCP port that it listens on; None while it does not, and for Unix sockets."""
        return next((address[1] for address in self.addresses if isinstance(address, tuple)), None)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs in.

        Raises:
            RuntimeError: it is not started.
        """
        if self._serving is None:
            raise RuntimeError("the server is not started, so it has no loop")
        return self._serving.loop

    @property
    def worker_id(self) -> int:
        """The number of this worker, from 0 on; its successor has the same."""
        return self._place.number if self._place is not None else 0

    @property
    def connections(self) -> Collection[Connection[S]]:
        """The open connections of this worker; a loop over them goes through those that were open when it began."""
        return self._serving.connections if self._serving is not None else Connections[S]()

    @property
    def state(self) -> Any:
        """What ``lifespan`` yielded; None without one."""
        return self._state

    def publish(self, topic: str, message: Message, *, text: bool = False) -> int:
        """Send a message to every subscriber of a topic, encoding it once.

        Args:
            topic: 1 to 255 bytes of UTF-8.
            message: str goes out as text, bytes as binary.
            text: bytes that are UTF-8 go out as text.

        Returns:
            How many connections of this worker took it; 0 if the server is not started.  Those of other workers get it
            as well, and are not counted.

        Raises:
            TypeError: the topic is no str, or the message neither str nor bytes-like.
            ValueError: the topic is too long or empty, or the message is a str with a lone surrogate.
        """
        check_topic(topic)
        return self._publish(topic, message, text)

    def broadcast(self, message: Message, *, text: bool = False) -> int:
        """Send a message to every open connection of every worker, encoding it once; otherwise as ``publish``."""
        return self._publish(EVERYBODY, message, text)

    def _publish(self, topic: str, message: Message, text: bool) -> int:
        serving = self._serving
        if serving is None:
            payload_of(message, text)  # what is no message is an error whoever listens
            return 0
        if serving.debug_thread is not None:
            serving.check_thread()
        return serving.fanout.publish(topic, message, text)

    def subscribe(self, topic: str, callback: OnPublished) -> None:
        """Call ``callback(topic, message)`` for each message that is published on a topic, in whichever worker.

        It is called by the loop, sync or async, for one message at a time and in order: str for text (bytes with
        ``decode_text=False``), bytes for binary.  What it raises is logged and given to ``on_error``.  Of what waits
        while it is suspended, 16 MiB are kept; further messages are dropped, counted and told to ``on_error``.

        A subscription made before the start is called for once ``lifespan`` was entered, one made in ``lifespan`` at
        once.  It holds until ``unsubscribe``, over a stop too; twice is once.

        Args:
            topic: 1 to 255 bytes of UTF-8.
            callback: a function of two parameters.

        Raises:
            OptionError: the callback cannot be called so.
            TypeError, ValueError: the topic is no str, or its length is wrong.
        """
        check_topic(topic)
        check_callback("callback", callback, ("topic", "message"))
        if self._serving is not None:
            self._serving.check_thread()
            self._serving.fanout.listen(topic, callback)
        if (topic, callback) not in self._subscriptions:
            self._subscriptions.append((topic, callback))

    def unsubscribe(self, topic: str, callback: OnPublished) -> bool:
        """End a subscription of ``subscribe``; False if there was none.  A call that has begun goes on to its end."""
        check_topic(topic)
        if (topic, callback) not in self._subscriptions:
            return False
        if self._serving is not None:
            self._serving.check_thread()
            self._serving.fanout.unlisten(topic, callback)
        self._subscriptions.remove((topic, callback))
        return True

    def stats(self) -> Stats:
        """What was counted since the start; after a stop, what had been counted until then.

        Raises:
            RuntimeError: it was never started.
        """
        if self._serving is not None:
            self._serving.check_thread()
            return self._serving.stats()
        if self._last_stats is None:
            raise RuntimeError("the server was never started, so it has counted nothing")
        return self._last_stats

    def total_stats(self) -> Stats:
        """What all workers have counted since ``run``, those that have ended included.

        What others counted in the last half second may be missing.  With one worker it is what ``stats`` returns.

        Raises:
            RuntimeError: it was never started.
        """
        stats = self.stats()
        if self._place is None:
            return stats
        self._place.score.write(*figures_of(stats))
        totals = self._place.score.read()
        return stats_of(totals.of_now, totals.growing, workers=totals.workers, restarts=totals.restarts)

    def __repr__(self) -> str:
        places = "".join(f" {_place(address)}" for address in self.addresses)
        return f"<Server {self._lifecycle.name}{places}, {len(self.connections)} connections>"


class ServerRun:
    """A server, and where it serves, as the service of a worker; for ``run`` and the command line.

    Args:
        make_server: returns the server; called in the loop, once.
        listening: where it listens, unless it has a place; its ``ssl`` and ``backlog`` count in any case.
        place: where a worker of several serves; None: this process is the only one.
        options: come before those that the server was made with.

    Attributes:
        has_started: it serves, or has served.
    """

    _server: Server[Any]

    def __init__(
        self,
        make_server: Callable[[], Server[Any]],
        listening: Listening,
        place: Place | None = None,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.has_started = False
        self._make_server = make_server
        self._listening = listening
        self._place = place
        self._options = options or {}

    @property
    def description(self) -> str:
        """Where it listens, for the log."""
        scheme = "ws" if self._listening.ssl is None else "wss"
        return ", ".join(
            f"unix:{address}" if isinstance(address, str) else f"{scheme}://{_place(address)}"
            for address in self._server.addresses
        )

    @property
    def stop_timeout(self) -> float | None:
        """The server's option."""
        return self._server._options.stop_timeout

    async def start(self, end: Callable[[BaseException | None], None]) -> None:
        """Begin to serve."""
        self._server = self._make_server()
        self._server._options = replace(self._server._options, **self._options)
        await self._server._start(self._listening, self._place, end)
        self.has_started = True

    async def stop(self, *, is_replaced: bool) -> None:
        """Stop; where another process takes over, no client is refused, and each is told to come again."""
        server = self._server
        if is_replaced and server._lifecycle is Lifecycle.RUNNING:
            server._begin_stop(CloseCode.SERVICE_RESTART, "", finishes_handshakes=True)
        await server.stop()

    def figures(self) -> tuple[Figures, Figures]:
        """What it has counted."""
        return figures_of(self._server.stats())


def _place(address: tuple[str, int] | str) -> str:
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_http(http: Any) -> Any:
    if http is not None and not callable(http):
        raise OptionError("http", http, "must be a factory of asyncio protocols, such as wsev.asgi(app)")
    return http


def _check_lifespan(lifespan: Any) -> Any:
    if lifespan is None:
        return None
    if inspect.isasyncgenfunction(lifespan) or inspect.isgeneratorfunction(lifespan) or not callable(lifespan):
        raise OptionError("lifespan", lifespan, "must be decorated with contextlib.asynccontextmanager")
    try:
        inspect.signature(lifespan).bind(None)
    except TypeError:
        raise OptionError("lifespan", lifespan, "is called with the server: give it one parameter") from None
    return lifespan
