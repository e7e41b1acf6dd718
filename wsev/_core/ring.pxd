"""Ring: an io_uring, by which the sends of many connections leave in one system call."""

from libc.stdint cimport uint8_t, uint32_t

from wsev._core cimport linux, system
from wsev._core.loop cimport SendBatch


cdef enum:
    SENDS = 256             # of a batch, as many as a Poller deals with in a wake-up
    MAX_PARTS = 4           # buffers of one send: a few large messages, each with its header


cdef class Ring(SendBatch):
    """Of one loop, and used in its thread alone."""
    cdef int fd                         # -1: none
    # Shared with the kernel (io_uring(7))
    cdef uint8_t* rings
    cdef size_t rings_size
    cdef linux.io_uring_sqe* entries
    cdef size_t entries_size
    cdef uint32_t* submission_tail
    cdef uint32_t submission_mask
    cdef uint32_t* completion_head
    cdef uint32_t* completion_tail
    cdef uint32_t completion_mask
    cdef linux.io_uring_cqe* completions
    # What the kernel reads while a batch is submitted
    cdef uint32_t next_tail             # of the submissions, with what was added
    cdef system.msghdr messages[SENDS]
    cdef system.iovec parts[SENDS * MAX_PARTS]

    cdef bint _open(self) except -1
    cdef int _map(self, linux.io_uring_params* params) except -1
    cdef linux.io_uring_sqe* _next_entry(self, int opcode, int fd) noexcept
    cdef int _collect(self) noexcept
    cdef bint _works(self) except -1
