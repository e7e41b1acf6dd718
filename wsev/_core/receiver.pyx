"""Receiver: what comes in, up to the callbacks, and when reading pauses.

Owns the parser while something is received, the backlog, control frames (RFC 6455 section 5.5), and backpressure:
above high_water, or with a full queue, its connection is not read from.

Invariants: the transport is read from only while there is no backlog; the parser is lent to a connection that receives
and given back between two messages.
"""

from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

import logging

from wsev._core.buffers cimport Buffer
from wsev._core.closer cimport Closer, Rare
from wsev._core.dispatch cimport DRAIN, PING_FRAME, PONG_FRAME
from wsev._core.frames cimport OPCODE_PONG
from wsev._core.messages cimport (
    BINARY, CLOSE, COMPRESSED_BINARY, COMPRESSED_TEXT, FAILED, NEED_DATA, PING, TEXT, Parser,
)
from wsev._core.rules cimport (
    MESSAGE_TOO_BIG, TEXT_NOT_UTF8, TOO_MANY_FRAGMENTS, Violation, close_code_of, reason_of,
)
from wsev._core.writer cimport CLOSED, CLOSING, ENDING, OPEN
from wsev.errors import MessageTooBig, ProtocolError

logger = logging.getLogger("wsev.connection")

cdef enum:
    # RFC 6455 section 7.4.1
    NO_STATUS_RECEIVED = 1005
    POLICY_VIOLATION = 1008


