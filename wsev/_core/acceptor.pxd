"""Acceptor: a listening socket on the epoll set of its loop."""

from wsev._core.descriptor cimport Descriptor
from wsev._core.poller cimport Poller


cdef class Acceptor(Descriptor):
    cdef Poller poller
    cdef object sock                    # its owner closes it, behind close()
    cdef object factory                 # makes the protocol of a connection
    cdef object report                  # is given an OSError
    cdef object local_name              # of all that it accepts; None: they are asked
    cdef object timer                   # while it waits for descriptors

    cdef int _take(self, int fd, object transport) except -1
    cdef int _failed(self, int number) except -1
