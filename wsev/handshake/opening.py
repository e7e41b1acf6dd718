"""OpeningHandshake: an asyncio protocol that reads one HTTP request and answers it, or makes a Connection of it.

It owns the socket until then: reading within limits and time, calling on_upgrade and on_request, the answer and the end
of TCP after it.  What is a head is found out by the core's HeadReader, what is right is judged by upgrade.py, and what
the server as a whole allows by its Host.

Invariants: one request per connection.  ``admit`` and ``leave`` of the Host come in pairs.  Nothing that a peer sends
raises into the loop.  The 101 is never written here but handed over: it leaves with what on_connect sends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from wsev._core.head import Head, HeadReader
from wsev.errors import CallbackError
from wsev.handshake.extensions import encode_parameters
from wsev.handshake.host import RouteLike
from wsev.handshake.request import Address, Request, address_of, path_of
from wsev.handshake.response import Accept, Response, encode_accept, encode_response
from wsev.handshake.upgrade import (
    FAULTS,
    NOT_ALLOWED,
    NOT_ALLOWED_BUT_HEAD,
    NOT_FOUND,
    UNEXPECTED_BODY,
    UPGRADE_REQUIRED,
    Upgrade,
    check_framing,
    check_host,
    check_upgrade,
    check_version,
    has_body,
    is_upgrade,
)

if TYPE_CHECKING:
    from wsev.handshake.handshakes import Handshakes

__all__ = ["TIMED_OUT", "UNDECIDED", "OpeningHandshake", "State"]

TIMED_OUT = Response(408, "The request did not come in time.\n")
FAILED = Response(500, "The server failed to answer.\n")
UNAVAILABLE = Response(503, "The server cannot answer now.\n", {"Retry-After": "5"})
UNDECIDED = Response(503, "The server did not decide in time.\n", {"Retry-After": "5"})

_ACCEPT = Accept()


class State(IntEnum):
    """Where a handshake is."""

    READING = 0
    """The request's head is not whole yet."""
    DECIDING = 1
    """An async on_upgrade or on_request runs; nothing more is read."""
    ANSWERING = 2
    """An answer waits to be taken by the peer; what it sends is dropped."""
    LINGERING = 3
    """The answer and FIN went out; what the peer still sends is dropped."""
    CLOSING = 4
    """The same within TLS, where the transport waits for the peer's close_notify."""
    OVER = 5
    """The connection has ended, or is someone else's."""


# The states that may follow each; a tuple by number, since hashing a member of an enum is a call into Python.
_NEXT = (
    (State.OVER, State.DECIDING, State.ANSWERING, State.LINGERING, State.CLOSING),
    (State.OVER, State.ANSWERING, State.LINGERING, State.CLOSING),
    (State.OVER, State.LINGERING, State.CLOSING),
    (State.OVER,),
    (State.OVER,),
    (),
)