cdef class Receiver(Closer):

    cdef int data_came(self, const uint8_t* data, Py_ssize_t size) except -1:
        if self.ready_state > CLOSING:
            return 0                    # read and dropped: TCP is being ended
        self.begin_event()
        try:
            self.received(data, size)
        finally:
            self.end_event()
        return 0

    cdef int begin_event(self) except -1:
        self.is_reading = True
        self.received_at = self.loop_state.now
        return 0

    cdef int end_event(self) except -1:
        """Flush, and see to what this read event began."""
        self.is_reading = False
        if self.head != NULL and (self.flushes_early or self.server.flush_queue.deadline <= 0):
            self.flush_with_others()
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
            self.watch(self.server.read_deadline)
        if self.is_congested and self.ready_state == OPEN and not self.output.is_paused:
            self.hold()
        return 0

    cdef Parser _take_parser(self):
        """A parser of its own for as long as it receives: idle connections have none (80 bytes each)."""
        if self.parser is None and self.deflate is not None:
            self.parser = Parser(self.server.deflate_limits)
        elif self.parser is None:
            self.parser = self.server.spare_parser
            if self.parser is None:
                self.parser = Parser(self.server.limits)
            else:
                self.server.spare_parser = None
        return self.parser

    cdef int _return_parser(self) except -1:
        """Between two messages a parser remembers nothing: the next connection may have it."""
        if self.parser is not None and not self.parser.is_inside() and not self.has_backlog():
            if self.deflate is None:
                self.server.spare_parser = self.parser
            self.parser = None
        return 0

    cdef bint may_process(self) noexcept:
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
            if (self.is_congested or self.waiting is not None) and not self.may_process():
                return self.hold()
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
            elif event == COMPRESSED_BINARY or event == COMPRESSED_TEXT:
                self.message_started_at = 0
                if self.delivers:
                    message = self._inflated(event == COMPRESSED_TEXT)
                    if message is None:
                        return 0
                    self.server.messages_in += 1
                    size = PyBytes_GET_SIZE(message) if PyBytes_CheckExact(message) else len(<str> message)
                    self.message_came(message, size, event == COMPRESSED_TEXT)
            else:
                self._control(event)
                if event == CLOSE or event == FAILED:
                    return 0
            if self.ready_state > CLOSING and not self.delivers:
                return 0                # a callback aborted

    cdef int hold(self) except -1:
        """Stop parsing between two events, and reading: what has come lies in the backlog until _proceed()."""
        cdef const uint8_t* data = NULL
        cdef Py_ssize_t size = 0
        cdef Rare rare = self.need_rare()
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
        """Go on where hold() stopped, if what it stopped for is over."""
        if not self.output.is_paused or not self.may_process():
            return 0
        if self.ready_state <= CLOSING:
            # A pause of ours counts for no timeout.
            if self.message_started_at:
                self.message_started_at += self.loop_state.now - self.rare.held_at
            self.rare.held_at = self.loop_state.now
            self.begin_event()
            try:
                self.use_backlog()
            finally:
                self.end_event()
        if not self.has_backlog() and (self.ready_state > CLOSING or self.may_process()):
            self.output.resume()
        return 0

    cdef int use_backlog(self) except -1:
        cdef Buffer* backlog
        if not self.has_backlog():
            return 0
        backlog = self.rare.backlog
        if self.delivers or self.ready_state == CLOSING:
            self._take_parser().feed_bytes(backlog.data + backlog.start, backlog.end - backlog.start)
            backlog.start = backlog.end
            self._process_safely()
            if self.has_backlog() and backlog.start < backlog.end:
                return 0                # held again
        self._drop_backlog()
        return 0

    cdef bint has_backlog(self) noexcept:
        return self.rare is not None and self.rare.backlog != NULL

    cdef void _drop_backlog(self) noexcept:
        if self.rare is not None:
            self.rare.drop_backlog()

    cdef int _control(self, int event) except -1:
        if event == FAILED:
            return self._violated(self.parser.violation)
        if event == CLOSE:
            return self._close_came()
        if not self._within_control_rate():
            self.server.count_limit("max_control_rate", self)
            error = ProtocolError(POLICY_VIOLATION, "more control frames than max_control_rate")
            return self.fail(error, POLICY_VIOLATION)
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
                self.need_rare().pong = payload
            else:
                self.queue_control(OPCODE_PONG, payload)
                self.flushes_early = True
        if self.delivers and self.callbacks.on_ping is not None:
            self.happened(PING_FRAME, payload, len(payload))
        return 0

    cdef int _pong_came(self, bytes payload) except -1:
        self.server.pongs_in += 1
        if not self.keepalive_answered(payload) and self.delivers and self.callbacks.on_pong is not None:
            self.happened(PONG_FRAME, payload, len(payload))
        return 0

    cdef int _close_came(self) except -1:
        """Section 5.5.1: "When sending a Close frame in response, the endpoint typically echos the status code"."""
        cdef const uint8_t* behind = NULL
        self.peer_code = self.parser.close_code
        if self.parser.close_reason:
            self.need_rare().close_reason = self.parser.close_reason
        elif self.rare is not None:
            self.rare.close_reason = None
        if self.ready_state == OPEN:
            self.queue_close(0 if self.peer_code == NO_STATUS_RECEIVED else self.peer_code, b"")
        self.is_clean = True
        self.is_trailed = self.parser.rest(&behind) > 0
        return self.end_with(None)

    cdef object _inflated(self, bint is_text):
        """The message that was compressed; None: it was none, and the connection has failed."""
        cdef object message = self.deflate.inflate(self.parser.take_payload())
        if type(message) is not bytes:
            self._violated(message)
            return None
        if not is_text:
            return message
        try:
            text = (<bytes> message).decode()
        except UnicodeDecodeError:
            self._violated(TEXT_NOT_UTF8)
            return None
        return text if self.server.limits.decode_text else message

    cdef int _violated(self, Violation violation) except -1:
        cdef int code = close_code_of(violation)
        if violation == MESSAGE_TOO_BIG:
            self.server.count_limit("max_message_size", self)
        elif violation == TOO_MANY_FRAGMENTS:
            self.server.count_limit("max_fragments", self)
        kind = MessageTooBig if code == 1009 else ProtocolError
        logger.debug("%r: %s", self, reason_of(violation))
        return self.fail(kind(code, reason_of(violation)), code)

    cdef int flushed(self, bint progress) except -1:
        """Some or all has been sent: see whether reading must stop, or may go on, or TCP may end."""
        cdef Py_ssize_t amount = self.buffered()
        if progress and self.output.is_paused:
            self.received_at = self.loop_state.now      # the peer takes output: its sign of life while we do not read
        if self.output.is_blocked and self.server.write_timeout and self.ready_state <= CLOSING:
            self.need_rare().progress_at = self.loop_state.now
            self.rare.stuck = self.output.queued()
            self.watch(self.server.write_timeout // 4)
        if self.ready_state == OPEN and self.server.high_water >= 0:
            if not self.is_congested and amount > self.server.high_water:
                self.is_congested = True
                if not self.is_reading and not self.output.is_paused:
                    self.hold()
            elif self.is_congested and amount <= self.server.low_water:
                self.is_congested = False
                self.is_drained = True
                self.loop_state.schedule(self)
        elif self.ready_state == ENDING and self.head == NULL and not self.is_reading:
            self.finish()
        return 0

    cdef int piled_up(self) except -1:
        """More waits behind output that is blocked: an echo throttles its peer, it does not close it."""
        if self.ready_state == OPEN and 0 <= self.server.high_water < self.buffered() and not self.is_congested:
            self.is_congested = True
            if not self.is_reading and not self.output.is_paused:
                self.hold()
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
            self.queue_control(OPCODE_PONG, pong)
        if self.head == NULL:
            return self.flushed(True)
        return self.flush_now()

    cdef int run_scheduled(self) except -1:
        if self.ready_state == CLOSED:
            return 0
        self.flush_now()
        if self.ready_state == ENDING and self.head == NULL:
            self.finish()
        if self.is_drained:
            self.is_drained = False
            self.wake_drain_waiters()
            if self.delivers and self.callbacks.on_drain is not None:
                self.happened(DRAIN, None, 0)
        return self._proceed()

    cdef int events_taken(self) except -1:
        if self.ready_state < CLOSED:
            return self._proceed()
        if self.has_backlog():
            self.use_backlog()
            if not self.has_backlog():
                self.disconnected()
        return 0

    cdef int received(self, const uint8_t* data, Py_ssize_t size) except -1:
        self.server.bytes_in += size
        self._take_parser().feed_bytes(data, size)
        return self._process_safely()

    cdef int _process_safely(self) except -1:
        try:
            self._process()
        except Exception as error:
            # No memory, or a defect of ours: the end of this connection, and of no other.
            logger.exception("%r: what it received could not be dealt with", self)
            self.abort_with(error)
        return 0

    cdef int stop_receiving(self) except -1:
        """What has come and not been looked at is of no more use, but for what waits for the callbacks."""
        cdef const uint8_t* behind = NULL
        if self.parser is not None:
            self.parser.rest(&behind)
        if not self.delivers:
            self._drop_backlog()
        return 0

    cdef bint keepalive_answered(self, bytes payload) except -1:
        return False
