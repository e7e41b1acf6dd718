"""Poller: one epoll set for a loop, and the batches of what is ready in it."""

from libc.stdint cimport uint32_t

from wsev._core cimport linux
from wsev._core.descriptor cimport Descriptor
from wsev._core.loop cimport LoopState


cdef enum:
    MAX_EVENTS = 256        # of a wake-up; the rest takes a new one


cdef class Poller:
    """Made on first use in a loop; its set exists while there is something to watch, never before a fork."""
    cdef readonly LoopState loop_state
    cdef int fd                         # of the set; -1: nothing is watched
    cdef list watched                   # by descriptor; None: not ours
    cdef readonly Py_ssize_t count      # of those
    cdef list endings                   # Descriptors
    cdef object end_timer               # of a call of _end(); None: none is due
    # The wake-up that is being dealt with
    cdef linux.epoll_event events[MAX_EVENTS]
    cdef int reported, dealt
    cdef bint is_dealing                # inside run()
    cdef bint has_no_ring               # it was tried

    cdef int add(self, Descriptor descriptor, uint32_t interest) except -1
    cdef int change(self, Descriptor descriptor, uint32_t interest) except -1
    cdef int remove(self, Descriptor descriptor) except -1      # before its descriptor is closed
    cdef int end_soon(self, Descriptor descriptor) except -1    # end(), not from inside this call
    cdef int _open(self) except -1
    cdef int _close(self) except -1
    cdef int _wait(self) except -1
