"""Serving: one run of a server, from its start to its stop, in one loop.

Owns what there is only while a server runs: its listening sockets, who is admitted, its connections and topics, its
counters.  It is the Host of the opening handshakes and the ServerHooks of the core, so that neither knows Server.
Callbacks come in as they are; no protocol rule lives here.

Invariants: nothing is accepted before start() nor after stop() has begun; when stop() has returned, no connection and
no task of this run is left.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import ssl as tls
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from typing import Any, Generic

from wsev._core.connection import Connection
from wsev._core.loop import LoopState, ServerState
from wsev.deflate import Compression, Parameters
from wsev.errors import BrokerError, CallbackError, WsevError
from wsev.fanout import Fanout, choose_broker
from wsev.handler import OnError, OnRequest, S
from wsev.handshake.handshakes import NO_ROOM, Handshakes
from wsev.handshake.host import RouteLike
from wsev.handshake.opening import OpeningHandshake
from wsev.handshake.request import Request
from wsev.handshake.response import Accept, Response
from wsev.listeners import OnPublished
from wsev.options import Options
from wsev.routes import Endpoint, Routes
from wsev.stats import Stats
from wsev.topics import Message, check_topic
from wsev.workers.sockets import ListeningSocket, open_files_limit

__all__ = ["Connections", "Serving"]

if sys.platform == "linux":
    from wsev._core.acceptor import Acceptor
    from wsev._core.poller import Poller

logger = logging.getLogger("wsev.connection")

SPARE_FILES = 100  # descriptors that connections leave to the rest of the program; a log, a database, a few pipes
CANCEL_TIMEOUT = 1.0  # seconds for what was cancelled at the end of stop_timeout to end: finally blocks, no more work

STOPPING = Response(503, "The server is stopping.\n", {"Retry-After": "5"})


class Connections(Collection[Connection[S]], Generic[S]):
    """The open connections of a worker: a live view with ``len``, ``in`` and iteration.

    An iteration goes through those that were open when it began, so the loop's body may await.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Collection[Connection[S]] = ()) -> None:
        self._members = members

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, connection: object) -> bool:
        return connection in self._members

    def __iter__(self) -> Iterator[Connection[S]]:
        return iter(tuple(self._members))

    def __repr__(self) -> str:
        return f"<Connections {len(self)}>"


