"""Timed: the clocks of a connection."""

from libc.stdint cimport int64_t

from wsev._core.receiver cimport Receiver


cdef class Timed(Receiver):
    cdef int64_t pinged_at              # microseconds: when the keepalive ping left, which is also its payload; 0: none
    cdef float latency_seconds          # below 0: not known

    cdef int64_t _expire_closing(self, int64_t now) except -1
    cdef int64_t _expire_write(self, int64_t now) except -1
    cdef int64_t _expire_idle(self, int64_t now) except -1
    cdef int64_t _expire_read(self, int64_t now) except -1
    cdef int _send_keepalive(self) except -1
