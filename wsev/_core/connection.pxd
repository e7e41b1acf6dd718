"""Connection: one WebSocket connection; joins the layers and parts below it."""

from libc.stdint cimport int64_t, uint64_t

from wsev._core.buffers cimport Buffer, Pool
from wsev._core.dispatch cimport Dispatcher
from wsev._core.messages cimport Parser
from wsev._core.writer cimport ReadyState


cdef class Rare:
    """What few connections have, or only for a while; made when needed."""
    cdef list drain_waiters             # futures of drain()
    cdef list end_waiters               # futures of wait_closed()
    cdef object close_reason            # str
    cdef object error                   # why it ended, for on_disconnect; None: both Close frames were exchanged
    cdef bytes pong                     # of the newest ping that came while output was blocked
    cdef Pool pool                      # of the backlog
    cdef Buffer* backlog                # bytes received and not parsed, while it is held
    # Milliseconds of LoopState.now; 0: not set
    cdef int64_t held_at                # since when its reading is paused
    cdef int64_t closing_due            # when TCP must have ended
    cdef int64_t progress_at            # when the kernel last took output that was stuck
    cdef Py_ssize_t stuck               # bytes that were stuck then

    cdef void drop_backlog(self) noexcept


cdef class Connection(Dispatcher):
    cdef object __weakref__
    cdef bytes request_head             # as it came; of what is rarely looked at the smallest form
    cdef readonly object subprotocol
    cdef public object state            # the user's
    cdef readonly uint64_t id
    cdef Parser parser                  # while something is received, and while a message is unfinished; else None
    cdef Rare rare                      # None until needed
    # Milliseconds of LoopState.now; 0: not set
    cdef int64_t received_at            # the peer's last sign of life
    cdef int64_t message_started_at     # the first byte of the message that is coming in
    cdef int64_t control_due            # microseconds: when the control frames so far will have been worth their time
    cdef int64_t pinged_at              # microseconds: when the keepalive ping left, which is also its payload
    cdef float latency_seconds          # below 0: not known
    cdef unsigned short own_code        # of the Close frame that we sent; 0: none
    cdef unsigned short peer_code       # of the peer's
    # Booleans of one byte each
    cdef unsigned char delivers         # events reach the callbacks: until our own close(), abort() or failure
    cdef unsigned char flushes_early    # a pong or Close waits for the end of the read event
    cdef unsigned char is_drained       # on_drain and drain() are due
    cdef unsigned char is_clean         # both Close frames were exchanged
    cdef unsigned char is_trailed       # something came behind the peer's

    cdef Parser _take_parser(self)
    cdef int _return_parser(self) except -1
    cdef bint _has_backlog(self) noexcept
    cdef int _set_state(self, ReadyState state) except -1
    cdef Rare _rare(self)
    cdef int _begin_event(self) except -1
    cdef int _end_event(self) except -1
    cdef int _process(self) except -1
    cdef bint _may_process(self) noexcept
    cdef int _hold(self) except -1
    cdef int _proceed(self) except -1
    cdef int _use_backlog(self) except -1
    cdef void _drop_backlog(self) noexcept
    cdef int _control(self, int event) except -1
    cdef bint _within_control_rate(self) noexcept
    cdef int _ping_came(self, bytes payload) except -1
    cdef int _pong_came(self, bytes payload) except -1
    cdef int _close_came(self) except -1
    cdef int _violation_came(self) except -1
    cdef int _queue_control(self, int opcode, bytes payload) except -1
    cdef int _queue_close(self, int code, bytes reason) except -1
    cdef int _stop_delivering(self) except -1
    cdef int _fail(self, object error, int code) except -1
    cdef int _end(self, object error) except -1
    cdef int _finish(self) except -1
    cdef int _end_within(self, int64_t timeout) except -1
    cdef int _abort(self, object error) except -1
    cdef int _disconnected(self) except -1
    cdef int _wake_drain_waiters(self) except -1
    cdef int64_t _expire_closing(self, int64_t now) except -1
    cdef int64_t _expire_write(self, int64_t now) except -1
    cdef int64_t _expire_idle(self, int64_t now) except -1
    cdef int64_t _expire_read(self, int64_t now) except -1
    cdef int _send_keepalive(self) except -1
    cdef int _watch(self, int64_t timeout) except -1