class Serving(Generic[S]):
    """One run of a server.

    Args:
        subscriptions: of ``Server.subscribe``.
        mesh_directory: where the workers of one ``run`` meet; None: this one is alone.
        on_exit: is given the KeyboardInterrupt or SystemExit of a callback; None: that is raised out of the loop.
    """

    def __init__(
        self,
        options: Options,
        loop: asyncio.AbstractEventLoop,
        routes: Routes,
        sockets: Iterable[ListeningSocket],
        *,
        on_request: OnRequest | None,
        on_error: OnError | None,
        http: Callable[[], asyncio.Protocol] | None,
        subscriptions: Iterable[tuple[str, OnPublished]],
        mesh_directory: str | None,
        on_exit: Callable[[BaseException], None] | None,
    ) -> None:
        self.options = options
        self.loop = loop
        self.on_request = on_request
        self.http = http
        self._routes = routes
        self._on_error = on_error
        self._on_exit = on_exit
        self._core = ServerState(LoopState.of(loop), self, options)
        self._compression = Compression(options)
        self._handshakes = Handshakes(self)
        self.connections: Connections[S] = Connections(self._core.connections)
        self.fanout = Fanout(self, self._core.connections, choose_broker(options, mesh_directory), subscriptions)
        self.debug_thread = threading.get_ident() if loop.get_debug() else None

        self._sockets = list(sockets)
        self._servers: list[Acceptor | asyncio.AbstractServer] = []
        self._is_stopping = False
        self._last_close: tuple[int, str] | None = None  # for connections that handshakes yet make, during a stop
        self._gone: asyncio.Future[None] | None = None  # while a stop waits for the last connection
        self._tasks: set[asyncio.Task[None]] = set()  # of an async on_error, and of listeners

        self._max_connections = _max_connections(options)
        self._admitted = 0  # handshakes
        self._accepted = 0
        # Who is counted for which address; empty unless max_connections_per_address is set.
        self._address_of: dict[OpeningHandshake | Connection[S], str] = {}
        self._per_address: Counter[str] = Counter()

    # Listening.

    @property
    def addresses(self) -> tuple[tuple[str, int] | str, ...]:
        """Where it listens."""
        return tuple(each.address for each in self._sockets)

    async def start(self, ssl: tls.SSLContext | None, backlog: int) -> None:
        """Accept."""
        try:
            await self._listen(ssl, backlog)
        except BaseException:  # a cancellation too: the loop must not watch sockets that are about to be closed
            self._stop_listening()
            raise
        self.fanout.release()

    async def _listen(self, ssl: tls.SSLContext | None, backlog: int) -> None:
        transport = _transport_of(self.options)
        if ssl is None and transport != "loop":
            self._core.sends_together = transport == "auto" and Poller.of(self._core.loop_state).use_ring()
            self._accept()
            await asyncio.sleep(0)  # where a cancellation of the start is seen
        else:
            await self._accept_by_the_loop(ssl, backlog)
        for each in self._sockets:
            each.sock.listen(backlog)

    def _accept(self) -> None:
        for each in self._sockets:
            acceptor = Acceptor(self._core.loop_state, each.sock, self._handshakes, self._report)
            self._servers.append(acceptor)
            acceptor.start()

    async def _accept_by_the_loop(self, ssl: tls.SSLContext | None, backlog: int) -> None:
        # To asyncio's loop the backlog is also how often it accepts in a turn, and with no descriptor left it complains
        # and tries again later as often: 1 there, and to the kernel the real one below.
        at_once = 1 if isinstance(self.loop, asyncio.BaseEventLoop) else backlog
        given: dict[str, Any] = {"ssl": ssl, "backlog": at_once, "start_serving": False}
        if ssl is not None:
            given["ssl_handshake_timeout"] = self.options.handshake_timeout
            given["ssl_shutdown_timeout"] = self.options.close_timeout
        make = self._handshakes if ssl is None else self._handshakes.make_within_tls
        for each in self._sockets:
            if each.is_unix and sys.version_info >= (3, 13):
                given["cleanup_socket"] = False  # its path is removed by who made it, and not by a worker that leaves
            create = self.loop.create_unix_server if each.is_unix else self.loop.create_server
            server: asyncio.AbstractServer = await create(make, sock=each.sock, **given)
            self._servers.append(server)
            await server.start_serving()

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        for each in self._sockets:
            each.close()
        self._servers.clear()
        self._sockets.clear()

    # The end.

    async def stop(self, code: int, reason: str, *, finishes_handshakes: bool = False) -> None:
        """Accept no more, close all connections, and wait for their on_disconnect; cancel what runs too long.

        Args:
            code: the close code.
            reason: its reason.
            finishes_handshakes: those that have begun are answered, and connections that they make closed; else they
                are refused.
        """
        timeout = self.options.stop_timeout
        self._last_close = (code, reason)
        self._stop_listening()
        for _ in range(3):  # asyncio's loop has accepted some already, and tells their protocols within so many turns
            await asyncio.sleep(0)
        self._is_stopping = not finishes_handshakes
        for connection in self.connections:
            connection.close(code, reason)
        if finishes_handshakes:
            began = self.loop.time()
            await self._handshakes.finish(timeout)
            self._is_stopping = True
            timeout = timeout and max(0.0, timeout - (self.loop.time() - began))
        handshakes = asyncio.ensure_future(self._handshakes.stop(timeout))
        if not await self._wait_for_connections(timeout):
            await self._cancel_connections(min(CANCEL_TIMEOUT, timeout or CANCEL_TIMEOUT))
        await handshakes
        self._handshakes.close()
        self.fanout.finish()
        await self._wait_for_tasks(timeout)

    async def close(self) -> None:
        """Behind the stop and the end of the lifespan: carry no more messages."""
        await self.fanout.stop()
        await self._wait_for_tasks(self.options.stop_timeout)

    async def _wait_for_connections(self, timeout: float | None) -> bool:
        """Wait until every connection's on_disconnect has ended; False if that took longer than ``timeout``."""
        if self._unfinished():
            self._gone = self.loop.create_future()
            await asyncio.wait((self._gone,), timeout=timeout)
            self._gone = None
        return not self._unfinished()

    def _unfinished(self) -> list[Connection[S]]:
        """The open connections, and those whose on_disconnect (or a callback before it) has not ended."""
        return [*self._core.connections, *self._core.leaving]

    async def _cancel_connections(self, timeout: float) -> None:
        for connection in self._unfinished():
            connection._cancel()
        # A callback that was cancelled is followed by an on_disconnect, which may hang too: it is cancelled as well.
        if not await self._wait_for_connections(timeout):
            for connection in self._unfinished():
                connection._cancel()
            if not await self._wait_for_connections(timeout):
                logger.error("stop: callbacks of %d connections do not end, though cancelled", len(self._unfinished()))

    async def _wait_for_tasks(self, timeout: float | None) -> None:
        """Wait for the tasks of callbacks, and for those that they begin; cancel what takes longer."""
        end = None if timeout is None else self.loop.time() + timeout
        while self._tasks:
            left = None if end is None else end - self.loop.time()
            if left is not None and left <= 0:
                break
            await asyncio.wait(set(self._tasks), timeout=left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=CANCEL_TIMEOUT)

    # Host: what the opening handshakes ask.

    def admit(self, handshake: OpeningHandshake) -> Response | None:
        """Let a new connection begin its handshake, or refuse it."""
        if self._is_stopping:
            return STOPPING
        options = self.options
        handshakes = self._admitted + len(self._handshakes.within_tls)
        taken = handshakes + len(self._core.connections)
        if self.http is not None:  # what it serves has descriptors as well, and they are what max_connections is about
            taken += len(self._handshakes.handed_over)
        if self._max_connections is not None and taken >= self._max_connections:
            return NO_ROOM["max_connections"]
        if options.max_handshakes is not None and handshakes >= options.max_handshakes:
            return NO_ROOM["max_handshakes"]
        if options.max_connections_per_address is not None and isinstance(address := handshake.remote_address, tuple):
            if self._per_address[address[0]] >= options.max_connections_per_address:
                return NO_ROOM["max_connections_per_address"]
            self._count_address(handshake, address[0])
        self._admitted += 1
        return None

    def leave(self, handshake: OpeningHandshake) -> None:
        """A handshake that was admitted is over."""
        self._admitted -= 1
        self._forget_address(handshake)

    def _count_address(self, who: OpeningHandshake | Connection[S], host: str) -> None:
        self._address_of[who] = host
        self._per_address[host] += 1

    def _forget_address(self, who: OpeningHandshake | Connection[S]) -> None:
        if self._address_of and (host := self._address_of.pop(who, None)) is not None:
            self._per_address[host] -= 1
            if not self._per_address[host]:
                del self._per_address[host]

    def find_route(self, path: str) -> Endpoint | None:
        """What a path leads to."""
        return self._routes.find(path)

    def open(
        self,
        transport: asyncio.Transport,
        head: bytes,
        route: RouteLike,
        accept: Accept,
        subprotocol: str | None,
        deflate: Parameters | None,
        response: bytes,
        rest: bytes,
    ) -> None:
        """Make a connection of an accepted request."""
        self._accepted += 1
        connection: Connection[S] = Connection(
            self._core,
            route.callbacks,
            transport,
            head,
            subprotocol,
            accept.state,
            None if deflate is None else self._compression.agreed(deflate),
        )
        transport.set_protocol(connection)
        connection.open(response, rest)
        if self._last_close is not None:
            connection.close(*self._last_close)

    # ServerHooks: what the core calls.

    def opened(self, connection: Connection[S]) -> None:
        """A connection is registered; its on_connect comes next."""
        if self.options.max_connections_per_address is not None:
            address = connection.remote_address
            if isinstance(address, tuple):
                self._count_address(connection, address[0])

    def closed(self, connection: Connection[S]) -> None:
        """A connection's on_disconnect has ended."""
        self.fanout.topics.forget(connection)
        self._forget_address(connection)
        core = self._core
        if self._gone is not None and not self._gone.done() and not core.connections and not core.leaving:
            self._gone.set_result(None)

    def request(self, connection: Connection[S], head: bytes) -> Request:
        """``Connection.request``."""
        return Request(head, connection)

    def callback_failed(self, error: CallbackError) -> None:
        """Log what a callback raised, and give it to on_error."""
        logger.error("%s", error, exc_info=error.__cause__ or error)
        if error.callback != "on_error":  # that would have no end
            self._report(error)

    def exit(self, error: BaseException) -> None:
        """A callback raised KeyboardInterrupt or SystemExit: stop the server, or the loop that is not ours."""
        if self._on_exit is not None:
            self._on_exit(error)
        else:
            self.loop.call_soon(_raise, error)

    def subscribe(self, connection: Connection[S], topic: str) -> bool:
        """``Connection.subscribe``."""
        check_topic(topic)
        if not connection.is_open:
            return False
        is_subscribed = self.fanout.topics.subscribe(connection, topic)
        if not is_subscribed:
            self._core.count_limit("max_subscriptions", connection)
        return is_subscribed

    def unsubscribe(self, connection: Connection[S], topic: str) -> bool:
        """``Connection.unsubscribe``."""
        return self.fanout.topics.unsubscribe(connection, topic)

    def topics_of(self, connection: Connection[S]) -> frozenset[str]:
        """``Connection.topics``."""
        return self.fanout.topics.topics_of(connection)

    def publish(self, topic: str, message: Message, text: bool, exclude: Connection[S] | None = None) -> int:
        """``Connection.publish``."""
        check_topic(topic)
        return self.fanout.publish(topic, message, text, exclude)

    # FanoutHost.

    def broker_failed(self, error: BrokerError) -> None:
        """Log what the broker could not do, and give it to on_error."""
        logging.getLogger("wsev.broker").warning("%s", error, exc_info=error.__cause__)
        self._report(error)

    def create_task(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task that a stop waits for."""
        task = self.loop.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The rest of Server's work.

    def check_thread(self) -> None:
        """In asyncio's debug mode, refuse a call from another thread, as ``loop.call_soon`` does."""
        if self.debug_thread is not None and self.debug_thread != threading.get_ident():
            raise RuntimeError(
                "called from another thread than the loop's: use server.loop.call_soon_threadsafe(server.publish, ...)"
            )

    def stats(self) -> Stats:
        """``Server.stats``."""
        core = self._core
        return Stats(
            connections=len(core.connections),
            handshakes={101: self._accepted, **self._handshakes.refused},
            messages_in=core.messages_in,
            messages_out=core.messages_out,
            bytes_in=core.bytes_in,
            bytes_out=core.bytes_out,
            pings_in=core.pings_in,
            pongs_in=core.pongs_in,
            unsent=core.unsent,
            batched_sends=core.batched_sends,
            dropped=core.dropped,
            closes=dict(core.closes),
            limits=dict(self._handshakes.limits_passed + Counter(core.limits_passed)),
            broker_in=self.fanout.messages_in,
            broker_dropped=self.fanout.reports.messages,
        )

    def _report(self, error: WsevError | OSError) -> None:
        """Call on_error.  What it raises is logged: there is nobody else to tell."""
        if self._on_error is None:
            return
        try:
            result = self._on_error(error, False)
        except Exception as failure:
            self._on_error_raised(failure)
        except (KeyboardInterrupt, SystemExit) as wish:
            self.exit(wish)
        else:
            if inspect.isawaitable(result):
                self.create_task(self._await_on_error(result))

    async def _await_on_error(self, awaitable: Awaitable[object]) -> None:
        try:
            await awaitable
        except Exception as failure:
            self._on_error_raised(failure)
        except (KeyboardInterrupt, SystemExit) as wish:
            self.exit(wish)

    def _on_error_raised(self, failure: Exception) -> None:
        error = CallbackError("on_error")
        error.__cause__ = failure
        self.callback_failed(error)


def _max_connections(options: Options) -> int | None:
    if options.max_connections != "auto":
        return options.max_connections
    limit = open_files_limit()
    return None if limit is None else max(1, limit - SPARE_FILES)


def _transport_of(options: Options) -> str:
    if sys.platform != "linux":
        return "loop"
    # The variable is for a program whose options cannot be changed now, and for the tests of all three.
    return options.transport if options.transport != "auto" else os.environ.get("WSEV_TRANSPORT", "auto")


def _raise(error: BaseException) -> None:
    raise error
