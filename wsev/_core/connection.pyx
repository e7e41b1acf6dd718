"""Connection: one WebSocket connection of a server.

Joins the parts: what the transport brings goes to the Parser, what the Parser finds to the Dispatcher, what is sent to
the Writer.  Owns the ready state, the closing handshake (RFC 6455 section 7), control frames, timeouts, and when
reading pauses.  Contains no HTTP.

Invariants: every step of the ready state is taken in _set_state(); the transport is read from only while there is no
backlog; nothing is delivered once delivers is False but on_disconnect; user code is called by the Dispatcher alone.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

import asyncio
import errno
import logging
import types

from wsev._core.buffers cimport Buffer
from wsev._core.dispatch cimport CONNECT, DISCONNECT, DRAIN, PING_FRAME, PONG_FRAME, Callbacks, Dispatcher
from wsev._core.frames cimport (
    FIN, MAX_CONTROL_PAYLOAD, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT
)
from wsev._core.loop cimport ServerState
from wsev._core.messages cimport BINARY, CLOSE, FAILED, NEED_DATA, PING, TEXT, Parser
from wsev._core.output cimport Output
from wsev._core.rules cimport (
    MESSAGE_TOO_BIG, TOO_MANY_FRAGMENTS, close_code_of, is_close_code_allowed, reason_of
)
from wsev._core.writer cimport CLOSED, CLOSING, ENDING, OPEN, ReadyState
from wsev.errors import ConnectionClosed, MessageTooBig, ProtocolError, SlowConsumer, TimedOut

logger = logging.getLogger("wsev.connection")

cdef enum:
    # RFC 6455 section 7.4.1
    NORMAL_CLOSURE = 1000
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    POLICY_VIOLATION = 1008
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013
    MAX_CLOSE_REASON = 123      # bytes: a control frame's 125 less the code (section 5.5.1)
    LINGER = 1000               # milliseconds that we read on after FIN, so that a reset does not overtake our Close
    SIZE_PER_SECOND = 16384     # bytes of a message that give it another second (read_deadline)
    NEVER = 0

cdef tuple STATE_NAMES = ("OPENING", "OPEN", "CLOSING", "CLOSING", "CLOSED")


@cython.final
@cython.no_gc_clear         # __dealloc__ needs the pool; a cycle through a Rare is broken at its Connection
cdef class Rare:

    def __dealloc__(self):
        self.drop_backlog()

    cdef void drop_backlog(self) noexcept:
        if self.backlog != NULL:
            self.pool.release(self.backlog)
            self.backlog = NULL


@cython.final
cdef class Connection(Dispatcher, asyncio.BufferedProtocol):
    """One WebSocket connection; made by the server, handed to every callback.

    Hashed and compared by identity.  After its end it stays a value: its attributes can be read, ``send``, ``ping`` and
    ``subscribe`` return False, ``close``, ``abort`` and ``flush`` do nothing.

    Attributes:
        id: unique in its worker, never used again.
        state: the application's, of any type; None until ``Accept(state=...)`` or you set it.
        subprotocol: the one agreed on (RFC 6455 section 1.9), or None.
    """

    __class_getitem__ = classmethod(types.GenericAlias)

    def __cinit__(
        self,
        ServerState server not None,
        Callbacks callbacks not None,
        transport not None,
        bytes request,
        subprotocol,
        state,
    ):
        self.server = server
        self.loop_state = server.loop_state
        self.callbacks = callbacks
        self.output = Output(transport)
        self.request_head = request
        self.subprotocol = subprotocol
        self.state = state
        self.latency_seconds = -1
        self.loop_state.last_id += 1
        self.id = self.loop_state.last_id

    def __dealloc__(self):
        if self.due:
            self.loop_state.wheel.remove(self)

    def __repr__(self):
        address = self.remote_address
        where = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else address or "unix"
        name = f" {self.subprotocol}" if self.subprotocol else ""
        return f"<Connection {where} {STATE_NAMES[<int> self.ready_state]}{name}>"

    # ---------------------------------------------------------------- what the application reads

    @property
    def request(self):
        """The request that opened it, read anew from its bytes each time that this is asked for."""
        return self.server.hooks.request(self, self.request_head)

    @property
    def is_open(self):
        """False from the moment that close() or abort() is called or the end is seen."""
        return self.ready_state == OPEN

    @property
    def close_code(self):
        """None while open; else the peer's close code, or ours if it sent none.

        1005: its Close frame had no code; 1006: no Close frame was sent or came (RFC 6455 section 7.1.5).
        """
        if self.ready_state <= OPEN:
            return None
        return self.peer_code or self.own_code or ABNORMAL_CLOSURE

    @property
    def close_reason(self):
        """The text that came with the close code; "" while open, or if there was none."""
        if self.rare is None or self.rare.close_reason is None or self.ready_state <= OPEN:
            return ""
        return self.rare.close_reason

    @property
    def buffered_amount(self):
        """Bytes that were taken and not yet given to the kernel, frame headers included."""
        return self.buffered()

    @property
    def latency(self):
        """Seconds from the last keepalive ping to its pong; None until there was one."""
        return None if self.latency_seconds < 0 else self.latency_seconds

    @property
    def remote_address(self):
        """The peer's (host, port), or a path or "" for a Unix socket; readable after the end."""
        return self.output.remote_address

    @property
    def local_address(self):
        """As ``remote_address``, of the server's side."""
        return self.output.local_address

    @property
    def topics(self):
        """The topics that it is subscribed to, a frozenset; empty after the end."""
        return self.server.hooks.topics_of(self)

    def get_extra_info(self, name, default=None):
        """As ``asyncio.BaseTransport.get_extra_info``; after the end ``default``, but for "peername"."""
        if self.output.transport is not None:
            return self.output.transport.get_extra_info(name, default)
        return self.output.remote_address if name == "peername" else default

    # ---------------------------------------------------------------- what the application does

    def send(self, message, *, bint text=False, compress=None):
        """Queue one message for the peer, without blocking.

        A str goes out as a text message, bytes as a binary one (RFC 6455 section 5.6).  The bytes are taken before this
        returns, so a buffer may be reused.  They leave in order, when the current read event ends, else before the loop
        polls again, or ``write_buffer_deadline`` seconds later; or the connection ends.

        Args:
            message: str, bytes, bytearray or memoryview.
            text: True for bytes that are UTF-8 (not checked), to be sent as a text message.
            compress: for permessage-deflate; without it, of no effect.

        Returns:
            True if the message was taken; False if the connection is not open, or does not take it because
            ``max_buffered_amount`` is reached, and nothing was.

        Raises:
            TypeError: ``message`` is neither str nor bytes-like.
            UnicodeEncodeError: it is a str with a lone surrogate.
        """
        cdef Py_buffer view
        cdef const char* data
        cdef Py_ssize_t size
        if self.server.debug_thread:
            self.server.check_thread()
        if PyBytes_CheckExact(message):
            if not self._may_send():
                return False
            self.queue_frame(
                FIN | (OPCODE_TEXT if text else OPCODE_BINARY),
                <const uint8_t*> PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), message,
            )
        elif isinstance(message, str):
            data = PyUnicode_AsUTF8AndSize(message, &size)
            if not self._may_send():
                return False
            self.queue_frame(FIN | OPCODE_TEXT, <const uint8_t*> data, size, message)
        elif isinstance(message, (bytes, bytearray, memoryview)):
            PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
            try:
                if not self._may_send():
                    return False
                self.queue_frame(
                    FIN | (OPCODE_TEXT if text else OPCODE_BINARY), <const uint8_t*> view.buf, view.len, None
                )
            finally:
                PyBuffer_Release(&view)
        else:
            raise TypeError(f"message must be str, bytes, bytearray or memoryview, not {type(message).__name__}")
        self.server.messages_out += 1
        self.plan_flush()
        return True

    def ping(self, bytes payload=b""):
        """Send a ping frame (RFC 6455 section 5.5.2); its pong comes to ``on_pong``.

        Args:
            payload: at most 125 bytes.

        Returns:
            True if it was taken; False as for ``send``.

        Raises:
            ValueError: ``payload`` is longer.
        """
        self.server.check_thread()
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise ValueError(f"payload: {len(payload)} bytes; a ping carries at most {MAX_CONTROL_PAYLOAD}")
        if not self._may_send():
            return False
        self._queue_control(OPCODE_PING, payload)
        self.plan_flush()
        return True

    def flush(self):
        """Give what is unsent to the kernel now, not at the deadline; what it does not take goes when it can."""
        self.server.check_thread()
        if self.ready_state == OPEN and not self.is_loop_closed():
            self.flush_now()

    def close(self, int code=NORMAL_CLOSURE, str reason=""):
        """Send a Close frame behind what was sent, and end the connection (RFC 6455 section 7.1.2).

        Nothing more is delivered but ``on_disconnect``, not even what has been received already.  The peer has
        ``close_timeout`` seconds to answer and to end; then TCP is reset.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: a code that may not be sent (RFC 6455 section 7.4), or too long a reason.
        """
        cdef bytes encoded = reason.encode()
        self.server.check_thread()
        if not is_close_code_allowed(code):
            raise ValueError(f"code={code}: may not be sent; use 1000 to 1003, 1007 to 1014 or 3000 to 4999")
        if len(encoded) > MAX_CLOSE_REASON:
            raise ValueError(f"reason: {len(encoded)} bytes of UTF-8; at most {MAX_CLOSE_REASON} fit a Close frame")
        if self.ready_state != OPEN or self.is_loop_closed():
            return
        self._stop_delivering()
        self._set_state(CLOSING)
        self._queue_close(code, encoded)
        self._rare().close_reason = reason
        self._wake_drain_waiters()
        self._end_within(self.server.close_timeout)
        self._flush_soon()
        # Reading may be paused: the peer's Close is behind what it sent, and all of it is passed over.
        self.loop_state.schedule(self)

    def abort(self):
        """End the connection at once, without a Close frame; what is unsent is dropped."""
        self.server.check_thread()
        if self.ready_state < CLOSED:
            self._abort(ConnectionAbortedError(errno.ECONNABORTED, "abort() was called"))

    async def drain(self):
        """Wait while more than ``high_water`` bytes are unsent, until a quarter of it is left.

        Raises:
            ConnectionClosed: the connection is not open, or ended meanwhile.
        """
        if self.ready_state == OPEN and not self.is_loop_closed():
            self.flush_now()
        if self.ready_state != OPEN:
            raise ConnectionClosed(self.close_code, self.close_reason)
        if not self.is_congested:
            return
        waiter = self.loop_state.loop.create_future()
        if self._rare().drain_waiters is None:
            self.rare.drain_waiters = []
        self.rare.drain_waiters.append(waiter)
        await waiter

    async def wait_closed(self):
        """Wait until TCP has ended."""
        if self.ready_state == CLOSED:
            return
        waiter = self.loop_state.loop.create_future()
        if self._rare().end_waiters is None:
            self.rare.end_waiters = []
        self.rare.end_waiters.append(waiter)
        await waiter

    def subscribe(self, str topic not None):
        """Receive what is published to ``topic``, from now on.

        Args:
            topic: 1 to 255 bytes of UTF-8.

        Returns:
            True if it is subscribed now; False if the connection is not open or has ``max_subscriptions`` topics.

        Raises:
            TypeError, ValueError: ``topic`` is no str, or its length is wrong.
        """
        self.server.check_thread()
        if self.ready_state != OPEN:
            return False
        return self.server.hooks.subscribe(self, topic)

    def unsubscribe(self, str topic not None):
        """Receive it no more; returns whether it was subscribed."""
        self.server.check_thread()
        return self.server.hooks.unsubscribe(self, topic)

    def publish(self, str topic not None, message, *, bint text=False):
        """Send ``message`` to the subscribers of ``topic``, but not to this connection.

        Args and Raises as ``Server.publish``.

        Returns:
            How many connections of this worker took it.
        """
        self.server.check_thread()
        return self.server.hooks.publish(topic, message, text, self)

    def open(self, bytes response, bytes rest):
        """The server's: send the 101, call on_connect, then look at what came behind the request."""
        self._set_state(OPEN)
        self.delivers = True
        self.server.connections.add(self)
        self.loop_state.joined()
        self._watch(self.server.idle_timeout // 2)
        self._begin_event()
        try:
            self.server.hooks.opened(self)
            self.queue_bytes(<const uint8_t*> PyBytes_AS_STRING(response), len(response), response)
            self.happened(CONNECT, None, 0)
            if rest and self.ready_state <= CLOSING:
                self.server.bytes_in += len(rest)
                self._take_parser().feed_bytes(<const uint8_t*> PyBytes_AS_STRING(rest), len(rest))
                self._process()
                # What the parser still holds lies in rest, which ends here.
                if self.ready_state <= CLOSING and not self.output.is_paused and not self._may_process():
                    self._hold()
        finally:
            self._end_event()

    def _cancel(self):
        """The server's: stop_timeout has passed."""
        if self.ready_state < CLOSED:
            self._abort(ConnectionAbortedError(errno.ECONNABORTED, "stop_timeout passed"))
        self.cancel_callback()
        self.cancel_tasks()

    # ---------------------------------------------------------------- asyncio.BufferedProtocol

    @property
    def get_buffer(self):
        """The loop's one read buffer, by a function for all: uvloop keeps it, and a method would be 80 bytes each."""
        return self.server.get_buffer

    def buffer_updated(self, Py_ssize_t size):
        if self.ready_state > CLOSING:
            return                      # read and dropped: TCP is being ended
        self._begin_event()
        try:
            self.server.bytes_in += size
            self._take_parser().feed_bytes(self.loop_state.read_buffer, size)
            self._process()
        except Exception as error:
            # No memory, or a defect of ours: the end of this connection, and of no other.
            logger.exception("%r: what it received could not be dealt with", self)
            self._abort(error)
        finally:
            self._end_event()

    def eof_received(self):
        """FIN: what the peer sent is in, and it may still be reading (RFC 6455 section 7.1.4)."""
        if self.ready_state <= CLOSING:
            self._end(ConnectionResetError(errno.ECONNRESET, "the peer ended TCP without a Close frame"))
        elif self.ready_state == ENDING and self.head == NULL:
            self.output.close()
        # True: the transport stays while something is unsent.
        return self.head != NULL and self.output.transport.can_write_eof()

    def connection_lost(self, error):
        if self.ready_state == CLOSED:
            return
        if self.ready_state <= CLOSING:
            self._keep_error(error or ConnectionResetError(errno.ECONNRESET, "TCP ended without a Close frame"))
        elif error is not None and not self.is_clean:
            self._keep_error(error)
        self._set_state(CLOSED)
        self.loop_state.wheel.remove(self)
        self.drop_unsent()
        self.output.lost()
        self.server.connections.discard(self)
        self.loop_state.left()
        self.server.leaving.add(self)
        self.server.closes[self.close_code] = self.server.closes.get(self.close_code, 0) + 1
        self.cancel_tasks()
        self._wake_drain_waiters()
        if self.rare is not None and self.rare.end_waiters is not None:
            for waiter in self.rare.end_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self.rare.end_waiters = None
        self._use_backlog()
        if not self._has_backlog():
            self.parser = None              # and with it what has come of an unfinished message
            self._disconnected()

    def pause_writing(self):
        self.output.is_blocked = True

    def resume_writing(self):
        self.may_write()

    # ---------------------------------------------------------------- reading

    cdef int _set_state(self, ReadyState state) except -1:
        """The one place where the ready state changes; it only moves on."""
        assert state > self.ready_state, (self.ready_state, state)
        self.ready_state = state
        return 0

    cdef int _begin_event(self) except -1:
        self.is_reading = True
        self.received_at = self.loop_state.now
        return 0

    cdef int _end_event(self) except -1:
        """Flush, and see to what this read event began."""
        self.is_reading = False
        if self.head != NULL and (self.flushes_early or self.server.flush_queue.deadline <= 0):
            self.flush_now()
        elif self.head != NULL:
            self.plan_flush()
        self.flushes_early = False
        if self.ready_state > CLOSING:
            return 0
        self._return_parser()
        if self.parser is None:
            self.message_started_at = 0
        elif not self.message_started_at and self.server.read_deadline:
            self.message_started_at = self.loop_state.now
            self._watch(self.server.read_deadline)
        if self.is_congested and self.ready_state == OPEN and not self.output.is_paused:
            self._hold()
        return 0

    cdef Parser _take_parser(self):
        """A parser of its own for as long as it receives: idle connections have none (80 bytes each)."""
        if self.parser is None:
            self.parser = self.server.spare_parser
            if self.parser is None:
                self.parser = Parser(self.server.limits)
            else:
                self.server.spare_parser = None
        return self.parser

    cdef int _return_parser(self) except -1:
        """Between two messages a parser remembers nothing: the next connection may have it."""
        if self.parser is not None and not self.parser.is_inside() and not self._has_backlog():
            self.server.spare_parser = self.parser
            self.parser = None
        return 0

    cdef bint _may_process(self) noexcept:
        """Whether the next event may be looked at."""
        return not self.delivers or (
            (not self.is_congested or self.ready_state != OPEN) and (self.waiting is None or self.takes_events())
        )

    cdef int _process(self) except -1:
        """What the parser was fed, event by event."""
        cdef int event
        cdef object message
        cdef Py_ssize_t size
        while True:
            if (self.is_congested or self.waiting is not None) and not self._may_process():
                return self._hold()
            event = self.parser.next_event()
            if event == BINARY or event == TEXT:
                self.message_started_at = 0
                if self.delivers:
                    self.server.messages_in += 1
                    message = self.parser.take_payload()
                    size = PyBytes_GET_SIZE(message) if PyBytes_CheckExact(message) else len(<str> message)
                    self.message_came(message, size, event == TEXT)
            elif event == NEED_DATA:
                return 0
            else:
                self._control(event)
                if event == CLOSE or event == FAILED:
                    return 0
            if self.ready_state > CLOSING and not self.delivers:
                return 0                # a callback aborted

    cdef int _hold(self) except -1:
        """Stop parsing between two events, and reading: what has come lies in the backlog until _proceed()."""
        cdef const uint8_t* data = NULL
        cdef Py_ssize_t size = 0
        cdef Rare rare = self._rare()
        if self.parser is not None:
            size = self.parser.rest(&data)
        if rare.backlog != NULL:
            rare.backlog.start = rare.backlog.end - size    # the parser was reading it
            if size == 0:
                self._drop_backlog()
        elif size:
            rare.backlog = self.loop_state.pool.acquire(size)
            memcpy(rare.backlog.data, data, size)
            rare.backlog.end = size
        if not self.output.is_paused:
            rare.held_at = self.loop_state.now
            self.output.pause()
        return 0

    cdef int _proceed(self) except -1:
        """Go on where _hold() stopped, if what it stopped for is over."""
        if not self.output.is_paused or not self._may_process():
            return 0
        if self.ready_state <= CLOSING:
            # A pause of ours counts for no timeout.
            if self.message_started_at:
                self.message_started_at += self.loop_state.now - self.rare.held_at
            self.rare.held_at = self.loop_state.now
            self._begin_event()
            try:
                self._use_backlog()
            finally:
                self._end_event()
        if not self._has_backlog() and (self.ready_state > CLOSING or self._may_process()):
            self.output.resume()
        return 0

    cdef int _use_backlog(self) except -1:
        cdef Buffer* backlog
        if not self._has_backlog():
            return 0
        backlog = self.rare.backlog
        if self.delivers or self.ready_state == CLOSING:
            self._take_parser().feed_bytes(backlog.data + backlog.start, backlog.end - backlog.start)
            backlog.start = backlog.end
            self._process()
            if self._has_backlog() and backlog.start < backlog.end:
                return 0                # held again
        self._drop_backlog()
        return 0

    cdef bint _has_backlog(self) noexcept:
        return self.rare is not None and self.rare.backlog != NULL

    cdef void _drop_backlog(self) noexcept:
        if self.rare is not None:
            self.rare.drop_backlog()

    # ---------------------------------------------------------------- control frames (RFC 6455 section 5.5)

    cdef int _control(self, int event) except -1:
        if event == FAILED:
            return self._violation_came()
        if event == CLOSE:
            return self._close_came()
        if not self._within_control_rate():
            self.server.count_limit("max_control_rate", self)
            error = ProtocolError(POLICY_VIOLATION, "more control frames than max_control_rate")
            return self._fail(error, POLICY_VIOLATION)
        if event == PING:
            return self._ping_came(self.parser.take_payload())
        return self._pong_came(self.parser.take_payload())

    cdef bint _within_control_rate(self) noexcept:
        """A bucket that leaks: each frame is worth control_interval, and control_burst of it may stand out."""
        cdef int64_t now = self.loop_state.now * 1000
        if not self.server.control_interval:
            return True
        if self.control_due < now:
            self.control_due = now
        self.control_due += self.server.control_interval
        return self.control_due - now <= self.server.control_burst

    cdef int _ping_came(self, bytes payload) except -1:
        """Section 5.5.2: "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response"."""
        self.server.pings_in += 1
        if self.ready_state == OPEN:
            if self.output.is_blocked:
                # Section 5.5.3: "may elect to send a Pong frame for only the most recently processed Ping frame".
                self._rare().pong = payload
            else:
                self._queue_control(OPCODE_PONG, payload)
                self.flushes_early = True
        if self.delivers and self.callbacks.on_ping is not None:
            self.happened(PING_FRAME, payload, len(payload))
        return 0

    cdef int _pong_came(self, bytes payload) except -1:
        self.server.pongs_in += 1
        if self.pinged_at and payload == _keepalive_payload(self.pinged_at):
            self.latency_seconds = <float> max(0.0, <double> self.loop_state.loop.time() - self.pinged_at / 1e6)
            self.pinged_at = 0
        elif self.delivers and self.callbacks.on_pong is not None:
            self.happened(PONG_FRAME, payload, len(payload))
        return 0

    cdef int _close_came(self) except -1:
        """Section 5.5.1: "When sending a Close frame in response, the endpoint typically echos the status code"."""
        cdef const uint8_t* behind = NULL
        self.peer_code = self.parser.close_code
        if self.parser.close_reason:
            self._rare().close_reason = self.parser.close_reason
        elif self.rare is not None:
            self.rare.close_reason = None
        if self.ready_state == OPEN:
            self._queue_close(0 if self.peer_code == NO_STATUS_RECEIVED else self.peer_code, b"")
        self.is_clean = True
        self.is_trailed = self.parser.rest(&behind) > 0
        return self._end(None)

    cdef int _violation_came(self) except -1:
        cdef int code = close_code_of(self.parser.violation)
        if self.parser.violation == MESSAGE_TOO_BIG:
            self.server.count_limit("max_message_size", self)
        elif self.parser.violation == TOO_MANY_FRAGMENTS:
            self.server.count_limit("max_fragments", self)
        kind = MessageTooBig if code == 1009 else ProtocolError
        logger.debug("%r: %s", self, reason_of(self.parser.violation))
        return self._fail(kind(code, reason_of(self.parser.violation)), code)

    cdef int _queue_control(self, int opcode, bytes payload) except -1:
        return self.queue_frame(FIN | opcode, <const uint8_t*> PyBytes_AS_STRING(payload), len(payload), None)

    cdef int _queue_close(self, int code, bytes reason) except -1:
        cdef bytes body = b"" if code == 0 else bytes((code >> 8, code & 0xFF)) + reason
        self.own_code = code if code else NO_STATUS_RECEIVED
        return self._queue_control(OPCODE_CLOSE, body)

    # ---------------------------------------------------------------- the end

    cdef int _stop_delivering(self) except -1:
        self.delivers = False
        return self.forget_events()

    cdef int _fail(self, object error, int code) except -1:
        """Section 7.1.7, _Fail the WebSocket Connection_: Close with ``code``, nothing more is looked at, TCP ends."""
        self._stop_delivering()
        if self.ready_state > CLOSING:
            return 0
        if self.ready_state == OPEN:
            self._queue_close(code, b"")
        return self._end(error)

    cdef int _end(self, object error) except -1:
        """Nothing more is sent or read; TCP is ended when what is unsent has gone."""
        cdef const uint8_t* behind = NULL
        self._keep_error(error)
        if self.ready_state == CLOSED:
            return 0                        # the peer's Close was among what waited for the callbacks when TCP ended
        self._set_state(ENDING)
        if self.parser is not None:
            self.parser.rest(&behind)
        if not self.delivers:
            self._drop_backlog()
        self._wake_drain_waiters()
        self._end_within(self.server.close_timeout)
        if self.head != NULL:
            self._flush_soon()
        if self.head == NULL and self.ready_state == ENDING and not self.is_reading:
            self._finish()
        elif self.ready_state == ENDING:
            self.loop_state.schedule(self)
        return 0

    cdef int _finish(self) except -1:
        """All is with the kernel (or the transport): the server ends TCP first (section 7.1.1)."""
        if self.output.fd < 0 and self.output.transport is not None and self.output.transport.is_closing():
            return 0
        if (self.is_clean and not self.is_trailed) or self.output.is_broken:
            return self.output.close()
        # Closing with bytes unread would reset, and the reset might overtake our Close.
        self.output.finish()
        return self._end_within(LINGER)

    cdef int _end_within(self, int64_t timeout) except -1:
        """TCP must have ended in ``timeout`` milliseconds (0: no limit), or earlier if that was said before."""
        cdef int64_t due = self.loop_state.now + timeout + self.loop_state.wheel.granularity
        if timeout and (not self._rare().closing_due or due < self.rare.closing_due):
            self.rare.closing_due = due
            self.loop_state.watch(self, due)
        return 0

    cdef int _abort(self, object error) except -1:
        self._stop_delivering()
        self._keep_error(error)
        self.is_clean = False
        if self.ready_state < ENDING:
            self._set_state(ENDING)
            self._wake_drain_waiters()
        self._drop_backlog()
        self.drop_unsent()
        return self.output.abort()

    def _keep_error(self, error):
        """The first reason stands."""
        if error is not None and (self.rare is None or self.rare.error is None):
            self._rare().error = error

    cdef int _disconnected(self) except -1:
        """All that came has been handed on: on_disconnect, behind it."""
        error = None if self.rare is None else self.rare.error
        return self.happened(DISCONNECT, error, 0)

    cdef int _wake_drain_waiters(self) except -1:
        cdef list waiters
        if self.rare is None or self.rare.drain_waiters is None:
            return 0
        waiters = self.rare.drain_waiters
        self.rare.drain_waiters = None
        for waiter in waiters:
            if waiter.done():
                continue
            if self.ready_state == OPEN:
                waiter.set_result(None)
            else:
                waiter.set_exception(ConnectionClosed(self.close_code, self.close_reason))
        return 0

    # ---------------------------------------------------------------- the layers below

    def _may_send(self):
        if self.ready_state != OPEN:
            return False
        if not self.has_room():
            self.overflowed()
            return False
        return True

    def _flush_soon(self):
        """Close and pongs never wait for a deadline; inside a read event, for its end."""
        if self.is_reading:
            self.flushes_early = True
        else:
            self.flush_now()

    cdef int overflowed(self) except -1:
        """The peer reads more slowly than it is sent to (slow_consumer)."""
        cdef Py_ssize_t amount = self.buffered()
        self.server.count_limit("max_buffered_amount", self)
        if self.server.drops_messages:
            self.server.dropped += 1
            return 0
        self.drop_whole_frames()
        return self._fail(SlowConsumer(amount), TRY_AGAIN_LATER)

    cdef int flushed(self, bint progress) except -1:
        """Some or all has been sent: see whether reading must stop, or may go on, or TCP may end."""
        cdef Py_ssize_t amount = self.buffered()
        if progress and self.output.is_paused:
            self.received_at = self.loop_state.now      # the peer takes output: its sign of life while we do not read
        if self.output.is_blocked and self.server.write_timeout and self.ready_state <= CLOSING:
            self._rare().progress_at = self.loop_state.now
            self.rare.stuck = amount
            self._watch(self.server.write_timeout // 4)
        if self.ready_state == OPEN and self.server.high_water >= 0:
            if not self.is_congested and amount > self.server.high_water:
                self.is_congested = True
                if not self.is_reading and not self.output.is_paused:
                    self._hold()
            elif self.is_congested and amount <= self.server.low_water:
                self.is_congested = False
                self.is_drained = True
                self.loop_state.schedule(self)
        elif self.ready_state == ENDING and self.head == NULL and not self.is_reading:
            self._finish()
        return 0

    cdef int send_failed(self, object error) except -1:
        return self._abort(error)

    cdef int piled_up(self) except -1:
        """More waits behind output that is blocked: an echo throttles its peer, it does not close it."""
        if self.ready_state == OPEN and 0 <= self.server.high_water < self.buffered() and not self.is_congested:
            self.is_congested = True
            if not self.is_reading and not self.output.is_paused:
                self._hold()
        return 0

    cdef int may_write(self) except -1:
        """The transport's queue is empty."""
        cdef bytes pong
        self.output.is_blocked = False
        if self.ready_state == CLOSED:
            return 0
        if self.ready_state == OPEN and self.rare is not None and self.rare.pong is not None:
            pong = self.rare.pong
            self.rare.pong = None
            self._queue_control(OPCODE_PONG, pong)
        if self.head == NULL:
            return self.flushed(True)
        return self.flush_now()

    cdef int run_scheduled(self) except -1:
        if self.ready_state == CLOSED:
            return 0
        self.flush_now()
        if self.ready_state == ENDING and self.head == NULL:
            self._finish()
        if self.is_drained:
            self.is_drained = False
            self._wake_drain_waiters()
            if self.delivers and self.callbacks.on_drain is not None:
                self.happened(DRAIN, None, 0)
        return self._proceed()

    cdef int callback_raised(self, object error) except -1:
        return self._fail(error, INTERNAL_ERROR)

    cdef int events_taken(self) except -1:
        if self.ready_state < CLOSED:
            return self._proceed()
        if self._has_backlog():
            self._use_backlog()
            if not self._has_backlog():
                self._disconnected()
        return 0

    cdef int over(self) except -1:
        self.server.leaving.discard(self)
        self.server.hooks.closed(self)
        return 0

    # ---------------------------------------------------------------- timeouts

    cdef Rare _rare(self):
        if self.rare is None:
            self.rare = Rare.__new__(Rare)
            self.rare.pool = self.loop_state.pool
        return self.rare

    cdef int _watch(self, int64_t timeout) except -1:
        """expire() looks in ``timeout`` milliseconds (0: it is off), a tick later since stamps may be a tick old."""
        if timeout:
            self.loop_state.watch(self, self.loop_state.now + timeout + self.loop_state.wheel.granularity)
        return 0

    cpdef int64_t expire(self, int64_t now) except -1:
        """Look at every clock that runs; returns when to look next."""
        cdef int64_t due = NEVER
        if self.ready_state == CLOSED:
            return NEVER
        if self.ready_state > OPEN:
            return self._expire_closing(now)
        due = _sooner(due, self._expire_write(now))
        due = _sooner(due, self._expire_read(now))
        due = _sooner(due, self._expire_idle(now))
        if self.ready_state > OPEN:
            return self._expire_closing(now)
        return due

    cdef int64_t _expire_closing(self, int64_t now) except -1:
        """close_timeout: "our Close to the end of TCP"."""
        cdef Rare rare = self._rare()
        if not rare.closing_due:
            return NEVER
        if now < rare.closing_due:
            return rare.closing_due
        if not self.is_clean and rare.error is None:
            self.server.count_limit("close_timeout", self)
            self._keep_error(TimedOut("close"))
        self._abort(None)
        return NEVER

    cdef int64_t _expire_write(self, int64_t now) except -1:
        """write_timeout: the kernel took nothing of what waits."""
        cdef Py_ssize_t queued
        cdef Rare rare
        if not self.server.write_timeout or not self.output.is_blocked:
            return NEVER
        rare = self._rare()
        queued = self.output.queued()
        if queued < rare.stuck or not rare.progress_at:
            rare.progress_at = now
            if self.output.is_paused:
                self.received_at = now
        rare.stuck = queued
        if now - rare.progress_at >= self.server.write_timeout:
            self.server.count_limit("write_timeout", self)
            self._abort(TimedOut("write"))
            return NEVER
        return now + self.server.write_timeout // 4

    cdef int64_t _expire_read(self, int64_t now) except -1:
        """read_deadline: from a message's first byte to its last."""
        cdef int64_t due
        if not self.server.read_deadline or not self.message_started_at or self.ready_state != OPEN:
            return NEVER
        if self.output.is_paused:
            return now + self.server.read_deadline
        due = (
            self.message_started_at
            + self.server.read_deadline
            + <int64_t> self.parser.inside_size() * 1000 // SIZE_PER_SECOND
            + self.loop_state.wheel.granularity
        )
        if now < due:
            return due
        self.server.count_limit("read_deadline", self)
        self._fail(TimedOut("read"), POLICY_VIOLATION)
        return NEVER

    cdef int64_t _expire_idle(self, int64_t now) except -1:
        """idle_timeout: nothing was received; half of it later a ping asks for a sign of life."""
        cdef int64_t timeout = self.server.idle_timeout
        cdef int64_t quiet
        if not timeout or self.ready_state != OPEN:
            return NEVER
        if self.output.is_paused and not self.output.is_blocked:
            self.received_at = now      # we do not read, and nothing is stuck: the peer cannot show that it lives
        quiet = now - self.received_at - self.loop_state.wheel.granularity
        if quiet >= timeout:
            self.server.count_limit("idle_timeout", self)
            if self.output.is_blocked:
                self._abort(TimedOut("idle"))
            else:
                self._fail(TimedOut("idle"), INTERNAL_ERROR)
            return NEVER
        if quiet < timeout // 2:
            return self.received_at + timeout // 2 + self.loop_state.wheel.granularity
        if self.pinged_at // 1000 <= self._loop_milliseconds(self.received_at):
            self._send_keepalive()
        return self.received_at + timeout + self.loop_state.wheel.granularity

    def _loop_milliseconds(self, stamp):
        """A stamp of LoopState.now on the scale of loop.time()."""
        return stamp + <int64_t> (self.loop_state.origin * 1000)

    cdef int _send_keepalive(self) except -1:
        self.pinged_at = <int64_t> (<double> self.loop_state.loop.time() * 1e6)
        self._queue_control(OPCODE_PING, _keepalive_payload(self.pinged_at))
        return self.flush_now()


cdef inline int64_t _sooner(int64_t one, int64_t other) noexcept:
    """The earlier of two times, where NEVER is later than all."""
    if one == NEVER:
        return other
    return one if other == NEVER or one < other else other


cdef bytes _keepalive_payload(int64_t microseconds):
    return (<object> microseconds).to_bytes(8, "big")
