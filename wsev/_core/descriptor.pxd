"""Descriptor: what an epoll set watches."""

from libc.stdint cimport uint32_t


cdef class Descriptor:
    """What a Poller watches: a descriptor of the system, and what to do when it is ready."""
    cdef int fd                         # -1: none, or closed
    cdef uint32_t interest              # EPOLLIN and so on, as the set knows it; 0: it is not in the set

    # A reported event may be of the past: who had this number before, or what has been done already.  So whoever is
    # ready asks the system, and believes what that says.
    cdef int ready(self, uint32_t events) except -1
    cdef int end(self) except -1        # its turn of Poller.end_soon()
