"""Receiver: what comes in, up to the callbacks, and when reading pauses."""

from libc.stdint cimport int64_t, uint8_t

from wsev._core.closer cimport Closer
from wsev._core.messages cimport Parser
from wsev._core.rules cimport Violation


cdef class Receiver(Closer):
    cdef Parser parser                  # while something is received, and while a message is unfinished; else None
    # Milliseconds of LoopState.now; 0: not set
    cdef int64_t received_at            # the peer's last sign of life
    cdef int64_t message_started_at     # the first byte of the message that is coming in
    cdef int64_t control_due            # microseconds: when the control frames so far will have been worth their time

    # A read event: begin_event(), received() with bytes that stay valid until then, end_event()
    cdef int begin_event(self) except -1
    cdef int received(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int end_event(self) except -1
    cdef bint may_process(self) noexcept
    cdef int hold(self) except -1
    cdef int use_backlog(self) except -1
    cdef bint has_backlog(self) noexcept
    cdef int _process(self) except -1
    cdef int _process_safely(self) except -1
    cdef int _proceed(self) except -1
    cdef void _drop_backlog(self) noexcept
    cdef Parser _take_parser(self)
    cdef int _return_parser(self) except -1
    cdef int _control(self, int event) except -1
    cdef bint _within_control_rate(self) noexcept
    cdef int _ping_came(self, bytes payload) except -1
    cdef int _pong_came(self, bytes payload) except -1
    cdef int _close_came(self) except -1
    cdef int _violated(self, Violation violation) except -1
    cdef object _inflated(self, bint is_text)

    cdef bint keepalive_answered(self, bytes payload) except -1     # for the layer above: a pong that is ours to take
