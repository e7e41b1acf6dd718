"""Connection: one WebSocket connection of a server, as the application and the transport see it.

Owns what the application may ask and do, and takes what the transport reports (asyncio.BufferedProtocol).  The work is
done by the layers below it: timeouts, receiver, closer, dispatch, writer, output.  Contains no HTTP.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t

import asyncio
import errno
import types

from wsev._core.asyncio_output cimport AsyncioOutput
from wsev._core.dispatch cimport CONNECT, Callbacks
from wsev._core.frames cimport FIN, MAX_CONTROL_PAYLOAD, OPCODE_BINARY, OPCODE_PING, OPCODE_TEXT
from wsev._core.loop cimport ServerState
from wsev._core.output cimport Output
from wsev._core.timeouts cimport Timed
from wsev._core.writer cimport CLOSED, CLOSING, ENDING, OPEN, encode_deflated
from wsev.close import check_close
from wsev.errors import ConnectionClosed

cdef enum:
    NORMAL_CLOSURE = 1000       # RFC 6455 section 7.4.1

cdef tuple STATE_NAMES = ("OPENING", "OPEN", "CLOSING", "CLOSING", "CLOSED")


@cython.final
cdef class Connection(Timed, asyncio.BufferedProtocol):
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
        deflate=None,
    ):
        self.server = server
        self.loop_state = server.loop_state
        self.callbacks = callbacks
        self.output = transport if isinstance(transport, Output) else AsyncioOutput(transport)
        self.request_head = request
        self.subprotocol = subprotocol
        self.state = state
        self.deflate = deflate
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
        return self.final_code()

    @property
    def close_reason(self):
        """The text that came with the close code; "" while open, or if there was none."""
        return "" if self.ready_state <= OPEN else self.final_reason()

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
        if self.ready_state < CLOSED:
            return self.output.extra_info(name, default)
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
            compress: with permessage-deflate agreed on: False sends it as it is, True compresses it even if it is
                smaller than ``compression_threshold``; None, the default, goes by that.  Without it, of no effect.

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
        cdef bint is_taken
        if self.server.debug_thread:
            self.server.check_thread()
        if self.deflate is not None and compress is not False:
            return self._send_deflated(message, text, compress is True)
        if PyBytes_CheckExact(message):
            is_taken = self._may_send() and self.queue_frame(
                FIN | (OPCODE_TEXT if text else OPCODE_BINARY),
                <const uint8_t*> PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), message,
            )
        elif isinstance(message, str):
            data = PyUnicode_AsUTF8AndSize(message, &size)
            is_taken = self._may_send() and self.queue_frame(
                FIN | OPCODE_TEXT, <const uint8_t*> data, size, message
            )
        elif isinstance(message, (bytes, bytearray, memoryview)):
            PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
            try:
                is_taken = self._may_send() and self.queue_frame(
                    FIN | (OPCODE_TEXT if text else OPCODE_BINARY), <const uint8_t*> view.buf, view.len, None
                )
            finally:
                PyBuffer_Release(&view)
        else:
            raise TypeError(f"message must be str, bytes, bytearray or memoryview, not {type(message).__name__}")
        if is_taken:
            self.server.messages_out += 1
            self.plan_flush()
        return is_taken

    cdef bint _send_deflated(self, object message, bint text, bint is_forced) except -1:
        cdef bytes payload, frame
        if isinstance(message, str):
            payload = (<str> message).encode()
            text = True
        elif isinstance(message, (bytes, bytearray, memoryview)):
            payload = bytes(message)
        else:
            raise TypeError(f"message must be str, bytes, bytearray or memoryview, not {type(message).__name__}")
        # First of all: what is compressed and not sent would be missing in the peer's context.
        if not self._may_send():
            return False
        frame = encode_deflated(OPCODE_TEXT if text else OPCODE_BINARY, payload, self.deflate, is_forced)
        if not self.queue_bytes(<const uint8_t*> PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), frame):
            return False
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
        self.queue_control(OPCODE_PING, payload)
        self.plan_flush()
        return True

    def flush(self):
        """Give what is unsent to the kernel now, not at the deadline; what it does not take goes when it can."""
        self.server.check_thread()
        if self.ready_state == OPEN and not self.is_loop_closed():
            self.flush_now()

    def close(self, code=NORMAL_CLOSURE, reason=""):
        """Send a Close frame behind what was sent, and end the connection (RFC 6455 section 7.1.2).

        Nothing more is delivered but ``on_disconnect``, not even what has been received already.  The peer has
        ``close_timeout`` seconds to answer and to end; then TCP is reset.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Raises:
            TypeError: ``code`` is no int, or ``reason`` no str.
            ValueError: a code that may not be sent (RFC 6455 section 7.4), or too long a reason.
        """
        cdef bytes encoded = check_close(code, reason)
        self.server.check_thread()
        if self.ready_state != OPEN or self.is_loop_closed():
            return
        self.stop_delivering()
        self.set_state(CLOSING)
        self.queue_close(code, encoded)
        self.need_rare().close_reason = reason
        self.wake_drain_waiters()
        self.end_within(self.server.close_timeout)
        self.flush_soon()
        # Reading may be paused: the peer's Close is behind what it sent, and all of it is passed over.
        self.loop_state.schedule(self)

    def abort(self):
        """End the connection at once, without a Close frame; what is unsent is dropped."""
        self.server.check_thread()
        if self.ready_state < CLOSED and not self.is_loop_closed():
            self.abort_with(ConnectionAbortedError(errno.ECONNABORTED, "abort() was called"))

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
        if self.need_rare().drain_waiters is None:
            self.rare.drain_waiters = []
        self.rare.drain_waiters.append(waiter)
        await waiter

    async def wait_closed(self):
        """Wait until TCP has ended."""
        if self.ready_state == CLOSED:
            return
        waiter = self.loop_state.loop.create_future()
        if self.need_rare().end_waiters is None:
            self.rare.end_waiters = []
        self.rare.end_waiters.append(waiter)
        await waiter

    def subscribe(self, topic):
        """Receive what is published to ``topic``, from now on.

        Args:
            topic: 1 to 255 bytes of UTF-8.

        Returns:
            True if it is subscribed now; False if the connection is not open or has ``max_subscriptions`` topics.

        Raises:
            TypeError, ValueError: ``topic`` is no str, or its length is wrong.
        """
        self.server.check_thread()
        return self.server.hooks.subscribe(self, topic)

    def unsubscribe(self, topic):
        """Receive it no more; returns whether it was subscribed."""
        self.server.check_thread()
        return self.server.hooks.unsubscribe(self, topic)

    def publish(self, topic, message, *, bint text=False):
        """Send ``message`` to the subscribers of ``topic``, but not to this connection.

        Args and Raises as ``Server.publish``.

        Returns:
            How many connections of this worker took it.
        """
        self.server.check_thread()
        return self.server.hooks.publish(topic, message, text, self)

    def open(self, bytes response, bytes rest):
        """The server's: send the 101, call on_connect, then look at what came behind the request."""
        self.set_state(OPEN)
        self.delivers = True
        self.server.connections.add(self)
        self.loop_state.joined()
        self.watch(self.server.idle_timeout // 2)
        self.begin_event()
        try:
            self.server.hooks.opened(self)
            self.queue_bytes(<const uint8_t*> PyBytes_AS_STRING(response), len(response), response)
            self.flushes_early = True       # the 101 waits for no write_buffer_deadline
            self.happened(CONNECT, None, 0)
            if rest and self.ready_state <= CLOSING:
                self.received(<const uint8_t*> PyBytes_AS_STRING(rest), len(rest))
                # What the parser still holds lies in rest, which ends here.
                if self.ready_state <= CLOSING and not self.output.is_paused and not self.may_process():
                    self.hold()
        finally:
            self.end_event()

    def _cancel(self):
        """The server's: stop_timeout has passed."""
        if self.ready_state < CLOSED:
            self.abort_with(ConnectionAbortedError(errno.ECONNABORTED, "stop_timeout passed"))
        self.cancel_callback()
        self.cancel_tasks()

    # ---------------------------------------------------------------- asyncio.BufferedProtocol

    @property
    def get_buffer(self):
        """The loop's one read buffer, by a function for all: uvloop keeps it, and a method would be 80 bytes each."""
        return self.server.get_buffer

    def buffer_updated(self, Py_ssize_t size):
        self.data_came(self.loop_state.read_buffer, size)

    def eof_received(self):
        """FIN: what the peer sent is in, and it may still be reading (RFC 6455 section 7.1.4)."""
        if self.ready_state <= CLOSING:
            self.end_with(ConnectionResetError(errno.ECONNRESET, "the peer ended TCP without a Close frame"))
        elif self.ready_state == ENDING and self.head == NULL:
            self.output.close_transport()
        # True: the transport stays while something is unsent.
        return self.head != NULL and self.output.can_finish()

    def connection_lost(self, error):
        if self.ready_state == CLOSED:
            return
        if self.ready_state <= CLOSING:
            self.keep_error(error or ConnectionResetError(errno.ECONNRESET, "TCP ended without a Close frame"))
        elif error is not None and not self.is_clean:
            self.keep_error(error)
        self.set_state(CLOSED)
        self.loop_state.wheel.remove(self)
        self.drop_unsent()
        self.output.lost()
        self.server.connections.discard(self)
        self.loop_state.left()
        self.server.leaving.add(self)
        self.server.closes[self.close_code] = self.server.closes.get(self.close_code, 0) + 1
        self.cancel_tasks()
        self.wake_drain_waiters()
        if self.rare is not None and self.rare.end_waiters is not None:
            for waiter in self.rare.end_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self.rare.end_waiters = None
        self.use_backlog()
        if not self.has_backlog():
            self.parser = None              # and with it what has come of an unfinished message
            self.disconnected()

    def pause_writing(self):
        self.output.is_blocked = True

    def resume_writing(self):
        self.may_write()

    cdef bint _may_send(self) except -1:
        if self.ready_state != OPEN:
            return False
        if not self.has_room():
            self.overflowed()
            return False
        return self.ready_state == OPEN     # looking for room may have run a finalizer
