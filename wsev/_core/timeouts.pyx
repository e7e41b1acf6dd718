"""Timed: the clocks of a connection: read_deadline, idle_timeout with its keepalive ping, write_timeout, close_timeout.

Owns what happens when one has run out.  The wheel calls expire(); time is its argument, and nothing here runs per
message: what a clock needs to know is a stamp that the other layers leave.
"""

from libc.stdint cimport int64_t

from wsev._core.closer cimport Rare
from wsev._core.frames cimport OPCODE_PING
from wsev._core.receiver cimport Receiver
from wsev._core.writer cimport CLOSED, OPEN
from wsev.errors import TimedOut

cdef enum:
    # RFC 6455 section 7.4.1
    POLICY_VIOLATION = 1008
    INTERNAL_ERROR = 1011
    SIZE_PER_SECOND = 16384     # bytes of a message that give it another second (read_deadline)
    NEVER = 0


cdef class Timed(Receiver):

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
        cdef Rare rare = self.need_rare()
        if not rare.closing_due:
            return NEVER
        if now < rare.closing_due:
            return rare.closing_due
        if not self.is_clean and rare.error is None:
            self.server.count_limit("close_timeout", self)
            self.keep_error(TimedOut("close"))
        self.abort_with(None)
        return NEVER

    cdef int64_t _expire_write(self, int64_t now) except -1:
        """write_timeout: the kernel took nothing of what waits."""
        cdef Py_ssize_t queued
        cdef Rare rare
        if not self.server.write_timeout or not self.output.is_blocked:
            return NEVER
        rare = self.need_rare()
        queued = self.output.queued()
        if queued < rare.stuck or not rare.progress_at:
            rare.progress_at = now
            if self.output.is_paused:
                self.received_at = now
        rare.stuck = queued
        if now - rare.progress_at >= self.server.write_timeout:
            self.server.count_limit("write_timeout", self)
            self.abort_with(TimedOut("write"))
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
        self.fail(TimedOut("read"), POLICY_VIOLATION)
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
                self.abort_with(TimedOut("idle"))
            else:
                self.fail(TimedOut("idle"), INTERNAL_ERROR)
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
        self.queue_control(OPCODE_PING, _keepalive_payload(self.pinged_at))
        return self.flush_now()

    cdef bint keepalive_answered(self, bytes payload) except -1:
        """Whether a pong is that of our keepalive ping, which it then tells the latency of."""
        if not self.pinged_at or payload != _keepalive_payload(self.pinged_at):
            return False
        self.latency_seconds = <float> max(0.0, <double> self.loop_state.loop.time() - self.pinged_at / 1e6)
        self.pinged_at = 0
        return True


cdef inline int64_t _sooner(int64_t one, int64_t other) noexcept:
    """The earlier of two times, where NEVER is later than all."""
    if one == NEVER:
        return other
    return one if other == NEVER or one < other else other


cdef bytes _keepalive_payload(int64_t microseconds):
    return (<object> microseconds).to_bytes(8, "big")