class OpeningHandshake(asyncio.BufferedProtocol):
    """One connection, from its being accepted to the answer to its request.

    A BufferedProtocol, as Connection is: uvloop's transport keeps the methods of a protocol of the other kind for ever,
    and with them 250 bytes of this one.
    """

    __slots__ = (
        "__weakref__",
        "_is_admitted",
        "_reader",
        "_rest",
        "_shared",
        "_state",
        "_task",
        "_transport",
        "_unsent",
        "clock",
    )

    def __init__(self, shared: Handshakes) -> None:
        # Within TLS the clock of READING is not this but what stands for it; see Handshakes.make_within_tls().
        self.clock: ref[OpeningHandshake] | None = None
        self._shared = shared
        self._state = State.READING
        self._reader = HeadReader(shared.head_limits)
        self._transport: asyncio.Transport | None = None  # from connection_made to the end
        self._rest = b""  # what came behind the head
        self._task: asyncio.Task[None] | None = None
        self._unsent = 0  # of an answer, when its clock was last set
        self._is_admitted = False

    @property
    def remote_address(self) -> Address:
        """The peer's address."""
        return address_of(self._transport) if self._transport is not None else ""

    def stop(self) -> None:
        """The server stops: answer 503 if something was asked, else end the connection."""
        if self._state is State.READING and not self._reader.has_begun:
            self.end()
        elif self._state in (State.READING, State.DECIDING):
            self._refuse(UNAVAILABLE)

    def end(self) -> None:
        """End the connection at once, whatever it was doing."""
        if self._state is not State.OVER:
            self._set_state(State.OVER)
        if self._transport is not None:
            self._transport.abort()

    def time_out(self) -> None:
        """The clock of the present state ran out."""
        if self._state is State.READING and self._transport is not None and self._reader.has_begun:
            self._refuse(TIMED_OUT)
        elif self._state is State.READING:
            self._shared.was_silent(self.remote_address)
            self.end()
        elif self._state is State.DECIDING:
            if self._is_awaited:
                self._refuse(UNDECIDED)
            if self._task is not None:
                self._task.cancel()
        elif self._state is State.ANSWERING and self._has_sent_more():
            self._shared.deadlines[State.ANSWERING].add(self)
        else:
            self.end()

    def _has_sent_more(self) -> bool:
        """Whether the peer, slow as it is, took some of the answer since this was last asked."""
        assert self._transport is not None
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        return self._unsent < before

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's have no common base class with it
        if self._state is State.OVER:  # the TLS handshake took too long
            self.end()
            return
        shared = self._shared
        if self.clock is not None:
            shared.within_tls.discard(self.clock)
        shared.open.add(self)
        refusal = shared.host.admit(self)
        if refusal is None:
            self._is_admitted = True
        else:
            self._refuse(refusal)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.loop_state.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.receive(bytes(self._shared.loop_state.get_buffer(nbytes)[:nbytes]))

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer's, according to the state; once there is an answer they are dropped."""
        if self._state is State.READING:
            found = self._reader.feed(data)
            if found is None:
                return
            if isinstance(found, Head):
                self._rest = found.rest
                self._judge(found)
            else:
                self._refuse(FAULTS[found])
        elif self._state is State.DECIDING:
            self._rest += data  # reading is paused, but TLS may have had some in hand

    def eof_received(self) -> None:
        """The peer sends no more; the transport closes itself then.  Nobody waits for an answer to half a request."""

    def resume_writing(self) -> None:
        if self._state is State.ANSWERING:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        # A callback that runs is not cancelled because its peer went: half a database write is worse than a whole one.
        if self._state is State.DECIDING and self._task is not None:
            self._shared.left(self)
            self._leave()
        elif self._state is not State.OVER:
            self._set_state(State.OVER)
        self._transport = None

    # Judging.

    def _judge(self, head: Head) -> None:
        """Decide what becomes of a whole head."""
        host = self._shared.host
        refusal = check_version(head) or check_framing(head)
        if refusal is not None:
            self._refuse(refusal)
            return
        is_wanted = is_upgrade(head)
        if host.http is not None and not is_wanted:
            self._hand_over(host.http)
            return
        address = check_host(head)
        if isinstance(address, Response):
            self._refuse(address)
        elif not is_wanted:
            self._judge_plain(head)
        elif head.method != "GET":
            # RFC 6455 section 4.1, 2: "The method of the request MUST be GET".
            self._refuse(NOT_ALLOWED)
        else:
            shared = self._shared
            subprotocols = host.options.subprotocols
            self._judge_upgrade(head, check_upgrade(head, address, shared.policy, subprotocols, shared.deflate))

    def _judge_upgrade(self, head: Head, upgrade: Upgrade | Response) -> None:
        if isinstance(upgrade, Response):
            self._refuse(upgrade)
            return
        route = self._shared.host.find_route(path_of(head.target))
        if route is None:
            self._refuse(NOT_FOUND)
        elif route.on_upgrade is None:
            self._open(head.raw, route, upgrade, _ACCEPT)
        else:
            self._call(
                "on_upgrade", route.on_upgrade, head.raw, partial(self._upgrade_decided, head.raw, route, upgrade)
            )

    def _judge_plain(self, head: Head) -> None:
        on_request = self._shared.host.on_request
        if head.method != "GET" and (head.method != "HEAD" or on_request is None):
            self._refuse(NOT_ALLOWED if on_request is None else NOT_ALLOWED_BUT_HEAD)
        elif has_body(head):
            self._refuse(UNEXPECTED_BODY)
        elif on_request is None:
            self._refuse(UPGRADE_REQUIRED)
        else:
            self._call("on_request", on_request, head.raw, self._request_decided)

    # Calling user code.

    def _call(self, name: str, callback: Callable[[Request], Any], head: bytes, decided: Callable[[Any], None]) -> None:
        """Call ``callback``, and ``decided`` with what it returned, at once or when that was awaited."""
        assert self._transport is not None
        try:
            result = callback(Request(head, self._transport))
        except (Exception, asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
            self._callback_failed(name, error)
            return
        if result is None or not inspect.isawaitable(result):
            decided(result)
            return
        self._set_state(State.DECIDING)
        self._transport.pause_reading()
        # A task of this very class: one that a task factory starts eagerly could end before we are done here.
        task = self._task = asyncio.Task(self._await(name, result, decided), loop=self._shared.host.loop)
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)
        if inspect.iscoroutine(result):
            # Cancelled before its first step, on a busy machine, it would complain that it was never awaited.
            task.add_done_callback(lambda _: result.close())

    async def _await(self, name: str, awaitable: Awaitable[Any], decided: Callable[[Any], None]) -> None:
        try:
            result = await awaitable
        except (Exception, asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
            self._task = None
            self._callback_failed(name, error)
        else:
            self._task = None
            if self._is_awaited:
                decided(result)
        if self._transport is None and self._state is not State.OVER:
            self._set_state(State.OVER)  # the peer went meanwhile

    @property
    def _is_awaited(self) -> bool:
        """Whether what a callback returns still matters: neither did the peer go nor was it answered for a timeout."""
        return (
            self._state in (State.READING, State.DECIDING)
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def _callback_failed(self, name: str, error: BaseException) -> None:
        """Answer for a callback that raised, and report it."""
        is_fault = isinstance(error, Exception)
        if self._is_awaited:
            self._refuse(FAILED if is_fault else UNAVAILABLE)
        if is_fault:
            failure = CallbackError(name)
            failure.__cause__ = error
            self._shared.host.callback_failed(failure)
        elif not isinstance(error, asyncio.CancelledError):
            self._shared.host.exit(error)

    def _upgrade_decided(self, head: bytes, route: RouteLike, upgrade: Upgrade, result: object) -> None:
        try:
            answer = _check_upgrade_result(result, upgrade)
        except (TypeError, ValueError) as error:
            self._callback_failed("on_upgrade", error)
            return
        if isinstance(answer, Response):
            self._shared.refused[answer.status] += 1
            self._answer(answer)
        else:
            self._open(head, route, upgrade, answer)

    def _request_decided(self, result: object) -> None:
        if isinstance(result, Response):
            self._answer(result)
        else:
            self._callback_failed(
                "on_request", TypeError(f"on_request returned {type(result).__name__}: return wsev.Response")
            )

    # Ways out.

    def _open(self, head: bytes, route: RouteLike, upgrade: Upgrade, accept: Accept) -> None:
        subprotocol = upgrade.subprotocol if accept.subprotocol is None else accept.subprotocol
        deflate = upgrade.deflate
        extensions = None if deflate is None else encode_parameters(deflate)
        response = encode_accept(upgrade.accept_key, subprotocol, accept.headers, extensions)
        transport = self._transport
        assert transport is not None
        if self._state is State.DECIDING:
            transport.resume_reading()
        self._set_state(State.OVER)
        self._transport = None
        self._shared.host.open(transport, head, route, accept, subprotocol, deflate, response, self._rest)

    def _hand_over(self, http: Callable[[], asyncio.Protocol]) -> None:
        try:
            protocol: Any = http()
        except Exception as error:
            self._callback_failed("http", error)
            return
        transport, received = self._transport, self._reader.received
        assert transport is not None
        self._shared.handed_over.add(transport)
        self._set_state(State.OVER)
        self._transport = None
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(received)

    def _refuse(self, response: Response) -> None:
        """Answer with what is not the user's answer."""
        self._shared.log_refusal(response, self.remote_address)
        self._answer(response)

    def _answer(self, response: Response) -> None:
        transport = self._transport
        assert transport is not None
        if transport.is_closing():
            return  # connection_lost is on its way
        if self._state is State.DECIDING:
            transport.resume_reading()
        transport.set_write_buffer_limits(high=0)  # resume_writing tells when all is out
        transport.write(encode_response(response, has_body=not self._reader.is_head_request))
        self._unsent = transport.get_write_buffer_size()
        if self._unsent:
            self._set_state(State.ANSWERING)
        else:
            self._finish()

    def _finish(self) -> None:
        """All of the answer is out: end our direction, and drop what comes for a while."""
        transport = self._transport
        assert transport is not None
        if transport.is_closing():
            return
        if transport.can_write_eof():
            self._set_state(State.LINGERING)
            try:
                transport.write_eof()
            except OSError:  # asyncio calls shutdown(2) right here, which fails after a reset
                self.end()
        else:
            self._set_state(State.CLOSING)
            transport.close()

    # State.

    def _set_state(self, state: State) -> None:
        """The only place that changes it; the clock of the old one stops, that of the new one starts."""
        assert state in _NEXT[self._state], (self._state, state)
        deadlines = self._shared.deadlines
        deadlines[self._state].discard(self.clock or self)
        if self.clock is not None:
            self._shared.within_tls.discard(self.clock)
            self.clock = None
        self._state = state
        if state is not State.OVER:
            deadlines[state].add(self)
        else:
            self._shared.left(self)
            self._leave()

    def _leave(self) -> None:
        if self._is_admitted:
            self._is_admitted = False
            self._shared.host.leave(self)


def _check_upgrade_result(result: object, upgrade: Upgrade) -> Accept | Response:
    """What on_upgrade returned, if it may."""
    if result is None:
        return _ACCEPT
    if not isinstance(result, Accept | Response):
        raise TypeError(
            f"on_upgrade returned {type(result).__name__}: return None or wsev.Accept, or wsev.Response to refuse"
        )
    if isinstance(result, Accept) and result.subprotocol is not None and result.subprotocol not in upgrade.offers:
        # RFC 6455 section 4.1: the client fails the connection if it did not offer the subprotocol.
        raise ValueError(
            f"Accept(subprotocol={result.subprotocol!r}): the client did not offer it; choose one of "
            "request.subprotocols, or None"
        )
    return result
