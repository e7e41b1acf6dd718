"""Connection: one WebSocket connection, as the application sees it."""

from libc.stdint cimport uint64_t

from wsev._core.timeouts cimport Timed


cdef class Connection(Timed):
    cdef object __weakref__
    cdef bytes request_head             # as it came; of what is rarely looked at the smallest form
    cdef readonly object subprotocol
    cdef public object state            # the user's
    cdef readonly uint64_t id

    cdef bint _may_send(self) except -1
    cdef bint _send_deflated(self, object message, bint text, bint is_forced) except -1
