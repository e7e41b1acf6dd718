"""Descriptor: the base of what an epoll set watches.  Owns nothing; below the set, so that both sides know it."""

from libc.stdint cimport uint32_t


cdef class Descriptor:

    cdef int ready(self, uint32_t events) except -1:
        return 0

    cdef int end(self) except -1:
        return 0
