"""Closer: the ready state of a connection and the ways to its end (RFC 6455 section 7).

Owns what the ready state is, the Close frame, the slow consumer's end, and when TCP is ended.  Does not know what is
received, nor time but as a limit that it sets.

Invariants: every step of the ready state is taken in set_state(), and it only moves on; nothing is delivered once
delivers is False but on_disconnect.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t

from wsev._core.dispatch cimport DISCONNECT, Dispatcher
from wsev._core.frames cimport FIN, OPCODE_CLOSE
from wsev._core.writer cimport CLOSING, ENDING, OPEN, ReadyState
from wsev.errors import ConnectionClosed, SlowConsumer

cdef enum:
    # RFC 6455 section 7.4.1
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013
    LINGER = 1000               # milliseconds that we read on after FIN, so that a reset does not overtake our Close


@cython.final
@cython.no_gc_clear         # __dealloc__ needs the pool; a cycle through a Rare is broken at its Connection
cdef class Rare:

    def __dealloc__(self):
        self.drop_backlog()

    cdef void drop_backlog(self) noexcept:
        if self.backlog != NULL:
            self.pool.release(self.backlog)
            self.backlog = NULL


cdef class Closer(Dispatcher):

    cdef int set_state(self, ReadyState state) except -1:
        """The one place where the ready state changes; it only moves on."""
        assert state > self.ready_state, (self.ready_state, state)
        self.ready_state = state
        return 0

    cdef Rare need_rare(self):
        if self.rare is None:
            self.rare = Rare.__new__(Rare)
            self.rare.pool = self.loop_state.pool
        return self.rare

    cdef int watch(self, int64_t timeout) except -1:
        """expire() looks in ``timeout`` milliseconds (0: it is off), a tick later since stamps may be a tick old."""
        if timeout:
            self.loop_state.watch(self, self.loop_state.now + timeout + self.loop_state.wheel.granularity)
        return 0

    cdef int stop_delivering(self) except -1:
        self.delivers = False
        return self.forget_events()

    cdef int fail(self, object error, int code) except -1:
        """Section 7.1.7, _Fail the WebSocket Connection_: Close with ``code``, nothing more is looked at, TCP ends."""
        self.stop_delivering()
        if self.ready_state > CLOSING:
            return 0
        if self.ready_state == OPEN:
            self.queue_close(code, b"")
        return self.end_with(error)

    cdef int end_with(self, object error) except -1:
        """Nothing more is sent or read; TCP is ended when what is unsent has gone."""
        self.keep_error(error)
        if self.ready_state >= ENDING:
            # The peer's Close was among what waited for the callbacks when TCP ended; or the flush that made room for
            # our own Close ended the connection.
            return 0
        self.set_state(ENDING)
        self.stop_receiving()
        self.wake_drain_waiters()
        self.end_within(self.server.close_timeout)
        if self.head != NULL:
            self.flush_soon()
        if self.head == NULL and self.ready_state == ENDING and not self.is_reading:
            self.finish()
        elif self.ready_state == ENDING:
            self.loop_state.schedule(self)
        return 0

    cdef int finish(self) except -1:
        """All is with the kernel (or the transport): the server ends TCP first (section 7.1.1)."""
        if self.output.is_ending():
            return 0
        if (self.is_clean and not self.is_trailed) or self.output.is_broken:
            return self.output.close_transport()
        # Closing with bytes unread would reset, and the reset might overtake our Close.
        self.output.finish()
        return self.end_within(LINGER)

    cdef int end_within(self, int64_t timeout) except -1:
        """TCP must have ended in ``timeout`` milliseconds (0: no limit), or earlier if that was said before."""
        cdef int64_t due = self.loop_state.now + timeout + self.loop_state.wheel.granularity
        if timeout and (not self.need_rare().closing_due or due < self.rare.closing_due):
            self.rare.closing_due = due
            self.loop_state.watch(self, due)
        return 0

    cdef int abort_with(self, object error) except -1:
        self.stop_delivering()
        self.keep_error(error)
        self.is_clean = False
        if self.ready_state < ENDING:
            self.set_state(ENDING)
            self.wake_drain_waiters()
        self.stop_receiving()
        self.drop_unsent()
        return self.output.abort_transport()

    cdef int keep_error(self, object error) except -1:
        """The first reason stands."""
        if error is not None and (self.rare is None or self.rare.error is None):
            self.need_rare().error = error
        return 0

    cdef int disconnected(self) except -1:
        """All that came has been handed on: on_disconnect, behind it."""
        error = None if self.rare is None else self.rare.error
        return self.happened(DISCONNECT, error, 0)

    cdef int wake_drain_waiters(self) except -1:
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
                waiter.set_exception(ConnectionClosed(self.final_code(), self.final_reason()))
        return 0

    cdef int queue_control(self, int opcode, bytes payload) except -1:
        self.queue_frame(FIN | opcode, <const uint8_t*> PyBytes_AS_STRING(payload), len(payload), None)
        return 0

    cdef int queue_close(self, int code, bytes reason) except -1:
        cdef bytes body = b"" if code == 0 else bytes((code >> 8, code & 0xFF)) + reason
        self.own_code = code if code else NO_STATUS_RECEIVED
        return self.queue_control(OPCODE_CLOSE, body)

    cdef int flush_soon(self) except -1:
        """Close and pongs never wait for a deadline; inside a read event, for its end."""
        if self.is_reading:
            self.flushes_early = True
            return 0
        return self.flush_now()

    cdef int callback_raised(self, object error) except -1:
        return self.fail(error, INTERNAL_ERROR)

    cdef int send_failed(self, object error) except -1:
        return self.abort_with(error)

    cdef int over(self) except -1:
        self.server.leaving.discard(self)
        self.server.hooks.closed(self)
        return 0

    cdef int overflowed(self) except -1:
        """The peer reads more slowly than it is sent to (slow_consumer)."""
        cdef Py_ssize_t amount = self.buffered()
        if self.ready_state != OPEN:
            return 0                        # it ended when room was sought
        self.server.count_limit("max_buffered_amount", self)
        if self.server.drops_messages:
            self.server.dropped += 1
            return 0
        self.drop_whole_frames()
        return self.fail(SlowConsumer(amount), TRY_AGAIN_LATER)

    cdef int final_code(self) noexcept:
        """Of the end, as both sides know it: the peer's code, else ours (section 7.1.5)."""
        return self.peer_code or self.own_code or ABNORMAL_CLOSURE

    cdef str final_reason(self):
        return "" if self.rare is None or self.rare.close_reason is None else self.rare.close_reason

    cdef int stop_receiving(self) except -1:
        return 0
